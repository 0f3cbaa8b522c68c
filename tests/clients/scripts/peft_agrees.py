"""Holds PEFT's logits of a base model with an adapter against ours.

    python peft_agrees.py MODEL.gguf ADAPTER IDS.json LOGITS.safetensors

IDS is a list of token ids, and `logits [T, V]` in LOGITS are what we have for them. The base model is
read by transformers from the same file. Ends with an error where they differ.
"""

import json
import os
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

# Largest difference that is put down to the order of fp32 additions, for logits of about 20.
TOLERANCE = 2e-3


@torch.no_grad()
def main(model, adapter, ids, logits):
    torch.set_num_threads(2)
    folder, name = os.path.split(model)
    base = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    ids = torch.tensor([json.load(open(ids))])
    plain = base(input_ids=ids, use_cache=False).logits[0]
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    theirs = tuned(input_ids=ids, use_cache=False).logits[0]
    ours = load_file(logits)["logits"].float()
    difference = (ours - theirs).abs().max().item()
    moved = (theirs - plain).abs().max().item()
    print(f"largest logit {theirs.abs().max().item():.1f}, difference {difference:.1e}, moved by the adapter {moved:.1e}")
    if difference > TOLERANCE:
        sys.exit(f"the logits differ by {difference}")
    if moved < 10 * difference:
        sys.exit(f"the adapter moves the logits by {moved} alone, which shows nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
