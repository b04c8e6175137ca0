"""From the token ids that `run` wrote to text, scores with intervals, and tables.

`python benchmarks/real.py score` writes results/<profile>: scores/<system>.jsonl as every ladder has them, segments'
statistics in memory only, and tables/. Text of test sets and outputs stays where it was. Intervals resample documents
of FLORES-200 devtest, all directions and systems together, so that a difference of two systems is one of the same
segments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu import BLEU

from real_base.tables import DRAWS, HAND_MEASURED, named, short_segments, write_real_tables
from xalma.evaluation.metrics import (
    bits_per_byte,
    empty_rate,
    length_ratio,
    sacrebleu_metric,
    wrong_language_rate,
)
from xalma.evaluation.records import Record, write_records
from xalma.files import write_atomically, write_json
from xalma.profiles import Profile, load_profile
from xalma.runs import results_folder
from xalma.runtime import data_root


@dataclass
class Piece:
    """What a system said in one direction: outputs, references, nats, and the document of each segment."""

    system: str
    set: str
    direction: str
    form: str
    outputs: list[str]
    sources: list[str]
    references: list[str]
    nats: list[float]
    documents: list[str]

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.system, self.set, self.direction, self.form


def read_lines_of(path: Path) -> list[dict[str, Any]]:
    """JSON lines, of a .gz file's whole members; a member that was cut off is left out."""
    if not path.exists():
        return []
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = _whole_members(data)
    try:
        return [json.loads(line) for line in data.decode().splitlines() if line.endswith("}")]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds a damaged line ({error}): copy it from the run again") from None


def _whole_members(data: bytes) -> bytes:
    import zlib

    found = b""
    while data:
        one = zlib.decompressobj(wbits=31)
        try:
            text = one.decompress(data)
        except zlib.error:
            break
        if not one.eof:
            break
        found, data = found + text, one.unused_data
    return found


