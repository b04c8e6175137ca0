"""Measuring a corpus: the same sentence in many languages, what it costs in tokens, what a mixing rule makes of it.

X-ALMA does not say how the languages of a group share its tokens (docs/departures.md); `mixing_rules` shows
what is at stake for equal numbers of sentences, `rules_on_sizes` for the sizes languages really have: measured ones of
the text under XALMA_DATA (results/corpora/sizes.csv), and those OSCAR-2301's documentation lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import pandas as pd
from transformers import PreTrainedTokenizerBase

from xalma.corpora.base import Corpus, Pair
from xalma.corpora.registry import open_corpus
from xalma.data.blocks import mixing_plan
from xalma.data.literal import token_ids
from xalma.data.mixing import sampling_probabilities
from xalma.languages import ENGLISH, GROUP_NAMES, GROUPS, LANGUAGES, language
from xalma.profiles import Profile
from xalma.published import oscar_sizes
from xalma.runtime import REPOSITORY

SIZES = REPOSITORY / "results" / "corpora" / "sizes"

# ALMA's stage 1, percent of documents: runs/mono_ft.sh of the released code, and the paper.
ALMA_SHARES: dict[str, float] = {"de": 20, "cs": 14, "is": 8, "zh": 19, "ru": 22, "en": 17}
# Bytes of UTF-8 text to a token, for every language: an assumption, good to a factor of two. No tokenizer of the papers
# is at hand; byte-level ones trained on much English need two to four, in most scripts and languages.
BYTES_PER_TOKEN = 3.0
UNIMAX_CAP = 4.0  # epochs; Profile's mixing_cap
# pairs a language that notebooks 01 and 02 measure; our choice (Malagasy has 360 test phrases)
_SENTENCES = 300


def pairs_by_language(p: Profile, n: int = _SENTENCES) -> dict[str, list[Pair]]:
    """The first `n` (or all, if fewer) test pairs of each of the 49 languages, whatever groups are trained.

    Test pairs, because no tokenizer was trained on them; they are measured here, never learned from.
    """
    corpus = open_corpus(p.but(test_pairs=n))
    return {code: corpus.test(code) for code in LANGUAGES if code != ENGLISH}


def multiway(corpus: Corpus, codes: Sequence[str], n: int) -> pd.DataFrame:
    """Up to `n` test sentences that all of `codes` have: a row per language, English first, a column per sentence.

    Sentences are matched by their English side.
    """
    sides = {code: dict(corpus.test(code)) for code in codes}
    common = [
        english for english in next(iter(sides.values())) if all(english in side for side in sides.values())
    ][:n]
    rows = {ENGLISH: common} | {code: [side[english] for english in common] for code, side in sides.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def text_sizes(
    pairs: Mapping[str, Sequence[Pair]], tokenizer: PreTrainedTokenizerBase, seen: Iterable[str]
) -> pd.DataFrame:
    """One row per language: its sentences, characters, bytes (UTF-8) and tokens per sentence, and tokens over English.

    `x English`: tokens of the language over tokens of the English side of the same sentences. seen: languages whose
    text the tokenizer was trained on. The BOS and EOS of a document are not counted.
    """
    seen = set(seen)
    rows = []
    for code, both in pairs.items():
        english, texts = ([pair[side] for pair in both] for side in (0, 1))
        n_english, n_tokens = (sum(map(len, token_ids(tokenizer, side))) for side in (english, texts))
        row = language(code)
        rows.append(
            {
                "language": code,
                "name": row.name,
                "group": row.group,
                "script": row.script,
                "sentences": len(texts),
                "characters": sum(map(len, texts)) / len(texts),
                "bytes": sum(len(text.encode()) for text in texts) / len(texts),
                "tokens": n_tokens / len(texts),
                "x English": n_tokens / n_english,
                "in tokenizer": code in seen,
            }
        )
    return pd.DataFrame(rows)


def mixing_rules(tokens: Mapping[str, float], documents: int, budget: int) -> pd.DataFrame:
    """What four rules do: tidy rows of language, rule, `documents` and `tokens` (shares, sum 1) and `epochs`.

    tokens: mean tokens per document of each language, BOS and EOS included; documents: how many there are of each;
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
            {
                "language": code,
                "rule": rule,
                "documents": chance,
                "tokens": chance * tokens[code] / mean,
                "epochs": budget / mean * chance / documents,
            }
            for code, chance in chances.items()
        ]
    return pd.DataFrame(rows)


def text_at_hand() -> dict[str, float]:
    """Tokens (BYTES_PER_TOKEN) of training text each of the 50 languages has in all measured corpora together.

    Raises FileNotFoundError, saying what makes it, where results/corpora/sizes.csv is not there.
    """
    path = SIZES.with_suffix(".csv")
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: `make cards` measures the text under XALMA_DATA into it")
    measured = pd.read_csv(path, keep_default_na=False).groupby("language")["bytes"].sum()
    return {code: measured[code] / BYTES_PER_TOKEN for code in LANGUAGES}


