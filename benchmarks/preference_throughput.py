"""Answer tokens per second and peak memory: ARPOTrainer's packed pairs against TRL's CPOTrainer.

    python benchmarks/preference_throughput.py --out results/benchmarks/preference_throughput.json

Both train the same model on the same pairs in the same order with the same loss (tau fixed at 1 is
CPO), each measurement in a process of its own, the two taking turns. Sources and chosen answers are
NTREX sentences where XALMA_DATA is set; else made-up words, as many as NTREX sentences have. The
rejected answer is the chosen one with its words in random order: as a rule only the prompt is
shared, the worst case for packing. The wordpieces are learnt from the text itself.

Two shapes, since two things are saved: in a model with a small body and a large vocabulary mostly the logits of
positions without a label ("head"), in one with a deep body and a small vocabulary mostly padding and the second pass of
the prompt ("body"). A large model is like the second. `head_share`: the head's part of all weights. On a GPU "7b" is
LLaMA-2-7B's shape with a module of rank 512, both trainers in one process:

    python benchmarks/preference_throughput.py --shapes 7b --one-process --out FILE
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PrinterCallback, TrainerCallback
from trl.experimental.cpo import CPOConfig, CPOTrainer

from xalma.files import write_json
from xalma.models import attach_adapter, build_llama, train_tokenizer
from xalma.preference import ARPOConfig, ARPOTrainer, in_order, tokenize_pair
from xalma.prompts import translation_prompt
from xalma.runtime import command_line, data_root, provenance

# Natural logarithm of the words a line, measured on NTREX's en.txt: mean, standard deviation.
LOG_WORDS = (2.90, 0.58)
TRAINERS = ("trl", "xalma")
SHAPES = {
    "head": {"hidden": 192, "layers": 3, "heads": 6, "vocab": 8000},
    "body": {"hidden": 256, "layers": 8, "heads": 8, "vocab": 2000},
    "7b": {"hidden": 4096, "layers": 32, "heads": 32, "vocab": 32_000, "rank": 512},
    "module": {"hidden": 32, "layers": 1, "heads": 2, "vocab": 300, "rank": 4},  # to try "7b"
}


class Clock(TrainerCallback):
    """Seconds from the end of the warm-up steps to the end of training, and memory in MiB."""

    def __init__(self, warmup: int):
        self.warmup, self.started, self.seconds = warmup, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == self.warmup:
            self.started = time.perf_counter()
        self.seconds = time.perf_counter() - self.started


def sentences(n: int, lang: str, seed: int) -> tuple[list[tuple[str, str]], str]:
    """n (English, other) sentence pairs, and where they come from."""
    rng = random.Random(seed)
    if root := data_root():
        files = [root / "ntrex" / f"{code}.txt" for code in ("en", lang)]
        lines = [path.read_text(encoding="utf-8").splitlines() for path in files]
        pairs = list(zip(*lines, strict=True))
        rng.shuffle(pairs)
        return (pairs * (n // len(pairs) + 1))[:n], "NTREX-128"
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    line = lambda: " ".join(rng.choices(words, k=max(1, round(rng.lognormvariate(*LOG_WORDS)))))  # noqa: E731
    return [(line(), line()) for _ in range(n)], f"words, log-normal {LOG_WORDS}"


def make_rows(options: argparse.Namespace) -> tuple[list[dict[str, str]], str]:
    """Preference rows for all steps."""
    pairs, origin = sentences(options.steps * options.batch_size, options.lang, options.seed)
    rng = random.Random(options.seed)
    rows = []
    for english, other in pairs:
        words = other.split()
        prompt = translation_prompt(english, "en", options.lang)
        rejected = " ".join(rng.sample(words, len(words)))
        rows.append({"prompt": prompt, "chosen": f" {other}", "rejected": f" {rejected}"})
    return rows, origin


def make_trainer(kind: str, rows: list[dict[str, str]], options: argparse.Namespace, folder: str) -> Any:
    """A trainer over `rows` in order; both kinds have the same model, arguments and loss."""
    texts = [row[name] for row in rows for name in ("prompt", "chosen")]
    tokenizer = train_tokenizer(texts, options.vocab)
    rank = getattr(options, "rank", 0)
    if rank:
        model = module_on_base(rank, options)
    else:
        model = build_llama(
            tokenizer,
            hidden_size=options.hidden,
            layers=options.layers,
            heads=options.heads,
            max_positions=options.max_length,
            seed=options.seed,
        )
    cuda = torch.cuda.is_available()
    config, trainer = (CPOConfig, CPOTrainer) if kind == "trl" else (ARPOConfig, ARPOTrainer)
    arguments = config(
        output_dir=folder,
        per_device_train_batch_size=options.batch_size,
        max_steps=options.steps,
        max_length=options.max_length,
        learning_rate=1e-4,
        seed=options.seed,
        bf16=cuda,
        use_cpu=not cuda,
        gradient_checkpointing=bool(rank),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        logging_steps=10,
        disable_tqdm=True,
        **({"clamp_min": 1.0} if kind == "xalma" else {}),
    )
    data = datasets.Dataset.from_list(rows)
    made = in_order(trainer)(model, arguments, train_dataset=data, processing_class=tokenizer)
    made.remove_callback(PrinterCallback)
    return made


def module_on_base(rank: int, options: argparse.Namespace) -> torch.nn.Module:
    """A module on a frozen base of LLaMA's shape and random weights, in bfloat16 on a GPU."""
    config = LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        intermediate_size=-(-options.hidden * 8 // 3 // 32) * 32,
        num_attention_heads=options.heads,
        max_position_embeddings=options.max_length,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(options.seed)
    cuda = torch.cuda.is_available()
    with torch.device("cuda" if cuda else "cpu"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if cuda else torch.float32)
        return attach_adapter(base, 6, rank=rank, alpha=2 * rank, dropout=0.0, seed=options.seed)


def measure(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """One training run: answer tokens a second after warm-up, and memory beyond that before it."""
    torch.set_num_threads(options.threads)
    datasets.disable_progress_bars()
    rows, _ = make_rows(options)
    clock = Clock(options.warmup)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, rows, options, folder)
        trainer.add_callback(clock)
        timed = rows[options.warmup * options.batch_size :]
        tokens = [tokenize_pair(trainer.processing_class, row, options.max_length) for row in timed]
        n_tokens = sum(
            label != -100 for row in tokens for s in ("chosen", "rejected") for label in row[f"{s}_labels"]
        )
        before = _memory_mib()
        peak = _Peak()
        trainer.train()
        head = trainer.model.get_output_embeddings().weight.numel()  # tied to the embeddings: counted once
    return {
        "head_share": head / trainer.model.num_parameters(),
        "answer_tokens_per_s": n_tokens / clock.seconds,
        "seconds": clock.seconds,
        "answer_tokens": n_tokens,
        "peak_mib": peak.stop() - before,
    }


def compare_first_batch(options: argparse.Namespace) -> dict[str, float]:
    """Largest relative difference of loss, and of any gradient to the largest gradient."""
    datasets.disable_progress_bars()
    rows, found = make_rows(options)[0][: options.batch_size], []
    for kind in TRAINERS:
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(kind, rows, argparse.Namespace(**{**vars(options), "steps": 1}), folder)
            model = trainer.model
            loss, _ = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))
            weights = [x for x in model.parameters() if x.requires_grad]
            found.append((loss.item(), torch.autograd.grad(loss, weights)))
    (loss, grads), (other_loss, other) = found
    gap = max((a - b).abs().max().item() for a, b in zip(grads, other, strict=True))
    largest = max(grad.abs().max().item() for grad in grads)
    return {"loss": abs(loss - other_loss) / abs(loss), "gradient": gap / largest}