def read_pieces(files: Iterable[Path], pack: Path, base: Path) -> list[Piece]:
    """All outputs as text, the parts of a direction joined, each once."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    kept = np.load(pack / "kept.npy", allow_pickle=False)
    found: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for file in files:
        for one in read_lines_of(file):
            key = one["system"], one["set"], one["direction"], one["form"]
            found.setdefault(key, {})[one["start"]] = one
    tests: dict[tuple[str, str], tuple[list[str], list[str], list[str]]] = {}
    pieces = []
    for key, parts in found.items():
        system, name, direction, form = key
        sides = tests.setdefault((name, direction), _test(name, direction))
        index, outputs, nats = [], [], []
        for start in sorted(parts):
            ids = [kept[row].tolist() for row in parts[start]["ids"]]
            outputs += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
            nats += parts[start]["nats"]
            index += range(start, start + len(ids))
        picked = [[side[i] for i in index] for side in sides]
        pieces.append(Piece(system, name, direction, form, outputs, *picked[:2], nats, picked[2]))
    return pieces


def _test(name: str, direction: str) -> tuple[list[str], list[str], list[str]]:
    """(sources, references, documents) of a test set. WMT's documents are not known: each segment is its own."""
    from xalma.corpora.test_sets import load

    one = load({"flores": "flores200"}.get(name, name), direction)
    if name != "flores":
        return one.sources, one.references, [str(i) for i in range(len(one.sources))]
    rows = (data_root() / "flores200" / "metadata_devtest.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return one.sources, one.references, [row.split("\t")[0] for row in rows]


def records_of_piece(piece: Piece, p: Profile) -> list[Record]:
    """Scores of a direction as every score file has them, under system and, where it has two forms, form."""
    stage = named(piece.system, piece.form)
    tgt, rows = piece.direction.split("-")[1], []
    for metric in ("bleu", "chrf++"):
        scorer = sacrebleu_metric(metric, tgt)
        value = scorer.corpus_score(piece.outputs, [piece.references]).score
        rows.append((metric, value, str(scorer.get_signature())))
    bits = bits_per_byte(piece.nats, piece.references)
    rows += [
        ("bits_per_byte", bits, f"nats of the reference's tokens, end not counted|form:{piece.form}"),
        (
            "off_target",
            100 * wrong_language_rate(piece.outputs, tgt),
            "wrong script or language, percent of segments",
        ),
        ("empty", 100 * empty_rate(piece.outputs), "percent of segments"),
        (
            "length_ratio",
            length_ratio(piece.outputs, piece.references),
            "characters, outputs over references",
        ),
    ]
    return [Record(p.name, stage, piece.direction, m, v, len(piece.outputs), s, p.seed) for m, v, s in rows]


class Drawn:
    """Scores of a piece for each draw of documents, the same draws for all pieces of one set and size."""

    def __init__(self, seed: int) -> None:
        self.seed, self.weights = seed, {}

    def counts(self, piece: Piece) -> np.ndarray:
        """(DRAWS + 1, documents) how often each is drawn; row 0: once."""
        names = list(dict.fromkeys(piece.documents))
        key = (piece.set, piece.set if piece.set == "flores" else piece.direction, len(names))
        if key not in self.weights:
            rng = np.random.default_rng(self.seed)
            drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
            self.weights[key] = np.concatenate([np.ones((1, len(names)), int), drawn])
        return self.weights[key]

    def scores(self, piece: Piece, tokenizer: str = "") -> dict[str, np.ndarray]:
        """Metric -> (DRAWS + 1,). tokenizer: BLEU's, if not the target language's."""
        counts = self.counts(piece)
        names = {name: i for i, name in enumerate(dict.fromkeys(piece.documents))}
        owner = np.array([names[name] for name in piece.documents])
        tgt, found = piece.direction.split("-")[1], {}
        for metric in ("bleu", "chrf++"):
            scorer = sacrebleu_metric(metric, tgt, piece.references)
            if metric == "bleu" and tokenizer:
                scorer = BLEU(tokenize=tokenizer, references=[piece.references])
            stats = np.array(scorer._extract_corpus_statistics(piece.outputs, None))
            totals = counts @ _by_owner(stats, owner, len(names))
            found[metric] = np.array([scorer._compute_score_from_stats(row.tolist()).score for row in totals])
        sizes = np.array([len(text.encode()) for text in piece.references])
        both = counts @ _by_owner(np.stack([np.array(piece.nats) / np.log(2), sizes], 1), owner, len(names))
        found["bits_per_byte"] = both[:, 0] / both[:, 1]
        return found


def _by_owner(stats: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    total = np.zeros((n, stats.shape[1]))
    np.add.at(total, owner, stats)
    return total


def score_run(p: Profile, run: Path, pack: Path, base: Path) -> Path:
    """Reads OUT, writes results/<profile>/{scores,tables}; returns that folder."""
    out = results_folder(p)
    pieces = read_pieces(sorted(run.glob("*.jsonl.gz")), pack, base)
    drawn = Drawn(p.seed)
    scores = {}
    by_system = {}
    first = [one for one in pieces if one.set == "flores"]
    least = min((len(one.outputs) for one in first), default=0)
    for piece in pieces:
        name = named(piece.system, piece.form)
        by_system.setdefault((piece.set, name), []).extend(records_of_piece(piece, p))
        scores[name, piece.set, piece.direction] = drawn.scores(
            _cut(piece, least) if piece.set == "flores" else piece
        )
        if piece.set == "flores" and len(piece.outputs) > least:
            scores[name, "whole", piece.direction] = drawn.scores(piece)
        if (name, piece.set) == ("base", "flores") and piece.direction in HAND_MEASURED:
            by_hand = "char" if piece.direction == "en-ja" else ""  # what it was measured by
            scores[name, "short", piece.direction] = drawn.scores(_short(piece), by_hand)
    for (set_, name), records in by_system.items():
        write_records(
            out / "scores" / (set_ if set_ != "flores" else "") / f"{name.replace(' ', '-')}.jsonl", records
        )
    write_real_tables(out / "tables", scores, p, pieces, least)
    _write_log(out, run)
    return out


def _cut(piece: Piece, n: int) -> Piece:
    return Piece(
        *piece.key,
        *(x[:n] for x in (piece.outputs, piece.sources, piece.references, piece.nats, piece.documents)),
    )


def _short(piece: Piece) -> Piece:
    """The sentences of `short_segments`, each a document of its own."""
    index = short_segments(piece.direction, piece.sources, piece.references)
    parts = ([x[i] for i in index] for x in (piece.outputs, piece.sources, piece.references, piece.nats))
    return Piece(piece.system, "short", piece.direction, piece.form, *parts, [str(i) for i in index])


def _write_log(out: Path, run: Path) -> None:
    """run.json and the log without anything that names a place."""
    lines = [line for line in read_lines_of(run / "log.jsonl")]
    for line in lines:
        line.pop("trace", None)
        line.pop("pid", None)
    write_atomically(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    runs = [line for line in lines if line["event"] == "run"]
    if runs:
        write_json(out / "run.json", {"runs": runs})  # one more each time it went on


def score_command(argv: Sequence[str]) -> int:
    """`pack` and `score` of benchmarks/real.py. Exit code 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python benchmarks/real.py", description="Texts in, scores out.")
    parser.add_argument("what", choices=("pack", "score"))
    parser.add_argument("--profile", default="real")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--base", type=Path, required=True, help="the base's folder, with its tokenizer")
    parser.add_argument("--gguf", type=Path, help="the file it was converted from")
    parser.add_argument(
        "--vocabulary", type=int, default=0, help="pack: most tokens to keep; default: all in use"
    )
    parser.add_argument("--to", type=Path, help="pack: the folder to write")
    parser.add_argument("--pack", type=Path, help="score: the pack that was run")
    parser.add_argument("--run", type=Path, help="score: the folder that `run` wrote")
    a = parser.parse_args(argv)
    try:
        p = load_profile(a.profile, **dict(pair.split("=", 1) for pair in a.set))
        if a.what == "pack":
            from real_base.pack import pack

            index = pack(p, a.base, a.to, a.gguf, a.vocabulary)
            code, ratio = max(index["token_ratio"].items(), key=lambda one: one[1])
            print(
                f"{a.to}: {index['vocabulary']} of {index['of']} tokens, {sum(index['tokens'].values()):,} ids; "
                f"test sentences have at most {ratio:g} times as many tokens as in the whole base ({code})"
            )
        else:
            print(score_run(p, a.run, a.pack, a.base))
    except (ValueError, OSError) as error:
        print(f"xalma: {error}", file=sys.stderr)
        return 2
    return 0
