"""Rows per second of CPU through the guard against test sentences, beside a plain Python way to do the same.

    python benchmarks/contamination_throughput.py --out results/benchmarks/contamination_throughput.json

Rows are pairs of sentences: NTREX's, shuffled into sentences that are in no test set, where XALMA_DATA is set; else
country names in six scripts. The index holds both sides of 12 directions, 1,012 sentences each. The plain way folds
each character with unicodedata and looks the result up in a set; the guard must drop all that it drops, and rows that
hold a whole test sentence beside. Half of each row is half a test sentence, so nearly every row is a near-duplicate to
be counted: text without leaks passes faster. A hundred rows of each kind are planted as in
tests/data/test_contamination.py, so that hits are paid for too.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import unicodedata
from pathlib import Path

from xalma.data import Guard, TestIndex
from xalma.files import write_json
from xalma.runtime import data_root, provenance
from xalma.text_files import read_lines

CODES = ("de", "ru", "zh", "hi", "el", "th")


def plain_key(text: str) -> str:
    letters = []
    for char in unicodedata.normalize("NFKD", text.casefold()):
        if unicodedata.category(char)[0] not in "PZSCM":
            letters.append(char)
    return "".join(letters)


def sentences(lang: str) -> list[str]:
    """NTREX's lines, or made-up ones of country names."""
    if root := data_root():
        return read_lines(root / "ntrex" / f"{lang}.txt")
    from babel import Locale

    names = list(Locale.parse(lang).territories.values())
    rng = random.Random(0)
    return [", ".join(rng.choices(names, k=12)) for _ in range(1997)]


def make(n_rows: int, seed: int) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """(test sides, training rows): tests are real lines, training rows two halves of different lines."""
    rng = random.Random(seed)
    text = {code: sentences(code) for code in ("en", *CODES)}
    sides = {
        f"{d} {c}": text[c][:1012]
        for code in CODES
        for d in (f"en-{code}", f"{code}-en")
        for c in ("en", code)
    }
    halves = {
        code: [(line[: len(line) // 2], line[len(line) // 2 :]) for line in lines]
        for code, lines in text.items()
    }
    rows = []
    for i in range(n_rows):
        code = CODES[i % len(CODES)]
        (a, b) = rng.sample(range(1997), 2)
        rows.append(tuple(halves[lang][a][0] + halves[lang][b][1] for lang in ("en", code)))
    for kind in ("exact", "re-cased", "target only"):
        for spot in rng.sample(range(n_rows), 100):
            line = rng.randrange(1012)
            rows[spot] = {
                "exact": (text["en"][line], text["de"][line]),
                "re-cased": (text["en"][line].upper().replace(" ", "  "), rows[spot][1]),
                "target only": (rows[spot][0], text["ru"][line]),
            }[kind]
    return sides, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sides, rows = make(options.rows, options.seed)
    started = time.process_time()
    index = TestIndex(sides)
    built = time.process_time() - started
    seconds: dict[str, list[float]] = {"guard": [], "plain": []}
    for _ in range(options.repeats):
        started = time.process_time()
        kept = list(Guard(index, "drop").watch(rows, "rows"))
        seconds["guard"].append(time.process_time() - started)
        started = time.process_time()
        keys = {plain_key(line) for lines in sides.values() for line in lines}
        built_plain = time.process_time() - started
        by_plain = [row for row in rows if not any(plain_key(text) in keys for text in row)]
        seconds["plain"].append(time.process_time() - started - built_plain)
    rates = {name: options.rows / statistics.median(found) for name, found in seconds.items()}
    report = {
        "benchmark": "contamination_throughput",
        "rows": options.rows,
        "repeats": options.repeats,
        "seed": options.seed,
        "text": "NTREX-128" if data_root() else "country names",
        "test_sentences": sum(map(len, sides.values())),
        "characters_a_row": round(statistics.fmean(len(a) + len(b) for a, b in rows), 1),
        "rows_a_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates["guard"] / rates["plain"], 2),
        "seconds": {name: [round(value, 3) for value in found] for name, found in seconds.items()},
        "index_seconds": round(built, 3),
        "dropped": len(rows) - len(kept),
        "dropped_by_plain": len(rows) - len(by_plain),
        "threads": 1,
        "provenance": provenance(),
    }
    print({key: report[key] for key in ("rows_a_second", "ratio", "dropped", "dropped_by_plain")})
    if options.out:
        print(write_json(options.out, report))


if __name__ == "__main__":
    main()
