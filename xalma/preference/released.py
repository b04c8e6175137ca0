"""Preference pairs that others made: X-ALMA's and ALMA-R's released sets, and files of a user's own.

A hub id, a .jsonl or .parquet file, or a folder of one kind of them, in one of these layouts, told by its columns:

    X-ALMA        source, chosen, reject, directions ("en-de")
    ALMA-R        translation: en, xx, gpt4_xx, alma_xx, {gpt4,alma,ref}_xx_{score}, Delta, required_directions (empty:
                  both). A Delta that is not 0 is a human judgement: positive means GPT-4 is better (the data card said
                  the opposite before its correction); else best and worst of GPT-4, ALMA and the reference by `SCORE`
    own           source, chosen, rejected, src, tgt (language codes)
    own prompts   prompt, chosen, rejected: trained on as they are, whatever their language

Own layouts may name in a column chosen_by the metrics that chose or filtered a pair, as "xcomet-xxl+cometkiwi-xxl", ""
for none; without it they are not known. X-ALMA's were not chosen by one (its references win), ALMA-R's by `SCORE`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets

from xalma.evaluation.interference import UNKNOWN, kindred_of
from xalma.files import file_hash
from xalma.languages import parse_direction
from xalma.preference.pairs import PairRow, PairsReport, best_and_worst, keep_pairs, pair_row
from xalma.prompts import translation_prompt

ALMA_R = "haoranxu/ALMA-R-Preference"
# of that hub id; not seen here, by ALMA's languages
ALMA_R_CONFIGS = "cs-en", "de-en", "is-en", "ru-en", "zh-en"
SCORE, SCORED_BY = "kiwi_xcomet", ("cometkiwi-xxl", "xcomet-xxl")  # of ALMA-R-Preference: CPO's, their mean
LAYOUTS = (
    ("translation",),
    ("source", "chosen", "reject", "directions"),
    ("source", "chosen", "rejected", "src", "tgt"),
    ("prompt", "chosen", "rejected"),
)
_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}

Watch = Callable[[Iterable[Any], str], Iterator[Any]]  # `xalma.data.contamination.Guard.watch`


class Texts(tuple):
    """Source (or prompt), chosen and rejected, as a guard reads them; `row` is what is trained on."""

    row: PairRow


def read_preference(
    path: str | Path,
    *,
    directions: Collection[str] | None = None,
    prompt_style: str = "xalma",
    watch: Watch | None = None,
) -> tuple[list[PairRow], PairsReport]:
    """Returns rows of prompt, chosen, rejected, src, tgt, and counts as `build_pairs`, "other_directions" and
    "chosen_by" (the metrics, sorted) beside them.

    directions: keep only these, of pairs that say theirs.
    watch: what keeps test sentences out; pairs that it leaves out are not among those considered.
    Raises FileNotFoundError where nothing is there, ValueError, naming file and row, for what is not understood.
    """
    others = 0
    reasons = []
    chosen_by = set()

    def wanted() -> Iterator[Texts]:
        nonlocal others
        for number, record in enumerate(_records(path), start=1):
            try:
                pairs = list(_pairs(record, prompt_style))
                chosen_by.update(_chosen_by(record))
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            for pair in pairs:
                if isinstance(pair, str):
                    reasons.append(pair)
                elif (
                    directions is None
                    or not pair.row["tgt"]
                    or f"{pair.row['src']}-{pair.row['tgt']}" in directions
                ):
                    yield pair
                else:
                    others += 1

    watched = watch(wanted(), f"preference pairs of {path}") if watch else wanted()
    rows = [texts.row for texts in watched]
    kept, report = keep_pairs([*rows, *reasons])
    return kept, report | {"other_directions": others, "chosen_by": sorted(chosen_by)}


def preference_fingerprint(path: str | Path) -> dict[str, str] | None:
    """SHA-256 of each file; None for a hub id. Raises as `read_preference`."""
    files = _files(path)
    return None if files is None else {file.name: file_hash(file) for file in files}


def _pairs(record: dict[str, Any], prompt_style: str) -> Iterator[Texts | str]:
    """The pairs of one record, or why there is none. Raises ValueError for a cell that is not what its column says."""
    if "translation" in record:
        yield from _alma_r_pairs(_cell(record, "translation", dict), prompt_style)
        return
    rejected = _cell(record, "reject" if "reject" in record else "rejected")
    chosen = _cell(record, "chosen")
    if "source" not in record:
        prompt = _cell(record, "prompt")
        yield _texts(prompt, pair_row(prompt, chosen, rejected, "", ""))
        return
    named = record["directions"] if "directions" in record else f"{record['src']}-{record['tgt']}"
    src, tgt = parse_direction(str(named))
    yield _asked(_cell(record, "source"), chosen, rejected, src, tgt, prompt_style)


def _chosen_by(record: dict[str, Any]) -> tuple[str, ...]:
    """The metrics that chose the pairs of a record. Raises ValueError for a name that is no metric's."""
    if "translation" in record:
        return () if record["translation"].get("Delta") else SCORED_BY
    if "reject" in record:
        return ()
    if record.get("chosen_by") is None:
        return (UNKNOWN,)
    metrics = tuple(filter(None, _cell(record, "chosen_by").split("+")))
    for metric in metrics:
        kindred_of(metric)
    return metrics


