"""Trained tokens a second, share of the matmul ceiling, and peak memory: xalma's loop against transformers' Trainer.

    python benchmarks/training_throughput.py --shapes tiny   # a CPU, minutes
    python benchmarks/training_throughput.py --shapes 125m 1b 7b 13b --rows packed:512 packed:2048 sft:512   # a GPU

All train the same random weights on the same made-up rows in the same micro-batches with the same optimizer, schedule
and recomputation; each measurement is a process of its own, and they take turns. "trainer" multiplies in the precision
that xalma chooses, so that their losses must agree, and has its default settings otherwise: its loss over all
positions, its attention, its data loader. "plain" is Trainer in its default precision too, the weights' own; its losses
are the same but for rounding. "compiled" is xalma with `torch_compile`, which needs a C++ compiler on a CPU; its
warm-up updates hold the compilation, and "warmup_seconds" says how long they took, in the first repeat with empty
caches. "packed" rows have one length and a loss everywhere, "sft" rows the lengths of translation prompts and a loss on
the last third; --batch 0 takes the batches of the profile tiny. The ceiling is a large square matrix product, measured
in the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from xalma import train as training
from xalma.batches import like_lengths
from xalma.collate import IGNORE, PadCollator
from xalma.modules import attach_module
from xalma.plan import flops_per_token
from xalma.profiles import TINY, Profile
from xalma.runtime import mixed_precision, provenance, write_json

# hidden, layers, heads, inner, vocabulary, rank of the adapter
SHAPES = {
    "tiny": (TINY.hidden_size, TINY.layers, TINY.heads, 352, TINY.vocab_size, TINY.lora_rank),
    "125m": (768, 12, 12, 2048, 32_000, 512),
    "1b": (2048, 22, 32, 5632, 32_000, 512),
    "7b": (4096, 32, 32, 11_008, 32_000, 512),
    "13b": (5120, 40, 40, 13_824, 32_000, 512),
}
SYSTEMS = ("plain", "trainer", "xalma", "compiled")
ALTERNATIVES = ("plain", "trainer")


def make_model(shape: str, kind: str, options: argparse.Namespace) -> torch.nn.Module:
    """Random weights: float32 if all are trained, else a frozen base (bfloat16 on a GPU) with a float32 adapter."""
    hidden, layers, heads, inner, vocabulary, rank = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=4096, tie_word_embeddings=shape == "tiny",
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(options.seed)
    cuda = torch.cuda.is_available()
    with torch.device("cuda" if cuda else "cpu"):
        model = LlamaForCausalLM(config)
    if kind == "full":
        return model
    if cuda:
        model = model.to(torch.bfloat16)
    with torch.device("cuda" if cuda else "cpu"):
        return attach_module(model, 6, rank=rank, alpha=2 * rank, dropout=0.0)


def make_rows(data: str, length: int, vocabulary: int, options: argparse.Namespace) -> list[dict[str, list[int]]]:
    """Rows for all updates, in the order in which both systems take them."""
    generator = torch.Generator().manual_seed(options.seed)
    n = options.batch * (options.warmup + options.steps)
    spread = torch.randn(n, generator=generator).mul(0.5).exp().mul(0.4 * length).clamp(8, length).int().tolist()
    rows = []
    for size in [length] * n if data == "packed" else spread:
        ids = torch.randint(3, vocabulary, (size,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORE] * max(1, 0 if data == "packed" else 2 * size // 3)})
        rows[-1]["labels"] += ids[len(rows[-1]["labels"]) :]
    return rows


def profile(system: str, kind: str, options: argparse.Namespace) -> Profile:
    """The profile values that all systems take, and `torch_compile`."""
    stage = {"stage4_batch_size": options.batch, "stage4_learning_rate": 1e-4, "stage4_schedule": "constant"}
    return TINY.but(
        micro_batch=options.micro, gradient_checkpointing=options.gradient_checkpointing, warmup_ratio=0.0,
        torch_compile=system == "compiled", threads=options.threads,
        dtype="float32" if kind == "full" else "bfloat16", **stage,
    )  # fmt: skip


class Clock(TrainerCallback):
    """Seconds after the warm-up updates."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.done, self.started, self.seconds = warmup, 0, time.perf_counter(), 0.0
        self.warmup_seconds = 0.0

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.done += 1
        if self.done == self.warmup:
            self.warmup_seconds = time.perf_counter() - self.started
            self.started = time.perf_counter()
        self.seconds = time.perf_counter() - self.started

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.tick()


