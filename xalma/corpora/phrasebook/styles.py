"""Translations that are right and differ in style: what over-rejection is about (X-ALMA §4).

SFT writes the CLDR's full style ("Sunday, May 6, 1984: 13 kilometers"). The style set asks for the same facts in
another one ("May 6, 1984: 13 km"), so that what SFT writes is rejected though nothing in it is wrong. BLEU against such
references counts style and content together; the content score asks for the facts alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from xalma.corpora.phrasebook.cldr import LENGTHS, Gap, Part, speaker
from xalma.corpora.phrasebook.draws import Draw, say
from xalma.corpora.registry import open_corpus
from xalma.languages import ENGLISH
from xalma.profiles import Profile
from xalma.prompts import translation_prompt

# of the style set's references: the longest in which measures, money and spans are short too
OTHER_STYLE = "medium"


def renderings(draw: Draw, lang: str) -> frozenset[str]:
    """All texts that state the facts of `draw` in `lang`: each of its parts in any of the CLDR's styles."""
    shape, parts = draw
    voice = speaker(lang)
    texts = _in_any_style(parts[0], lang)
    for joiner, part in zip(shape.split("+"), parts[1:], strict=False):
        texts = {voice.join(joiner, first, second) for first in texts for second in _in_any_style(part, lang)}
    return frozenset(texts)


def _in_any_style(part: Part, lang: str) -> set[str]:
    found = set()
    for style in LENGTHS:
        try:
            found.add(speaker(lang, style).say(part))
        except Gap:
            continue
    return found


def style_rows(p: Profile, group: int, split: str, n: int, style: str = OTHER_STYLE) -> list[dict[str, Any]]:
    """`n` sentences per language of a group, both directions, that sound otherwise in `style` in both languages.

    Rows of {"direction", "prompt", "source" (full style), "reference" (`style`), "renderings"}.
    Raises ValueError for a corpus without styles, and where a held-out split has fewer than `n`.
    """
    corpus = open_corpus(p)
    if not hasattr(corpus, "book"):
        raise ValueError(
            f"corpus={p.corpus} has no styles: the style set needs the CLDR phrasebook, corpus=cldr"
        )
    rows = []
    for code in p.languages_of(group):
        found = list(itertools.islice(_two_styles(corpus.book.drawn((ENGLISH, code), split), code, style), n))
        if len(found) < n:
            raise ValueError(
                f"{n} {split} sentences in style {style} asked for in {code}: only {len(found)} exist"
            )
        for draw, full, other in found:
            for i, (src, tgt) in enumerate(((ENGLISH, code), (code, ENGLISH))):
                rows.append(
                    {
                        "direction": f"{src}-{tgt}",
                        "prompt": translation_prompt(full[i], src, tgt, p.prompt_style),
                        "source": full[i],
                        "reference": other[1 - i],
                        "renderings": sorted(renderings(draw, tgt)),
                    }
                )
    return rows


def _two_styles(drawn: Iterator[tuple[Draw, tuple[str, ...]]], code: str, style: str) -> Iterator[tuple]:
    """(draw, its full texts, its texts in `style`) where both languages can say it in `style`, and do so otherwise."""
    for draw, full in drawn:
        try:
            other = tuple(say(draw, lang, style) for lang in (ENGLISH, code))
        except Gap:
            continue
        if all(one != two for one, two in zip(full, other, strict=True)):
            yield draw, full, other


def content_rate(rows: Sequence[dict[str, Any]]) -> float:
    """Share (0-1) of the rows whose "output" is one of their "renderings": right in content, whatever the style."""
    return sum(row["output"] in row["renderings"] for row in rows) / len(rows)
