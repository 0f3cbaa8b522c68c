"""Makes `fixtures/models/{quantized,nf4,int8}`: a tiny random model, the same as bitsandbytes rounds and saves
it, and what bitsandbytes and PEFT compute for that.

    PYTHONPATH=BITSANDBYTES python make_quantized_fixtures.py

BITSANDBYTES is a folder with the unpacked wheel of bitsandbytes 0.50.2. It stays out of requirements.txt since
nothing else here needs it.
"""

import json
import shutil

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import make_model_fixtures as plain
from fixture_cases import CASES, COMMON

# Rows are whole blocks of 64: bitsandbytes' CPU code has no other. Some matrices have more than 256 blocks.
CASES["quantized"] = {
    **COMMON,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 320,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
}
FORMATS = {
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def rounded_layers(model):
    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]


def dense(layer):
    """The matrix as bitsandbytes writes it out, in fp32."""
    if isinstance(layer, bnb.nn.Linear4bit):
        return F.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return F.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)


def with_dense_layers(model):
    """bitsandbytes rounds activations too where it multiplies in 8 bits. The reference does not: it has the
    rounded matrices, written out."""
    for name, layer in rounded_layers(model):
        parent, _, own = name.rpartition(".")
        outputs, inputs = layer.weight.shape
        linear = torch.nn.Linear(inputs, outputs, bias=False)
        linear.weight = torch.nn.Parameter(dense(layer), requires_grad=False)
        setattr(model.get_submodule(parent), own, linear)
    return model


def reference(name, source, folder):
    def load():
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            quantization_config=FORMATS[name],
            device_map="cpu",
        )
        # There is no dropout; bitsandbytes multiplies in bf16 where a model is not trained.
        return model.train()

    model = load()
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    first = [(layer, linear) for layer, linear in rounded_layers(model) if ".layers.0." in layer]
    tensors = {f"dense.{layer}": dense(linear).clone() for layer, linear in first}
    if name == "int8":
        model = with_dense_layers(model)
    pool = plain.sequences("quantized", CASES["quantized"]["vocab_size"])
    for index, (ids, weights) in enumerate(pool):
        tensors[f"ids.{index}"], tensors[f"weights.{index}"] = ids, weights
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    loss, tensors["logits"] = plain.loss_of(model, pool[:2])
    save_file(tensors, folder / "reference.safetensors")
    plain.write_json(folder / "reference.json", {"loss": loss.item()})
    adapter_reference(load(), name, pool, folder / "adapter")


def adapter_reference(base, name, pool, folder):
    if name == "int8":
        base = with_dense_layers(base)
    model = plain.make_adapter(base, name, {}).train()
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    plain.settle_config(folder / "adapter_config.json", name)
    loss, logits = plain.loss_of(model, pool[:2])
    loss.backward()
    tensors = {"logits": logits}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad." + plain.plain(parameter_name)] = parameter.grad.clone()
    model.zero_grad()
    save_file(tensors, folder / "reference.safetensors")
    report = {"loss": loss.item(), "training": plain.TRAINING, **plain.train(model, pool)}
    plain.write_json(folder / "reference.json", report)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    source = plain.OUT / "quantized"
    shutil.rmtree(source, ignore_errors=True)
    plain.make_folder("quantized", source)
    for name in FORMATS:
        reference(name, source, plain.OUT / name)
        config = json.loads((plain.OUT / name / "config.json").read_text())
        print(name, config["quantization_config"]["quant_method"], flush=True)


if __name__ == "__main__":
    main()
