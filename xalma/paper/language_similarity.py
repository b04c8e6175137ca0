"""How alike languages are on paper, measured on the same news in each, and whether X-ALMA's groups follow it.

X-ALMA §3 groups by hand, for similarity inside a group and balance between groups, without a measure. Ours are two of
many, shared letter n-grams and what a compressor saves by reading two texts together. Both see letters only: two
scripts share nothing, so that Kazakh (Cyrillic) and Turkish (Latin) look unrelated. They are measured on NTREX-128,
1,997 sentences of news in all 50 languages, and kept in results/corpora/likeness.csv.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from xalma.languages import GROUP_NAMES, LANGUAGES, language
from xalma.runtime import REPOSITORY

LIKENESS = REPOSITORY / "results" / "corpora" / "likeness"
MEASURES = {"trigrams": "cosine of letter trigrams", "compression": "1 - normalised compression distance"}
SENTENCES = 1_997  # of NTREX-128, the same in every language
FLOOR = 0.01  # similarity below which we speak of no neighbour: some Latin names in a Greek text, no more
ORDER = 3  # letters in an n-gram; our choice: the usual length for telling languages apart


def ngram_counts(texts: Iterable[str]) -> Counter[str]:
    """Counts of letter n-grams inside words, each word between two blanks; digits and punctuation end a word.

    Letters are lower-cased, and keep their accents and vowel signs.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        letters = "".join(c if unicodedata.category(c)[0] in "LM" else " " for c in text.lower())
        for word in letters.split():
            padded = f" {word} "
            counts.update(padded[i : i + ORDER] for i in range(len(padded) - ORDER + 1))
    return counts


def similarity_matrix(texts: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Cosine (0..1) of log(1 + n-gram count) of each two languages, in the order of the language table.

    The logarithm keeps a few words that come back in every sentence ("and", "year") from deciding it all; our choice.
    Raises ValueError for a language whose text has no letters.
    """
    codes = [code for code in LANGUAGES if code in texts]
    counts = [ngram_counts(texts[code]) for code in codes]
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


def likeness(measure: str) -> pd.DataFrame:
    """A measure of MEASURES as a matrix, (49, 49), from results/corpora/likeness.csv; 1 on the diagonal.

    Raises FileNotFoundError, saying what makes it, where the file is not there, ValueError for another measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"no measure {measure!r}: choose {' or '.join(MEASURES)}")
    path = LIKENESS.with_suffix(".csv")
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: `make cards` measures it, on NTREX under XALMA_DATA")
    pairs = pd.read_csv(path, keep_default_na=False)
    codes = [code for code in LANGUAGES if code in {*pairs["a"], *pairs["b"]}]
    matrix = pd.DataFrame(1.0, index=codes, columns=codes)
    for a, b, value in pairs[["a", "b", measure]].itertuples(index=False):
        matrix.loc[a, b] = matrix.loc[b, a] = value
    return matrix


def group_similarity(matrix: pd.DataFrame) -> pd.DataFrame:
    """Mean similarity of each language (row) to the languages of each group (column), itself left out."""
    groups = np.array([language(code).group for code in matrix])
    others = matrix.to_numpy().copy()
    np.fill_diagonal(others, np.nan)
    columns = {group: np.nanmean(others[:, groups == group], axis=1) for group in sorted(set(groups))}
    return pd.DataFrame(columns, index=matrix.index)


def neighbours(matrix: pd.DataFrame) -> pd.DataFrame:
    """One row per language: its group, its nearest other language and that one's group, the group nearest on average.

    A language less than FLOOR like every other (a script of its own) has neither neighbour nor group: "" and 0.
    """
    others = matrix.to_numpy().copy()
    np.fill_diagonal(others, -1.0)
    to_group = group_similarity(matrix)
    rows = []
    for code, row in zip(matrix.index, others, strict=True):
        alone, nearest = row.max() < FLOOR, matrix.index[row.argmax()]
        rows.append(
            {
                "language": code,
                "name": language(code).name,
                "group": language(code).group,
                "nearest": "" if alone else nearest,
                "similarity": row.max(),
                "nearest's group": 0 if alone else language(nearest).group,
                "group nearest on average": 0 if alone else int(to_group.loc[code].idxmax()),
            }
        )
    return pd.DataFrame(rows)


