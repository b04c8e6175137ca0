"""What notebook 00 shows before anything is trained: the gate, the prompt, and the newest module once there is one."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from xalma.corpora.registry import open_corpus
from xalma.languages import ENGLISH, GROUP_NAMES, adapter_name, group_of, language, other_side, parse_direction
from xalma.models.generation import translate
from xalma.profiles import Profile
from xalma.runs import read_run
from xalma.training.ladder import newest_stage
from xalma.training.stages import open_merged


def gate_table(directions: Iterable[str]) -> pd.DataFrame:
    """One row a direction: the side that decides, its group, and its module. Raises as `parse_direction` does."""
    rows = []
    for direction in directions:
        side = other_side(*parse_direction(direction))
        group = group_of(side)
        rows.append({
            "direction": direction, "non-English side": language(side).name,
            "group": f"{group} {GROUP_NAMES[group]}", "module": adapter_name(group),
        })  # fmt: skip
    return pd.DataFrame(rows)


def translations(p: Profile, lang: str, n: int = 3) -> tuple[str, pd.DataFrame]:
    """(a Markdown sentence, rows of source, translation, reference): the newest module on `n` test pairs, both ways.

    Where the language's module is not trained yet there is nothing to fail: the sentence says which notebooks train
    it, and the column of translations is left out.
    """
    pairs = open_corpus(p).test(lang)[:n]
    rows = [(f"en-{lang}", english, other) for english, other in pairs]
    rows += [(f"{lang}-en", other, english) for english, other in pairs]
    table = pd.DataFrame(rows, columns=["direction", "source", "reference"])
    group = group_of(lang)
    try:
        folder = newest_stage(p, group)
    except FileNotFoundError:
        return (
            f"The module of group {group} is not trained yet: notebooks 03 to 07 train it (`make reproduce` runs them "
            f"all). Run this notebook again afterwards, and its translations stand beside the references."
        ), table
    model, tokenizer = open_merged(folder)
    outputs = [
        text
        for src, tgt, texts in ((ENGLISH, lang, [e for e, _ in pairs]), (lang, ENGLISH, [o for _, o in pairs]))
        for text in translate(
            model, tokenizer, texts, src, tgt, prompt_style=p.prompt_style, beams=p.beams,
            max_new_tokens=p.max_new_tokens, batch_size=p.generation_batch,
        )
    ]  # fmt: skip
    table.insert(2, "translation", outputs)
    return f"Translated by the module of group {group} as of stage {read_run(folder)['number']}.", table
