"""Figures of the stages, checked against the numbers that went in: what is drawn, not how it looks."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.figures.training import (
    arpo_figure,
    direction_heatmap,
    ladder_figure,
    language_dots,
    learning_curves,
    partner_lines,
)

SCORES = {  # stage -> direction -> BLEU; groups 6 (ja, zh) and 3 (ru)
    "base": {"en-ja": 1.0, "en-zh": 3.0, "en-ru": 5.0, "ja-en": 0.0, "zh-en": 0.0, "ru-en": 0.0},
    "stage4": {"en-ja": 30.0, "en-zh": 40.0, "en-ru": 20.0, "ja-en": 10.0, "zh-en": 20.0, "ru-en": 60.0},
}


def records(groups: str = "ja zh ru") -> list[Record]:
    return [
        Record("tiny", stage, direction, "bleu", value, 7, "sig")
        for stage, scores in SCORES.items()
        for direction, value in scores.items()
        if set(direction.split("-")) & set(groups.split())
    ]


def drawn(ax) -> dict[str, list[float]]:
    return {line.get_label().split(" (")[0]: list(line.get_ydata()) for line in ax.get_lines()}


def test_ladder_draws_means_of_directions():
    both = [r if r.stage == "stage4" else replace(r, stage="stage5") for r in records()]
    outward, inward = ladder_figure(sorted(both, key=lambda r: r.stage, reverse=True)).axes
    assert drawn(outward) == {
        "3 Eastern and Southern Slavic": [20, 5],
        "6 Eurasian mix": [35, 2],
        "mean of all": [30, 3],
    }
    assert drawn(inward) == {
        "3 Eastern and Southern Slavic": [60, 0],
        "6 Eurasian mix": [15, 0],
        "mean of all": [30, 0],
    }
    assert "7 segments" in outward.get_ylabel()


def test_each_instrument_has_its_stages_and_no_other():
    """Text alone from the base to stage 2, the example pair's BLEU up to stage 4, the prompt's from there on."""
    made = [
        Record("tiny", stage, direction, metric, value, 7, "sig")
        for direction in ("en-ja", "ja-en")
        for stage, metric, value in (
            ("base", "text_bits", 2),
            ("stage1", "text_bits", 1),
            ("stage3", "text_bits", 9),
            ("base", "bleu", 0.1),
            ("stage3", "partner_gain", 0.5),
            ("stage3", "bleu", 46),
            ("stage4", "one_shot_bleu", 50),
            ("stage4", "bleu", 70),
            ("stage5", "bleu", 71),
        )
    ]
    fig = ladder_figure(made)
    assert [drawn(ax)["6 Eurasian mix"] for ax in fig.axes] == 2 * [[2, 1], [0.5], [46, 50], [70, 71]]
    assert fig.axes[3].get_title(loc="left") == "BLEU with the prompt"


def test_a_ladder_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="evaluate the stages first"):
        ladder_figure([])


def test_ladder_of_one_group_has_no_second_line_for_the_mean():
    assert list(drawn(ladder_figure(records("ja zh")).axes[0])) == ["6 Eurasian mix"]


def test_heatmap_rows_are_languages_group_by_group():
    outward, inward = direction_heatmap(records()).axes[:2]
    assert [label.get_text() for label in outward.get_yticklabels()] == [
        "Russian (3)",
        "Japanese (6)",
        "Chinese (6)",
    ]
    assert outward.images[0].get_array().tolist() == [[5, 20], [1, 30], [3, 40]]
    assert inward.images[0].get_array().tolist() == [[0, 60], [0, 10], [0, 20]]


def test_learning_curves_have_a_panel_a_stage_and_leave_out_probes():
    rows = [
        {"stage": 1, "group": 0, "kind": "train", "step": 1, "loss": 8.0},
        {"stage": 1, "group": 0, "kind": "train", "step": 2, "loss": 7.0},
        {"stage": 5, "group": 6, "kind": "probe", "step": 0},
        {"stage": 5, "group": 6, "kind": "train", "step": 1, "loss": 3.0},
        {"stage": 5, "group": 3, "kind": "train", "step": 1, "loss": 2.0},
    ]
    first, last = learning_curves(pd.DataFrame(rows)).axes
    assert drawn(first) == {"base, all languages": [8, 7]}
    assert drawn(last) == {"3 Eastern and Southern Slavic": [2], "6 Eurasian mix": [3]}
    assert ("nats per token" in first.get_ylabel(), "ARPO" in last.get_ylabel()) == (True, True)


def test_learning_curves_of_no_training_rows_are_an_error():
    with pytest.raises(ValueError, match="log_rows"):
        learning_curves(pd.DataFrame([{"stage": 5, "group": 6, "kind": "probe", "step": 0}]))


def test_a_long_curve_is_a_running_mean_over_its_points():
    rows = [{"stage": 1, "group": 0, "kind": "train", "step": n, "loss": float(n % 2)} for n in range(1, 21)]
    points, mean = learning_curves(pd.DataFrame(rows)).axes[0].get_lines()
    assert list(points.get_ydata()) == [row["loss"] for row in rows]
    assert mean.get_ydata()[9] == pytest.approx(2 / 5)  # steps 8 to 12: two odd ones of five


def test_arpo_figure_draws_z_tau_and_the_change_of_both_answers():
    rows = [
        {"group": 6, "kind": "train", "step": 1, "z": 0.5, "tau": 0.9},
        {"group": 6, "kind": "probe", "step": 0, "chosen_avg_logp": -2.0, "rejected_avg_logp": -1.0},
        {"group": 6, "kind": "probe", "step": 1, "chosen_avg_logp": -1.5, "rejected_avg_logp": -1.75},
    ]
    distance, weight, sides = arpo_figure(pd.DataFrame(rows)).axes
    assert (drawn(distance), drawn(weight)) == ({"6 Eurasian mix": [0.5]}, {"6 Eurasian mix": [0.9]})
    assert drawn(sides) | {"_child2": 0} == {
        "chosen answers": [0, 0.5],
        "rejected answers": [0, -0.75],
        "_child2": 0,
    }


def test_language_dots_have_both_stages_and_the_change():
    table = pd.DataFrame({"language": ["English", "Finnish"], "base": [2.0, 3.0], "stage1": [2.5, 1.0]})
    ax = language_dots(table, "base", "stage1", ("before", "after")).axes[0]
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["+0.50", "-2.00"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["English", "Finnish"]


def test_partner_lines_are_means_over_directions():
    made = [
        Record("tiny", stage, direction, "partner_gain", value, 7, "sig")
        for stage, values in (("stage2", (0.0, 0.2, 0.1)), ("stage3", (1.0, 2.0, 4.0)))
        for direction, value in zip(("en-fi", "en-ja", "ja-en"), values, strict=True)
    ]
    lines = drawn(partner_lines(made).axes[0])
    assert (lines["en→xx, mean"], lines["xx→en, mean"]) == ([pytest.approx(0.1), 1.5], [0.1, 4.0])
