"""Figures of notebooks 00 to 02: what is drawn is what was measured, in the order and colours of the groups."""

from __future__ import annotations

import re
from itertools import combinations, product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from xalma.languages import GROUPS, LANGUAGES, language
from xalma.paper.figures import corpus, style
from xalma.paper.studies.style import label_of
from xalma.paper.tables import save_figure
from xalma.preference.method_specs import METHODS


def test_eight_colours_told_apart_and_english_grey() -> None:
    assert set(style.GROUP_COLOURS) == {0, *GROUPS} and len(set(style.GROUP_COLOURS.values())) == 9
    assert style.colour_of("ja") == style.GROUP_COLOURS[6] and style.colour_of("en") == style.GROUP_COLOURS[0]


def distance(one: str, other: str) -> float:
    """Euclidean in CIELAB (D65): 2.3 is just noticeable."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    found = []
    for colour in (one, other):
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        xyz = to_xyz @ linear / (0.95047, 1, 1.08883)
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        found.append((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    return float(np.linalg.norm(np.subtract(*found)))


def test_a_colour_means_one_thing() -> None:
    """A group, a direction class, a kind of answer and a method never look alike where a figure may have both."""
    directions, methods = list(style.DIRECTION_COLOURS.values()), list(style.METHOD_COLOURS.values())
    groups, answers = list(style.GROUP_COLOURS.values()), [style.CHOSEN, style.REJECTED]
    assert distance("#FFFFFF", "#000000") == pytest.approx(100, abs=0.01)
    kinds = (groups, directions, methods, [*answers, style.INK, style.HIGHLIGHT])
    together = [
        (methods, directions),
        (answers, groups),
        (answers, directions),
        ([style.HIGHLIGHT], directions),
    ]
    pairs = [pair for kind in kinds for pair in combinations(kind, 2)]
    pairs += [pair for one, other in together for pair in product(one, other)]
    assert not [pair for pair in pairs if distance(*pair) < 20]
    families = {label_of(method).split()[0].split("+")[0] for method in METHODS}
    assert families - set(style.METHOD_COLOURS) == {"GRPO"}  # in tables alone


@pytest.mark.parametrize("file", sorted(Path(style.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_colours_have_one_place(file: Path) -> None:
    """Outside style.py a figure writes greys only, which mean nothing by themselves."""
    written = set(re.findall(r'"#([0-9A-Fa-f]{6})"', file.read_text(encoding="utf-8")))
    assert file.name == "style.py" or all(colour[:2] == colour[2:4] == colour[4:] for colour in written)


def test_by_group_follows_the_table() -> None:
    assert style.by_group(["zh", "en", "tr", "de"]) == ["en", "de", "zh", "tr"]


def test_a_figure_is_closed_so_that_a_notebook_shows_it_once() -> None:
    style.subplots()
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("direction", "group"), [("en-ja", 6), ("fr-en", 4)])
def test_the_idea_lights_one_module(direction: str, group: int) -> None:
    ax = corpus.idea(direction).axes[0]
    boxes = {text.get_text(): patch for text, patch in zip(ax.texts, ax.patches, strict=False)}
    assert f"hard gate\nnon-English side:\ngroup {group}" in boxes
    modules = [p for p in ax.patches if to_hex(p.get_facecolor()) == style.PALE.lower()]
    assert len(modules) == 7
    assert sum("stage" in text.get_text() and "module" in text.get_text() for text in ax.texts) == 4


def test_every_language_has_its_cell() -> None:
    texts = {text.get_text() for text in corpus.group_sizes().axes[0].texts}
    assert texts == {f"{code}\n{row.script}" for code, row in LANGUAGES.items() if code != "en"}


def test_token_costs_are_hatched_where_unseen() -> None:
    sizes = pd.DataFrame(
        {"language": ["fi", "de"], "x English": [0.9, 1.5], "in tokenizer": [True, False], "sentences": 7}
    )
    ax = corpus.token_costs(sizes).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [1.5, 0.9]  # de is of group 1
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [True, False]
    assert "n = 7" in ax.get_xlabel() and ax.get_legend() is not None
    unknown = corpus.token_costs(sizes.assign(**{"in tokenizer": False})).axes[
        0
    ]  # a pretrained base's tokenizer
    assert not any(bar.get_hatch() for bar in unknown.patches) and unknown.get_legend() is None


def test_rules_are_drawn_as_share_against_epochs() -> None:
    """A dot per language that gets something, in percent; logarithmic only where values lie far apart."""
    rows = [("fi", "a", 0.75, 3.0), ("de", "a", 0.25, 1.0), ("fi", "b", 1.0, 4.0), ("de", "b", 0.0, 0.0)]
    rules = pd.DataFrame(rows, columns=["language", "rule", "tokens", "epochs"])
    first, second = corpus.rules_scatter(rules, ["a", "b"], "here").axes
    assert first.collections[0].get_offsets().tolist() == [[3, 75], [1, 25]]
    assert second.collections[0].get_offsets().tolist() == [[4, 100]]
    assert first.get_xscale() == "linear"
    assert {text.get_text() for text in first.texts} == {"Finnish", "German"}
    rules["epochs"] *= [1, 1, 100, 1]
    assert corpus.rules_scatter(rules, ["a", "b"], "here").axes[0].get_xscale() == "log"


def test_of_languages_read_equally_often_the_largest_and_the_smallest_are_named() -> None:
    rows = [("de", 0.6, 0.010001), ("fi", 0.3, 0.01), ("ms", 0.1, 0.009999)]
    one = pd.DataFrame(rows, columns=["language", "tokens", "epochs"]).set_index("language")
    assert corpus._extremes(one) == ("de", "ms")
    assert corpus._extremes(one.assign(epochs=[3.0, 1.0, 2.0])) == ("fi", "de")


def test_corpus_sizes_draw_every_language_on_a_logarithmic_scale() -> None:
    sizes = pd.DataFrame({"web": [1e9, 1e6], "here": [1e5, 1e4]}, index=["zh", "de"])
    ax = corpus.corpus_sizes(sizes).axes[0]
    drawn = [dots.get_offsets()[:, 1].tolist() for dots in ax.collections if len(dots.get_offsets())]
    assert drawn == [[1e6, 1e9], [1e4, 1e5]] and ax.get_yscale() == "log"


def test_packing_draws_each_document_in_its_colour() -> None:
    blocks = [{"input_ids": torch.tensor(ids)} for ids in ([1, 5, 6, 1], [7, 8, 1, 9])]
    ax = corpus.packing_strip(blocks, bos_token_id=1, codes=["fi", "de", "ru"]).axes[0]
    found = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in ax.patches]
    fi, de, ru = (style.colour_of(code).lower() for code in ("fi", "de", "ru"))
    assert found == [
        (0, 3, fi),
        (3, 1, de),
        (0, 2, de),
        (2, 2, ru),
    ]  # the second document goes on in the next block
    assert "begin in 2 blocks: 3" in ax.get_title(loc="left")


def test_token_accounting_draws_the_counts() -> None:
    ax = corpus.token_accounting({"zh": 30, "en": 50}).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [50, 30]
    assert "80 in all" in ax.get_title(loc="left")


@pytest.mark.parametrize(("wrong", "kinds"), [(True, 2), (False, 1)])
def test_length_ratios_of_each_kind_sum_to_100_percent(wrong: bool, kinds: int) -> None:
    pairs = pd.DataFrame(
        {"English": ["ab", "abcd", "ab"], "other": ["ab", "ab", "abcd"], "misaligned": [False, False, wrong]}
    )
    ax = corpus.length_ratios(pairs, "Finnish").axes[0]
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(100 * kinds)
    assert len(ax.get_legend().get_texts()) == kinds


def test_similarity_heatmap_is_sorted_by_group_and_has_one_script() -> None:
    names = ["ru", "fi", "de", "fr"]
    matrix = pd.DataFrame(np.eye(4), index=names, columns=names)
    matrix.loc["fi", "fr"] = 0.5
    ax = corpus.similarity_heatmap(matrix, n=9, script="Latn").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["de", "fr", "fi"]
    assert ax.images[0].get_array()[2, 1] == 0.5 and ax.images[0].get_array().mask[1, 1]


def test_affinity_frames_the_own_group_and_sets_the_highest_in_bold() -> None:
    affinity = pd.DataFrame({2: [0.4], 4: [0.1]}, index=["fr"])
    ax = corpus.group_affinity(affinity, ["fr"]).axes[0]
    (frame,) = ax.patches
    assert round(frame.get_x() + frame.get_width() / 2) == list(affinity).index(language("fr").group)
    assert [text.get_weight() for text in ax.texts] == ["bold", "normal"]


def test_chance_has_all_groupings_and_both_lines() -> None:
    ax = corpus.chance_histogram(np.array([0.1, 0.2, 0.2]), paper=0.3, swapped=0.4).axes[0]
    assert sum(bar.get_height() for bar in ax.patches) == 3
    assert [line.get_xdata()[0] for line in ax.lines] == [0.3, 0.4]


def test_the_same_figure_gives_the_same_bytes(tmp_path) -> None:
    first, second = (save_figure(corpus.idea(), tmp_path / f"{name}.png") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
