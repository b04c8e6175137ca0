"""Test sets in one form, wherever they come from: FLORES-200, WMT'15 to '24, WMT24++, NTREX-128 (X-ALMA, evaluation).

    data        files under XALMA_DATA: ntrex/<lang>.txt; wmt/<set>/<direction>/{src,ref}.txt; flores200/{dev,devtest}/;
                wmt24pp/<lang>.tsv.gz
    sacrebleu   sacreBLEU's own data sets and folder (SACREBLEU, default ~/.sacrebleu): WMT only, its first reference
    hub         the ids the papers' authors and the WMT and NTREX maintainers document
    a folder    <direction>/src.txt and ref.txt, for a set of one's own

Text is taken as it is, without Unicode normalisation, and the signature says so. Lines are counted against what the
set is known to have. Where the documents are known (docs.txt beside the text, its last column
the document; NTREX; FLORES-200) each segment has its own.

Never scored, of any set: a canary line (line 1 of WMT'24), put there to find models trained on the set. Of WMT24++ the
rows that its makers call bad sources are left out too: 960 of 998 remain. Outputs with a line for each line of the
files are cut in the same way (`scoring.read_outputs`).

A second reference is a file ref<X>.txt, taken by `load(…, reference="refA")`. The first is the one sacreBLEU takes
(refB of WMT'23 Hebrew, data README, warning 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xalma.corpora.base import data_folder
from xalma.languages import (
    ADDED,
    ENGLISH,
    LANGUAGES,
    Language,
    directions,
    known_languages,
    language,
    other_side,
    parse_direction,
)
from xalma.runtime import data_root
from xalma.text_files import check_parallel, read_lines

WMT = tuple(f"wmt{year}" for year in range(15, 25))
WMT24PP = "wmt24pp"
NAMES = ("flores200", *WMT, WMT24PP, "ntrex")
ORIGINS = ("data", "sacrebleu", "hub")
FLORES_LINES = {"dev": 997, "devtest": 1012}
NTREX_LINES = 1997
# Segments of the General Translation task's sets in the directions the papers use (arXiv 2410.03115); en-is and
# is-en of "wmt22" are WMT'21's, as in the ALMA paper.
WMT_LINES = {
    "wmt22": {
        "cs-en": 1448,
        "de-en": 1984,
        "is-en": 1000,
        "ru-en": 2016,
        "zh-en": 1875,
        "en-cs": 2037,
        "en-de": 2037,
        "en-is": 1000,
        "en-ru": 2037,
        "en-zh": 2037,
    },
    "wmt23": {
        "de-en": 549,
        "he-en": 1910,
        "ja-en": 1992,
        "ru-en": 1723,
        "uk-en": 1826,
        "zh-en": 1976,
        "en-de": 557,
        "en-he": 2074,
        "en-ja": 2074,
        "en-ru": 2074,
        "en-uk": 2074,
        "en-zh": 2074,
    },
    "wmt24": {f"en-{code}": 997 for code in ("cs", "de", "es", "hi", "is", "ja", "ru", "uk", "zh")},
}
WMT24PP_LINES = 960
CANARY = "CANARY GUID"
# wmt/wmtNN files a pair once, the other language first; wmt19's test split and later years are not there.
_HUB = {
    "flores200": "haoranxu/FLORES-200",
    "wmt22": "haoranxu/WMT22-Test",
    "wmt23": "haoranxu/WMT23-Test",
    "ntrex": "davidstap/NTREX",
    **{f"wmt{year}": f"wmt/wmt{year}" for year in range(15, 19)},
}


@dataclass(frozen=True)
class TestSet:
    """One direction of a test set: line n of `references` translates line n of `sources`.

    documents: the document of each segment, None where that is not known. n_lines: lines of the set's own files, of
    which `lines` (from 0) are here; the others are never scored.
    """

    __test__ = False  # no test, whatever pytest thinks of the name

    name: str
    direction: str
    sources: list[str]
    references: list[str]
    origin: str
    reference: str = ""
    documents: list[str] | None = None
    lines: Sequence[int] = ()
    n_lines: int = 0

    @property
    def signature(self) -> str:
        """What the text is: set, direction, segments, where from; Unicode is as it was found."""
        second = f"|ref:{self.reference}" if self.reference else ""
        return f"{self.name}|{self.direction}|n:{len(self.sources)}|from:{self.origin}{second}|unicode:as is"

    def scored(self, lines: list[str]) -> list[str]:
        """Of lines that answer all lines of the set's files, those that answer its segments; others as they are."""
        return [lines[i] for i in self.lines] if len(lines) == self.n_lines != len(self.sources) else lines


