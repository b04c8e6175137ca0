"""Seconds for BLEU and chrF++ with bootstrap intervals over 98 directions and 7 systems, beside sacreBLEU's own way.

    python benchmarks/scoring_throughput.py --out results/benchmarks/scoring_throughput.json

Seven made-up systems a direction: the references of the direction with words dropped, swapped and doubled, each system
with another share. References are the first 1,012 lines of NTREX-128 (the size of FLORES-200 devtest) where XALMA_DATA
is set, in all 98 directions; else sentences of country names. sacreBLEU's way, on a share of the directions, is one
process that computes each score with `--confidence`'s 1,000 resamples; its time is scaled to 98 directions and given as
such. A second run of ours, with the kept statistics, is timed too.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from xalma.evaluation import score_all
from xalma.files import write_atomically, write_json
from xalma.languages import ENGLISH, LANGUAGES, directions, language
from xalma.runtime import data_root, provenance
from xalma.text_files import read_lines

SYSTEMS, LINES = 7, 1012


def sentences(lang: str) -> list[str]:
    """LINES lines of NTREX, or made-up ones of country names."""
    if root := data_root():
        return read_lines(root / "ntrex" / f"{lang}.txt")[:LINES]
    from babel import Locale

    names = list(Locale.parse(lang).territories.values())
    rng = random.Random(0)
    return [" ".join(rng.choices(names, k=15)) for _ in range(LINES)]


def worsened(line: str, share: float, rng: random.Random) -> str:
    """The line with a share of its words (or characters, where no blanks are written) dropped, doubled or swapped."""
    blank = " " if line.count(" ") > 3 else ""
    words = line.split(" ") if blank else list(line)
    out: list[str] = []
    for word in words:
        throw = rng.random()
        if throw < share / 3:
            continue
        out += [word, word] if throw < share / 2 else [word]
        if throw > 1 - share / 2 and len(out) > 1:
            out[-1], out[-2] = out[-2], out[-1]
    return blank.join(out)


def make(folder: Path, wanted: list[str], seed: int) -> None:
    """folder/set/<direction>/{src,ref}.txt and folder/systems/<system>/<direction>.txt."""
    text = {code: sentences(code) for code in LANGUAGES}
    for direction in wanted:
        src, tgt = direction.split("-")
        for side, code in (("src", src), ("ref", tgt)):
            write_atomically(folder / "set" / direction / f"{side}.txt", "\n".join(text[code]) + "\n")
        for system in range(SYSTEMS):
            rng = random.Random(f"{seed} {direction} {system}")
            lines = [worsened(line, 0.1 + 0.08 * system, rng) for line in text[tgt]]
            write_atomically(
                folder / "systems" / f"system{system}" / f"{direction}.txt", "\n".join(lines) + "\n"
            )


def by_sacrebleu(folder: Path, wanted: list[str]) -> tuple[float, dict[tuple[str, str], float]]:
    """(seconds, BLEU by system and direction) of sacreBLEU's metrics one after another, with intervals."""
    os.environ["SACREBLEU_SEED"] = "12345"
    started = time.perf_counter()
    found = {}
    for direction in wanted:
        references = read_lines(folder / "set" / direction / "ref.txt")
        for system in range(SYSTEMS):
            outputs = read_lines(folder / "systems" / f"system{system}" / f"{direction}.txt")
            for metric in (
                BLEU(tokenize=language(direction.split("-")[1]).sacrebleu_tokenizer),
                CHRF(word_order=2),
            ):
                score = metric.corpus_score(outputs, [references], n_bootstrap=1000)
                if isinstance(metric, BLEU):
                    found[f"system{system}", direction] = score.score
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--directions", type=int, default=98)
    parser.add_argument(
        "--sacrebleu-directions", type=int, default=2, help="share that sacreBLEU's own way is timed on"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    everything = directions([code for code in LANGUAGES if code != ENGLISH])
    step = len(everything) / options.directions
    wanted = [everything[int(i * step)] for i in range(options.directions)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, wanted, options.seed)
        outputs = {
            f"system{i}": {d: folder / "systems" / f"system{i}" / f"{d}.txt" for d in wanted}
            for i in range(SYSTEMS)
        }
        seconds, tables = [], []
        for _ in range(2):  # the second finds the statistics kept
            started = time.perf_counter()
            found = score_all(
                outputs, str(folder / "set"), workers=options.workers, cache=folder / "statistics"
            )
            seconds.append(time.perf_counter() - started)
            tables.append(found.table)
        assert tables[0].equals(tables[1]), "kept statistics must give the same scores"
        some = wanted[:: max(1, len(wanted) // options.sacrebleu_directions)][: options.sacrebleu_directions]
        other, bleu = by_sacrebleu(folder, some)
        ours = tables[0].query("metric == 'bleu'").set_index(["system", "direction"])["value"]
        gap = max(abs(ours[key] - value) for key, value in bleu.items())
    scaled = other * len(wanted) / len(some)
    report = {
        "benchmark": "scoring_throughput",
        "directions": len(wanted),
        "systems": SYSTEMS,
        "segments": LINES,
        "metrics": ["bleu", "chrf++"],
        "resamples": 1000,
        "text": "NTREX-128, worsened" if data_root() else "country names",
        "workers": options.workers,
        "seed": options.seed,
        "seconds": {
            "first": round(seconds[0], 1),
            "statistics kept": round(seconds[1], 1),
            "sacreBLEU, one process, scaled": round(scaled, 1),
        },
        "sacrebleu_timed_on": {"directions": some, "seconds": round(other, 1)},
        "ratio": round(scaled / seconds[0], 2),
        "largest_difference_in_bleu": float(f"{gap:.3g}"),
        "worker_seconds": round(seconds[0] * options.workers, 1),
        "provenance": provenance(),
    }
    print(
        {
            key: report[key]
            for key in ("directions", "workers", "seconds", "ratio", "largest_difference_in_bleu")
        }
    )
    if options.out:
        print(write_json(options.out, report))


if __name__ == "__main__":
    main()
