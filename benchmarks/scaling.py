"""What grows with what: seconds of each step of the recipe against data, number of groups and number of languages.

    python benchmarks/scaling.py --out results/benchmarks/scaling.json

    data        1, 2, 4 and 8 times the text, tokens or sentences
    groups      1, 2, 4 and 8 modules that are trained, decoded with, converted, or mixed in one batch of eight rows
    languages   5, 10, 20 and 49, drawn evenly from the table, each with as many bytes of text or as many segments

Every point is measured: the fastest of the repeats, which go through the sizes in turn, after one run that is not
counted. What grows is said by the exponent, the slope of log seconds against log size over the three upper points: 1 is
linear. Text: halves of NTREX sentences put together anew, so that XALMA_DATA must be set; the model is the profile
tiny's with random weights, the one that is converted and served is wider, so that its modules count. One process, one
thread. Five to eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import tqdm.auto
from contamination_throughput import sentences
from cost_tables import AXES, scaling_figure, scaling_note, scaling_sentence, scaling_table
from transformers.utils import logging

from xalma.corpora import has_data
from xalma.data import (
    Guard,
    PackedBlocks,
    TestIndex,
    make_job,
    mixture,
    processes,
    sampling_probabilities,
    write_tokens,
)
from xalma.evaluation import score_all
from xalma.files import write_atomically, write_json
from xalma.languages import ENGLISH, GROUPS, LANGUAGES
from xalma.models import (
    ModuleBank,
    attach_adapter,
    build_llama,
    layouts,
    load_modules,
    save_adapter,
    save_base,
    train_tokenizer,
)
from xalma.models import convert as conversion
from xalma.paper import save_figure, write_table
from xalma.profiles import TINY
from xalma.runtime import device, provenance, seed_everything
from xalma.training import train

WIDE = (384, 4)  # hidden size and layers of the model that is converted and served
CODES = [code for code in LANGUAGES if code != ENGLISH]


@dataclass(frozen=True)
class Amounts:
    """What a point has at the smallest size, in the units named; `--scale` multiplies all."""

    text_bytes: int = 40_000  # a language
    tokenizer_bytes: int = 120_000  # a language
    guard_bytes: int = 400_000  # a language
    test_sentences: int = 300  # a language, each side
    mixed_blocks: int = 2400
    updates: int = 16
    prompts: int = 64  # of a group
    new_tokens: int = 16
    segments: int = 150  # of a direction
    served_tokens: int = 8  # decoded after a prompt of 64

    def times(self, scale: float) -> Amounts:
        return Amounts(**{name: max(2, round(value * scale)) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Size:
    """A point: times the data, groups and languages."""

    data: int = 1
    groups: int = 1
    languages: int = 5

    @property
    def codes(self) -> list[str]:
        return [CODES[i * len(CODES) // self.languages] for i in range(self.languages)]


@cache
def lines(code: str) -> list[str]:
    """The language's sentences in random order, so that the first few are as long as all."""
    return random.Random(0).sample(sentences(code), len(sentences(code)))


