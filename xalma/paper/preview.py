"""Translations of a few test sentences, which notebook 00 begins with."""

from __future__ import annotations

import pandas as pd

from xalma.corpora.registry import open_corpus
from xalma.languages import ENGLISH, group_of
from xalma.models.backbone import load_base
from xalma.models.generation import translate
from xalma.paper.differences import compared
from xalma.paper.tables import write_table
from xalma.profiles import Profile
from xalma.prompts import first_line
from xalma.runs import read_run, results_folder
from xalma.training.ladder import few_shot_rows, newest_stage, test_rows
from xalma.training.stage_models import open_merged
from xalma.training.stage_pairs import continued
from xalma.training.stages import stage0_backbone


def translations(p: Profile, lang: str, n: int = 3) -> tuple[str, pd.DataFrame]:
    """(a Markdown sentence, rows of source, translation, reference): `n` test pairs, both ways, translated.

    The newest module of the language's group translates, and the rows are filed as tables/00_translations. On a fresh
    machine those that were filed stand there (the repository has them for profile tiny). Where there are none either,
    the base that the profile starts from continues each source after one example pair; it has not learned to translate.
    """
    group = group_of(lang)
    stem = results_folder(p) / "tables" / "00_translations"
    try:
        folder = newest_stage(p, group)
    except FileNotFoundError:
        return _filed_translations(p, lang, n)
    pairs = open_corpus(p).test(lang)[:n]
    rows = [(f"en-{lang}", english, other) for english, other in pairs]
    rows += [(f"{lang}-en", other, english) for english, other in pairs]
    table = pd.DataFrame(rows, columns=["direction", "source", "reference"])
    model, tokenizer = open_merged(folder)
    outputs = [
        text
        for src, tgt, texts in (
            (ENGLISH, lang, [e for e, _ in pairs]),
            (lang, ENGLISH, [o for _, o in pairs]),
        )
        for text in translate(
            model,
            tokenizer,
            texts,
            src,
            tgt,
            prompt_style=p.prompt_style,
            beams=p.beams,
            max_new_tokens=p.max_new_tokens,
            batch_size=p.generation_batch,
        )
    ]
    table.insert(2, "translation", outputs)
    sentence = f"Translated by the module of group {group} as of stage {read_run(folder)['number']}."
    if p.corpus == "cldr":  # text of other corpora is not ours to file
        write_table(table, stem, sentence)
    return sentence, compared(table, "reference", "translation")


def _filed_translations(p: Profile, lang: str, n: int) -> tuple[str, pd.DataFrame]:
    """What `translations` shows where no module is trained here."""
    group = group_of(lang)
    file = results_folder(p) / "tables" / "00_translations.csv"
    trains = f"The module of group {group} is not trained on this machine yet: notebooks 03 to 07 train it."
    if file.exists():
        caption = file.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].strip("*")
        return (
            f"{trains} These rows are from the run that is filed in the repository. {caption}",
            compared(pd.read_csv(file), "reference", "translation"),
        )
    if p.base != "tiny-base":  # another base may have to be fetched
        return trains, pd.DataFrame(
            [row for row in test_rows(p, group) if lang in row["direction"].split("-")]
        )[["direction", "source", "reference"]].head(2 * n)
    asked = [row for row in few_shot_rows(p, group) if lang in row["direction"].split("-")]
    rows = [
        row for d in (f"en-{lang}", f"{lang}-en") for row in [r for r in asked if r["direction"] == d][:n]
    ]
    model, tokenizer = load_base(stage0_backbone(p))
    texts = continued(p, model, tokenizer, rows)
    table = pd.DataFrame(rows)[["direction", "source", "reference"]]
    table.insert(2, "continuation", [first_line(text) for text in texts])
    return (
        f"{trains} Until then the base continues each source after one example pair; it does not translate yet."
    ), compared(table, "reference", "continuation")
