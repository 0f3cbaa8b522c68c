"""Loads adapters with PEFT and writes the logits that the model gives with each.

    python peft_logits.py JOBS.json

JOBS.json is a list of {"model": FOLDER, "adapter": FOLDER, "sequences": [[id, …], …], "out": FILE}.
Each OUT is a safetensors file whose `logits [T, V]` are those of the sequences, one after another.
"""

import json
import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


@torch.no_grad()
def run(job):
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, job["adapter"]).eval()
    logits = [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids in job["sequences"]]
    save_file({"logits": torch.cat(logits).contiguous()}, job["out"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in json.load(open(sys.argv[1])):
        run(job)
