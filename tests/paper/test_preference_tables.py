"""Means, intervals, tables and sentences agree with hand counts."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.studies import preference_tables
from xalma.paper.studies import seeds as seeds_

METRICS = {"bleu", "chrf", "off_target", "empty", "drift_chrf", "length_ratio"}


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 2.0, 3.0], 4.303 / 3**0.5),  # standard deviation 1
        ([5.0, 5.0, 5.0, 5.0], 0.0),
    ],
)
def test_half_width_by_hand(values, half):
    assert seeds_.half_width(values) == pytest.approx(half)


def test_half_width_of_two_is_unknown():
    assert pd.isna(seeds_.half_width([1.0, 2.0]))


def test_t_values_are_students():
    stats = pytest.importorskip("scipy.stats")
    expected = [round(float(stats.t.ppf(0.975, df)), 3) for df in range(2, 2 + len(seeds_.T_975))]
    assert list(seeds_.T_975) == expected


def records_of(bleu: dict[tuple[str, str, int], float], names) -> list[Record]:
    """Records of two languages a class: the second one is 2 BLEU above the first."""
    made = []
    for name in names:
        for direction, more in (("en-fi", 0), ("en-zh", 2), ("fi-en", 0), ("zh-en", 2)):
            side = "en-xx" if direction.startswith("en") else "xx-en"
            for seed in (0, 1, 2):
                value = bleu.get((name, side, seed), 20.0)
                made.append(Record("tiny", name, direction, "bleu", value + more, 10, "sig", seed))
                made += [
                    Record("tiny", name, direction, metric, 50.0, 10, "sig", seed)
                    for metric in METRICS - {"bleu"}
                ]
    return made


def test_summary_means_and_intervals():
    bleu = {("arpo", "en-xx", 0): 19.0, ("arpo", "en-xx", 1): 20.0, ("arpo", "en-xx", 2): 21.0}
    frame = seeds_.summary(records_of(bleu, ["arpo"])).query("metric == 'bleu'").set_index("direction")
    assert frame["mean"].to_dict() == {"en-xx": 21.0, "xx-en": 21.0}
    assert frame["half"]["en-xx"] == pytest.approx(4.303 / 3**0.5)
    assert frame["half"]["xx-en"] == 0


def test_preference_table_keeps_paper_and_ours_apart():
    labels = {"stage4": "SFT, the start", "sft": "SFT (continued)", "simpo": "SimPO", "arpo": "ARPO"}
    table = preference_tables.preference_table(records_of({}, labels), labels).set_index(
        ["direction", "method"]
    )
    assert table.loc[("en→xx", "ARPO"), "paper BLEU"] == "27.8"
    assert table.loc[("xx→en", "SimPO"), "paper COMET-22"] == "16.4?"  # an unsure cell shows it
    assert table.loc[("en→xx", "SFT (continued)"), "paper BLEU"] == ""
    assert set(table["our BLEU"]) == {21.0}


def test_drift_table_has_every_measure_with_its_interval():
    labels = {"stage4": "SFT, the start", "arpo": "ARPO"}
    records = records_of({}, labels)
    changed = [
        Record(**{**vars(r), "value": 40.0 + r.seed}) if r.metric == "drift_chrf" else r for r in records
    ]
    row = (
        preference_tables.drift_table(changed, labels)
        .set_index(["direction", "method"])
        .loc[("xx→en", "ARPO")]
    )
    assert row["chrF to SFT output"] == 41.0 and row["chrF to SFT output ±"] == pytest.approx(4.303 / 3**0.5)
    off_target = next(column for column in row.index if column.startswith("off-target"))
    for column in ("length %", off_target, "empty %"):
        assert (row[column], row[f"{column} ±"]) == (50.0, 0.0)


@pytest.mark.parametrize(
    ("arpo", "expected"),
    [
        (25.0, r"ARPO, en→xx: \+5.00 BLEU against SFT \(± 0.00\), more than the interval"),
        (20.0, r"\+0.00 .* within"),
    ],
)
def test_findings_follow_the_records(arpo, expected):
    labels = {"stage4": "SFT", "dpo": "DPO", "cpo": "CPO", "arpo": "ARPO"}
    bleu = {("arpo", "en-xx", seed): arpo for seed in range(3)}
    text = "\n".join(preference_tables.preference_findings(records_of(bleu, labels), labels))
    assert re.search(expected, text)


def test_findings_compare_the_order_with_the_papers():
    labels = {"stage4": "SFT", "dpo": "DPO", "cpo": "CPO", "arpo": "ARPO"}
    paper = {"stage4": 26.5, "dpo": 0.7, "cpo": 22.2, "arpo": 27.8}
    bleu = {(name, "en-xx", seed): value for name, value in paper.items() for seed in range(3)}
    text = "\n".join(preference_tables.preference_findings(records_of(bleu, labels), labels))
    assert "rank correlation of 1.00 over 4 methods" in text


def test_push_findings_name_what_moved_beyond_its_interval():
    table = pd.DataFrame(
        {
            "method": ["A", "B", "C"],
            "chosen change": [-0.1, 0.2, 0.3],
            "chosen ±": [0.05, 0.1, 0.4],
            "rejected change": [-0.5, -0.2, -0.1],
            "rejected ±": [0.1, 0.1, 0.2],
        }
    )
    chosen = "less likely with: A (-0.10); more likely with: B (+0.20); neither, within the interval, with: C (+0.30)"
    rejected = "less likely with: A (-0.50), B (-0.20); neither, within the interval, with: C (-0.10)"
    assert preference_tables.push_findings(table) == [
        f"The chosen answers became {chosen}.",
        f"The rejected answers became {rejected}.",
    ]
    one_seed = table.assign(**{"chosen ±": float("nan"), "rejected ±": float("nan")})
    sentences = preference_tables.push_findings(one_seed)
    assert all("too few seeds" in sentence and "with:" not in sentence for sentence in sentences)
