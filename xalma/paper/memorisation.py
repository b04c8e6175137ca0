"""Has a system seen a test set? The same sentences with their names swapped, and what that costs it.

A name that stands in source and reference alike is replaced in both by another name of the set. A system that
translates loses little; one that recalls the reference loses its score, and writes names that are no longer asked for.
A drop alone proves nothing, as a swapped sentence may be odd: compare it with that of systems which cannot have seen
the set. Only directions whose sides write names alike (one script) have such names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from sacrebleu.metrics import CHRF

from xalma.corpora.test_sets import TestSet, load
from xalma.evaluation.scoring import read_outputs
from xalma.files import write_atomically

ORIGINAL, SWAPPED = "original", "swapped"
FEWEST_LETTERS = 4  # of a name: shorter ones are often abbreviations
_WORD = re.compile(r"\w+")


def names_of(test: TestSet) -> list[list[str]]:
    """For each segment the names that stand in both sides: capitalised, inside the sentence, never in small letters."""
    sides = [[_WORD.findall(text) for text in texts] for texts in (test.sources, test.references)]
    small = {word for words in sides[0] for text in words for word in text if word.islower()}
    return [
        [
            word
            for word in dict.fromkeys(source[1:])
            if len(word) >= FEWEST_LETTERS
            and word[0].isupper()
            and not word.isupper()
            and word in reference
            and word.lower() not in small
        ]
        for source, reference in zip(*sides, strict=True)
    ]


def swaps(names: Sequence[Sequence[str]]) -> dict[str, str]:
    """Another name of the set for each name. Raises ValueError for fewer than two names."""
    pool = sorted({name for found in names for name in found})
    if len(pool) < 2:
        raise ValueError(
            f"{len(pool)} names stand in both sides: choose a direction whose sides have one script"
        )
    random.Random("names 0").shuffle(pool)
    return dict(zip(pool, [*pool[1:], pool[0]], strict=True))


def swapped(text: str, names: Sequence[str], by: Mapping[str, str]) -> str:
    """The text with each of `names` replaced by its swap."""
    return _WORD.sub(lambda word: by[word[0]] if word[0] in names else word[0], text)


def write_probe(testset: str, direction: str, out: str | Path) -> int:
    """Writes DIR/original and DIR/swapped, test sets of the segments that have names; returns how many there are.

    Raises as `load` and `swaps`.
    """
    test = load(testset, direction)
    names = names_of(test)
    by = swaps(names)
    chosen = [i for i, found in enumerate(names) if found]
    for side, texts in (("src", test.sources), ("ref", test.references)):
        for kind in (ORIGINAL, SWAPPED):
            lines = [texts[i] if kind == ORIGINAL else swapped(texts[i], names[i], by) for i in chosen]
            write_atomically(
                Path(out, kind, direction, f"{side}.txt"), "".join(f"{line}\n" for line in lines)
            )
    return len(chosen)


def probe_table(folder: str | Path, direction: str, outputs: Mapping[str, tuple[Path, Path]]) -> pd.DataFrame:
    """A row per system: chrF of both sets, the drop, and percent of the names asked for, and of the old ones, it wrote.

    outputs: system -> files for DIR/original and DIR/swapped. Raises ValueError for files of another length.
    """
    tests = [load(str(Path(folder, kind)), direction) for kind in (ORIGINAL, SWAPPED)]
    names = names_of(tests[0])
    new = [
        [b for a, b in zip(_WORD.findall(old), _WORD.findall(now), strict=True) if a in mine and a != b]
        for old, now, mine in zip(tests[0].sources, tests[1].sources, names, strict=True)
    ]
    rows = []
    for system, files in outputs.items():
        before, after = (read_outputs(file, test) for file, test in zip(files, tests, strict=True))
        values = [
            CHRF().corpus_score(texts, [test.references]).score
            for texts, test in zip((before, after), tests, strict=True)
        ]
        rows.append(
            {
                "system": system,
                "n": len(names),
                "chrF, original": values[0],
                "chrF, swapped": values[1],
                "drop": values[0] - values[1],
                "names, original %": _written(before, names),
                "names, swapped %": _written(after, new, names),
                "old names, swapped %": _written(after, names, new),
            }
        )
    return pd.DataFrame(rows)


def _written(
    outputs: Sequence[str], names: Sequence[Sequence[str]], but: Sequence[Sequence[str]] | None = None
) -> float:
    """Percent of the names, those in `but` aside, that stand in their outputs."""
    but = but or [()] * len(names)
    found = [
        name in _WORD.findall(text)
        for text, mine, others in zip(outputs, names, but, strict=True)
        for name in mine
        if name not in others
    ]
    return 100 * sum(found) / max(1, len(found))
