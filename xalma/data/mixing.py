"""From texts in many languages to blocks of tokens: who is drawn how often, counted to the token.

Languages are drawn document by document with given probabilities, as the released `run_llmmt.py` does with
`datasets.interleave_datasets`; documents are joined as BOS + text + EOS and cut in blocks, the remainder dropped
(X-ALMA's released packing; attention crosses documents inside a block, as there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from datasets import IterableDataset, interleave_datasets

from xalma.languages import language
from xalma.profiles import Profile

ENCODE_DOCUMENTS = 64  # documents tokenised at once: the fast tokenizers gain nothing beyond this


def sampling_probabilities(
    sizes: Mapping[str, float],
    method: str = "uniform",
    *,
    temperature: float = 5.0,
    budget: float | None = None,
    cap: float = 4.0,
) -> dict[str, float]:
    """Probability of each language, summing to 1.

    sizes: amount of text a language has (any unit), or the wanted weights when method is "given".
    method: "uniform"; "temperature" (size ** (1 / temperature), 1 is proportional, large is uniform); "given";
    "unimax" (equal shares of `budget`, in the unit of sizes, but no language more than `cap` times its size: UniMax,
    Chung et al. 2023); "groups" (equal shares to X-ALMA's groups and English, "temperature" inside each).
    Raises ValueError for an unknown method, no languages, sizes that are not positive, or unimax without a budget.
    """
    if not sizes or min(sizes.values()) <= 0:
        raise ValueError(
            f"sizes must name at least one language, each with a positive amount: got {dict(sizes)}"
        )
    if method == "uniform":
        weights = {code: 1.0 for code in sizes}
    elif method == "temperature":
        # relative sizes first: token counts of 10^12 to a small power lose nothing, to a large one would overflow
        largest = max(sizes.values())
        weights = {code: (size / largest) ** (1 / temperature) for code, size in sizes.items()}
    elif method == "given":
        weights = dict(sizes)
    elif method == "unimax":
        weights = _unimax(sizes, budget, cap)
    elif method == "groups":
        weights = _by_group(sizes, temperature)
    else:
        raise ValueError(
            f"unknown mixing method {method!r}: choose uniform, temperature, given, unimax or groups"
        )
    total = sum(weights.values())
    return {code: weight / total for code, weight in weights.items()}


def _unimax(sizes: Mapping[str, float], budget: float | None, cap: float) -> dict[str, float]:
    """Tokens of each language: from the smallest on, an equal share of what is left, or cap * size if that is less."""
    if not budget:
        raise ValueError(
            "mixing method unimax needs a budget, in the unit of the sizes: its caps depend on it"
        )
    left, weights = budget, {}
    for n, code in enumerate(sorted(sizes, key=lambda code: sizes[code])):
        weights[code] = min(left / (len(sizes) - n), cap * sizes[code])
        left -= weights[code]
    return {code: weights[code] for code in sizes}


def _by_group(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    groups: dict[int, dict[str, float]] = {}
    for code, size in sizes.items():
        groups.setdefault(language(code).group, {})[code] = size
    shares = [
        sampling_probabilities(group, "temperature", temperature=temperature) for group in groups.values()
    ]
    weights = {code: share for group in shares for code, share in group.items()}
    return {code: weights[code] for code in sizes}


def parse_shares(text: str) -> dict[str, float]:
    """{"de": 20.0, "cs": 14.0} of "de:20,cs:14". Raises ValueError for another form or an unknown language."""
    shares = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        code, _, value = part.partition(":")
        try:
            shares[language(code.strip()).code] = float(value)
        except ValueError as error:
            raise ValueError(f"bad share {part!r} in {text!r}: write de:20,cs:14,… ({error})") from None
    return shares


def profile_shares(
    p: Profile, codes: Sequence[str], sizes: Mapping[str, float] | None = None, budget: float | None = None
) -> dict[str, float]:
    """Probability of each of `codes` under the profile's `mixing`.

    sizes: text each has, where that is known (`xalma.corpora.registry.mixing_sizes`; tokens, for prepared text);
    else all count alike. budget: tokens in all.
    Raises ValueError for a given share that is missing, or unimax without sizes.
    """
    if p.mixing == "given":
        given = parse_shares(p.mixing_shares)
        if missing := [code for code in codes if code not in given]:
            raise ValueError(
                f"mixing_shares={p.mixing_shares!r} has no share for {', '.join(missing)}: add them"
            )
        sizes = {code: given[code] for code in codes}
    elif sizes is None:
        if p.mixing == "unimax":
            raise ValueError(
                "mixing=unimax caps repeats, so it must know sizes: prepare the text, set mixing_blocks"
            )
        sizes = dict.fromkeys(codes, 1.0)  # the split inside a group is not stated in the paper
    return sampling_probabilities(
        sizes, p.mixing, temperature=p.mixing_temperature, budget=budget, cap=p.mixing_cap
    )


def mixture(
    sources: Mapping[str, Callable[[], Iterable[str]]], probabilities: Mapping[str, float], seed: int
) -> IterableDataset:
    """Endless stream of {"text", "lang"} rows, each row's language drawn with its probability.

    sources: for each language a function that starts its documents anew; a language that runs out starts again. (The
    released code ends its stream when every language has run out once, and its trainer begins another epoch.)
    """
    streams = [
        IterableDataset.from_generator(_labelled, gen_kwargs={"code": code, "source": sources[code]})
        for code in probabilities
    ]
    if len(streams) == 1:
        return streams[0]
    return interleave_datasets(
        streams, probabilities=list(probabilities.values()), seed=seed, stopping_strategy="all_exhausted"
    )


def _labelled(code: str, source: Callable[[], Iterable[str]]) -> Iterator[dict[str, str]]:
    found = True
    while found:
        found = False
        for text in source():
            found = True
            yield {"text": text, "lang": code}
    raise ValueError(f"no text for {code}: join a corpus that has some, or leave the language out")


def pseudo_monolingual(pairs: Iterable[tuple[str, str]], seed: int, per_document: int = 1) -> Iterator[str]:
    """Each bitext pair as one running text, English or the other language first with equal chance.

    X-ALMA pre-training stage 3; one space between the two, as in the released `run_llmmt.py`. per_document: pairs of
    one text, a line each. The papers have one; several show which language comes next.
    """
    rng = np.random.default_rng(seed)
    lines = (f"{english} {other}" if rng.random() < 0.5 else f"{other} {english}" for english, other in pairs)
    while document := list(islice(lines, per_document)):
        yield "\n".join(document)
