"""Chains of stages are what they say, and the table of what is lost follows the records."""

from __future__ import annotations

import json

import pytest
from test_study import study_records

from xalma.evaluation.records import Record
from xalma.paper.studies import stage_ablation
from xalma.paper.studies.stage_ablation import (
    CHAINS,
    ablate_stages,
    n_tokens,
    n_updates,
    run_full_chains,
    sft_updates,
    shortened,
)
from xalma.paper.studies.study import Study
from xalma.preference.pairs import NoPairs
from xalma.runs import read_run

STAGES_OF = {
    "base": [], "full": [1, 2, 3, 4, 5], "no-stage1": [2, 3, 4, 5], "no-stage2": [1, 3, 4, 5],
    "no-stage3": [1, 2, 4, 5], "no-stage4": [1, 2, 3, 5], "no-stage5": [1, 2, 3, 4],
}  # fmt: skip


@pytest.fixture
def fake_stages(micro, tmp_path, monkeypatch):
    """Stages that only write run.json, 10 updates each; the ladder is there in full."""
    p = micro.but(run_dir=str(tmp_path), ablation_share=0.5)
    made = []

    def write(q, number, group, previous, branch):
        out = stage_ablation.stage_folder(q, number, group if number > 1 else 0, branch)
        out.mkdir(parents=True, exist_ok=True)
        run = {"number": number, "steps": 10 if number else 0, "seed": q.seed, "tokens": q.stage1_tokens}
        run |= {"tokens_seen": number} if number in (1, 2, 3, 4) else {}
        (out / "run.json").write_text(json.dumps(run | {"previous": previous and str(previous)}))
        made.append(out)
        return out

    def run_chain(q, group, start, stages, branch):
        for number in stages:
            start = write(q, number, group, start, branch)
        return start

    ladder = write(p, 0, 0, None, "ladder")
    for number in range(1, 6):
        ladder = write(p, number, 6, ladder, "ladder")
    monkeypatch.setattr(stage_ablation, "run_chain", run_chain)
    monkeypatch.setattr(
        stage_ablation,
        "stage1_monolingual_base",
        lambda q, group, previous, branch: write(q, 1, group, previous, branch),
    )
    monkeypatch.setattr(
        stage_ablation,
        "evaluate_folder",
        lambda q, folder, group, name: [Record("p", name, "en-fi", "bleu", 1, 1, "", q.seed)],
    )
    made.clear()
    return p, made


def stages_of(folder) -> list[int]:
    """The numbers of the stages that a folder was made by, in order."""
    numbers = []
    while folder:
        run = read_run(folder)
        numbers, folder = [run["number"], *numbers], run["previous"]
    return numbers[1:]  # without stage 0


def folders_of(p) -> dict:
    """The last folder of each chain, for the profile's own seed."""
    return {chain: stage_ablation._chain_folder(p, 6, p.seed, chain) for chain in CHAINS}


def test_chains_are_the_stages_they_say(fake_stages):
    p, made = fake_stages
    study = ablate_stages(p.but(seeds=2), 6)
    assert {(r.stage, r.seed) for r in study.records} == {
        (chain, seed) for chain in CHAINS for seed in (0, 1)
    }
    assert not any("ladder" in folder.parts for folder in made)
    folders = folders_of(p)
    assert {chain: stages_of(folder) for chain, folder in folders.items()} == STAGES_OF
    assert {chain: facts["updates"] for chain, facts in study.systems.items()} == {
        c: 10 * len(s) for c, s in STAGES_OF.items()
    }
    assert (
        n_updates(folders["full"]) == 50 and n_tokens(folders["full"]) == 1 + 2 + 3 + 4
    )  # stage 5 counts no tokens
    assert study.labels == CHAINS and study.systems["no-stage5"]["ends with"] == 4
    assert read_run(folders["full"])["tokens"] == p.stage1_tokens // 2


