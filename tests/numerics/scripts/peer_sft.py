"""The benchmark's peer: supervised fine-tuning with LoRA by transformers, PEFT and TRL.

    python peer_sft.py --model FOLDER --rows FILE.jsonl --out FOLDER [--steps N --batch-size N …]

Prints one JSON object as its last line:
    losses                  of each step
    tokens                  useful (non-padding) tokens of each step
    seconds                 wall time of each step
    cpu_seconds             processor time of each step, over all threads
    tokens_per_second       useful tokens over time, without the first `--warm-steps` steps
    tokens_per_cpu_second   the same over processor time: what others on the machine disturb least
    peak_rss_mb             VmHWM, MB of 1,000,000 bytes
    memory_over_weights_mb  of that, what was not yet taken when the first step began
    start_to_first_step_s   from the start of the process to the start of the first step
    settings                what was asked for, and the versions

`--precision fp32` is fp32 weights without autocast; `bf16` is bf16 weights with fp32 adapters.
TRL's own defaults (fp32 weights, bf16 autocast, checkpointing) are `--precision autocast
--checkpointing`. Rows are taken in file order, or in that of `--order`, a JSON list of row numbers.
"""

import os
import time


def process_age():
    """Seconds since the kernel started this process."""
    started = float(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json

import datasets
import peft
import torch
import transformers
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--order")
    parser.add_argument("--start", help="the adapter that training starts from")
    parser.add_argument("--save", action="store_true", help="write the adapter at the end")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warm-steps", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--precision", choices=["fp32", "bf16", "autocast"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--packing", action="store_true")
    return parser.parse_args()


class Watch(TrainerCallback):
    """Notes when steps begin and end."""

    def __init__(self):
        self.first, self.begun, self.begun_cpu = None, None, None
        self.seconds, self.cpu_seconds, self.losses = [], [], []
        self.loaded = 0.0

    def on_step_begin(self, *_, **__):
        if self.first is None:
            self.first, self.loaded = process_age(), status_mb("VmRSS")
        self.begun, self.begun_cpu = time.monotonic(), time.process_time()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.monotonic() - self.begun)
        self.cpu_seconds.append(time.process_time() - self.begun_cpu)

    def on_log(self, _args, _state, _control, logs=None, **__):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def dataset(args):
    rows = [json.loads(line) for line in open(args.rows)]
    order = json.load(open(args.order)) if args.order else range(len(rows))
    return datasets.Dataset.from_list([rows[i] for i in order])


def counting(collator, tokens):
    """Wraps the collator so that the useful tokens of each batch are noted."""

    def collate(examples):
        tokens.append(sum(len(example["input_ids"]) for example in examples))
        return collator(examples)

    return collate


def status_mb(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    watch, tokens = Watch(), []
    config = trl.SFTConfig(
        output_dir=args.out,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        bf16=args.precision == "autocast",
        gradient_checkpointing=args.checkpointing,
        packing=args.packing,
        max_length=args.max_length,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=0,
    )
    lora = None
    if args.start:
        model = peft.PeftModel.from_pretrained(model, args.start, is_trainable=True, autocast_adapter_dtype=True)
    else:
        lora = peft.LoraConfig(
            r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    trainer = trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset(args),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        peft_config=lora,
        callbacks=[watch],
    )
    trainer.data_collator = counting(trainer.data_collator, tokens)
    trainer.train()
    if args.save:
        trainer.save_model()
    tokens = tokens[: len(watch.seconds)]
    warm = slice(args.warm_steps, None)
    print(
        json.dumps(
            {
                "losses": watch.losses,
                "tokens": tokens,
                "seconds": watch.seconds,
                "cpu_seconds": watch.cpu_seconds,
                "tokens_per_second": sum(tokens[warm]) / sum(watch.seconds[warm]),
                "tokens_per_cpu_second": sum(tokens[warm]) / sum(watch.cpu_seconds[warm]),
                "peak_rss_mb": status_mb("VmHWM"),
                "memory_over_weights_mb": status_mb("VmHWM") - watch.loaded,
                "start_to_first_step_s": watch.first,
                "settings": vars(args),
                "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft, trl)},
            }
        )
    )


if __name__ == "__main__":
    main()