def run_xalma(model: torch.nn.Module, rows: list, p: Profile, clock: Clock, options: argparse.Namespace) -> list[float]:
    """Losses of the updates by xalma.train."""
    plain_update = training.Run.update

    def update(self, parts):
        row = plain_update(self, parts)
        clock.tick()
        return row

    training.Run.update = update
    steps = options.warmup + options.steps
    log = training.train(model, rows, p, "stage4", steps=steps, seed=options.seed, pad_token_id=0, label="xalma")
    return [row["loss"] for row in log]


def run_trainer(
    model: torch.nn.Module, rows: list, p: Profile, clock: Clock, options: argparse.Namespace, *, plain: bool
) -> list[float]:
    """Losses of the updates by transformers' Trainer, which gets the rows in the order of xalma's batches.

    plain: in the weights' precision, which it takes by default.
    """
    order = like_lengths([len(row["input_ids"]) for row in rows], p.micro_batch, options.seed)
    batches = list(islice(order, len(rows) // p.micro_batch))
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=options.warmup + options.steps, per_device_train_batch_size=p.micro_batch,
            gradient_accumulation_steps=options.batch // p.micro_batch, learning_rate=p.stage4_learning_rate,
            lr_scheduler_type="constant", weight_decay=p.weight_decay, max_grad_norm=p.clip_norm,
            adam_beta2=p.adam_beta2, optim="adamw_torch_fused", bf16=mixed_precision() and not plain, use_cpu=not cuda,
            gradient_checkpointing=p.gradient_checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=cuda, seed=options.seed,
        )  # fmt: skip

        class InOrder(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return [i for batch in batches for i in batch]

        trainer = InOrder(
            model=model, args=arguments, train_dataset=rows, data_collator=PadCollator(0), callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def measure(system: str, shape: str, kind: str, data: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training run in this process: rates after the warm-up, losses of all updates."""
    if options.threads:
        torch.set_num_threads(options.threads)
    hidden, layers, _, _, vocabulary, _ = SHAPES[shape]
    model, p = make_model(shape, kind, options), profile(system, kind, options)
    # transformers' own choice for Trainer; xalma's models are loaded by load_base, which takes eager on a CPU
    if system not in ALTERNATIVES and not torch.cuda.is_available():
        training.plain_model(model).set_attn_implementation("eager")
    rows, clock = make_rows(data, length, vocabulary, options), Clock(options.warmup)
    n = sum(x.numel() for x in model.parameters())
    n_trained = sum(x.numel() for x in model.parameters() if x.requires_grad)
    before = _memory_mib()
    if torch.cuda.is_available():  # the base was made in float32
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if system in ALTERNATIVES:
        losses = run_trainer(model, rows, p, clock, options, plain=system == "plain")
    else:
        losses = run_xalma(model, rows, p, clock, options)
    order = like_lengths([len(row["input_ids"]) for row in rows], p.micro_batch, options.seed)
    timed = islice(order, options.warmup * options.batch // p.micro_batch, len(rows) // p.micro_batch)
    tokens = sum(len(rows[i]["input_ids"]) for batch in timed for i in batch)
    rate = tokens / clock.seconds
    return {
        "tokens_per_s": rate, "model_flops": rate * flops_per_token(n - n_trained, n_trained, layers, hidden, length),
        "peak_mib": _peak_mib() - (0 if torch.cuda.is_available() else before), "seconds": clock.seconds,
        "warmup_seconds": clock.warmup_seconds, "losses": losses,
    }  # fmt: skip


def ceiling(options: argparse.Namespace) -> float:
    """Operations a second of a square matrix product in the precision trained in."""
    if options.threads:
        torch.set_num_threads(options.threads)
    cuda = torch.cuda.is_available()
    n, dtype = (8192 if cuda else 1024), torch.bfloat16 if mixed_precision() else torch.float32
    a = torch.randn(n, n, device="cuda" if cuda else "cpu", dtype=dtype)
    rates = []
    for _ in range(20):
        started = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        rates.append(2 * n**3 / (time.perf_counter() - started))
    return statistics.median(rates[5:])


def _memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def _peak_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def sized(options: argparse.Namespace, data: str) -> argparse.Namespace:
    """The options with a batch: the profile tiny's own where none is given, 8 packed blocks or 16 rows of SFT."""
    batch = options.batch or (TINY.stage1_batch_size if data == "packed" else TINY.stage4_batch_size)
    return argparse.Namespace(**vars(options) | {"batch": batch, "micro": min(options.micro, batch)})


def compare(case: tuple[str, str, str, int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all systems for a case: medians over the repeats, which take turns."""
    context = multiprocessing.get_context("spawn")
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in options.systems}
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        for _ in range(options.repeats):
            for system in options.systems:
                with ProcessPoolExecutor(1, mp_context=context) as pool:  # a fresh process: its memory is its own
                    runs[system].append(pool.submit(measure, system, *case, options).result())
    rows = []
    for system, found in runs.items():
        middle = {
            key: statistics.median(run[key] for run in found)
            for key in ("tokens_per_s", "model_flops", "peak_mib", "seconds")
        }
        rows.append(dict(zip(("shape", "kind", "data", "length"), case, strict=True)) | {"system": system} | middle)
        rows[-1]["tokens_per_s_of_runs"] = [run["tokens_per_s"] for run in found]
        rows[-1]["warmup_seconds"] = found[0]["warmup_seconds"]
    for row in rows:  # ours against each: how many times as fast, and the largest difference of their losses
        if row["system"] in ALTERNATIVES:
            theirs = runs[row["system"]][0]["losses"]
            for ours in (one for one in rows if one["system"] not in ALTERNATIVES):
                row[f"{ours['system']}_times_as_fast"] = ours["tokens_per_s"] / row["tokens_per_s"]
                losses = zip(theirs, runs[ours["system"]][0]["losses"], strict=True)
                row[f"{ours['system']}_largest_loss_difference"] = max(abs(a - b) for a, b in losses)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny"])
    parser.add_argument("--kinds", nargs="+", choices=("full", "adapter"), default=["full", "adapter"])
    parser.add_argument("--rows", nargs="+", default=["packed:64", "sft:160"], help="kind and longest row in tokens")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    for name, value in {
        "batch": 0,
        "micro": 16,
        "steps": 40,
        "warmup": 5,
        "repeats": 3,
        "seed": 0,
        "threads": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)  # batch 0: see `sized`
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        most = pool.submit(ceiling, options).result()
    rows_of = [(data, int(length)) for data, length in (one.split(":") for one in options.rows)]
    cases = [(shape, kind, *one) for shape in options.shapes for kind in options.kinds for one in rows_of]
    rows = []
    for case in cases:
        for row in compare(case, sized(options, case[2])):
            rows.append(row | {"utilisation_of_ceiling": row["model_flops"] / most})
            print(
                *case,
                row["system"],
                f"{row['tokens_per_s']:,.0f} tokens/s,",
                f"{row['peak_mib']:,.0f} MiB,",
                f"{row['model_flops'] / most:.0%} of the ceiling,",
                *(f"{ours} {row[key]:.2f} × as fast" for ours in SYSTEMS if (key := f"{ours}_times_as_fast") in row),
            )
    record = {
        "what": __doc__.splitlines()[0],
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "matmul_ceiling_flops": most,
        "rows": rows,
        **provenance(),
    }
    if options.out:
        print(f"written to {write_json(options.out, record)}")


if __name__ == "__main__":
    main()