def oscar_text() -> dict[str, float]:
    """Tokens (BYTES_PER_TOKEN) each of the 50 languages has in OSCAR-2301, the papers' corpus, by its documentation."""
    return dict(zip(oscar_sizes()["code"], oscar_sizes()["bytes"] / BYTES_PER_TOKEN, strict=True))


def group_text() -> pd.DataFrame:
    """One row per group: its languages, those rich in text, and the text it has, in OSCAR-2301 and at hand (tokens)."""
    oscar = oscar_text()
    hand = text_at_hand()
    rows = []
    for group, codes in GROUPS.items():
        rows.append(
            {
                "group": f"{group} {GROUP_NAMES[group]}",
                "languages": len(codes),
                "rich": sum(language(code).resource == "high" for code in codes),
                "OSCAR-2301, B tokens": sum(oscar[code] for code in codes) / 1e9,
                "at hand, M tokens": sum(hand[code] for code in codes) / 1e6,
            }
        )
    return pd.DataFrame(rows)


def rules_on_sizes(sizes: Mapping[str, float], budget: float) -> pd.DataFrame:
    """What six rules make of `budget` tokens: tidy rows of language, rule, `tokens` (share, sum 1) and `epochs`.

    sizes: tokens each language has. ALMA's given shares name six languages and give the others nothing.
    """
    given = {code: share for code, share in ALMA_SHARES.items() if code in sizes}
    rules = {
        "proportional": sampling_probabilities(sizes, "temperature", temperature=1.0),
        "temperature 5": sampling_probabilities(sizes, "temperature", temperature=5.0),
        "uniform": sampling_probabilities(sizes, "uniform"),
        f"UniMax, cap {UNIMAX_CAP:g}": sampling_probabilities(sizes, "unimax", budget=budget, cap=UNIMAX_CAP),
        "equal groups": sampling_probabilities(sizes, "groups", temperature=5.0),
        "given by ALMA": sampling_probabilities(given, "given"),
    }
    rows = []
    for rule, shares in rules.items():
        plan = mixing_plan(sizes, shares, budget).reindex(list(sizes), fill_value=0.0)
        rows.append(
            pd.DataFrame(
                {
                    "language": plan.index,
                    "rule": rule,
                    "tokens": plan["share"].to_numpy(),
                    "epochs": plan["epochs"].to_numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def extremes(rules: pd.DataFrame, n: int = 3) -> pd.DataFrame:
    """One row per rule of `rules_on_sizes`: how many languages are read more than once, the n most and least read."""
    rows = []
    for rule, one in rules[rules["tokens"] > 0].groupby("rule", sort=False):
        order = one.assign(epochs=one["epochs"].round(12)).sort_values(
            "epochs", ascending=False, kind="stable"
        )
        rows.append(
            {
                "rule": rule,
                "languages": len(one),
                "read more than once": int((one["epochs"] > 1).sum()),
                "most read": _first(order, n),
                "least read": _first(order[::-1], n),
            }
        )
    return pd.DataFrame(rows)


def _first(order: pd.DataFrame, n: int) -> str:
    """The first n languages and how often they are read; those read equally often, if they are more, as a number."""
    parts: list[str] = []
    for epochs, same in order.groupby("epochs", sort=False):
        codes = list(same["language"])
        every = "all:" if len(codes) == len(order) else f"{len(codes)} languages:"
        parts.append(f"{every if len(codes) > n else ', '.join(codes)} {_times(epochs)}")
        n -= len(codes)
        if n <= 0:
            break
    return ", ".join(parts)


def _times(epochs: float) -> str:
    return f"{epochs:,.0f}×" if epochs >= 10 else f"{epochs:.2g}×"


def sizes_sentence(sizes: Mapping[str, float], name: str) -> str:
    """One sentence for a notebook: the smallest and largest language of a corpus, and how far apart they are."""
    small = min(sizes, key=sizes.__getitem__)
    large = max(sizes, key=sizes.__getitem__)
    return (
        f"{name}: {language(small).name} has {sizes[small]:,.0f} tokens, {language(large).name} {sizes[large]:,.0f}, "
        f"{sizes[large] / sizes[small]:,.0f} times as many."
    )


def shares_by_rule(shares: Mapping[str, float]) -> pd.DataFrame:
    """Percent of documents per language under: the shares as given, softened by two temperatures, and uniform."""
    columns = {"given": sampling_probabilities(shares, "given")}
    for t in (2.0, 5.0):
        columns[f"temperature {t:g}"] = sampling_probabilities(shares, "temperature", temperature=t)
    columns["uniform"] = sampling_probabilities(shares, "uniform")
    return 100 * pd.DataFrame(columns).rename_axis("language")


def bitext_with_noise(p: Profile, lang: str, n: int) -> pd.DataFrame:
    """The first `n` pairs of stage 3's bitext and whether the profile's `bitext_noise` gave them a wrong target.

    Columns English, other, misaligned (bool). Only noise we added is known; real web bitext has its own.
    """
    noisy, clean = (list(islice(open_corpus(q).bitext(lang), n)) for q in (p, p.but(bitext_noise=0.0)))
    rows = [
        (english, other, other != right) for (english, other), (_, right) in zip(noisy, clean, strict=True)
    ]
    return pd.DataFrame(rows, columns=["English", "other", "misaligned"])
