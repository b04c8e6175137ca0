"""Text into files of tokens: cleaned, tokenised and packed once, by many processes, then memory-mapped by training.

    <folder>/<kind>/<lang>/00000.bin …  blocks of `block_tokens` tokens, uint16 (uint32 for vocabularies above 65,536)
                           index.json   sizes, a SHA-256 of each file, the rules and what they dropped
                           rejected.tsv place and reason of every dropped row

Documents are joined as BOS + text + EOS and cut in blocks, as the released code does, so every token of every block is
real; what is left at the end, less than one block, is dropped and counted. The main process reads rows in order, asks
each row's keys whether it was said before, and writes; checking and tokenising, nearly all the work, is done on chunks
of rows by an engine, in processes here or on a Ray cluster. Chunks come back in order, so the files are the same to the
byte whatever the engine and the number of processes. No more than a few chunks are in memory at a time.

A folder is written aside and renamed. A run that was killed begins its language anew; finished languages are kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from xalma.corpora.base import Corpus, Row
from xalma.corpora.registry import open_corpus
from xalma.data.cleaning import CleaningReport, Rules, Seen, count
from xalma.data.prepare_workers import Chunk, Engine, Job, Prepared, make_job
from xalma.data.test_index import TestIndex
from xalma.data.token_files import TokenFiles
from xalma.files import TO, fingerprint, new_directory, read_json, write_json
from xalma.languages import ENGLISH
from xalma.profiles import Profile
from xalma.progress import progress
from xalma.runtime import home

CHUNK_ROWS, CHUNK_CHARACTERS = 1_000, 500_000  # what a process gets at a time, whichever is reached first
FILE_TOKENS = 2**25  # tokens in a file: 64 MiB as uint16


def write_tokens(
    rows: Iterable[Row],
    folder: str | Path,
    job: Job,
    block_tokens: int,
    engine: Engine,
    *,
    source: str = "",
    limit: int | None = None,
    left_out: str = "",
) -> dict[str, Any]:
    """Writes `folder` whole or not at all, and returns its index.

    rows: (where it stands, text or pair or None) in order; limit: stop at this many tokens; source: their name.
    left_out: hash of the held-out sentences that `job` drops, filed for the stage that trains on the text.
    Raises ValueError when not one block is filled.
    """
    with new_directory(folder, TO) as out, Seen(out / "seen") as seen, engine(job) as mapped:
        report = CleaningReport()
        blocks = _Blocks(out, block_tokens, job.dtype)
        with progress(limit or 0, f"{job.lang}: tokens") as bar, (out / "rejected.tsv").open("w") as rejected:
            for chunk in mapped(_chunks(rows)):
                blocks.add(_new_tokens(chunk, seen, report, rejected))
                bar.update(blocks.tokens - bar.done, f"{report.kept:,} of {report.read:,} rows kept")
                if limit and blocks.tokens >= limit:
                    break
        if not blocks.tokens:
            raise ValueError(
                f"{source or 'the corpus'} fills not one block of {block_tokens} tokens in {job.lang}"
            )
        index = {
            "lang": job.lang,
            "source": source,
            "left_out": left_out,
            "block_tokens": block_tokens,
            "dtype": job.dtype,
            "blocks": blocks.tokens // block_tokens,
            "tokens": blocks.tokens,
            "left_over": len(blocks.rest),
            "limit": limit,
            "tokenizer": fingerprint(job.tokenizer),
            "seed": job.seed,
            "rules": job.rules.described(),
            "rows": report.as_dict(),
            "files": blocks.close(),
        }
        write_json(out / "index.json", index)
        (out / "seen").unlink()
    return index


def _chunks(rows: Iterable[Row]) -> Iterator[Chunk]:
    chunk, size = [], 0
    for number, row in enumerate(rows):
        chunk.append((number, row))
        size += sum(map(len, row[1])) if isinstance(row[1], tuple) else len(row[1] or "")
        if len(chunk) == CHUNK_ROWS or size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _new_tokens(chunk: Prepared, seen: Seen, report: CleaningReport, rejected: IO[str]) -> np.ndarray:
    """The tokens of the chunk's rows that were not said before; every row is counted, dropped ones are filed."""
    kept = 0
    new = np.ones(len(chunk.lengths), bool)
    for place, reason, repaired in chunk.order:
        if reason is None:
            reason = seen.reason(chunk.keys[kept])
            new[kept] = reason is None
            kept += 1
        count(report, reason, repaired)
        if reason is not None:
            rejected.write(f"{place}\t{reason}\n")
    return chunk.ids if new.all() else chunk.ids[np.repeat(new, chunk.lengths)]


