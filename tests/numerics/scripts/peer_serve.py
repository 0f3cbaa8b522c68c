"""Measures transformers and PEFT on what `bench_serve` asks of the engine, and ends with one JSON line.

    python peer_serve.py FOLDER fp32|bf16 CONCURRENT ADAPTERS PROMPT ANSWER RANK

All requests come at once and are one batch of `generate`, which is the best case for it: equal lengths, no
padding, nothing that arrives later. Several adapters in one batch go by PEFT's `adapter_names`.
"""

import json
import os
import sys
import time

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import LogitsProcessorList

FOLDER, PRECISION = sys.argv[1:3]
CONCURRENT, ADAPTERS, PROMPT, ANSWER, RANK = map(int, sys.argv[3:])
ROUNDS = 2


class FirstToken:
    """Notes when the first logits of a batch are there."""

    def __init__(self):
        self.at = None

    def __call__(self, ids, scores):
        self.at = self.at or time.perf_counter()
        return scores


@torch.no_grad()
def main():
    dtype = torch.bfloat16 if PRECISION == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=dtype)
    more = {}
    if ADAPTERS:
        config = lambda: LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config(), adapter_name="0")
        for index in range(1, ADAPTERS):
            model.add_adapter(str(index), config())
        for name, weights in model.named_parameters():
            if "lora_" in name:
                weights.copy_(torch.randn_like(weights) * 0.01)
        if ADAPTERS > 1:
            more["adapter_names"] = [str(index % ADAPTERS) for index in range(CONCURRENT)]
    model.eval()
    rounds = []
    for number in range(1 + ROUNDS):
        seeds = [number * CONCURRENT + index for index in range(CONCURRENT)]
        ids = torch.tensor([[1000 + (s * 7919 + i * 104729) % 40000 for i in range(PROMPT)] for s in seeds])
        first, start = FirstToken(), time.perf_counter()
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=ANSWER,
            max_new_tokens=ANSWER, pad_token_id=0, logits_processor=LogitsProcessorList([first]), **more,
        )
        rounds.append((time.perf_counter() - start, first.at - start))
        assert out.shape[1] == PROMPT + ANSWER
    # The first round warms up.
    seconds, first = min(rounds[1:])
    print(json.dumps({
        "concurrent": CONCURRENT, "adapters": ADAPTERS, "tokensPerSecond": CONCURRENT * ANSWER / seconds,
        "firstTokenSeconds": first, "seconds": seconds,
    }))


main()
