"""Which of the texts under XALMA_DATA hold test sentences: `xalma contamination` (results/contamination.json, .md).

Nothing is known beforehand of what leaks where. Every side of every test set that is here is looked for in every side
of every training text (`xalma.data.contamination`), and training files of several pairs that share an English side are
listed with its size: a multi-parallel set such as FLORES-200, once inside, shows as one block in all of them, and does
so even where the test set itself is not at hand. Counts only: no sentence is written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.corpora.test_sets import FLORES_LINES, NTREX_LINES, directions_of, load, second_references
from xalma.corpora.wmt import table_pairs
from xalma.data.folding import key
from xalma.data.test_index import KINDS, MIN_LETTERS, TestIndex
from xalma.files import write_json
from xalma.languages import ENGLISH, LANGUAGES, known_languages
from xalma.paper.tables import write_table
from xalma.progress import progress
from xalma.runtime import home, provenance
from xalma.text_files import check_parallel, read_lines

LEAST_SHARED = 200  # English lines that files of several pairs must share to be listed: fewer are quotations
# Multi-parallel sets by their number of lines; a name is a guess from the size, and is given as one.
KNOWN_SIZES = {
    FLORES_LINES["dev"]: "FLORES-200 dev",
    FLORES_LINES["devtest"]: "FLORES-200 devtest",
    sum(FLORES_LINES.values()): "FLORES-200 dev and devtest",
    NTREX_LINES: "newstest2019, of which NTREX is made",
}
LEAK_COLUMNS = ["training text", "language", "lines", "test set", "found", "exact", "contained", "near",
                "other direction", "side", "sentences", "covered"]  # fmt: skip
TESTED = ("wmt22", "wmt23", "wmt24", "wmt24pp", "ntrex", "flores200")  # looked for, where they are here


@dataclass(frozen=True)
class Text:
    """One training text: its lines in each language (aligned or not)."""

    name: str
    sides: Mapping[str, Sequence[str]]


def training_texts(root: Path) -> list[Text]:
    """Every text under XALMA_DATA that some recipe trains or tunes on, NTREX included."""
    texts = [*alma_texts(root), *wmt_texts(root)]
    for part in ("dev", "dev-subset"):
        files = {
            code: root / "flores200" / part / f"{row.flores}.dev" for code, row in known_languages().items()
        }
        if found := {code: read_lines(file) for code, file in files.items() if file.is_file()}:
            texts.append(Text(f"flores200 {part}", found))
    for name, suffix in (("bible", ".tsv.gz"), ("mozilla", ".tsv"), ("udhr", ".tsv"), ("ntrex", ".txt")):
        sides = {code: root / name / f"{code}{suffix}" for code in LANGUAGES}
        if found := {code: _second_column(path) for code, path in sides.items() if path.exists()}:
            texts.append(Text(name, found))
    return texts


def alma_texts(root: Path) -> list[Text]:
    """The training and validation files of ALMA's release, a text a pair and part."""
    texts = []
    for folder in sorted((root / "alma-human").glob("*-en")):
        other = folder.name.removesuffix("-en")
        for part in ("train", "valid"):
            files = [folder / f"{part}.{code}.txt" for code in (other, ENGLISH)]
            if files[0].exists():
                sides = dict(zip((other, ENGLISH), check_parallel(files), strict=True))
                texts.append(Text(f"alma-human/{folder.name} {part}", sides))
    return texts


def wmt_texts(root: Path) -> list[Text]:
    """WMT'15 to '22 as training pairs, a text a language: all years, first references."""
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((root / "wmt").glob("wmt*/*.tsv*")):
        if (code := path.name.partition(".")[0]) in known_languages():
            pairs[code] += table_pairs(path)
    return [
        Text(
            f"wmt15-22/{other}-en", {other: [pair[1] for pair in found], ENGLISH: [pair[0] for pair in found]}
        )
        for other, found in pairs.items()
    ]


def _second_column(path: Path) -> list[str]:
    """The text of a plain file, or what follows the first tab of a table."""
    lines = read_lines(path)
    return lines if path.suffix == ".txt" else [line.partition("\t")[2] for line in lines]


def test_sides(names: Iterable[str] = TESTED) -> dict[str, list[str]]:
    """ "wmt22|en-cs en-ru|en" → sentences: each side of the sets once, under all directions whose side it is."""
    found: dict[tuple, tuple[list[str], list[str]]] = {}
    for name in names:
        for direction in directions_of(name):
            one = load(name, direction)
            src, tgt = direction.split("-")
            seconds = [
                load(name, direction, reference=ref).references for ref in second_references(name, direction)
            ]
            for code, lines in ((src, one.sources), *((tgt, side) for side in (one.references, *seconds))):
                found.setdefault((name, code, hash(tuple(lines))), ([], lines))[0].append(direction)
    sides: dict[str, list[str]] = {}
    for (name, code, _), (names, lines) in found.items():
        label = f"{name}|{' '.join(names)}|{code}"
        sides[f"{label}, second reference" if label in sides else label] = lines
    return sides


test_sides.__test__ = False  # no test, whatever pytest thinks of the name