def _alma_r_pairs(texts: dict[str, Any], prompt_style: str) -> Iterator[Texts | str]:
    other = _other_language(texts)
    required = texts.get("required_directions") or ""
    for src, tgt in (("en", other), (other, "en")):
        if required in ("", f"{src}-{tgt}"):
            pair = _triple(texts, tgt)
            yield pair if isinstance(pair, str) else _asked(_cell(texts, src), *pair, src, tgt, prompt_style)


def _triple(texts: dict[str, Any], tgt: str) -> tuple[str, str] | str:
    """Chosen and rejected of one ALMA-R record into `tgt`, as in CPO's released loader."""
    gpt4 = _cell(texts, f"gpt4_{tgt}")
    alma = _cell(texts, f"alma_{tgt}")
    if delta := texts.get("Delta"):
        return (gpt4, alma) if delta > 0 else (alma, gpt4)
    named = {"gpt4": gpt4, "alma": alma, "ref": _cell(texts, tgt)}
    return best_and_worst([(texts.get(f"{name}_{tgt}_{SCORE}"), text) for name, text in named.items()])


def _other_language(texts: dict[str, Any]) -> str:
    """The language of an ALMA-R record besides English, from its columns."""
    names = [name.removeprefix("gpt4_") for name in texts if name.startswith("gpt4_")]
    names = [name for name in names if name != "en" and "_" not in name and texts.get(name)]
    if len(names) != 1:
        raise ValueError(f"no single language beside English in the columns {', '.join(sorted(texts))}")
    return names[0]


def _asked(source: str, chosen: str, rejected: str, src: str, tgt: str, prompt_style: str) -> Texts:
    return _texts(
        source, pair_row(translation_prompt(source, src, tgt, prompt_style), chosen, rejected, src, tgt)
    )


def _texts(source: str, row: PairRow) -> Texts:
    texts = Texts((source, row["chosen"], row["rejected"]))
    texts.row = row
    return texts


def _cell(record: dict[str, Any], name: str, kind: type = str) -> Any:
    value = record.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r}, not {'text' if kind is str else 'a record'}")
    return value


def _records(path: str | Path) -> Iterator[dict[str, Any]]:
    """Records of all files, or of the hub id's "train" splits, each checked to have the columns of a layout."""
    files = _files(path)
    if files is None:
        configs = ALMA_R_CONFIGS if str(path) == ALMA_R else (None,)
        parts = [(str(path), config, None) for config in configs]
    else:
        parts = [(_KINDS[file.suffix], None, str(file)) for file in files]
    for builder, config, file in parts:
        try:
            data = datasets.load_dataset(builder, config, data_files=file, split="train")
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
            raise ValueError(f"{file or path} can't be read as preference pairs: {reason[0]}") from None
        if not any(set(layout) <= set(data.column_names) for layout in LAYOUTS):
            known = "; ".join(", ".join(layout) for layout in LAYOUTS)
            raise ValueError(
                f"{file or path} has the columns {', '.join(data.column_names)}: give one of: {known}"
            )
        yield from data


def _files(path: str | Path) -> list[Path] | None:
    """The files of a local path, None for a hub id. Raises FileNotFoundError, ValueError for other kinds of files."""
    local = Path(path).expanduser()
    if local.exists():
        inside = [local] if local.is_file() else sorted(local.rglob("*"))
        files = [file for file in inside if file.suffix in _KINDS]
        if not files or len({_KINDS[file.suffix] for file in files}) > 1:
            raise ValueError(f"{path}: needs files of one kind, {' or '.join(_KINDS)}")
        return files
    if local.suffix in _KINDS or local.is_absolute() or str(path).count("/") != 1:
        raise FileNotFoundError(f"no preference pairs at {path}: give a file, a folder or a hub id")
    return None
