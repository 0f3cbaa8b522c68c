"""Makes `fixtures/models`: what transformers, PEFT and PyTorch compute for tiny random models.

    python make_model_fixtures.py [CASE ...]

Everything is seeded, and weights, tokens and adapters come from NumPy's PCG64, so they are the same
bytes on every machine. What is computed from them may differ in the last bit between CPUs.
"""

import json
import os
import pathlib
import re
import shutil
import sys

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, get_scheduler

from fixture_cases import CASES, VARIANTS

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
LENGTHS = [13, 22, 9, 17, 22, 11, 3, 14]  # Of the eight sequences; a step takes two of them.
STEPS = 20
TRAINING = {
    "learning_rate": 5e-3,
    "schedule": "linear",
    "warmup_steps": 3,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "steps": STEPS,
}
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
# Parameters that are never decayed, as transformers' Trainer has it.
NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", re.IGNORECASE)
# Gradients of full fine-tuning that are kept whole; of the others only the norm is.
WHOLE = re.compile(
    r"embed_tokens|^model\.norm|^lm_head|layers\.0\.(.*norm|self_attn\.(q_proj|k_proj|o_proj|qkv_proj).bias"
    r"|self_attn\.(v_proj|k_proj|qkv_proj)|mlp\.(down_proj|gate_proj)\.bias)"
)


def generator(*key):
    """A random source that depends on nothing but its key."""
    return np.random.Generator(np.random.PCG64(np.frombuffer("/".join(key).encode(), np.uint8).tolist()))


def draw(shape, std, *key):
    return torch.from_numpy((generator(*key).standard_normal(tuple(shape)) * std).astype(np.float32))


def make_folder(case, folder):
    """Writes config.json and model.safetensors. Norms lie near one (near zero in Gemma, which adds
    one), and linear layers are wide enough that attention is far from uniform."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CASES[case])
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            centre = 0.0 if name.endswith("bias") or "gemma" in case else 1.0
            state[name] = centre + draw(parameter.shape, 0.2, case, name)
        elif "embed_tokens" in name:
            state[name] = draw(parameter.shape, 0.6, case, name)
        else:
            state[name] = draw(parameter.shape, 1.2 / parameter.shape[1] ** 0.5, case, name)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def sequences(case, vocab):
    """Token ids, and per token the weight of its label: a prompt that is not learned, then a reply
    whose end counts half. The first token of a sequence has no label."""
    out = []
    for index, length in enumerate(LENGTHS):
        source = generator(case, "tokens", str(index))
        ids = source.integers(3, vocab, length)
        position = np.arange(length)
        weights = np.where(position < max(1, length // 4), 0.0, np.where(position < 3 * length // 4, 1.0, 0.5))
        out.append((torch.from_numpy(ids), torch.from_numpy(weights.astype(np.float32))))
    return out


def mix(seed, name):
    """The seed of one layer's mask: `mix` of `crates/lm/src/lora.rs`."""
    value = 0xCBF29CE484222325 ^ seed
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return (value ^ value >> 31) >> 1


def of_sequence(seed, number):
    """The seed of one sequence: `of_sequence` of `crates/lm/src/dropout.rs`."""
    return (seed << 29 | seed >> 35) % 2**64 ^ number * 0xD1B54A32D192ED03 % 2**64


class Dropout(torch.nn.Module):
    """PEFT's dropout with masks that can be drawn again: one for a layer and a sequence, which depends on the
    seed of the step and on the number of the sequence in it. Without a seed nothing is dropped."""

    seed, sequence = None, 0

    def __init__(self, name, p):
        super().__init__()
        self.name, self.p = name, p

    def forward(self, x):
        if Dropout.seed is None:
            return x
        torch.manual_seed(mix(of_sequence(Dropout.seed, Dropout.sequence), self.name))
        return x * torch.empty(x.shape[-2:]).bernoulli_(1 - self.p) / (1 - self.p)


def drop_with(model, p):
    for name, module in model.named_modules():
        if hasattr(module, "lora_dropout"):
            layer = name.removeprefix("base_model.model.")
            module.lora_dropout["default"] = Dropout(f"{layer}.lora_A.weight", p)


