"""Differences are taken seed by seed, beside the paper's, and said as they are."""

from __future__ import annotations

import pandas as pd
import pytest
from test_preference_tables import records_of

from xalma.paper.studies.preference_methods import MethodSetup
from xalma.paper.studies.preference_tables import (
    difference_findings,
    difference_table,
    sweep_frame,
    switch_findings,
    switch_table,
)

LABELS = {"stage4": "SFT", "dpo": "DPO", "dpo+bc": "DPO+BC", "cpo": "CPO", "arpo": "ARPO"}


def by_name(table: pd.DataFrame, direction: str = "en→xx") -> pd.DataFrame:
    return table[table["direction"] == direction].set_index("difference in BLEU")


def test_a_difference_is_paired_by_seed():
    """Seeds that differ by 10 BLEU, methods by 1 in each of them: the interval is that of the difference."""
    bleu = {("cpo", "en-xx", seed): 10.0 * seed for seed in range(3)}
    bleu |= {("arpo", "en-xx", seed): 10.0 * seed + change for seed, change in enumerate((0.9, 1.0, 1.1))}
    row = by_name(difference_table(records_of(bleu, LABELS), LABELS)).loc["ARPO − CPO"]
    assert row["ours"] == pytest.approx(1.0) and row["±"] == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert (row["paper"], row["shown"]) == ("+5.6", "as in the paper")


def test_the_papers_differences_and_the_other_way():
    bleu = {
        ("dpo", "en-xx", seed): 30.0 for seed in range(3)
    }  # better than SFT's 20; the paper's falls to 0.7
    table = difference_table(records_of(bleu, LABELS), LABELS)
    found = by_name(table)
    assert (found.loc["DPO − SFT", "paper"], found.loc["DPO − SFT", "shown"]) == ("-25.8", "the other way")
    assert found.loc["CPO − SFT", "shown"] == "within the interval"
    assert by_name(table, "xx→en").loc["DPO − SFT", "paper"] == ""  # a cell that could not be read
    text = "\n".join(difference_findings(table))
    assert "the other way in 2: DPO − SFT, DPO+BC − DPO" in text and "xx→en, of 3 differences" in text


def test_continued_sft_is_not_in_the_paper():
    labels = {"sft": "SFT (continued)", "arpo": "ARPO"}
    bleu = {("arpo", "en-xx", seed): 30.0 for seed in range(3)}
    row = by_name(difference_table(records_of(bleu, labels), labels)).loc["ARPO − SFT (continued)"]
    assert (row["paper"], row["shown"]) == ("", "not in the paper")


def test_one_seed_shows_nothing():
    records = [record for record in records_of({}, LABELS) if record.seed == 0]
    assert set(difference_table(records, LABELS)["shown"]) == {"too few seeds"}


def test_switches_say_what_moved():
    labels = {"arpo": "ARPO", "arpo detached": "ARPO detached"}
    bleu = {("arpo detached", "xx-en", seed): 21.0 for seed in range(3)}
    pushes = pd.DataFrame(
        {"method": list(labels.values()), "chosen change": [0.0, 0.1], "rejected change": [0.05, -0.2]}
    )
    table = switch_table(records_of(bleu, labels), pushes, labels)
    (row,) = table.to_dict("records")
    assert row["BLEU en→xx"] == 0 and row["BLEU xx→en"] == 1
    assert (row["rejected without"], row["rejected with"]) == (0.05, -0.2)
    (said,) = switch_findings(table)
    assert (
        "rejected answers move by -0.200 nats per token instead of +0.050; BLEU xx→en +1.00 ± 0.00." in said
    )


def test_the_sweep_takes_plain_arpo_only():
    def arpo(name, **options):
        return MethodSetup(
            name, name, "arpo", {"eta": 1.5, "eta_scale": 1.0, "detach_penalty": False} | options
        )

    chosen = [
        arpo("arpo"),
        arpo("arpo eta 0", eta=0.0),
        arpo("arpo detached", detach_penalty=True),
        arpo("arpo clamped", clamp_min=0.0),
        MethodSetup("cpo", "CPO", "cpo"),
    ]
    frame = sweep_frame(records_of({}, [system.name for system in chosen]), chosen)
    assert list(dict.fromkeys(frame["eta"])) == [0.0, 1.5] and set(frame["system"]) == {"arpo", "arpo eta 0"}
