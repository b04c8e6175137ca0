"""Measuring a corpus: the same sentence in many languages, what it costs in tokens, what a mixing rule makes of it.

X-ALMA does not say how the languages of a group share its tokens (README, "Where we depart"); `mixing_rules` shows
what is at stake. Sizes are measured on the profile's own text, never taken from a corpus that is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import pandas as pd
from transformers import PreTrainedTokenizerBase

from xalma.data import Corpus, Pair, open_corpus
from xalma.languages import ENGLISH, LANGUAGES, language
from xalma.mixing import sampling_probabilities
from xalma.profiles import Profile

# ALMA's stage 1, percent of documents: runs/mono_ft.sh of the released code, and the paper.
ALMA_SHARES: dict[str, float] = {"de": 20, "cs": 14, "is": 8, "zh": 19, "ru": 22, "en": 17}
SENTENCES = 300  # pairs a language that notebooks 01 and 02 measure; our choice (Malagasy has 360 test phrases)


def pairs_by_language(p: Profile, n: int = SENTENCES) -> dict[str, list[Pair]]:
    """The first `n` (or all, if fewer) test pairs of each of the 49 languages, whatever groups are trained.

    Test pairs, because no tokenizer was trained on them; they are measured here, never learned from.
    """
    corpus = open_corpus(p.but(test_pairs=n))
    return {code: corpus.test(code) for code in LANGUAGES if code != ENGLISH}


def multiway(corpus: Corpus, codes: Sequence[str], n: int) -> pd.DataFrame:
    """Up to `n` test sentences that all of `codes` have: a row a language, English first, a column a sentence.

    Sentences are matched by their English side.
    """
    sides = {code: dict(corpus.test(code)) for code in codes}
    common = [english for english in next(iter(sides.values())) if all(english in side for side in sides.values())][:n]
    rows = {ENGLISH: common} | {code: [side[english] for english in common] for code, side in sides.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def text_sizes(
    pairs: Mapping[str, Sequence[Pair]], tokenizer: PreTrainedTokenizerBase, seen: Iterable[str]
) -> pd.DataFrame:
    """One row a language: its sentences, characters, bytes (UTF-8) and tokens a sentence, and tokens next to English.

    `x English`: tokens of the language over tokens of the English side of the same sentences. seen: languages whose
    text the tokenizer was trained on. The BOS and EOS of a document are not counted.
    """
    seen, rows = set(seen), []
    for code, both in pairs.items():
        english, texts = ([pair[side] for pair in both] for side in (0, 1))
        n_english, n_tokens = (
            sum(map(len, tokenizer(side, add_special_tokens=False)["input_ids"])) for side in (english, texts)
        )
        row = language(code)
        rows.append({
            "language": code, "name": row.name, "group": row.group, "script": row.script, "sentences": len(texts),
            "characters": sum(map(len, texts)) / len(texts),
            "bytes": sum(len(text.encode()) for text in texts) / len(texts),
            "tokens": n_tokens / len(texts), "x English": n_tokens / n_english, "in tokenizer": code in seen,
        })  # fmt: skip
    return pd.DataFrame(rows)


def mixing_rules(tokens: Mapping[str, float], documents: int, budget: int) -> pd.DataFrame:
    """What four rules do: tidy rows of language, rule, `documents` and `tokens` (shares, sum 1) and `epochs`.

    tokens: mean tokens a document of each language, BOS and EOS included; documents: how many there are of each;
    budget: tokens in all. The rules give the chance that the *next document* is of a language, as the released code
    does; the share of tokens follows from it and from how long the language's documents are.
    """
    rules = {
        "proportional to tokens": sampling_probabilities(tokens, "temperature", temperature=1.0),
        "temperature 5": sampling_probabilities(tokens, "temperature", temperature=5.0),
        "uniform": sampling_probabilities(tokens, "uniform"),
        "equal tokens": sampling_probabilities({code: 1 / size for code, size in tokens.items()}, "given"),
    }
    rows = []
    for rule, chances in rules.items():
        mean = sum(chance * tokens[code] for code, chance in chances.items())  # tokens a drawn document
        rows += [
            {"language": code, "rule": rule, "documents": chance, "tokens": chance * tokens[code] / mean,
             "epochs": budget / mean * chance / documents}
            for code, chance in chances.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def shares_by_rule(shares: Mapping[str, float], temperatures: Sequence[float] = (2.0, 5.0)) -> pd.DataFrame:
    """Percent of documents a language under: the shares as given, softened by each temperature, and uniform."""
    columns = {"given": sampling_probabilities(shares, "given")}
    for t in temperatures:
        columns[f"temperature {t:g}"] = sampling_probabilities(shares, "temperature", temperature=t)
    columns["uniform"] = sampling_probabilities(shares, "uniform")
    return 100 * pd.DataFrame(columns).rename_axis("language")


def bitext_with_noise(p: Profile, lang: str, n: int) -> pd.DataFrame:
    """The first `n` pairs of stage 3's bitext and whether the profile's `bitext_noise` gave them a wrong target.

    Columns English, other, misaligned (bool). Only noise we added is known; real web bitext has its own.
    """
    noisy, clean = (list(islice(open_corpus(q).bitext(lang), n)) for q in (p, p.but(bitext_noise=0.0)))
    rows = [(english, other, other != right) for (english, other), (_, right) in zip(noisy, clean, strict=True)]
    return pd.DataFrame(rows, columns=["English", "other", "misaligned"])
