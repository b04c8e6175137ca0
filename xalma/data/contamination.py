"""Is a test sentence in the training text? Asked of every row before a stage may learn from it.

Every side of every direction of the test set is looked for on every side of a row, so a leak that crosses directions is
found: the English reference of is-en in a German-English pair (FLORES-200, NTREX and WMT share their English side).
How sentences are compared is in `xalma.data.test_index`. Rows that are near-duplicates are counted and reported; the
other kinds of match stop a run or are dropped.

X-ALMA and ALMA train on test sets of earlier years by design (WMT'15-'22, NTREX, FLORES-200 dev); neither says how
overlaps with what they test on were looked for. This guard is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from xalma.corpora.base import Corpus
from xalma.corpora.registry import open_corpus
from xalma.data.test_index import KINDS, Hit, TestIndex
from xalma.profiles import Profile
from xalma.runtime import data_root

CHUNK = 256  # rows a guard reads ahead; at a thousand and more the arrays fall out of the cache
ACTIONS = ("stop", "drop", "allow")
_PLAINNESS = {kind: place for place, kind in enumerate(KINDS)}


class Guard:
    """Watches rows on their way into training; `counts`: rows seen, and rows with a match of each of KINDS.

    action: "stop" raises at the first match, "drop" leaves matching rows out, "allow" only counts them. Rows that are
    near-duplicates are counted and kept.
    """

    def __init__(self, index: TestIndex, action: str = "stop") -> None:
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r} against test sentences: choose {', '.join(ACTIONS)}")
        self.index = index
        self.action = action
        self.counts = Counter()

    def watch(self, rows: Iterable[Any], where: str) -> Iterator[Any]:
        """The rows (texts, or tuples of texts) that may be trained on, in order; `where` names them in the error.

        Raises ValueError, naming the first match and how many rows of its chunk match, if the action is "stop".
        """
        rows = iter(rows)
        held = []
        hits = {}
        done = 0
        ended = False
        while not ended:
            chunk = list(islice(rows, CHUNK))
            block, ended = held + chunk, len(chunk) < CHUNK
            waiting, hits = hits, self._hits(block) if chunk else {}
            for row, hit in waiting.items():
                _note(hits, row, hit)
            # the last waits: a sentence may go on in the next row
            n = len(block) if ended else len(block) - 1
            leaks = {row: hit for row, hit in hits.items() if row < n and hit.kind != "near"}
            self.counts.update({"rows": n, **Counter(hit.kind for row, hit in hits.items() if row < n)})
            if leaks and self.action == "stop":
                raise ValueError(_stop_message(leaks, done, n, where))
            yield from (row for i, row in enumerate(block[:n]) if i not in leaks or self.action == "allow")
            held, hits = block[n:], {row - n: hit for row, hit in hits.items() if row >= n}
            done += n

    def _hits(self, rows: Sequence[Any]) -> dict[int, Hit]:
        """Row number -> its plainest hit. The first sides of all rows follow one another, then the second sides."""
        rows = [(row,) if isinstance(row, str) else row for row in rows]
        hits: dict[int, Hit] = {}
        for side in range(max(map(len, rows), default=0)):
            numbers = [number for number, row in enumerate(rows) if side < len(row)]
            for hit in self.index.find([rows[number][side] for number in numbers], near=True):
                _note(hits, numbers[hit.text], hit)
        return hits

    def report(self) -> dict[str, Any]:
        """For run.json: what was looked for, and what was found."""
        found = {kind: self.counts[kind] for kind in ("rows", *KINDS)}
        found |= {"empty_sides": self.counts["empty_sides"]} if self.counts["empty_sides"] else {}
        return {"action": self.action, "test_sentences": self.index.n_keys, **found}


def left_out(report: Mapping[str, Any]) -> int:
    """Rows with a leak, of a `Guard.report`; older ones know exact and normalised only."""
    return sum(report.get(kind, 0) for kind in KINDS[:-1])


def _note(hits: dict[int, Hit], row: int, hit: Hit) -> None:
    """Keeps the plainest hit of a row."""
    if row not in hits or _PLAINNESS[hit.kind] < _PLAINNESS[hits[row].kind]:
        hits[row] = hit


def _stop_message(hits: Mapping[int, Hit], done: int, size: int, where: str) -> str:
    row = min(hits)
    side, line = hits[row].places[0]
    what = {"contained": "holds", "split": "holds part of"}.get(hits[row].kind, "is")
    return (
        f"{where}, row {done + row + 1}, {what} a test sentence ({hits[row].kind}: line {line} of {side}), and so do "
        f"{len(hits)} of the {size} rows from row {done + 1} on. Leave them out with --set contamination=drop, or "
        f"train on them all the same with --set contamination=allow"
    )


class GuardedCorpus:
    """A corpus whose training text passes a guard; dev, test and all else are the corpus's own.

    Pairs with an empty side teach to answer nothing: they are left out too, and counted.

    Pickled and copied as its profile alone, and equal ones of a process are one and the same: `datasets` copies what it
    streams from, and counts on a copy would be lost.
    """

    def __init__(self, p: Profile, languages: tuple[str, ...], root: Path | None) -> None:
        self.made_from = (p, languages, root)
        self.corpus = open_corpus(p)
        self.guard = Guard(test_index(self.corpus, languages), p.contamination)

    def __getattr__(self, name: str) -> Any:
        """What is not guarded is the corpus's own."""
        return getattr(self.__dict__["corpus"], name)

    def __reduce__(self) -> tuple:
        return _guarded, self.made_from

    def monolingual(self, lang: str) -> Iterator[str]:
        yield from self.guard.watch(self.corpus.monolingual(lang), f"monolingual text, {lang}")

    def bitext(self, lang: str) -> Iterator[tuple[str, str]]:
        yield from self.guard.watch(self._filled(self.corpus.bitext(lang)), f"bitext, en-{lang}")

    def sft(self, lang: str) -> list[tuple[str, str]]:
        return list(self.guard.watch(self._filled(self.corpus.sft(lang)), f"SFT pairs, en-{lang}"))

    def _filled(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for pair in pairs:
            if all(text.strip() for text in pair):
                yield pair
            else:
                self.guard.counts["empty_sides"] += 1


def guarded_corpus(p: Profile, languages: tuple[str, ...]) -> GuardedCorpus:
    """The profile's corpus behind a guard that knows the test sentences of `languages`, those the stage trains.

    Its counts start at 0. Raises FileNotFoundError as `open_corpus`.
    """
    corpus = _guarded(p, languages, data_root())
    corpus.guard.counts.clear()
    return corpus


def guard_report(p: Profile, languages: tuple[str, ...]) -> dict[str, Any]:
    """What the guard has seen since `guarded_corpus` was called with the same arguments: see `Guard.report`."""
    return _guarded(p, languages, data_root()).guard.report()


@lru_cache(maxsize=8)
def _guarded(p: Profile, languages: tuple[str, ...], root: Path | None) -> GuardedCorpus:
    return GuardedCorpus(p, languages, root)


def test_index(corpus: Corpus, languages: Iterable[str]) -> TestIndex:
    """The index of both sides of the corpus's test pairs in each language."""
    sides = {}
    for code in languages:
        pairs = corpus.tests(code)
        for i, lang in enumerate(("en", code)):
            sides[f"the test set, en-{code}, {lang}"] = [pair[i] for pair in pairs]
    return TestIndex(sides)


test_index.__test__ = False  # no test, whatever pytest thinks of the name
