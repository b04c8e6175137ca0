"""Trained tokens a second, share of the matmul ceiling, and peak memory: xalma's loop against transformers' Trainer.

    python benchmarks/training_throughput.py --shapes tiny   # a CPU, minutes
    python benchmarks/training_throughput.py --shapes 125m 1b 7b 13b --rows packed:512 packed:2048 sft:512   # a GPU
    python benchmarks/training_throughput.py --shapes pack --pack PACK --kinds adapter   # Gemma-3-270M
    python benchmarks/training_throughput.py --one-process --shapes 13b --kinds adapter --rows packed:512 --batch 16 \
        --micro 8 --steps 3 --warmup 1 --repeats 1 --gradient-checkpointing --systems xalma@8 fp8@8 fp8+compiled@8

All train the same random weights on the same made-up rows in the same micro-batches with the same optimizer, schedule
and recomputation; each measurement is a process of its own, and they take turns. --one-process keeps a frozen base for
all systems instead, since on a GPU making 13 billion weights takes longer than training them for some updates. --out is
written after each measurement, and one that fails, for want of memory say, is a row that says why.

"trainer" multiplies in the precision that xalma chooses, so that their losses must agree, and has its default settings
otherwise: its loss over all positions, its attention, its data loader. "plain" is Trainer in its default precision too,
the weights' own; its losses are the same but for rounding. "compiled" is xalma with `torch_compile`, which needs a C++
compiler on a CPU; its warm-up updates hold the compilation, and "warmup_seconds" says how long they took, in the first
repeat with empty caches. "stored" recomputes nothing, "fp8" multiplies a frozen base in FP8; "fp8+compiled@4" is both,
in micro-batches of 4.

"packed" rows have one length and a loss everywhere, "sft" rows the lengths of translation prompts and a loss on the
last third; --batch 0 takes the batches of the profile tiny. The ceiling is a large square matrix product, measured in
the same run.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from real_base.pack import open_pack_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from xalma.data import IGNORE, PadCollator, like_lengths
from xalma.files import read_json, write_json
from xalma.models import attach_adapter
from xalma.profiles import REAL, TINY, Profile
from xalma.runtime import mixed_precision, provenance
from xalma.training import flops_per_token
from xalma.training import trainer as training

# hidden, layers, heads, inner, vocabulary, rank of the adapter
SHAPES = {
    "tiny": (TINY.hidden_size, TINY.layers, TINY.heads, 352, TINY.vocab_size, TINY.lora_rank),
    "125m": (768, 12, 12, 2048, 32_000, 512),
    "1b": (2048, 22, 32, 5632, 32_000, 512),
    "7b": (4096, 32, 32, 11_008, 32_000, 512),
    "13b": (5120, 40, 40, 13_824, 32_000, 512),
}
PACKED = "pack"  # the real base that --pack holds
ALTERNATIVES = ("plain", "trainer")
SYSTEMS = {  # what each changes in the profile
    "plain": {}, "trainer": {}, "xalma": {},
    "compiled": {"torch_compile": True}, "stored": {"gradient_checkpointing": False},
    "fp8": {"base_precision": "fp8"},
}  # fmt: skip
Case = tuple[str, str, str, int]  # shape, kind, data, length


def sizes(shape: str, options: argparse.Namespace) -> tuple[int, ...]:
    """Hidden, layers, heads, inner, vocabulary, and the rank of the adapter."""
    if shape != PACKED:
        return SHAPES[shape]
    config = read_json(options.pack / "config.json", "write the pack again")
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    return *(config[name] for name in names), REAL.lora_rank


def make_base(shape: str, kind: str, options: argparse.Namespace) -> torch.nn.Module:
    """Random weights on the device: float32 if all are trained, else those of a frozen base (bfloat16 on a GPU)."""
    if shape == PACKED:
        model = open_pack_model(options.pack, torch.float32 if kind == "full" else torch.bfloat16)
        return model.to("cuda" if torch.cuda.is_available() else "cpu")
    hidden, layers, heads, inner, vocabulary, _ = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=4096,
        tie_word_embeddings=shape == "tiny",
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(options.seed)
    cuda = torch.cuda.is_available()
    n = sum(hidden * (4 * hidden + 3 * inner) for _ in range(layers)) + 2 * vocabulary * hidden
    check_room(n * (16 if kind == "full" else 2))
    with torch.device("cuda" if cuda else "cpu"):
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if cuda and kind == "adapter" else torch.float32
        )


def check_room(n_bytes: float) -> None:
    """Raises MemoryError where the GPU has less free than weights, gradients and moments take."""
    if torch.cuda.is_available() and n_bytes > (free := torch.cuda.mem_get_info()[0]):
        raise MemoryError(f"it takes {n_bytes / 2**30:.0f} GiB and the GPU has {free / 2**30:.0f} free")


@contextmanager
def made(shape: str, kind: str, options: argparse.Namespace) -> Iterator[torch.nn.Module]:
    """The model to train: all of it, or a fresh module on a base, which --one-process keeps."""
    global kept
    if kept is None or kept[0] != shape or kind == "full":
        kept = None
        kept = shape, make_base(shape, kind, options)
    base, rank = kept[1], sizes(shape, options)[-1]
    model = base
    if kind == "adapter":
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = attach_adapter(base, 6, rank=rank, alpha=2 * rank, dropout=0.0)
    try:
        yield model
    finally:
        if kind == "full":
            kept = None
        else:
            model.unload()
            base.gradient_checkpointing_disable()  # Trainer leaves it on


kept: tuple[str, torch.nn.Module] | None = None


def make_rows(
    data: str, length: int, vocabulary: int, options: argparse.Namespace
) -> list[dict[str, list[int]]]:
    """Rows for all updates, in the order in which both systems take them."""
    generator = torch.Generator().manual_seed(options.seed)
    n = options.batch * (options.warmup + options.steps)
    spread = (
        torch.randn(n, generator=generator).mul(0.5).exp().mul(0.4 * length).clamp(8, length).int().tolist()
    )
    rows = []
    for size in [length] * n if data == "packed" else spread:
        ids = torch.randint(3, vocabulary, (size,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORE] * max(1, 0 if data == "packed" else 2 * size // 3)})
        rows[-1]["labels"] += ids[len(rows[-1]["labels"]) :]
    return rows


def profile(system: str, kind: str, options: argparse.Namespace) -> Profile:
    """The profile values that all systems take, and what the system changes."""
    stage = {"stage4_batch_size": options.batch, "stage4_learning_rate": 1e-4, "stage4_schedule": "constant"}
    names, micro = parsed(system)
    p = TINY.but(
        micro_batch=min(micro or options.micro, options.batch),
        gradient_checkpointing=options.gradient_checkpointing,
        warmup_ratio=0.0,
        threads=options.threads,
        dtype="float32" if kind == "full" else "bfloat16",
        **stage,
    )
    for name in names:
        p = p.but(**SYSTEMS[name])
    return p


def parsed(system: str) -> tuple[list[str], int]:
    """(names of changes, rows of a micro-batch or 0) of "fp8+compiled@4". Raises ValueError for unknown names."""
    names, _, micro = system.partition("@")
    if unknown := [name for name in names.split("+") if name not in SYSTEMS]:
        raise ValueError(f"unknown system {unknown[0]}: choose from {', '.join(SYSTEMS)}, joined by +")
    return names.split("+"), int(micro or 0)


class Clock(TrainerCallback):
    """Seconds after the warm-up updates."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.done = 0
        self.started = time.perf_counter()
        self.seconds = 0.0
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