def leaks(texts: Sequence[Text], sides: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row a training text, language and test set with a match.

    Columns training text, language, lines, test set, found (training lines that are, hold or end a test sentence), of
    those exact and contained (or split over two lines), near (further lines that are nearly one), other direction (of
    those found, the lines that only directions of other languages have), then the side of the test set with most of
    its sentences found: side, sentences (that are long enough), covered.
    """
    index = TestIndex(sides)
    rows = []
    with progress(sum(len(text.sides) for text in texts), "looking for test sentences") as bar:
        for text in texts:
            pair = set(text.sides) if len(text.sides) == 2 else None
            for code, lines in text.sides.items():
                hits = [hit for hit in index.find(lines, near=True) if not _is_itself(text.name, hit.places)]
                rows += _leaks_of(text.name, code, len(lines), hits, pair, index)
                bar.update()
    return pd.DataFrame(rows, columns=LEAK_COLUMNS)


def _is_itself(name: str, places: Iterable[tuple[str, int]]) -> bool:
    """NTREX as training text is made of the lines of NTREX as test set: no leak, but one must not be used as both."""
    return all(side.split("|")[0] == name for side, _ in places)


def _leaks_of(
    name: str, code: str, n_lines: int, hits: list, pair: set[str] | None, index: TestIndex
) -> list[tuple]:
    # set -> line -> (kind, other direction)
    plainest: dict[str, dict[int, tuple[int, bool]]] = defaultdict(dict)
    covered: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for hit in hits:
        directions = defaultdict(list)
        for side, line in hit.places:
            testset, of, _ = side.split("|")
            if testset != name:
                directions[testset] += of.split()
                if hit.kind != "near":
                    covered[testset][side].add(line)
        for testset, names in directions.items():
            crossed = pair is not None and pair not in ({*direction.split("-")} for direction in names)
            this = (KINDS.index(hit.kind), crossed)
            plainest[testset][hit.text] = min(this, plainest[testset].get(hit.text, this))
    rows = []
    for testset, found in plainest.items():
        if not covered[testset]:
            continue  # near-duplicates alone, which a table of leaks need not list
        counts = Counter(KINDS[kind] for kind, _ in found.values())
        crossed = sum(other for kind, other in found.values() if KINDS[kind] != "near")
        side, lines = max(covered[testset].items(), key=lambda item: (len(item[1]), item[0]))
        first, *others = side.split("|")[1].split()
        where = first + (f" and {len(others)} more" if others else "")
        rows.append(
            (
                name,
                code,
                n_lines,
                testset,
                counts.total() - counts["near"],
                counts["exact"],
                counts["contained"] + counts["split"],
                counts["near"],
                crossed,
                f"{where}, {side.split('|')[2]}",
                index.n_long[side],
                len(lines),
            )
        )
    return rows


def shared_blocks(texts: Sequence[Text]) -> pd.DataFrame:
    """English lines that the files of several language pairs share, by which files share them.

    Columns files, shared English lines, in one block (they follow one another in every file, in the same order),
    at the end (and end every file), by its size (what the number of lines alone suggests). Only texts of one pair are
    compared; short sentences count too, for a block is told by its size.
    """
    where: dict[str, dict[str, int]] = defaultdict(dict)  # key -> file -> line, of its last occurrence
    lengths = {}
    for text in (text for text in texts if len(text.sides) == 2 and ENGLISH in text.sides):
        lengths[text.name] = len(text.sides[ENGLISH])
        for number, line in enumerate(text.sides[ENGLISH]):
            if k := key(line):
                where[k][text.name] = number
    groups: dict[tuple[str, ...], list[dict[str, int]]] = defaultdict(list)
    for places in where.values():
        if len(places) > 1:
            groups[tuple(sorted(places))].append(places)
    rows = []
    for files, places in sorted(groups.items(), key=lambda item: (-len(item[0]), -len(item[1]), item[0])):
        if len(places) >= LEAST_SHARED:
            spans = {file: sorted(place[file] for place in places) for file in files}
            ordered = sorted(places, key=lambda place: place[files[0]])
            in_order = all([place[file] for place in ordered] == span for file, span in spans.items())
            # a line said twice counts in the block
            n = max(span[-1] - span[0] + 1 for span in spans.values())
            whole = in_order and all(span[-1] - span[0] + 1 == n for span in spans.values())
            whole = whole and n - len(places) <= len(places) // 20
            at_end = whole and all(span[-1] == lengths[file] - 1 for file, span in spans.items())
            n_block, name = (n, KNOWN_SIZES.get(n, "")) if whole else (0, "")
            rows.append((", ".join(files), len(places), n_block, at_end, name))
    return pd.DataFrame(
        rows, columns=["files", "shared English lines", "in one block", "at the end", "by its size"]
    )


def _is_here(root: Path, name: str) -> bool:
    return (root / name).is_dir() or any((root / "wmt" / name).glob("*/ref.txt"))


def write_report(root: Path) -> dict[str, Any]:
    """Write results/contamination.json, .md and .csv; returns the report. Raises OSError where no text is here."""
    texts = training_texts(root)
    if not texts:
        raise FileNotFoundError(
            f"no training text under {root}: it should hold alma-human/, ntrex/, bible/ or mozilla/"
        )
    sides = test_sides([name for name in TESTED if _is_here(root, name)])
    table = leaks(texts, sides)
    blocks = shared_blocks(texts)
    report = {
        "command": "xalma contamination",
        "shortest_sentence_letters": MIN_LETTERS,
        "training_texts": {
            text.name: {code: len(lines) for code, lines in text.sides.items()} for text in texts
        },
        "test_sets": dict(Counter(side.split("|")[0] for side in sides)),
        "leaks": table.to_dict("records"),
        "shared_blocks": blocks.to_dict("records"),
        "provenance": provenance(),
    }
    folder = home() / "results"
    write_json(folder / "contamination.json", report)
    note = f"Made by `xalma contamination`; sentences of fewer than {MIN_LETTERS} letters are left out; counts only."
    write_table(table, folder / "contamination", "Test sentences in training texts under XALMA_DATA", note)
    write_table(
        blocks,
        folder / "contamination_blocks",
        "English lines that training files of several pairs share",
        note,
    )
    return report | {"table": table, "blocks": blocks}
