"""Greedy answers of transformers with PEFT, each prompt alone.

    python peft_greedy.py JOBS.json

JOBS.json is {"model": FOLDER, "adapters": {NAME: FOLDER}, "tokens": N, "prompts": [{"adapter": NAME or null,
"ids": [id, …]}, …], "out": FILE}. OUT is a list of {"tokens": [id, …], "margins": [x, …]}: by how much each
token's logit was above the next best.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


@torch.no_grad()
def answer(model, ids, count):
    tokens, margins, past = [], [], None
    given = torch.tensor([ids])
    for _ in range(count):
        out = model(input_ids=given, past_key_values=past, use_cache=True)
        past = out.past_key_values
        best = out.logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        given = best.indices[:1].reshape(1, 1)
    return {"tokens": tokens, "margins": margins}


def main(jobs):
    model = AutoModelForCausalLM.from_pretrained(jobs["model"], dtype=torch.float32, attn_implementation="eager")
    for name, folder in jobs["adapters"].items():
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, folder, adapter_name=name)
    model.eval()
    answers = []
    for prompt in jobs["prompts"]:
        if prompt["adapter"] is None:
            with model.disable_adapter():
                answers.append(answer(model, prompt["ids"], jobs["tokens"]))
        else:
            model.set_adapter(prompt["adapter"])
            answers.append(answer(model, prompt["ids"], jobs["tokens"]))
    json.dump(answers, open(jobs["out"], "w"))


if __name__ == "__main__":
    main(json.load(open(sys.argv[1])))
