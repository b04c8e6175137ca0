"""The corpora behind the stages: opened by the name a profile gives; the families themselves are in `xalma.corpora`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from xalma.corpora import family
from xalma.corpora.base import Corpus, Pair, Together
from xalma.corpus_names import parse_corpus
from xalma.profiles import Profile

__all__ = ["Corpus", "Pair", "mixing_sizes", "open_corpus", "tokenizer_sample"]


def open_corpus(p: Profile) -> Corpus:
    """The corpus the profile names, or several as one. Raises FileNotFoundError for a folder that is not there."""
    parts = [family(name)(p) for name in parse_corpus(p.corpus)]
    return parts[0] if len(parts) == 1 else Together(p, parts)


def tokenizer_sample(corpus: Corpus, languages: tuple[str, ...], n: int) -> Iterator[str]:
    """Up to n documents of each language, for training the small backbone's tokenizer."""
    for lang in languages:
        yield from islice(corpus.monolingual(lang), n)


def mixing_sizes(p: Profile, kind: str, codes: Sequence[str]) -> dict[str, int] | None:
    """Characters of "monolingual" or "bitext" text of each language, for mixing by size.

    None where `mixing` asks for no sizes, or the corpus can't count its text: then all languages count alike.
    """
    if p.mixing not in ("temperature", "groups"):
        return None
    corpus = open_corpus(p)
    sizes = {code: corpus.characters(kind, code) for code in codes}
    return None if None in sizes.values() else sizes
