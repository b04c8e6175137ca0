"""Segments per second of xalma's COMET scoring against unbabel-comet's own `predict`.

    python benchmarks/comet_throughput.py --out results/benchmarks/comet_throughput.json

One system over several directions. Two test sets: NTREX, English from and into each language, where
the reference of one direction is the source of the other, as in FLORES-200 (outputs: references with
words dropped and exchanged, as no system's are at hand); and WMT'22 from English, outputs of
ALMA-13B-LoRA, where four directions share their sources and nothing else. Models: COMET-22's and XCOMET's
architecture with random weights, whose speed is that of real ones of that size. Both sides score the
same samples with the same weights, in turns, in this process; loading is not timed. Without XALMA_DATA
the sentences are made-up words.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from random_comet import write_checkpoint, write_encoder

from xalma.evaluation import Scorer, load_model
from xalma.files import write_json
from xalma.runtime import data_root, device, provenance

LANGUAGES = ("de", "ru", "cs", "zh")
SIDES = ("src", "mt", "ref")
# name: kind of checkpoint, layers, width, heads, arguments
MODELS: dict[str, tuple[str, int, int, int, dict[str, Any]]] = {
    "COMET-22, 6 x 384": ("regression_metric", 6, 384, 6, {"hidden_sizes": [1152, 384]}),
    "XCOMET, 4 x 256": ("xcomet_metric", 4, 256, 4, {"hidden_sizes": [256, 128], "word_layer": 4}),
    "COMET-22, full size (24 x 1024)": ("regression_metric", 24, 1024, 16, {"hidden_sizes": [3072, 1024]}),
}


def damaged(text: str, rng: random.Random) -> str:
    """A stand-in for a translation: about a tenth of the words dropped, a tenth exchanged with their neighbour."""
    words = text.split() if " " in text else list(text)
    kept = [word for word in words if rng.random() > 0.1] or words
    for i in range(len(kept) - 1):
        if rng.random() < 0.1:
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
    return (" " if " " in text else "").join(kept)


def both_ways(lines: dict[str, list[str]], seed: int) -> list[dict[str, str]]:
    """Samples of en-xx and xx-en for each language of parallel `lines`."""
    rng = random.Random(seed)
    samples = []
    for code in lines.keys() - {"en"}:
        for src, tgt in (("en", code), (code, "en")):
            pairs = zip(lines[src], lines[tgt], strict=True)
            samples += [{"src": s, "mt": damaged(r, rng), "ref": r} for s, r in pairs]
    return samples


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def test_sets(n: int, seed: int) -> dict[str, list[dict[str, str]]]:
    """Samples by test set, `n` lines a direction."""
    root = data_root()
    if root is None:
        rng = random.Random(seed)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
        sentence = lambda: " ".join(rng.choices(words, k=max(1, round(rng.lognormvariate(2.9, 0.58)))))  # noqa: E731
        return {
            "made-up words, both ways": both_ways(
                {c: [sentence() for _ in range(n)] for c in ("en", *LANGUAGES)}, seed
            )
        }
    lines = {code: read(root / "ntrex" / f"{code}.txt")[:n] for code in ("en", *LANGUAGES)}
    shared_source: list[dict[str, str]] = []
    chosen: set[str] = set()  # the four directions have the same sources, each in an order of its own
    for code in LANGUAGES:
        folder = root / "wmt" / "wmt22" / f"en-{code}"
        columns = [read(folder / name) for name in ("src.txt", "systems/ALMA-13B-LoRA.txt", "ref.txt")]
        chosen = chosen or set(list(dict.fromkeys(columns[0]))[:n])
        rows = zip(*columns, strict=True)
        shared_source += [dict(zip(SIDES, row, strict=True)) for row in rows if row[0] in chosen]
    return {"NTREX, both ways": both_ways(lines, seed), "WMT'22 from English": shared_source}


def timed(model: Any, run: Callable[[], Sequence[float]]) -> tuple[list[float], dict[str, float]]:
    """Scores, and seconds with the sequences and padded tokens that went through the encoder."""
    seen = {"sequences": 0, "tokens": 0}

    def count(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = arguments[0] if arguments else named["input_ids"]
        seen["sequences"], seen["tokens"] = seen["sequences"] + ids.shape[0], seen["tokens"] + ids.numel()

    hook = model.encoder.register_forward_pre_hook(count, with_kwargs=True)
    start = time.perf_counter()
    scores = list(run())
    seconds = time.perf_counter() - start
    hook.remove()
    return scores, {"seconds": seconds, **seen}


def compare(name: str, samples: list[dict[str, str]], repeats: int, vocab: int, seed: int) -> dict[str, Any]:
    """Both sides on the same samples, taking turns: medians, speed-up and the largest difference of a score."""
    kind, layers, width, heads, values = MODELS[name]
    texts = list(dict.fromkeys(sample[side] for sample in samples for side in SIDES))
    with tempfile.TemporaryDirectory() as folder:
        size = {"vocab": vocab, "hidden": width, "layers": layers, "heads": heads, "spread": 0.05}
        encoder = write_encoder(Path(folder) / "encoder", texts, **size, xl=kind == "xcomet_metric")
        model = load_model(write_checkpoint(Path(folder) / "model", kind, encoder, seed, **values))
    gpus = int(device() == "cuda")
    scorer = Scorer(model, device())
    sides: dict[str, Callable[[], Sequence[float]]] = {
        "library": lambda: model.predict(samples, batch_size=16, gpus=gpus, progress_bar=False).scores,
        "xalma": lambda: scorer.score(samples).tolist(),
    }
    scorer.score(samples[:8])
    model.predict(samples[:8], batch_size=8, gpus=gpus, progress_bar=False)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    found = {}
    for _ in range(repeats):
        for side, run in sides.items():
            found[side], measured = timed(model, run)
            runs[side].append(measured)
    seconds = {side: statistics.median(run["seconds"] for run in measured) for side, measured in runs.items()}
    return {
        "samples": len(samples),
        "parameters": sum(p.numel() for p in model.parameters()),
        "segments_per_s": {side: len(samples) / s for side, s in seconds.items()},
        "speedup": seconds["library"] / seconds["xalma"],
        "sequences_ratio": runs["library"][0]["sequences"] / runs["xalma"][0]["sequences"],
        "padded_tokens_ratio": runs["library"][0]["tokens"] / runs["xalma"][0]["tokens"],
        "largest_difference": max(abs(a - b) for a, b in zip(found["library"], found["xalma"], strict=True)),
        "spread": statistics.pstdev(found["library"]),
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    parser.add_argument("--lines", type=int, default=100, help="of each direction (default 100)")
    parser.add_argument(
        "--full-lines", type=int, default=16, help="the same for the full-size model; 0 leaves it out"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "comet"):
        logging.getLogger(name).setLevel(logging.ERROR)
    results: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        full = "full size" in name
        lines, repeats = (options.full_lines, 1) if full else (options.lines, options.repeats)
        if not lines:
            continue
        for data, samples in test_sets(lines, options.seed).items():
            if full and "WMT" in data:
                continue  # minutes on a CPU, and the ratio does not depend on the size
            row = compare(name, samples, repeats, options.vocab, options.seed)
            results.setdefault(name, {})[data] = row
            rates, ratios = row["segments_per_s"], (row["sequences_ratio"], row["padded_tokens_ratio"])
            print(
                f"{name}, {data}: {rates['library']:.1f} -> {rates['xalma']:.1f} segments/s, x{row['speedup']:.2f}"
            )
            print("    fewer sequences x{:.2f}, fewer padded tokens x{:.2f}".format(*ratios), flush=True)
            print(
                f"    scores differ by {row['largest_difference']:.1e} (they spread by {row['spread']:.1e})",
                flush=True,
            )
            if options.out:
                shape = {name: value for name, value in vars(options).items() if name != "out"}
                record = {
                    "what": __doc__.splitlines()[0],
                    "options": shape,
                    "device": device(),
                    "results": results,
                }
                write_json(options.out, record | {"threads": torch.get_num_threads(), **provenance()})


if __name__ == "__main__":
    main()
