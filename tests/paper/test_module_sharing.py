"""One module for all, a wider one, and none get the groups' updates and languages, and are trained as they say."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from xalma.data.mixing import parse_shares
from xalma.languages import GROUPS
from xalma.paper.studies import module_sharing
from xalma.paper.studies.module_sharing import (
    DENSE,
    LANGUAGE,
    MEAN,
    OWN,
    SHARED,
    SUM,
    WIDE,
    compare_sharing,
    drawn_as_in_groups,
    joint_profile,
    language_profile,
    n_parameters,
)
from xalma.paper.studies.stage_ablation import full_folder, shortened
from xalma.runs import read_run, stage_folder


@pytest.fixture
def two(micro, monkeypatch):
    """A profile of two groups whose own modules had 7 and 9 updates of SFT."""
    monkeypatch.setattr(module_sharing, "sft_updates", lambda p, group, seed: {3: 7, 6: 9}[group])
    return micro.but(groups="3,6", ablation_share=0.5)


def test_what_serves_all_gets_the_groups_updates_in_sum(two):
    update = two.stage3_batch_size * two.block_tokens
    short = shortened(two, 4)
    for name in (SHARED, WIDE, DENSE):
        q = joint_profile(two, name, 4)
        assert q.stage4_updates == 16 and q.seed == 4 and q.sft_pairs == short.sft_pairs
        assert q.stage3_tokens // update == 2 * (short.stage3_tokens // update)
        group = 0 if name == DENSE else 3
        assert q.languages_of(group) == GROUPS[3] + GROUPS[6]
    odd = joint_profile(
        two.but(stage2_tokens=3 * update), SHARED, 4
    )  # half of 3 updates is one, so two for two groups
    assert odd.stage2_tokens == 2 * update


def test_rank_and_rates(two):
    wide, dense = joint_profile(two, WIDE, 0), joint_profile(two.but(stage1_learning_rate=1e-3), DENSE, 0)
    assert (wide.lora_rank, wide.lora_alpha) == (2 * two.lora_rank, 2 * two.lora_alpha)
    assert (dense.stage2_learning_rate, dense.stage4_learning_rate) == (1e-3, 1e-3)  # the modules' are higher
    assert joint_profile(two, SHARED, 0).stage4_learning_rate == two.stage4_learning_rate


def test_each_language_is_drawn_as_often_as_in_its_group(two):
    stage2 = parse_shares(drawn_as_in_groups(two, 2).mixing_shares)
    assert stage2["en"] == pytest.approx(1 / 6 + 1 / 7, abs=1e-6)
    assert [stage2[code] for code in GROUPS[3]] == pytest.approx([1 / 6] * 5, abs=1e-6)
    stage3 = parse_shares(drawn_as_in_groups(two, 3).mixing_shares)
    assert set(stage3) == {*GROUPS[3], *GROUPS[6]} and stage3["et"] == pytest.approx(1 / 6, abs=1e-6)
    assert stage3["bg"] == pytest.approx(1 / 5, abs=1e-6)


def test_the_short_form_and_one_group_have_fewer_systems(micro):
    labels, apart = module_sharing.sharing_labels, [LANGUAGE, MEAN, SUM]
    assert list(labels(micro.but(groups="3,6"))) == [OWN, *apart, SHARED, DENSE]
    assert list(labels(micro.but(groups="3,6", seeds=3))) == [OWN, *apart, SHARED, WIDE, DENSE]
    assert list(labels(micro)) == [OWN, *apart, DENSE]
    assert list(labels(micro.but(only_languages="fi", module_languages="6:fi"))) == [OWN, DENSE]


def test_a_language_gets_its_share_of_the_groups_updates(two):
    update = two.stage3_batch_size * two.block_tokens
    short = shortened(two, 4)
    for group, code, n, sft in ((3, "bg", 5, 1), (6, "fi", 6, 2)):  # 7 / 5 and 9 / 6 updates, rounded
        q = language_profile(two, group, code, 4)
        assert (q.stage4_updates, q.seed, q.sft_pairs) == (sft, 4, short.sft_pairs)
        assert q.stage3_tokens == round(short.stage3_tokens / update / n) * update
        assert q.languages_of(group) == (code,)


@pytest.fixture(scope="module")
def compared(micro, finished):
    p = micro.but(groups="3,6", ablation_share=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_sharing, "MIN_SEEDS", 1)
        study = compare_sharing(p)
    return p, study


@pytest.mark.slow
def test_all_systems_at_equal_cost(compared):
    p, study = compared
    facts = study.systems
    assert list(facts) == [OWN, LANGUAGE, MEAN, SUM, SHARED, WIDE, DENSE] and study.baseline == OWN
    equal = [facts[name] for name in (OWN, SHARED, WIDE, DENSE)]
    assert len({row["updates"] for row in equal}) == 1
    assert max(row["tokens"] for row in equal) < 1.1 * min(row["tokens"] for row in equal)
    # the eleven languages' modules: whole updates, at least one in each of three stages
    assert 33 <= facts[LANGUAGE]["updates"] == facts[MEAN]["updates"] == facts[SUM]["updates"]
    base = n_parameters(full_folder(p, 0, 0, 1))
    embeddings = p.vocab_size * p.hidden_size
    module = 7 * 2 * 64 * p.lora_rank  # seven projections of a layer; MLP's are wider by the next line
    inner = 192  # 64 × 8/3, rounded up to a multiple of 32
    module += 3 * (inner - 64) * p.lora_rank
    apart = (LANGUAGE, MEAN, SUM)
    assert {name: row["parameters trained"] for name, row in facts.items()} == {
        OWN: 2 * module,
        SHARED: module,
        WIDE: 2 * module,
        DENSE: base - embeddings,
        **dict.fromkeys(apart, 11 * module),
    }
    assert {name: row["parameters used"] - base for name, row in facts.items()} == {
        OWN: module,
        SHARED: module,
        WIDE: 2 * module,
        DENSE: 0,
        LANGUAGE: module,
        MEAN: 6 * module,
        SUM: 6 * module,
    }


@pytest.mark.slow
def test_all_systems_are_scored_on_all_languages(compared):
    _, study = compared
    directions = {f"{a}-{b}" for code in GROUPS[3] + GROUPS[6] for a, b in (("en", code), (code, "en"))}
    for name in study.systems:
        assert {record.direction for record in study.records if record.stage == name} == directions
    assert len({record.key for record in study.records}) == len(study.records)


@pytest.mark.slow
def test_the_base_stays_and_nothing_is_trained_twice(compared, monkeypatch):
    p, study = compared
    start = read_run(full_folder(p, 0, 0, 1))["fingerprint"]
    for name, group in ((SHARED, 3), (DENSE, 0)):
        folder = stage_folder(p, 2, group, f"ablations/seed0/{name}")
        assert read_run(folder)["inputs"]["previous"] == start
    monkeypatch.setattr(module_sharing, "MIN_SEEDS", 1)
    monkeypatch.setattr("xalma.training.stages.train", lambda *_, **__: pytest.fail("trained again"))
    assert compare_sharing(p) == study


@pytest.mark.slow
def test_the_base_that_goes_on_keeps_its_embeddings(compared):
    """No module trains them: full weights must not have what the modules have not."""
    p, _ = compared
    start, last = full_folder(p, 0, 0, 1), stage_folder(p, 4, 0, f"ablations/seed0/{DENSE}")
    before, after = (load_file(folder / "model.safetensors") for folder in (start, last))
    moved = {name for name in before if not before[name].equal(after[name])}
    assert "model.embed_tokens.weight" in before.keys() - moved
    assert {name for name in before if "proj" in name} <= moved