def run_xalma(
    model: torch.nn.Module, rows: list, p: Profile, clock: Clock, options: argparse.Namespace
) -> list[float]:
    """Losses of the updates by xalma.training.trainer."""
    plain_update = training.TrainingRun.update

    def update(self, parts):
        row = plain_update(self, parts)
        clock.tick()
        return row

    steps = options.warmup + options.steps
    with patch.object(training.TrainingRun, "update", update):
        log = training.train(
            model, rows, p, p.stage(4), steps=steps, seed=options.seed, pad_token_id=0, label="xalma"
        )
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
            output_dir=folder,
            max_steps=options.warmup + options.steps,
            per_device_train_batch_size=p.micro_batch,
            gradient_accumulation_steps=options.batch // p.micro_batch,
            learning_rate=p.stage4_learning_rate,
            lr_scheduler_type="constant",
            weight_decay=p.weight_decay,
            max_grad_norm=p.clip_norm,
            adam_beta2=p.adam_beta2,
            optim="adamw_torch_fused",
            bf16=mixed_precision() and not plain,
            use_cpu=not cuda,
            gradient_checkpointing=p.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=cuda,
            seed=options.seed,
        )

        class InOrder(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return [i for batch in batches for i in batch]

        trainer = InOrder(
            model=model, args=arguments, train_dataset=rows, data_collator=PadCollator(0), callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def measure(
    system: str, shape: str, kind: str, data: str, length: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One training run in this process: rates after the warm-up, losses of all updates."""
    if options.threads:
        torch.set_num_threads(options.threads)
    with made(shape, kind, options) as model:
        return measured(model, system, (shape, kind, data, length), options)


def measured(model: torch.nn.Module, system: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    shape, kind, data, length = case
    hidden, layers, _, _, vocabulary, _ = sizes(shape, options)
    p = profile(system, kind, options)
    theirs = parsed(system)[0][0] in ALTERNATIVES
    # transformers' own choice for Trainer; xalma's models are loaded by load_base, which takes eager on a CPU
    if not torch.cuda.is_available():
        training.plain_model(model).set_attn_implementation("sdpa" if theirs else "eager")
    rows = make_rows(data, length, vocabulary, options)
    clock = Clock(options.warmup)
    n = sum(x.numel() for x in model.parameters())
    n_trained = sum(x.numel() for x in model.parameters() if x.requires_grad)
    before = _memory_mib()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if theirs:
        losses = run_trainer(model, rows, p, clock, options, plain=system.startswith("plain"))
    else:
        losses = run_xalma(model, rows, p, clock, options)
    order = like_lengths([len(row["input_ids"]) for row in rows], p.micro_batch, options.seed)
    timed = islice(order, options.warmup * options.batch // p.micro_batch, len(rows) // p.micro_batch)
    tokens = sum(len(rows[i]["input_ids"]) for batch in timed for i in batch)
    rate = tokens / clock.seconds
    cuda = torch.cuda.is_available()
    # the peak of a process on a CPU is not that of its last run
    peak = _peak_mib() - (0 if cuda else before) if cuda or not options.one_process else None
    return {
        "tokens_per_s": rate,
        "model_flops": rate * flops_per_token(n - n_trained, n_trained, layers, hidden, length),
        "peak_mib": peak,
        "seconds": clock.seconds,
        "warmup_seconds": clock.warmup_seconds,
        "losses": losses,
        "micro": p.micro_batch,
    }


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


def compare(case: Case, options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """After each measurement, the rows of all systems that were measured: medians over the repeats, in turns."""
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        for _ in range(options.repeats):
            for system in options.systems:
                try:
                    found = alone(measure, options, system, *case, options)
                except Exception as error:  # the next systems may have the memory, or the compiler
                    found = {"skipped": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
                runs.setdefault(system, []).append(found)
                gc.collect()
                if options.one_process and torch.cuda.is_available():
                    torch.cuda.empty_cache()
                yield summary(case, runs)


def alone(function: Callable, options: argparse.Namespace, *arguments: Any) -> Any:
    """`function`'s result in a fresh process, whose memory is its own, or in this one."""
    if options.one_process:
        return function(*arguments)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def summary(case: Case, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per system; an alternative's says how many times as fast each of ours is, and how far its losses are."""
    rows = []
    for system, all_runs in runs.items():
        rows.append(dict(zip(("shape", "kind", "data", "length"), case, strict=True)) | {"system": system})
        found = [run for run in all_runs if "skipped" not in run]
        if not found:
            rows[-1] |= all_runs[0]
            continue
        for key in ("tokens_per_s", "model_flops", "peak_mib", "seconds"):
            values = [run[key] for run in found]
            rows[-1][key] = None if None in values else statistics.median(values)
        rows[-1] |= {
            "tokens_per_s_of_runs": [run["tokens_per_s"] for run in found],
            "micro": found[0]["micro"],
        }
        rows[-1] |= {"warmup_seconds": found[0]["warmup_seconds"], "losses": found[0]["losses"]}
    is_theirs = lambda row: parsed(row["system"])[0][0] in ALTERNATIVES  # noqa: E731
    good = [row for row in rows if "skipped" not in row]
    for row in filter(is_theirs, good):
        for ours in (one for one in good if not is_theirs(one)):
            row[f"{ours['system']}_times_as_fast"] = ours["tokens_per_s"] / row["tokens_per_s"]
            losses = zip(row["losses"], ours["losses"], strict=True)
            row[f"{ours['system']}_largest_loss_difference"] = max(abs(a - b) for a, b in losses)
    return rows


def line(row: dict[str, Any]) -> str:
    name = " ".join(str(row[key]) for key in ("shape", "kind", "data", "length", "system"))
    if "skipped" in row:
        return f"{name} skipped: {row['skipped']}"
    faster = [
        f"{key.removesuffix('_times_as_fast')} {value:.2f} × as fast"
        for key, value in row.items()
        if key.endswith("_times_as_fast")
    ]
    share = f"{row['utilisation_of_ceiling']:.0%} of the ceiling"
    memory = [f"{row['peak_mib']:,.0f} MiB"] if row["peak_mib"] is not None else []
    return ", ".join([f"{name} {row['tokens_per_s']:,.0f} tokens/s", *memory, share, *faster])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES, PACKED], default=["tiny"])
    parser.add_argument("--pack", type=Path, help="the folder of --shapes pack: `benchmarks/real.py pack`")
    parser.add_argument("--kinds", nargs="+", choices=("full", "adapter"), default=["full", "adapter"])
    parser.add_argument(
        "--rows", nargs="+", default=["packed:64", "sft:160"], help="kind and longest row in tokens"
    )
    parser.add_argument("--systems", nargs="+", default=["plain", "trainer", "xalma", "compiled"])
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
    parser.add_argument("--one-process", action="store_true", help="keep a frozen base for all systems")
    options = parser.parse_args()
    for system in options.systems:
        parsed(system)
    most = alone(ceiling, options, options)
    rows_of = [(data, int(length)) for data, length in (one.split(":") for one in options.rows)]
    cases = [(shape, kind, *one) for shape in options.shapes for kind in options.kinds for one in rows_of]
    record: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "options": {name: value for name, value in vars(options).items() if name not in ("out", "pack")},
        "matmul_ceiling_flops": most,
        "rows": [],
        **provenance(),
    }
    for case in cases:
        done = record["rows"]
        for rows in compare(case, sized(options, case[2])):
            for row in rows:
                if "skipped" not in row:
                    row["utilisation_of_ceiling"] = row["model_flops"] / most
            record["rows"] = [*done, *rows]
            print(line(rows[-1]), flush=True)
            if options.out:
                write_json(options.out, record)


if __name__ == "__main__":
    main()
