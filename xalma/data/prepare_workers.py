"""Checking and tokenising chunks of rows, by processes of this machine or by a Ray cluster: the same function on both.

An engine takes a job and gives a function from chunks to results, in the order of the chunks, with no more than a few
under way; who works on what is left to `concurrent.futures` and to Ray. Their own ordered maps (`Pool.imap`,
`ActorPool.map`) take in all chunks at once, and with them the corpus.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xalma.corpora.base import Row
from xalma.data.cleaning import PIECE, Rules, check, keys
from xalma.data.token_files import tokenizer_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What a Ray cluster of this machine may keep in shared memory, a few hundred chunks; Ray would take a third of all.
RAY_STORE_BYTES = 2**28
Chunk = list[tuple[int, Row]]  # (number of the row in the stream, row)


@dataclass(frozen=True)
class Job:
    """What a process must know: everything but the rows."""

    tokenizer: str  # a fast tokenizer as JSON
    bos: int
    eos: int
    lang: str
    rules: Rules
    seed: int
    dtype: str


def make_job(tokenizer, lang: str, rules: Rules | None = None, seed: int = 0) -> Job:
    """The job for a transformers tokenizer. Raises ValueError for a slow one."""
    text = tokenizer_json(tokenizer)
    dtype = "uint16" if len(tokenizer) <= 2**16 else "uint32"
    return Job(text, tokenizer.bos_token_id, tokenizer.eos_token_id, lang, rules or Rules(), seed, dtype)


@dataclass(frozen=True)
class Prepared:
    """A chunk, done: of kept rows their places, keys and tokens in a row; of dropped ones their places and reasons."""

    order: list[tuple[str, str | None, bool]]  # (place, reason or None, repaired) of every row of the chunk
    keys: np.ndarray  # (kept, 1 or 1 + BANDS) uint64
    ids: np.ndarray  # (tokens,) of kept rows, BOS and EOS included
    lengths: np.ndarray  # (kept,)


@lru_cache(maxsize=1)
def _tokenizer(text: str):
    from tokenizers import Tokenizer  # without transformers and torch: a process starts in half a second

    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True  # "</s>" in a text is text, as in `xalma.data.literal`
    return tokenizer


def prepare_chunk(job: Job, chunk: Chunk) -> Prepared:
    """Checks and tokenises (number, row)s. A pair becomes one text, either side first with equal chance (stage 3)."""
    order, texts, row_keys = [], [], []
    for number, (place, content) in chunk:
        kept, reason = check(content, job.lang, job.rules)
        order.append((place, reason, kept is not None and kept != content))
        if reason is None:
            row_keys.append(keys(kept, job.rules.near))
            texts.append(_joined(kept, job.seed, number))
    documents = _encoded(_tokenizer(job.tokenizer), texts, job)
    ids = np.concatenate([np.zeros(0, job.dtype), *documents])
    return Prepared(
        order, np.array(row_keys), ids, np.array([len(document) for document in documents], dtype=np.int64)
    )


def _encoded(tokenizer: Tokenizer, texts: list[str], job: Job) -> list[np.ndarray]:
    """BOS, tokens and EOS of each text; what is longer than PIECE goes in pieces that end at a blank."""
    pieces = [_pieces(text) for text in texts]
    parts = [part for one in pieces for part in one]
    batches = [parts[i : i + 1] for i in range(len(parts))] if len(parts) > len(texts) else [parts]
    encode = lambda batch: tokenizer.encode_batch(batch, add_special_tokens=False)  # noqa: E731
    ids = [np.array(one.ids, job.dtype) for batch in batches for one in encode(batch)]
    ends = np.cumsum([len(one) for one in pieces], dtype=int)
    start, end = (np.array([i], job.dtype) for i in (job.bos, job.eos))
    return [
        np.concatenate([start, *ids[to - len(one) : to], end]) for one, to in zip(pieces, ends, strict=True)
    ]


def _pieces(text: str) -> list[str]:
    pieces, start = [], 0
    while len(text) - start > PIECE:
        cut = text.rfind(" ", start + 1, start + PIECE)
        cut = cut if cut > 0 else start + PIECE
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]


def _joined(content: str | tuple[str, str], seed: int, number: int) -> str:
    if isinstance(content, str):
        return content
    # the row's own: no shared stream
    draw = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=1).digest()[0]
    return " ".join(content if draw < 128 else content[::-1])


# --- engines: a function over chunks, results in order, a few chunks ahead ---------------------------


def _in_order(submit: Callable, result: Callable, chunks: Iterable, ahead: int) -> Iterator:
    """Results in the order of the chunks, of which no more than `ahead` are under way."""
    waiting: deque = deque()
    for chunk in chunks:
        waiting.append(submit(chunk))
        if len(waiting) > ahead:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def processes(n: int, job: Job) -> Iterator[Callable[[Iterable], Iterator[Prepared]]]:
    """An engine of n processes of this machine; 1 works in this one."""
    if n <= 1:
        yield lambda chunks: (prepare_chunk(job, chunk) for chunk in chunks)
        return
    # fork would copy the threads of torch and pyarrow half-way
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n, context, initializer=_set_job, initargs=(job,)) as pool:
        yield lambda chunks: _in_order(
            lambda chunk: pool.submit(_prepare_here, chunk), lambda future: future.result(), chunks, 2 * n
        )


@contextmanager
def ray_cluster(job: Job, address: str | None = None) -> Iterator[Callable[[Iterable], Iterator[Prepared]]]:
    """An engine of a Ray cluster's cores: `address` as `ray.init` takes it, None for one on this machine.

    Raises ImportError, saying what to do, where Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("Ray is not installed: pip install 'xalma[cluster]', or leave --ray out") from error
    started = not ray.is_initialized()
    if started:
        here = {} if address else {"include_dashboard": False, "object_store_memory": RAY_STORE_BYTES}
        ray.init(address, log_to_driver=False, **here)
    shared = ray.put(job)
    remote = ray.remote(prepare_chunk)
    cores = int(ray.cluster_resources().get("CPU", 1))
    try:
        yield lambda chunks: _in_order(lambda chunk: remote.remote(shared, chunk), ray.get, chunks, 2 * cores)
    finally:
        if started:
            ray.shutdown()


_JOB: list[Job] = []


def _set_job(job: Job) -> None:
    _JOB[:] = [job]


def _prepare_here(chunk: Chunk) -> Prepared:
    return prepare_chunk(_JOB[0], chunk)


Engine = Callable[[Job], AbstractContextManager[Callable[[Iterable[Chunk]], Iterator[Prepared]]]]
