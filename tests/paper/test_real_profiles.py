"""The profiles of real text against the text: nothing is read too often, and a module has pairs to learn from."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from xalma.corpora.base import Corpus
from xalma.corpora.registry import open_corpus
from xalma.data.mixing import sampling_probabilities
from xalma.languages import ENGLISH
from xalma.profiles import PROFILES, Profile

pytestmark = pytest.mark.data

CHARACTERS_PER_TOKEN = 3.0  # of a tokenizer trained on the text itself, few of its tokens being whole words


def _epochs(p: Profile, corpus: Corpus, kind: str, codes: Iterable[str], budget: int) -> dict[str, float]:
    """How often each language's text is read: documents are drawn with the profile's chances until the budget is spent.

    Reckoned from the text and the rule alone, without the package's own plan.
    """
    sizes = {}
    for code in codes:
        found = corpus.monolingual(code) if kind == "monolingual" else corpus.bitext(code)
        lengths = [len(content) if isinstance(content, str) else sum(map(len, content)) for content in found]
        sizes[code] = (len(lengths), sum(lengths))
    chances = sampling_probabilities(
        {code: characters for code, (_, characters) in sizes.items()},
        "temperature",
        temperature=p.mixing_temperature,
    )
    mean = sum(chances[code] * characters / n for code, (n, characters) in sizes.items())
    drawn = budget * CHARACTERS_PER_TOKEN / mean  # documents
    return {code: drawn * chances[code] / n for code, (n, _) in sizes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "small-cpu"])
def test_budgets_follow_the_text(name):
    p = PROFILES[name]
    assert p.mixing == "temperature"
    corpus, read = open_corpus(p), {}
    for code, times in _epochs(p, corpus, "monolingual", (ENGLISH, *p.languages), p.stage1_tokens).items():
        read[code] = times
    for group in p.group_numbers:
        codes = (ENGLISH, *p.languages_of(group))
        for code, times in _epochs(p, corpus, "monolingual", codes, p.stage2_tokens).items():
            assert read[code] + times < 12, (code, read[code], times)
        bitext = _epochs(p, corpus, "bitext", p.languages_of(group), p.stage3_tokens)
        assert min(bitext.values()) < 5, bitext  # the languages with a bible
        assert max(bitext.values()) < 30, bitext  # Macedonian has 61 pairs of web copy, Estonian 176


@pytest.mark.parametrize("name", ["small", "small-cpu", "alma-small-cpu"])
def test_every_language_has_pairs_of_every_kind(name):
    p = PROFILES[name]
    corpus = open_corpus(p)
    for code in p.languages:
        assert next(iter(corpus.bitext(code)), None) is not None
        assert len(corpus.sft(code)) > 1000
        assert len(corpus.test(code)) >= min(p.test_pairs, 60)
        assert len(corpus.dev(code)) >= min(p.dev_pairs, 40)


def test_almas_human_pairs_come_before_ntrexs():
    p = PROFILES["alma-small-cpu"]
    ntrex = {english for english, _ in open_corpus(p.but(corpus="ntrex")).sft("de")}
    first = open_corpus(p).sft("de")[:1000]
    assert (
        len({english for english, _ in first} & ntrex) < 300
    )  # ALMA's own WMT'19 has some of NTREX's English
    assert {english for english, _ in open_corpus(p).sft("is")} <= ntrex | {
        english for english, _ in open_corpus(p.but(corpus="ntrex")).sft("is")
    }