def test_a_whole_share_takes_the_ladder_for_the_full_chain(fake_stages):
    p, made = fake_stages
    folders = folders_of(p.but(ablation_share=1.0))
    assert folders["full"] == stage_ablation.stage_folder(p, 5, 6)
    assert {chain: stages_of(folder) for chain, folder in folders.items()} == STAGES_OF
    assert not any("ladder" in folder.parts for folder in made)


def test_full_chains_share_their_base(fake_stages):
    p, made = fake_stages
    run_full_chains(p.but(seeds=2), (3, 6))
    ends = [stage_ablation.full_folder(p, group, seed, 4) for seed in (0, 1) for group in (3, 6)]
    assert [stages_of(folder) for folder in ends] == [[1, 2, 3, 4]] * 4
    bases = {folder for folder in made if folder.name == "base"}
    assert bases == {stage_ablation.full_folder(p, 0, seed, 1) for seed in (0, 1)}
    assert sft_updates(p, 3, 1) == 10


def test_only_a_lack_of_pairs_ends_a_chain_early(fake_stages, monkeypatch):
    p, _ = fake_stages
    start = stage_ablation.stage_folder(p, 4, 6)

    def fail(error):
        def run_chain(*_):
            raise error

        monkeypatch.setattr(stage_ablation, "run_chain", run_chain)

    fail(NoPairs("no preference pairs: of 3 considered, 3 identical"))
    assert stage_ablation._arpo(p, 6, start, "x") == start
    fail(ValueError("something else"))
    with pytest.raises(ValueError, match="something else"):
        stage_ablation._arpo(p, 6, start, "x")


def test_shortened_scales_every_budget_and_keeps_a_batch(micro):
    p = micro.but(
        ablation_share=0.25, sft_pairs=80, stage5_pairs=40, stage4_epochs=2.0, stage1_tokens=100_000
    )
    short = shortened(p, seed=7)
    assert (short.seed, short.stage1_tokens, short.sft_pairs, short.stage5_pairs) == (7, 25_000, 20, 10)
    assert short.stage2_tokens == p.stage2_batch_size * p.block_tokens  # a quarter would be none
    assert short.stage4_epochs == p.stage4_epochs and short.dev_pairs == 1
    assert shortened(p.but(ablation_share=1.0), p.seed) == p.but(ablation_share=1.0)


def test_ablation_table_and_findings():
    bits = {("no-stage4", "en-xx", seed): 3.0 for seed in range(3)}
    systems = {name: {"system": label, "updates": 5, "ends with": 5} for name, label in CHAINS.items()}
    systems["no-stage1"]["ends with"] = 4
    study = Study("stages", "title", "full", systems, study_records(CHAINS, bits))
    table = stage_ablation.ablation_table(study).set_index(["direction", "system"])
    assert table.loc[("en→xx", CHAINS["no-stage4"]), "bits − baseline"] == pytest.approx(1.0)
    assert table.loc[("en→xx", CHAINS["no-stage5"]), "paper COMET-22"] == "90.1"
    assert table.loc[("en→xx", CHAINS["no-stage1"]), "paper COMET-22"] == ""  # the paper leaves no stage out
    assert "ends with" not in table
    text = "\n".join(stage_ablation.ablation_findings(study))
    assert (
        "en→xx, in bits per byte: worst is the recipe without stage 4, SFT.\n" in text
    )  # two others tie for best
    assert "xx→en, in bits per byte" not in text
    one_seed = [record for record in study.records if record.seed == 0]
    alone = stage_ablation.ablation_findings(Study("stages", "title", "full", systems, one_seed))
    assert not any("worst is" in sentence or "best is" in sentence for sentence in alone), "from one seed"
    assert text.count("no preference pair passed") == 1


def test_gating_table_has_bits(micro):
    table = stage_ablation.gating_table(
        study_records(["own", "other"], {("other", "xx-en", 1): 4.0}), ["own", "other"]
    )
    assert table["bits per byte"].round(3).tolist() == [2.0, 2.0, 2.0, 2.667]
