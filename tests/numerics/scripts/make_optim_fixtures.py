"""Writes crates/train/tests/fixtures/optim.json: steps of torch.optim.AdamW with
torch.nn.utils.clip_grad_norm_, and learning rates of transformers.get_scheduler.

Run it with the pinned requirements of the numerics tests:
    python tests/numerics/scripts/make_optim_fixtures.py
"""

import json
import pathlib

import torch
import transformers

OUT = pathlib.Path(__file__).parents[3] / "crates/train/tests/fixtures/optim.json"
SHAPES = {
    "layers.0.q_proj.lora_A.weight": [2, 3],
    "layers.0.q_proj.lora_B.weight": [3, 2],
    "layers.0.q_proj.bias": [3],
}


def adamw_case(weight_decay, max_norm, betas, eps, rates):
    generator = torch.Generator().manual_seed(7)
    params = {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in SHAPES.items()
    }
    case = {
        "weightDecay": weight_decay,
        "maxNorm": max_norm,
        "beta1": betas[0],
        "beta2": betas[1],
        "epsilon": eps,
        "initial": {name: p.detach().flatten().tolist() for name, p in params.items()},
        "steps": [],
    }
    groups = [
        {"params": [p for n, p in params.items() if "bias" not in n], "weight_decay": weight_decay},
        {"params": [p for n, p in params.items() if "bias" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=betas, eps=eps)
    for step, rate in enumerate(rates):
        grads = {}
        for name, p in params.items():
            # Gradients from tiny to large, so that some steps are clipped and some are not.
            p.grad = torch.randn(p.shape, generator=generator) * 10.0 ** (step % 4 - 2)
            grads[name] = p.grad.flatten().tolist()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), max_norm).item()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        case["steps"].append(
            {
                "rate": rate,
                "grads": grads,
                "norm": norm,
                "values": {name: p.detach().flatten().tolist() for name, p in params.items()},
            }
        )
    return case


def schedule_case(name, kind, warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
    scheduler = transformers.get_scheduler(
        kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps
    )
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"schedule": name, "warmup": warmup, "steps": steps, "peak": 2e-4, "rates": rates}


def main():
    fixture = {
        "madeWith": {"torch": torch.__version__, "transformers": transformers.__version__},
        "shapes": SHAPES,
        "adamw": [
            adamw_case(0.0, 1.0, (0.9, 0.999), 1e-8, [0.0, 1e-3, 2e-3, 2e-3, 1e-3, 5e-4]),
            adamw_case(0.1, 0.5, (0.9, 0.95), 1e-6, [1e-2] * 6),
        ],
        "schedules": [
            schedule_case(name, kind, warmup, steps)
            for name, kind in [
                ("Linear", "linear"),
                ("Cosine", "cosine"),
                ("Constant", "constant_with_warmup"),
            ]
            for warmup, steps in [(0, 7), (3, 12), (5, 5)]
        ],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(fixture, indent=1) + "\n")


if __name__ == "__main__":
    main()
