"""The long form of notebook 09 lies beside the short form, is read from files alone, and says before what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_study import study_records

from xalma.paper.studies import long_form
from xalma.paper.studies.long_form import (
    ablations_folder,
    ablations_plan,
    file_ablations,
    read_ablations,
    training_seconds,
)
from xalma.paper.studies.module_sharing import DENSE, SHARED, WIDE
from xalma.paper.studies.seeds import by_seed, paired
from xalma.paper.studies.study import Study, read_study
from xalma.profiles import load_profile
from xalma.runs import stage_folder


@pytest.fixture
def p(tmp_path):
    folders = {"results_dir": str(tmp_path / "results"), "run_dir": str(tmp_path / "runs")}
    return load_profile("tiny", seeds=3, ablation_share=0.5, **folders)


def test_what_is_filed_is_read_back(p):
    assert read_ablations(p) is None
    systems = {"a": {"system": "A"}, "b": {"system": "B"}}
    file_ablations(p, [Study(name, name, "a", systems, study_records(systems, {})) for name in ("x", "y")])
    for asked in (p, p.but(seeds=1)):  # the short form shows it
        found = read_ablations(asked)
        assert [study.name for study in found.studies] == ["x", "y"] and found.run["seeds"] == [0, 1, 2]
        assert {(r.stage, r.seed) for r in found.studies[1].records} == {
            (n, seed) for n in "ab" for seed in range(3)
        }
    command = json.loads((ablations_folder(p) / "run.json").read_text())["command"]
    assert "--set seeds=3 --set ablation_share=0.5" in command


def test_cost_by_hand(p, monkeypatch):
    """A ladder of 10 s for the base, and 1, 2, 3, 4 s for stages 2 to 5 of group 6, ten times that for group 3."""
    assert "not known" in ablations_plan(p)
    for number, group in [(1, 0), *((n, g) for g in (3, 6) for n in (2, 3, 4, 5))]:
        folder = stage_folder(p, number, group)
        folder.mkdir(parents=True)
        seconds = 10 if number == 1 else (number - 1) * (10 if group == 3 else 1)
        (folder / "run.json").write_text(json.dumps({"seconds": seconds, "steps": 5}))
    stages = (
        (10 + 10) + 10 + 9 + 7 + 4
    )  # the full chain, without 1, 2, 3, 4; without 5 is part of the full one
    own, sharing, sizes = 60, 4 * (60 + 6), 5 * 6  # of seven systems four train beside the groups' own
    assert training_seconds(p) == pytest.approx(3 * 0.5 * (stages + own + sharing + sizes))
    minutes = 1.5 * (stages + own + sharing + sizes) / 60 / p.workers
    assert f"about {minutes:.0f} minutes on 2 worker(s)" in ablations_plan(p)
    # real text: three trainings more a seed, whose updates are cut already
    monkeypatch.setattr(long_form, "sft_languages", lambda *_: ("zh",))
    monkeypatch.setattr(long_form, "shared_updates", lambda *_: 100)
    more = training_seconds(p) - 1.5 * (stages + own + sharing + sizes)
    assert more == pytest.approx(3 * 3 * 100 * 3 / 5)


def test_what_notebook_09_says_of_the_filed_modules():
    """Into English a module per group is above all; from English one for all and full weights are no different."""
    study = read_study(Path(__file__).parents[2] / "results" / "tiny" / "ablations" / "long", "modules")
    values = by_seed(study.records).sort_index()
    for name in study.systems:
        if name == study.baseline:
            continue
        gap, half = paired(values, name, study.baseline, "xx-en")
        assert gap < -half, name
        gap, half = paired(values, name, study.baseline, "en-xx")
        assert (abs(gap) < half) == (name in (SHARED, WIDE, DENSE)), name