def group_table(matrix: pd.DataFrame) -> pd.DataFrame:
    """One row per group: languages, scripts, genera, mean similarity within and to the rest, neighbours inside."""
    to_group = group_similarity(matrix)
    near = neighbours(matrix)
    rows = []
    for group in to_group.columns:
        members = [code for code in matrix if language(code).group == group]
        rest = matrix.loc[members, [code for code in matrix if code not in members]]
        own = near[near["group"] == group]
        rows.append(
            {
                "group": f"{group} {GROUP_NAMES[group]}",
                "languages": len(members),
                "scripts": len({language(code).script for code in members}),
                "genera": len({language(code).genus for code in members}),
                "within": to_group.loc[members, group].mean(),
                "to the rest": rest.to_numpy().mean(),
                "nearest inside": int((own["nearest's group"] == group).sum()),
            }
        )
    return pd.DataFrame(rows)


def within_mean(matrix: np.ndarray, groups: np.ndarray) -> float:
    """Mean similarity of two languages of one group, over all such pairs. matrix: (L, L), groups: (L,)."""
    same = (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    return float(matrix[same].mean())


def random_groupings(matrix: pd.DataFrame, n: int = 1000, seed: int = 0) -> np.ndarray:
    """`within_mean` of `n` random groupings with the paper's group sizes, (n,): what chance would give."""
    rng = np.random.default_rng(seed)
    values = matrix.to_numpy()
    groups = np.array([language(code).group for code in matrix])
    return np.array([within_mean(values, rng.permutation(groups)) for _ in range(n)])


def swapped_groups(matrix: pd.DataFrame) -> dict[str, int]:
    """Language to group after swapping two languages as long as that raises `within_mean`; group sizes stay.

    It starts from the paper's groups and takes the best swap each time: a local optimum, under this measure only.
    """
    groups = np.array([language(code).group for code in matrix])
    return dict(zip(matrix.index, _climbed(matrix.to_numpy(), groups).tolist(), strict=True))


def _climbed(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(L,) groups after the best swap, again and again, as long as `within_mean` rises."""
    values = values.copy()
    np.fill_diagonal(values, 0.0)
    while True:
        best = _swapped(values, groups)
        if within_mean(values, best) <= within_mean(values, groups) + 1e-12:
            return groups
        groups = best


def _swapped(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(L,) groups after the swap of two languages that raises the sum of similarities within groups most."""
    numbers, own = np.unique(groups, return_inverse=True)
    towards = values @ (groups[:, None] == numbers)  # (L, G) summed similarity to each group
    mine = towards[np.arange(len(groups)), own]
    moved = towards[:, own]  # (L, L) language i to the group of j
    gain = moved + moved.T - mine[:, None] - mine - 2 * values  # i and j no longer meet in the other's group
    gain[groups[:, None] == groups] = -np.inf
    i, j = np.unravel_index(gain.argmax(), gain.shape)
    swapped = groups.copy()
    swapped[[i, j]] = groups[[j, i]]
    return swapped


def move_sentence(matrix: pd.DataFrame, code: str, group: int) -> str:
    """One sentence for a notebook: a language's similarity to its group and to another, and what moving it would do."""
    groups = np.array([language(c).group for c in matrix])
    moved = np.where(matrix.index == code, group, groups)
    own, to_group = language(code).group, group_similarity(matrix).loc[code]
    before, after = (within_mean(matrix.to_numpy(), g) for g in (groups, moved))
    sizes = [f"{(g == n).sum()}" for n in (own, group) for g in (groups, moved)]
    return (
        f"{language(code).name} has a mean similarity of **{to_group[own]:.3f}** to the others of its group {own} and "
        f"of **{to_group[group]:.3f}** to group {group}. Moved there, the mean within all groups would go from "
        f"{before:.4f} to {after:.4f}; group {own} would have {sizes[1]} languages instead of {sizes[0]}, and group "
        f"{group} {sizes[3]} instead of {sizes[2]}."
    )


def separation_sentence(matrix: pd.DataFrame) -> str:
    """One sentence for a notebook: the groups against chance, and how many nearest neighbours share the group."""
    groups = np.array([language(code).group for code in matrix])
    ours = within_mean(matrix.to_numpy(), groups)
    chance = random_groupings(matrix)
    beaten = int((chance >= ours).sum())
    near = neighbours(matrix)
    inside = int((near["group"] == near["nearest's group"]).sum())
    alone = int((near["nearest"] == "").sum())
    return (
        f"Two languages of one group have a mean similarity of **{ours:.3f}**; in {len(chance):,} random groupings of "
        f"the same sizes the mean is {chance.mean():.3f} and the highest {chance.max():.3f} ({beaten} reach the "
        f"paper's groups). **{inside} of {len(near)}** languages have their nearest neighbour in their own group, and "
        f"{alone} have a script that no other of these languages has, and so no nearest neighbour."
    )