class _Peak:
    """Highest memory use since it was made: allocator's on CUDA, resident (sampled) on CPU."""

    def __init__(self) -> None:
        self.highest = _memory_mib()
        self.ended = threading.Event()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.005):
            self.highest = max(self.highest, _memory_mib())

    def stop(self) -> float:
        self.ended.set()
        self.thread.join()
        return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else self.highest


def _memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def compare(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both trainers on one shape, taking turns: medians, ratios, and how far the first batch's gradients differ."""
    options = argparse.Namespace(**vars(options), **SHAPES[shape])
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in TRAINERS}
    for _ in range(options.repeats):
        for kind in TRAINERS:
            runs[kind].append(alone(kind, options))
            gc.collect()
            if options.one_process and torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(
                f"{shape} {kind:6s} {runs[kind][-1]['answer_tokens_per_s']:9.0f} answer tokens/s", flush=True
            )
    median = {
        kind: {name: statistics.median(run[name] for run in found) for name in found[0]}
        for kind, found in runs.items()
    }
    found = {
        **SHAPES[shape],
        "median": median,
        "speedup": median["xalma"]["answer_tokens_per_s"] / median["trl"]["answer_tokens_per_s"],
        "memory_ratio": median["xalma"]["peak_mib"] / median["trl"]["peak_mib"],
        "runs": runs,
    }
    print(f"{shape} speed-up {found['speedup']:.2f}, memory {found['memory_ratio']:.2f} times", flush=True)
    return found


def alone(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a fresh process, whose memory is its own, or in this one."""
    if options.one_process:
        return measure(kind, options)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, kind, options).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    defaults = {
        "batch_size": 16, "steps": 6, "warmup": 1, "repeats": 1, "max_length": 512, "seed": 0, "threads": 1,
    }  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--lang", default="de", help="target language of the NTREX pairs")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["head", "body"])
    parser.add_argument(
        "--one-process", action="store_true", help="both trainers in one: a GPU's memory is counted"
    )
    options = parser.parse_args()
    out = vars(options).pop("out")
    shapes = vars(options).pop("shapes")
    record: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "command": command_line(["python", *sys.argv]),
        "data": sentences(1, options.lang, options.seed)[1],
        "options": dict(vars(options)),
        "shapes": {},
        **provenance(),
    }
    for shape in shapes:
        record["shapes"][shape] = found = compare(shape, options)
        if out:
            write_json(out, record)
        with_shape = argparse.Namespace(**vars(options), **SHAPES[shape])
        found["relative_difference_first_batch"] = apart = compare_first_batch(with_shape)
        print(f"{shape}: the first batch differs by {apart}", flush=True)
        if out:
            write_json(out, record)


if __name__ == "__main__":
    main()
