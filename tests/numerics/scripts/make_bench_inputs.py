"""Makes what both sides of the speed benchmark read: a model with random weights and rows of text.

    python make_bench_inputs.py SHAPE FOLDER [--rows N] [--lengths equal|ragged|long]

SHAPE is llama100m or gemma270m (see SHAPES). The folder gets config.json, model.safetensors (fp32),
a tokenizer with one word `wN` per token id, and rows.jsonl, whose texts are random words. Everything
is seeded. Ragged lengths are lognormal, as those of real chats are.
"""

import argparse
import json
import os
import pathlib

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SHAPES = {
    "llama100m": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
    },
    "gemma270m": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": 262144,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
    },
}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LONGEST = 512


def make_model(shape, folder):
    config = {**SHAPES[shape], **SPECIAL, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    state = {
        name: torch.randn_like(p) * 0.02 if p.dim() > 1 else p.detach().clone() for name, p in model.named_parameters()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def make_tokenizer(vocab, folder):
    words = {"<s>": 0, "</s>": 1, "<pad>": 2, **{f"w{i}": i for i in range(3, vocab)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def make_rows(vocab, count, lengths, path):
    """One word less than the length: both sides end each text with the end-of-text token."""
    source = np.random.default_rng(1)
    with path.open("w") as out:
        for _ in range(count):
            length = 4096 if lengths == "long" else LONGEST
            if lengths == "ragged":
                length = int(np.clip(source.lognormal(np.log(150) - 0.32, 0.8), 16, LONGEST))
            words = " ".join(f"w{i}" for i in source.integers(3, vocab, length - 1))
            out.write(json.dumps({"text": words}) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--lengths", choices=["equal", "ragged", "long"], default="equal")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    vocab = SHAPES[args.shape]["vocab_size"]
    if not (args.folder / "model.safetensors").exists():
        make_tokenizer(vocab, args.folder)
        make_model(args.shape, args.folder)
    make_rows(vocab, args.rows, args.lengths, args.folder / f"rows-{args.lengths}.jsonl")


if __name__ == "__main__":
    main()