@dataclass(frozen=True)
class _Read:
    """What a reader gives: all lines of a set's files, and which of them its makers leave out."""

    sources: list[str]
    references: list[str]
    place: str
    documents: list[str] | None = None
    left_out: frozenset[int] = frozenset()


def load(name: str, direction: str, origin: str = "data", reference: str = "") -> TestSet:
    """The test set `name` (of NAMES, or a folder of one's own) in one direction such as "en-de".

    origin: "data", "sacrebleu" or "hub"; reference: "" or the name of a second one that lies beside ref.txt, such as
    "refA".
    Raises ValueError for unknown names, sides of unequal length or a wrong number of lines, and OSError or
    RuntimeError, saying what to do, where the text can't be had.
    """
    src, tgt = parse_direction(direction)
    if reference and not (origin == "data" and (name in WMT or name not in NAMES)):
        raise ValueError(
            f"no reference {reference} of {name} from {origin}: only sets of files have a second one"
        )
    if name not in NAMES:
        read = _from_folder(name, direction, reference)
    elif origin not in ORIGINS:
        raise ValueError(f"unknown origin {origin!r} of {name}: choose {', '.join(ORIGINS)}")
    elif origin == "data":
        read = _from_data(name, src, tgt, reference)
    else:
        read = _Read(*{"sacrebleu": _from_sacrebleu, "hub": _from_hub}[origin](name, src, tgt))
    return _checked(name, direction, read, reference)


def _checked(name: str, direction: str, read: _Read, reference: str) -> TestSet:
    n = len(read.sources)
    if n != len(read.references):
        raise ValueError(
            f"{name} {direction} from {read.place} has {n} sources and {len(read.references)} references: "
            f"line n of one must translate line n of the other"
        )
    kept = [i for i in range(n) if i not in read.left_out and not read.sources[i].startswith(CANARY)]
    expected = {"flores200": FLORES_LINES["devtest"], "ntrex": NTREX_LINES, WMT24PP: WMT24PP_LINES}.get(
        name, WMT_LINES.get(name, {}).get(direction)
    )
    if expected and len(kept) != expected:
        raise ValueError(
            f"{name} {direction} from {read.place} has {len(kept)} lines and should have {expected}: "
            f"the file is cut, or another version of the set"
        )
    sides = [[side[i] for i in kept] for side in (read.sources, read.references)]
    documents = read.documents and [read.documents[i] for i in kept]
    return TestSet(Path(name).name, direction, *sides, read.place, reference, documents, kept, n)


def directions_of(name: str, origin: str = "data") -> list[str]:
    """The English-centric directions of our languages that `load` can give for the set; for the hub, those we know of.

    Raises OSError as `load` does where the text is not here.
    """
    if name not in NAMES:
        return sorted(_folders(Path(name)))
    if name == "ntrex":
        return directions(_codes(lambda row: f"ntrex/{row.code}.txt", origin))
    if name == "flores200":
        if origin == "data":
            data_folder(name, "FLORES-200")  # raises where it is not
        return directions(_codes(lambda row: f"flores200/devtest/{row.flores}.devtest", origin))
    if name == WMT24PP and origin == "data":
        files = sorted((_root(name) / name).glob("*.tsv*"))
        return [pair for file in files if _is_ours(pair := f"{ENGLISH}-{file.name.partition('.')[0]}")]
    if origin == "data":
        return sorted(_folders(_root(name) / "wmt" / name))
    if origin == "hub":
        return sorted(WMT_LINES.get(name, {}))
    from sacrebleu.dataset import DATASETS

    return sorted(pair for pair in DATASETS[name].langpairs if _is_ours(pair)) if name in WMT else []