class _Blocks:
    """Tokens in, whole blocks out to files of FILE_TOKENS; `rest` is what fills no block yet."""

    def __init__(self, out: Path, block_tokens: int, dtype: str) -> None:
        self.out, self.block_tokens = out, block_tokens
        self.rest = np.zeros(0, dtype)
        self.tokens = 0
        self.files = []
        self.room, self.file, self.digest = 0, None, None

    def add(self, ids: np.ndarray) -> None:
        ids = np.concatenate([self.rest, ids])
        whole = len(ids) - len(ids) % self.block_tokens
        self.rest = ids[whole:].copy()
        ids = ids[:whole]
        self.tokens += whole
        while len(ids):
            if not self.room:
                self._next_file()
            piece, ids = ids[: self.room], ids[self.room :]
            data = piece.tobytes()
            self.file.write(data)
            self.digest.update(data)
            self.files[-1]["tokens"] += len(piece)
            self.room -= len(piece)

    def _next_file(self) -> None:
        self._close_file()
        name = f"{len(self.files):05d}.bin"
        self.file = (self.out / name).open("wb")
        self.digest = hashlib.sha256()
        self.files.append({"name": name, "tokens": 0, "sha256": ""})
        self.room = max(1, FILE_TOKENS // self.block_tokens) * self.block_tokens

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.files[-1]["sha256"] = self.digest.hexdigest()

    def close(self) -> list[dict[str, Any]]:
        """The files' names, tokens and hashes."""
        self._close_file()
        return self.files


def prepare(
    corpus: Corpus,
    folder: str | Path,
    tokenizer,
    languages: Iterable[str],
    kind: str,
    block_tokens: int,
    engine: Engine,
    *,
    rules: Rules | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Index of each language, "monolingual" or "bitext" text of `corpus` under folder/kind/lang; done ones are kept.

    Rows with a sentence that the corpus holds out for dev or test are dropped, whatever `rules` says of test sentences.
    """
    indices = {}
    source = corpus.fingerprint()
    for lang in languages:
        held_out = sorted(corpus.held_out(lang))
        test = TestIndex({f"held out, {lang}": held_out})
        job = make_job(tokenizer, lang, replace(rules or Rules(), test=test), seed)
        out = Path(folder) / kind / lang
        wanted = {
            "source": source,
            "block_tokens": block_tokens,
            "tokenizer": fingerprint(job.tokenizer),
            "seed": seed,
            "limit": limit,
        }
        if (out / "index.json").is_file():
            index = dict(TokenFiles(out).index)
            if wanted.items() <= index.items() and job.rules.made(index):
                indices[lang] = index
                continue
        rows = corpus.rows(kind, lang)
        indices[lang] = write_tokens(
            rows, out, job, block_tokens, engine, source=source, limit=limit, left_out=fingerprint(held_out)
        )
    return indices


def dropped(indices: Mapping[str, Mapping[str, Any]]) -> Counter[str]:
    """Rows dropped in all languages, by reason."""
    return sum((Counter(index["rows"]["dropped"]) for index in indices.values()), Counter())


def prepare_profile(
    p: Profile,
    folder: str | Path,
    kind: str,
    codes: tuple[str, ...],
    engine: Engine,
    limit: int | None,
    workers: int,
) -> None:
    """`xalma prepare`: prints what it will take, then each language's counts. codes: () for all of the profile.

    Raises FileNotFoundError where the profile builds its own base and stage 0 has not run, ValueError for an endless
    corpus without a limit.
    """
    from xalma.base_files import find_base, load_tokenizer
    from xalma.runs import read_run, stage_folder

    if not p.base:
        read_run(stage_folder(p, 0))
    if limit is None and open_corpus(p).endless:
        raise ValueError(
            f"corpus {p.corpus} makes text without end: say how much with --tokens, for example 1e6"
        )
    tokenizer = load_tokenizer(find_base(p.base) if p.base else stage_folder(p, 0))
    codes = codes or ((ENGLISH,) if kind == "monolingual" else ()) + p.languages
    print(
        f"{kind} text of {p.corpus} in {len(codes)} languages -> {folder}: {_cost(limit, len(codes), workers)}"
    )
    for code in codes:
        options = {"seed": p.seed, "limit": limit}
        (index,) = prepare(
            open_corpus(p), folder, tokenizer, (code,), kind, p.block_tokens, engine, **options
        ).values()
        rows = index["rows"]
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in rows["dropped"].items()) or "none"
        print(
            f"{code}: {index['tokens']:,} tokens; {rows['kept']:,} of {rows['read']:,} rows kept; dropped: {reasons}"
        )
    print(f"train on it with --set mixing_blocks={folder}")


def _cost(limit: int | None, n: int, workers: int) -> str:
    """Time and disk for the tokens asked for, at the rate measured for this many processes where there is one."""
    path = home() / "results" / "benchmarks" / "packing_throughput.json"
    runs = read_json(path, "remove it", keys=("runs",))["runs"] if path.is_file() else []
    rates = [
        run["tokens_per_second"] for run in runs if run["processes"] == workers and run["hygiene"] == "full"
    ]
    if not limit:
        return "all of it, so time and disk are not known before"
    disk = f"at most {2 * limit * n / 1e9:.2g} GB on disk, twice that for vocabularies above 65,536"
    time = (
        f"some {limit * n / max(rates) / 60:.2g} minutes at the measured rate"
        if rates
        else "time not measured here"
    )
    return f"{limit:,} tokens each, {time}, {disk}"
