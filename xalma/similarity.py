"""How alike languages are on paper, measured: shared letter n-grams, and whether X-ALMA's groups follow them.

X-ALMA §3 groups by hand, for likeness inside a group and balance between groups, and gives no measure. Ours is one
of many and sees letters only: two scripts share nothing, so that Kazakh (Cyrillic) and Turkish (Latin) look unrelated.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from xalma.languages import GROUP_NAMES, LANGUAGES, language

FLOOR = 0.01  # similarity below which we speak of no neighbour: some Latin names in a Greek text, no more
ORDER = 3  # letters in an n-gram; our choice: the usual length for telling languages apart


def ngram_counts(texts: Iterable[str], order: int = ORDER) -> Counter[str]:
    """Counts of letter n-grams inside words, each word between two blanks; digits and punctuation end a word.

    Letters are lower-cased, and keep their accents and vowel signs.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        letters = "".join(c if unicodedata.category(c)[0] in "LM" else " " for c in text.lower())
        for word in letters.split():
            padded = f" {word} "
            counts.update(padded[i : i + order] for i in range(len(padded) - order + 1))
    return counts


def similarity_matrix(texts: Mapping[str, Iterable[str]], order: int = ORDER) -> pd.DataFrame:
    """Cosine (0..1) of log(1 + n-gram count) of each two languages, in the order of the language table.

    The logarithm keeps a few words that come back in every sentence ("and", "year") from deciding it all; our choice.
    Raises ValueError for a language whose text has no letters.
    """
    codes = [code for code in LANGUAGES if code in texts]
    counts = [ngram_counts(texts[code], order) for code in codes]
    empty = [code for code, count in zip(codes, counts, strict=True) if not count]
    if empty:
        raise ValueError(f"no letters in the text of {', '.join(empty)}: pass text of every language")
    index = {gram: i for i, gram in enumerate(sorted(set().union(*counts)))}
    vectors = np.zeros((len(codes), len(index)))
    for row, count in zip(vectors, counts, strict=True):
        row[[index[gram] for gram in count]] = list(count.values())
    vectors = np.log1p(vectors)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pd.DataFrame(vectors @ vectors.T, index=codes, columns=codes)


def group_similarity(matrix: pd.DataFrame) -> pd.DataFrame:
    """Mean similarity of each language (row) to the languages of each group (column), itself left out."""
    groups = np.array([language(code).group for code in matrix])
    others = matrix.to_numpy().copy()
    np.fill_diagonal(others, np.nan)
    columns = {group: np.nanmean(others[:, groups == group], axis=1) for group in sorted(set(groups))}
    return pd.DataFrame(columns, index=matrix.index)


def neighbours(matrix: pd.DataFrame) -> pd.DataFrame:
    """One row a language: its group, its nearest other language and that one's group, and the group nearest on average.

    A language less than FLOOR like every other (a script of its own) has neither neighbour nor group: "" and 0.
    """
    others = matrix.to_numpy().copy()
    np.fill_diagonal(others, -1.0)
    to_group, rows = group_similarity(matrix), []
    for code, row in zip(matrix.index, others, strict=True):
        alone, nearest = row.max() < FLOOR, matrix.index[row.argmax()]
        rows.append({
            "language": code, "name": language(code).name, "group": language(code).group,
            "nearest": "" if alone else nearest, "similarity": row.max(),
            "nearest's group": 0 if alone else language(nearest).group,
            "group nearest on average": 0 if alone else int(to_group.loc[code].idxmax()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def group_table(matrix: pd.DataFrame) -> pd.DataFrame:
    """One row a group: languages, scripts, genera, mean similarity within and to the rest, neighbours inside."""
    to_group, near = group_similarity(matrix), neighbours(matrix)
    rows = []
    for group in to_group.columns:
        members = [code for code in matrix if language(code).group == group]
        rest = matrix.loc[members, [code for code in matrix if code not in members]]
        own = near[near["group"] == group]
        rows.append({
            "group": f"{group} {GROUP_NAMES[group]}", "languages": len(members),
            "scripts": len({language(code).script for code in members}),
            "genera": len({language(code).genus for code in members}),
            "within": to_group.loc[members, group].mean(), "to the rest": rest.to_numpy().mean(),
            "nearest inside": int((own["nearest's group"] == group).sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def within_mean(matrix: np.ndarray, groups: np.ndarray) -> float:
    """Mean similarity of two languages of one group, over all such pairs. matrix: (L, L), groups: (L,)."""
    same = (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    return float(matrix[same].mean())


def random_groupings(matrix: pd.DataFrame, n: int = 1000, seed: int = 0) -> np.ndarray:
    """`within_mean` of `n` random groupings with the paper's group sizes, (n,): what chance would give."""
    rng, values = np.random.default_rng(seed), matrix.to_numpy()
    groups = np.array([language(code).group for code in matrix])
    return np.array([within_mean(values, rng.permutation(groups)) for _ in range(n)])


def swapped_groups(matrix: pd.DataFrame) -> dict[str, int]:
    """Language to group after swapping two languages as long as that raises `within_mean`; group sizes stay.

    It starts from the paper's groups and takes the best swap each time: a local optimum, under this measure only.
    """
    values = matrix.to_numpy()
    np.fill_diagonal(values := values.copy(), 0.0)
    groups = np.array([language(code).group for code in matrix])
    while True:
        member = groups[:, None] == np.unique(groups)  # (L, G)
        towards = values @ member  # (L, G) summed similarity of a language to a group
        column = np.searchsorted(np.unique(groups), groups)
        own = towards[np.arange(len(groups)), column]
        moved = towards[:, column]  # (L, L) language i to the group of j
        gain = moved + moved.T - own[:, None] - own - 2 * values  # i and j no longer meet in the other's group
        gain[groups[:, None] == groups] = 0.0
        i, j = np.unravel_index(gain.argmax(), gain.shape)
        if gain[i, j] <= 1e-9:
            return dict(zip(matrix.index, groups.tolist(), strict=True))
        groups[[i, j]] = groups[[j, i]]


def separation_sentence(matrix: pd.DataFrame) -> str:
    """One sentence for a notebook: the groups against chance, and how many nearest neighbours share the group."""
    groups = np.array([language(code).group for code in matrix])
    ours, chance = within_mean(matrix.to_numpy(), groups), random_groupings(matrix)
    beaten, near = int((chance >= ours).sum()), neighbours(matrix)
    inside, alone = int((near["group"] == near["nearest's group"]).sum()), int((near["nearest"] == "").sum())
    return (
        f"Two languages of one group have a mean similarity of **{ours:.3f}**; in {len(chance):,} random groupings of "
        f"the same sizes the mean is {chance.mean():.3f} and the highest {chance.max():.3f} ({beaten} reach the "
        f"paper's groups). **{inside} of {len(near)}** languages have their nearest neighbour in their own group, and "
        f"{alone} have a script so much their own that no neighbour can be seen at all."
    )
