"""Modules for more and more languages: nested sets, equal updates, one language to score on."""

from __future__ import annotations

import pytest

from xalma.languages import GROUPS
from xalma.paper.studies import module_sharing
from xalma.paper.studies.module_sharing import ALL, GROUP, RANDOM, compare_sizes, size_profile, size_sets
from xalma.paper.studies.stage_ablation import full_folder
from xalma.runs import read_run, stage_folder
from xalma.training.ladder import evaluate_folder


def test_sets_are_nested_and_share_their_first_language(micro):
    p = micro.but(groups="3,6", seeds=3)
    sets = size_sets(p, 6, 0)
    assert list(sets) == ["of 1", "of 2", "of 3", GROUP, RANDOM, ALL]
    assert [len(codes) for codes in sets.values()] == [1, 2, 3, 6, 6, 11]
    assert {codes[0] for codes in sets.values()} == {"et"}
    assert (
        sets["of 2"] == ("et", "fi")
        and sets[GROUP] == GROUPS[6]
        and set(sets[ALL]) == {*GROUPS[3], *GROUPS[6]}
    )
    assert list(size_sets(p, 3, 0)) == ["of 1", "of 2", "of 3", GROUP, RANDOM, ALL]
    assert list(size_sets(p.but(seeds=1), 6, 0)) == ["of 1", GROUP, RANDOM, ALL]
    assert list(size_sets(p.but(groups="6"), 6, 0)) == ["of 1", "of 2", "of 3", GROUP]


def test_random_sets_follow_the_seed(micro):
    p = micro.but(groups="3,6")
    drawn = [size_sets(p, 6, seed)[RANDOM] for seed in range(20)]
    assert drawn == [size_sets(p, 6, seed)[RANDOM] for seed in range(20)] and len(set(drawn)) > 10
    assert all(len(set(codes)) == 6 and set(codes) <= set(p.languages) for codes in drawn)
    assert {code for codes in drawn for code in codes} == set(p.languages)


def test_fewer_languages_read_more_pairs_each(micro, monkeypatch):
    monkeypatch.setattr(module_sharing, "sft_updates", lambda *_: 30)
    p = micro.but(ablation_share=0.5, sft_pairs=200)
    one, three = size_profile(p, 6, 5, ("et",)), size_profile(p, 6, 5, ("et", "ru", "ja"))
    assert (one.stage4_updates, one.seed, one.languages_of(6)) == (30, 5, ("et",))
    assert one.sft_pairs == 200  # 30 × 16 rows are 240 pairs: the profile's are read again
    assert three.sft_pairs == 80 and three.languages_of(6) == ("et", "ru", "ja")
    assert one.stage3_tokens == three.stage3_tokens == p.stage3_tokens // 2


@pytest.mark.slow
def test_all_have_the_groups_updates_and_one_test_set(micro, finished):
    p = micro.but(groups="3,6", ablation_share=0.1)
    study = compare_sizes(p, 6)
    assert (list(study.systems), study.baseline) == (["of 1", GROUP, RANDOM, ALL], GROUP)
    assert len({facts["updates"] for facts in study.systems.values()}) == 1
    assert {record.direction for record in study.records} == {"en-et", "et-en"}
    assert study.systems[ALL]["system"] == "all 11" and study.title.endswith("scored on Estonian")
    run = read_run(stage_folder(p, 3, 6, "ablations/seed0/languages-random"))
    assert set(run["tokens_by_language"]) <= set(size_sets(p, 6, 0)[RANDOM])
    own = {r.key: r.value for r in evaluate_folder(p, full_folder(p, 6, 0, 4), 6, GROUP)}
    for record in study.records:
        if record.stage == GROUP:  # the group's own module, no copy of it
            assert own[record.key] == record.value