def second_references(name: str, direction: str) -> list[str]:
    """Names of the references that lie beside the first, for `load`."""
    if not name.startswith("wmt") or name == WMT24PP:
        return []
    return [ref for ref in _references(_folders(_root(name) / "wmt" / name)[direction]) if ref != "ref"]


def _codes(file: Callable[[Language], str], origin: str) -> list[str]:
    """The 50 languages beside English, and added ones that have the file."""
    root = data_root()
    added = [row.code for row in ADDED.values() if origin == "data" and root and (root / file(row)).is_file()]
    return [*(code for code in LANGUAGES if code != ENGLISH), *added]


def _from_data(name: str, src: str, tgt: str, reference: str) -> _Read:
    root = _root(name)
    if name == "ntrex":
        sides = check_parallel([root / "ntrex" / f"{code}.txt" for code in (src, tgt)])
        return _Read(
            *sides, "XALMA_DATA ntrex/", _documents(root / "ntrex" / "DOCUMENT_IDS.tsv", len(sides[0]))
        )
    if name == WMT24PP:
        return _wmt24pp(root / name, src, tgt)
    if name.startswith("wmt"):
        return _from_folder(str(root / "wmt" / name), f"{src}-{tgt}", reference)
    folder = data_folder(name, "FLORES-200")
    sides = check_parallel([folder / "devtest" / f"{language(code).flores}.devtest" for code in (src, tgt)])
    return _Read(*sides, "XALMA_DATA flores200/", _flores_documents(folder, len(sides[0])))


def _wmt24pp(folder: Path, src: str, tgt: str) -> _Read:
    """Rows of source, target (post-edited), document and is_bad_source; English is the source of all."""
    paths = [path for suffix in (".tsv.gz", ".tsv") if (path := folder / f"{tgt}{suffix}").is_file()]
    if src != ENGLISH or not paths:
        raise FileNotFoundError(f"no {src}-{tgt} in {folder}: it has {', '.join(directions_of(WMT24PP))}")
    rows = read_rows(paths[0], ("source", "target", "document", "is_bad_source"))
    bad = frozenset(i for i, row in enumerate(rows) if row[3] == "1")
    sources, references, documents = ([row[i] for row in rows] for i in range(3))
    return _Read(sources, references, f"XALMA_DATA {WMT24PP}/", documents, bad)


