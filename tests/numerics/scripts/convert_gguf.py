"""Turns a GGUF file into a Hugging Face folder with the weights as transformers dequantises them.

    python convert_gguf.py MODEL.gguf FOLDER

transformers refuses to save a model that it read from a GGUF file, so the weights are written here.
"""

import os
import pathlib
import sys

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(gguf, folder):
    gguf, folder = pathlib.Path(gguf).resolve(), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    # Last, so that a folder with weights is a whole one.
    save_file(state, folder / "model.safetensors.part", metadata={"format": "pt"})
    (folder / "model.safetensors.part").rename(folder / "model.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