def loss_of(model, batch, seed=None):
    """Cross-entropy, mean over all labels of the batch; each sequence goes through alone, which is
    what packing has to amount to. With a seed, adapters that have dropout drop by it."""
    total, weight, all_logits = 0.0, 0.0, []
    Dropout.seed = seed
    for Dropout.sequence, (ids, weights) in enumerate(batch):
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:], reduction="none")
        total = total + (nll * weights[1:]).sum()
        weight += weights[1:].sum().item()
        all_logits.append(logits.detach())
    return total / weight, torch.cat(all_logits)


def make_adapter(base, key, overrides):
    """A LoRA adapter whose B is not zero, so that every gradient is worth comparing."""
    model = get_peft_model(base, LoraConfig(**{**LORA, **overrides}))
    drop_with(model, overrides.get("lora_dropout", 0.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.copy_(draw(parameter.shape, parameter.shape[1] ** -0.5, key, name))
            elif "lora_B" in name:
                parameter.copy_(draw(parameter.shape, 0.1, key, name))
    return model


def decay_groups(model):
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if not NO_DECAY.search(name)], "weight_decay": TRAINING["weight_decay"]},
        {"params": [p for name, p in trained if NO_DECAY.search(name)], "weight_decay": 0.0},
    ]


def train(model, pool):
    """The first losses of a run, with the gradient norms before clipping."""
    optimizer = torch.optim.AdamW(
        decay_groups(model),
        lr=TRAINING["learning_rate"],
        betas=(TRAINING["adam_beta1"], TRAINING["adam_beta2"]),
        eps=TRAINING["adam_epsilon"],
    )
    schedule = get_scheduler(TRAINING["schedule"], optimizer, TRAINING["warmup_steps"], STEPS)
    losses, norms = [], []
    for step in range(STEPS):
        loss, _ = loss_of(model, [pool[(2 * step + i) % len(pool)] for i in range(2)], seed=step)
        loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        norms.append(torch.nn.utils.clip_grad_norm_(trained, TRAINING["max_grad_norm"]).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return {"losses": losses, "grad_norms": norms}


def plain(name):
    """The name under which PEFT stores a parameter of an adapter."""
    return name.replace(".default", "").replace(".modules_to_save", "").replace(".original_module", "")


def adapter_reference(case, key, overrides, folder, adapter_folder):
    """Logits, loss, gradients and the first losses of one adapter of one model."""
    model = make_adapter(load(folder), key, overrides)
    model.save_pretrained(adapter_folder)
    (adapter_folder / "README.md").unlink(missing_ok=True)
    settle_config(adapter_folder / "adapter_config.json", case)
    pool = sequences(case, CASES[case]["vocab_size"])
    _, logits = loss_of(model, pool[:2])
    loss, _ = loss_of(model, pool[:2], seed=0)
    loss.backward()
    tensors = {"logits": logits}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad." + plain(name)] = parameter.grad.clone()
    model.zero_grad()
    save_file(tensors, adapter_folder / "reference.safetensors")
    report = {"loss": loss.item(), "training": TRAINING, **train(model, pool)}
    write_json(adapter_folder / "reference.json", report)


def settle_config(path, case):
    """Sorts what PEFT leaves in the order of a set, and leaves out where the model lay."""
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = case
    for field in ("target_modules", "modules_to_save", "exclude_modules"):
        if isinstance(config.get(field), list):
            config[field] = sorted(config[field])
    write_json(path, config)


def base_reference(case, folder):
    """Logits, loss and the gradients of every weight of the model without adapter."""
    model = load(folder)
    pool = sequences(case, CASES[case]["vocab_size"])
    loss, logits = loss_of(model, pool[:2])
    loss.backward()
    tensors = {"logits": logits}
    for index, (ids, weights) in enumerate(pool):
        tensors[f"ids.{index}"] = ids
        tensors[f"weights.{index}"] = weights
    norms = {}
    for name, parameter in model.named_parameters():
        norms[name] = parameter.grad.norm().item()
        if WHOLE.search(name):
            tensors["grad." + name] = parameter.grad.clone()
    save_file(tensors, folder / "reference.safetensors")
    model.zero_grad()
    report = {"loss": loss.item(), "grad_norms_of_weights": norms, "training": TRAINING, **train(model, pool)}
    write_json(folder / "reference.json", report)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def main(names):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for case in names or CASES:
        folder = OUT / case
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(case, folder)
        base_reference(case, folder)
        adapter_reference(case, case, {}, folder, folder / "adapter")
        for variant, (of, overrides) in VARIANTS.items():
            if of == case:
                adapter_reference(case, variant, overrides, folder, folder / f"adapter_{variant}")
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        print(f"{case}: {size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
