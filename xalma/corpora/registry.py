"""The corpora of the two papers and those at hand: one small file a family, all behind one interface (`base.Corpus`).

A corpus is named in a profile: `corpus="ntrex"`, or several joined, `corpus="ntrex+bibles+mozilla"`: then the training
text of all is used, and the first that has held-out pairs gives them. `corpus="papers"` is X-ALMA's own SFT and test
sets with stand-ins for web text. Each family reads what is on disk (XALMA_DATA)
before it asks the hub; nothing is loaded whole but the small sets of sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import islice

from xalma.corpora.base import Corpus, Together
from xalma.corpus_names import FAMILIES, parse_corpus
from xalma.profiles import Profile


def family(name: str) -> type:
    """The class of a family."""
    module, cls = FAMILIES[name]
    return getattr(import_module(f"xalma.corpora.{module}"), cls)


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
