"""Makes `fixtures/smollm2_greedy.json`: what SmolLM2-135M-Instruct answers to five prompts in
transformers, greedily, in fp32, from the weights of its GGUF file.

    python make_smollm2_fixture.py FOLDER     (made by convert_gguf.py)
"""

import json
import os
import pathlib
import sys

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "smollm2_greedy.json"
NEW_TOKENS = 32
TEXTS = ["The capital of France is", "def fibonacci(n):\n", "Once upon a time, in a small village,"]
CHATS = ["What is the boiling point of water?", "Write one sentence about the sea.\nUse the word \"blue\"."]


def greedy(model, ids, stop):
    """New tokens, and by how much each beat the runner-up: a small margin may flip elsewhere."""
    tokens, margins, cache, step = [], [], None, torch.tensor([ids])
    for _ in range(NEW_TOKENS):
        out = model(input_ids=step, cache=cache, use_cache=True)
        best = out.logits[0, -1].topk(2)
        cache, token = out.cache, best.indices[0].item()
        tokens.append(token)
        margins.append((best.values[0] - best.values[1]).item())
        if token in stop:
            break
        step = torch.tensor([[token]])
    return tokens, min(margins)


@torch.no_grad()
def main(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stop = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    prompts = []
    for text in TEXTS:
        prompts.append({"text": text, "prompt_ids": tokenizer(text).input_ids})
    for text in CHATS:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(rendered, add_special_tokens=False).input_ids
        prompts.append({"user": text, "rendered": rendered, "prompt_ids": ids})
    for prompt in prompts:
        prompt["tokens"], prompt["smallest_margin"] = greedy(model, prompt["prompt_ids"], stop)
        prompt["answer"] = tokenizer.decode(prompt["tokens"])
        print(prompt["smallest_margin"], repr(prompt["answer"]))
    OUT.write_text(json.dumps({"prompts": prompts}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