@cache
def documents(code: str, n_bytes: int) -> list[str]:
    """At least `n_bytes` of text as documents of three sentences, each made of the halves of two."""
    found, size = [], 0
    halves = [(line[: len(line) // 2], line[len(line) // 2 :]) for line in lines(code)]
    for number in count():
        rng = random.Random(f"{code} {number}")
        text = " ".join(rng.choice(halves)[0] + rng.choice(halves)[1] for _ in range(3))
        found.append(text)
        size += len(text.encode())
        if size >= n_bytes:
            return found


@dataclass(eq=False)
class Bench:
    """What the steps share: amounts, a folder, the tokenizer and the models."""

    amounts: Amounts
    folder: Path
    seed: int
    tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        texts = [text for code in (ENGLISH, *CODES) for text in documents(code, 20_000)]
        self.tokenizer = train_tokenizer(texts, TINY.vocab_size)

    def model(self, hidden: int, layers: int) -> torch.nn.Module:
        model = build_llama(
            self.tokenizer, hidden_size=hidden, layers=layers, heads=4, max_positions=512, seed=self.seed
        )
        model.set_attn_implementation("eager")  # as load_base on a CPU
        return model.to(device()).eval()

    @cache  # noqa: B019  # there is one bench a process
    def adapters(self, hidden: int, layers: int) -> Path:
        """A folder of base/ and group1/ … group8/, all random, of rank hidden / 2."""
        folder = self.folder / f"adapters-{hidden}"
        save_base(self.model(hidden, layers), self.tokenizer, folder / "base")
        for group in GROUPS:
            options = {"rank": hidden // 2, "alpha": hidden, "dropout": 0.0, "seed": self.seed + group}
            save_adapter(
                attach_adapter(self.model(hidden, layers), group, **options), group, folder / f"group{group}"
            )
        return folder

    @cache  # noqa: B019
    def bank(self, hidden: int, layers: int) -> ModuleBank:
        """The eight modules on their base."""
        folder = self.adapters(hidden, layers)
        return load_modules({group: folder / f"group{group}" for group in GROUPS}, base=folder / "base")


# --- the steps: a bench and a size to what is timed ---------------------------------------------------


def prepare_text(bench: Bench, size: Size) -> Callable[[], Any]:
    """Hygiene, tokens and blocks on disk, a language at a time, as `xalma prepare` makes them."""
    texts = {code: documents(code, size.data * bench.amounts.text_bytes) for code in size.codes}
    folder = Path(tempfile.mkdtemp(dir=bench.folder))

    def run() -> None:
        for code, written in texts.items():
            rows = ((f"{code}:{n}", text) for n, text in enumerate(written))
            write_tokens(
                rows, folder / code, make_job(bench.tokenizer, code), TINY.block_tokens, partial(processes, 1)
            )

    return run


def guard(bench: Bench, size: Size) -> Callable[[], Any]:
    """The index of test sentences, and every row of training text looked up in it."""
    texts = [text for code in size.codes for text in documents(code, size.data * bench.amounts.guard_bytes)]
    sides = {code: lines(code)[: bench.amounts.test_sentences] for code in size.codes}
    return lambda: sum(1 for _ in Guard(TestIndex(sides), "drop").watch(texts, "text"))


def tokenizer(bench: Bench, size: Size) -> Callable[[], Any]:
    """A byte-level BPE tokenizer trained on the text."""
    texts = [
        text for code in size.codes for text in documents(code, size.data * bench.amounts.tokenizer_bytes)
    ]
    return lambda: train_tokenizer(texts, TINY.vocab_size)


def source(code: str, n_bytes: int) -> Iterator[str]:
    return iter(documents(code, n_bytes))


def mixing(bench: Bench, size: Size) -> Callable[[], Any]:
    """Blocks drawn from all languages' streams; with more languages as many blocks as with few."""
    n_bytes = 150 * size.data * bench.amounts.mixed_blocks  # a language: enough, as few as they are
    sources = {code: partial(source, code, n_bytes) for code in size.codes}
    shares = sampling_probabilities(dict.fromkeys(size.codes, 1.0))
    n_blocks = size.data * bench.amounts.mixed_blocks
    blocks = lambda: PackedBlocks(mixture(sources, shares, 0), bench.tokenizer, TINY.block_tokens, n_blocks)  # noqa: E731
    return lambda: sum(1 for _ in blocks())


def training(bench: Bench, size: Size) -> Callable[[], Any]:
    """Stage 2's updates of a fresh module, a group after the other."""
    steps, batch = size.data * bench.amounts.updates, TINY.stage2_batch_size
    generator = torch.Generator().manual_seed(bench.seed)
    ids = torch.randint(3, TINY.vocab_size, (steps * batch, TINY.block_tokens), generator=generator).tolist()
    rows = [{"input_ids": row, "labels": row} for row in ids]
    models = [
        attach_adapter(
            bench.model(TINY.hidden_size, TINY.layers),
            group,
            rank=TINY.lora_rank,
            alpha=TINY.lora_alpha,
            dropout=0.0,
        )
        for group in range(1, 1 + size.groups)
    ]

    def run() -> None:
        for model in models:
            p = TINY.but(threads=torch.get_num_threads())
            train(model, rows, p, p.stage(2), steps=steps, seed=0, pad_token_id=0, label="training")

    return run


def generation(bench: Bench, size: Size) -> Callable[[], Any]:
    """Translations from English by the bank; each group has texts enough to fill its batches."""
    texts = [line[:40] for line in lines(ENGLISH)[: size.data * bench.amounts.prompts]]
    tgts = [GROUPS[group][0] for group in range(1, 1 + size.groups) for _ in texts]
    bank = bench.bank(TINY.hidden_size, TINY.layers)
    options = {"max_new_tokens": bench.amounts.new_tokens, "batch_size": 64}
    return lambda: bank.translate(texts * size.groups, ENGLISH, tgts, **options)


def scoring(bench: Bench, size: Size) -> Callable[[], Any]:
    """BLEU and chrF++ with bootstrap intervals of one system from English, nothing kept from before."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    files: dict[str, Path] = {}
    for code in size.codes:
        references = lines(code)[: size.data * bench.amounts.segments]
        outputs = [line[: 3 * len(line) // 4] for line in references]
        direction = f"{ENGLISH}-{code}"
        for name, texts in (("src", references), ("ref", references), ("out", outputs)):
            write_atomically(folder / "set" / direction / f"{name}.txt", "\n".join(texts) + "\n")
        files[direction] = folder / "set" / direction / "out.txt"
    return lambda: score_all({"system": files}, str(folder / "set"), workers=1, cache=None)


def converting(bench: Bench, size: Size) -> Callable[[], Any]:
    """Base and adapters written as one all-modules checkpoint."""
    adapters = bench.adapters(*WIDE)
    out = bench.folder / "all-modules"
    groups = range(1, 1 + size.groups)

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        checkpoint = layouts.open_checkpoint(
            {group: adapters / f"group{group}" for group in groups}, adapters / "base"
        )
        conversion.convert(checkpoint, out, layouts.ALL_MODULES, list(groups))

    return run


def serving(bench: Bench, size: Size) -> Callable[[], Any]:
    """One batch decoded by the bank: eight rows a time the data, from as many groups."""
    bank = bench.bank(*WIDE)
    rows = 8 * size.data
    n = bench.amounts.served_tokens
    generator = torch.Generator().manual_seed(bench.seed)
    ids = torch.randint(3, TINY.vocab_size, (rows, 64), generator=generator).to(device())
    groups = [1 + i * size.groups // rows for i in range(rows)]
    options = {
        "attention_mask": torch.ones_like(ids),
        "do_sample": False,
        "min_new_tokens": n,
        "max_new_tokens": n,
    }
    return lambda: bank.generate(ids, languages=groups, **options)


STEPS: dict[str, tuple[Callable[[Bench, Size], Callable[[], Any]], tuple[str, ...]]] = {
    "prepare text": (prepare_text, ("data", "languages")),
    "contamination guard": (guard, ("data", "languages")),
    "tokenizer": (tokenizer, ("data", "languages")),
    "mixing": (mixing, ("data", "languages")),
    "training": (training, ("data", "groups")),
    "generation": (generation, ("data", "groups")),
    "scoring": (scoring, ("data", "languages")),
    "converting modules": (converting, ("groups",)),
    "served batch": (serving, ("data", "groups")),
}


def measure(bench: Bench, step: str, axis: str, repeats: int) -> list[dict[str, Any]]:
    """A row a size: the fastest of the repeats, which take the sizes in turn."""
    make, _ = STEPS[step]
    runs = {n: make(bench, Size(**{axis: n})) for n in AXES[axis]}
    found: dict[int, list[tuple[float, float]]] = {n: [] for n in runs}
    next(iter(runs.values()))()  # imports, caches
    for _ in range(repeats):
        for n, run in runs.items():
            seed_everything(bench.seed)
            started = time.perf_counter()
            used = time.process_time()
            run()
            found[n].append((time.perf_counter() - started, time.process_time() - used))
    return [
        {
            "step": step,
            "axis": axis,
            "size": n,
            "seconds": min(taken)[0],
            "cpu_seconds": min(taken)[1],
            "seconds_of_runs": [seconds for seconds, _ in taken],
        }
        for n, taken in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS)
    )
    parser.add_argument("--scale", type=float, default=1.0, help="times all amounts (default 1)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a twentieth of all amounts, once: to see that it runs"
    )
    o = parser.parse_args()
    started = time.perf_counter()
    if not has_data("ntrex"):
        parser.error("the text is NTREX-128: set XALMA_DATA to the folder that holds ntrex/")
    if o.quick:
        o.scale, o.repeats = 0.05, 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tqdm.auto.tqdm = partial(tqdm.auto.tqdm, disable=True)  # its variable is read when it is imported
    torch.set_num_threads(o.threads)
    logging.set_verbosity_error()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Amounts().times(o.scale), Path(folder), o.seed)
        for step in o.steps:
            for axis in STEPS[step][1]:
                rows += measure(bench, step, axis, o.repeats)
                timed = "  ".join(
                    f"{row['size']}: {row['seconds']:.2f} s"
                    for row in rows
                    if row["axis"] == axis and row["step"] == step
                )
                print(f"{time.perf_counter() - started:4.0f} s  {step}, {axis}:  {timed}", flush=True)
    record = {
        "what": __doc__.splitlines()[0],
        "options": {name: value for name, value in vars(o).items() if name != "out"},
        "text": "NTREX-128, halves put together anew",
        "amounts": asdict(bench.amounts),
        "seconds_in_all": round(time.perf_counter() - started),
        "rows": rows,
        **provenance(),
    }
    print(scaling_sentence(record))
    if o.out:
        write_json(o.out, record)
        note = f"{scaling_sentence(record)} {scaling_note(record)}"
        write_table(scaling_table(record), o.out.with_suffix(""), record["what"], note)
        save_figure(scaling_figure(record), o.out.with_suffix(".png"))
        print(f"written to {o.out}, and as .csv, .md and .png")


if __name__ == "__main__":
    main()