def read_rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Cells of each line of a table without a header, packed with gzip or not.

    Raises ValueError, naming the line, where there are not as many cells as columns, and for a cut file.
    """
    rows = [line.split("\t") for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise ValueError(
                f"{path}, line {number}, has {len(row)} columns: they are {', '.join(columns)}, with tabs"
            )
    return rows


def _documents(path: Path, n: int) -> list[str] | None:
    """The document of each line: the last column. None where there is no file. Raises ValueError for another length."""
    if not path.is_file():
        return None
    names = [line.rpartition("\t")[2] for line in read_lines(path)]
    if len(names) != n:
        raise ValueError(
            f"{path} has {len(names)} lines, the segments are {n}: line n names the document of segment n"
        )
    return names


def _flores_documents(folder: Path, n: int) -> list[str] | None:
    """FLORES-200 sentences that follow one another are of one page: its address is the document."""
    path = folder / "metadata_devtest.tsv"
    if not path.is_file():
        return None
    rows = [line.split("\t")[0] for line in read_lines(path)[1:]]
    return rows if len(rows) == n else None


def _from_folder(name: str, direction: str, reference: str = "") -> _Read:
    found = _folders(Path(name))
    if direction not in found:
        raise FileNotFoundError(f"no {direction} in {name}: it has {', '.join(sorted(found))}")
    folder = found[direction]
    if reference and not (folder / f"{reference}.txt").is_file():
        raise FileNotFoundError(f"no {reference}.txt in {folder}: it has {', '.join(_references(folder))}")
    sources, references = check_parallel([folder / f"{side}.txt" for side in ("src", reference or "ref")])
    n = len(sources)
    root = data_root()
    documents = _documents(folder / "docs.txt", n) or _documents(folder.parent / "docs.txt", n)
    inside = root is not None and Path(name).is_relative_to(root)
    place = f"XALMA_DATA {Path(name).relative_to(root)}/" if inside else Path(name).name
    return _Read(sources, references, place, documents)


def _references(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("ref*.txt"))


def _folders(folder: Path) -> dict[str, Path]:
    """Direction -> its folder. Raises FileNotFoundError, naming the sets there are, where none has a reference."""
    found = {path.parent.name: path.parent for path in folder.glob("*/ref.txt") if _is_ours(path.parent.name)}
    if not found and any(folder.glob("*.tsv*")):
        raise FileNotFoundError(
            f"{folder} has training pairs only, no test set: take origin sacrebleu or hub"
        )
    if not found:
        raise FileNotFoundError(
            f"no test set {folder}: name one of {', '.join(NAMES)}, or a folder of <direction>/src.txt and ref.txt"
        )
    return found


def _from_sacrebleu(name: str, src: str, tgt: str) -> tuple[list[str], list[str], str]:
    from sacrebleu.dataset import DATASETS
    from sacrebleu.utils import SACREBLEU_DIR

    direction = f"{src}-{tgt}"
    if name not in WMT or direction not in DATASETS[name].langpairs:
        known = ", ".join(directions_of(name, "sacrebleu")) if name in WMT else "WMT'15 to WMT'24 alone"
        raise ValueError(f"sacreBLEU has no {name} {direction}: it has {known}")
    try:
        source = DATASETS[name].get_source_file(direction)
        reference = DATASETS[name].get_reference_files(direction)[0]
    except (Exception, SystemExit) as error:  # it downloads, and ends the process on a bad checksum
        raise RuntimeError(
            f"sacreBLEU can't give {name} {direction} ({type(error).__name__}: {error}): put its files under "
            f"{SACREBLEU_DIR} (SACREBLEU names another folder), or allow the network once"
        ) from error
    return read_lines(source), read_lines(reference), f"sacrebleu {name}"


def _from_hub(name: str, src: str, tgt: str) -> tuple[list[str], list[str], str]:
    if name not in _HUB:
        raise ValueError(
            f"no hub id is known for {name}: take origin sacrebleu; the hub has {', '.join(_HUB)}"
        )
    path = _HUB[name]
    if name == "ntrex":
        return _ntrex_column(path, src), _ntrex_column(path, tgt), f"hub {path}"
    direction = f"{src}-{tgt}"
    if path.startswith("wmt/"):
        config, column = f"{other_side(src, tgt)}-{ENGLISH}", "translation"
    else:
        config = column = direction
    rows = [row[column] for row in _hub_rows(path, config)]
    return [row[src] for row in rows], [row[tgt] for row in rows], f"hub {path}"


def _ntrex_column(path: str, code: str) -> list[str]:
    row = language(code)
    return [line["text"] for line in _hub_rows(path, f"{row.ntrex.split('-')[0]}_{row.script}")]


def _hub_rows(path: str, config: str) -> list[dict]:
    from datasets import load_dataset

    try:
        return list(load_dataset(path, config, split="test"))
    except Exception as error:  # the hub client has a dozen kinds; the user needs one sentence
        raise RuntimeError(
            f"can't read {path} ({config}, test) from the hub: {type(error).__name__}: {error}. "
            f"Go online or log in with `hf auth login`, or take origin data or sacrebleu"
        ) from error


def _root(name: str) -> Path:
    root = data_root()
    if root is None:
        raise FileNotFoundError(
            f"{name} is not here: set XALMA_DATA to the folder that holds it (docs/data.md)"
        )
    return root


def _is_ours(pair: str) -> bool:
    sides = pair.split("-")
    known = all(code in known_languages() for code in sides)
    return known and len(sides) == 2 and ENGLISH in sides and sides[0] != sides[1]
