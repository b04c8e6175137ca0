"""Equal terms, nothing trained twice, the right chains; numbers agree with TRL's losses and with hand counts."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from xalma import comparisons, verdicts
from xalma.comparisons import CHAINS, System, chain_folders, compare_methods, n_updates, shortened, systems
from xalma.methods import METHODS
from xalma.rejection import gradient_frame, pair_losses, probe_frame, push_table, tau_curve, tau_frame
from xalma.results import Record

METRICS = {"bleu", "chrf", "off_target", "empty", "drift_chrf", "length_ratio"}


# --- which systems ---


@pytest.mark.parametrize(
    ("methods", "names"),
    [("all", list(METHODS)), ("arpo, cpo", ["cpo", "arpo"]), ("dpo+bc", ["dpo+bc"])],
)
def test_systems_in_the_order_of_table_5(micro, methods, names):
    assert [system.name for system in systems(micro.but(methods=methods))] == names


def test_unknown_method_names_near_ones(micro):
    with pytest.raises(ValueError, match=r"'arop'.*arpo"):
        systems(micro.but(methods="arop"))


def test_arpo_gets_the_options_of_stage_5_and_variants_change_only_theirs(micro):
    (arpo,) = systems(micro.but(methods="arpo", arpo_eta=0.7))
    assert arpo.options["eta"] == 0.7
    detached = next(s for s in comparisons.arpo_variants(micro) if s.name == "arpo detached")
    assert detached.options == systems(micro.but(methods="arpo"))[0].options | {"detach_penalty": True}


# --- training on equal terms, once ---


@pytest.fixture(scope="module")
def trained(micro, finished):
    """Two methods trained on made-up pairs; the micro model's own answers may all be filtered out."""
    p = micro.but(methods="cpo,arpo", seeds=2)
    rows = [
        {"prompt": f"Say {i}:", "chosen": f" yes {i}", "rejected": f" no, {i} and {i}", "src": "en", "tgt": "fi"}
        for i in range(6)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparisons, "preference_pairs", lambda *_: (rows, {"considered": 6, "kept": 6}))
        yield p, compare_methods(p, 6)


def test_every_system_seed_direction_and_metric_once(trained):
    p, records = trained
    assert len({record.key for record in records}) == len(records)
    found = {(record.stage, record.seed) for record in records}
    assert found == {("stage4", 0), ("cpo", 0), ("cpo", 1), ("arpo", 0), ("arpo", 1)}
    assert {record.metric for record in records} == METRICS
    assert {record.direction for record in records} == {
        f"{a}-{b}" for c in p.languages for a, b in (("en", c), (c, "en"))
    }


def test_the_start_has_not_drifted_from_itself(trained):
    values = [r.value for r in trained[1] if r.stage == "stage4" and r.metric == "drift_chrf"]
    assert set(values) == {100.0}


def test_two_empty_outputs_have_not_drifted():
    assert comparisons._drift(["", ""], ["", ""], "fi")[0] == 100.0
    assert comparisons._drift(["kolme", ""], ["", ""], "fi")[0] == 0.0


def test_a_second_call_trains_nothing_and_says_the_same(trained, monkeypatch):
    p, records = trained
    monkeypatch.setattr(comparisons, "train_preference", lambda *_, **__: pytest.fail("trained again"))
    assert compare_methods(p, 6) == records


def test_a_changed_option_is_trained_again(trained, monkeypatch):
    p, _ = trained
    seen = []
    original = comparisons.train_preference
    monkeypatch.setattr(
        comparisons, "train_preference", lambda method, *a, **k: seen.append(k) or original(method, *a, **k)
    )
    system = System("arpo", "ARPO", "arpo", {"eta": 3.0})
    comparisons._train_system(comparisons._one_share(p), 6, system, 0)
    assert [(k["eta"], k["seed"], k["max_steps"]) for k in seen] == [(3.0, 0, p.comparison_steps)]


def test_logs_become_frames(trained):
    p, _ = trained
    chosen = systems(p)
    frame = probe_frame(p, 6, chosen)
    assert set(frame["label"]) == {"CPO", "ARPO"} and set(frame["seed"]) == {0, 1}
    assert frame[frame["step"] == 0]["chosen_avg_logp"].nunique() == 1  # all start alike
    table = push_table(frame)
    assert table["method"].tolist() == ["CPO", "ARPO"]
    change = table["chosen after"] - table["chosen before"]
    assert table["chosen change"].tolist() == pytest.approx(change.tolist())
    history = tau_frame(p, 6, chosen)
    assert set(history["label"]) == {"ARPO"}
    assert {sum(counts) for counts in history["tau_counts"]} == {p.stage5_batch_size}
    assert tau_frame(p, 6, chosen[:1]).empty


def test_missing_sft_module_is_named(micro, tmp_path):
    with pytest.raises(FileNotFoundError, match="06_stage4_sft"):
        compare_methods(micro.but(run_dir=str(tmp_path)), 6)


# --- chains of stages ---

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
        out = comparisons.stage_folder(q, number, group if number > 1 else 0, branch)
        out.mkdir(parents=True, exist_ok=True)
        run = {"number": number, "steps": 10 if number else 0, "seed": q.seed, "tokens": q.stage1_tokens}
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
    monkeypatch.setattr(comparisons, "run_chain", run_chain)
    monkeypatch.setattr(
        comparisons, "stage1_monolingual_base", lambda q, group, previous, branch: write(q, 1, group, previous, branch)
    )
    monkeypatch.setattr(
        comparisons,
        "evaluate_folder",
        lambda q, folder, group, name: [Record("p", name, "en-fi", "bleu", 1, 1, "", q.seed)],
    )
    made.clear()
    return p, made


def stages_of(folder) -> list[int]:
    """The numbers of the stages that a folder was made by, in order."""
    numbers = []
    while folder:
        run = comparisons.read_run(folder)
        numbers, folder = [run["number"], *numbers], run["previous"]
    return numbers[1:]  # without stage 0


def test_chains_are_the_stages_they_say(fake_stages):
    p, made = fake_stages
    records = comparisons.ablate_stages(p.but(seeds=2), 6)
    assert {(r.stage, r.seed) for r in records} == {(chain, seed) for chain in CHAINS for seed in (0, 1)}
    assert not any("ladder" in folder.parts for folder in made)
    folders = chain_folders(p, 6)
    assert {chain: stages_of(folder) for chain, folder in folders.items()} == STAGES_OF
    assert {chain: n_updates(folder) for chain, folder in folders.items()} == {
        c: 10 * len(s) for c, s in STAGES_OF.items()
    }
    assert comparisons.read_run(folders["full"])["tokens"] == p.stage1_tokens // 2


def test_a_whole_share_takes_the_ladder_for_the_full_chain(fake_stages):
    p, made = fake_stages
    folders = chain_folders(p.but(ablation_share=1.0), 6)
    assert folders["full"] == comparisons.stage_folder(p, 5, 6)
    assert {chain: stages_of(folder) for chain, folder in folders.items()} == STAGES_OF
    assert not any("ladder" in folder.parts for folder in made)


def test_only_a_lack_of_pairs_ends_a_chain_early(fake_stages, monkeypatch):
    p, _ = fake_stages
    start = comparisons.stage_folder(p, 4, 6)

    def fail(message):
        def run_chain(*_):
            raise ValueError(message)

        monkeypatch.setattr(comparisons, "run_chain", run_chain)

    fail("no preference pairs to train on: look at the report of build_pairs")
    assert comparisons._arpo(p, 6, start, "x") == start
    fail("something else")
    with pytest.raises(ValueError, match="something else"):
        comparisons._arpo(p, 6, start, "x")


def test_shortened_scales_every_budget_and_keeps_a_batch(micro):
    p = micro.but(ablation_share=0.25, stage5_pairs=40, stage4_epochs=2.0, stage1_tokens=100_000)
    short = shortened(p, seed=7)
    assert (short.seed, short.stage1_tokens, short.stage4_epochs, short.stage5_pairs) == (7, 25_000, 0.5, 10)
    assert short.stage2_tokens == p.stage2_batch_size * p.block_tokens  # a quarter would be none
    assert short.sft_pairs == p.sft_pairs


# --- intervals, tables, sentences ---


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 2.0, 3.0], 4.303 / 3**0.5),  # standard deviation 1
        ([5.0, 5.0, 5.0, 5.0], 0.0),
    ],
)
def test_half_width_by_hand(values, half):
    assert verdicts.half_width(values) == pytest.approx(half)


def test_half_width_of_two_is_unknown():
    assert pd.isna(verdicts.half_width([1.0, 2.0]))


def test_t_values_are_students():
    stats = pytest.importorskip("scipy.stats")
    expected = [round(float(stats.t.ppf(0.975, df)), 3) for df in range(2, 2 + len(verdicts.T_975))]
    assert list(verdicts.T_975) == expected


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
                    Record("tiny", name, direction, metric, 50.0, 10, "sig", seed) for metric in METRICS - {"bleu"}
                ]
    return made


def test_summary_means_and_intervals():
    bleu = {("arpo", "en-xx", 0): 19.0, ("arpo", "en-xx", 1): 20.0, ("arpo", "en-xx", 2): 21.0}
    frame = verdicts.summary(records_of(bleu, ["arpo"])).query("metric == 'bleu'").set_index("direction")
    assert frame["mean"].to_dict() == {"en-xx": 21.0, "xx-en": 21.0}
    assert frame["half"]["en-xx"] == pytest.approx(4.303 / 3**0.5)
    assert frame["half"]["xx-en"] == 0


def test_preference_table_keeps_paper_and_ours_apart():
    labels = {"stage4": "SFT, the start", "sft": "SFT (continued)", "simpo": "SimPO", "arpo": "ARPO"}
    table = verdicts.preference_table(records_of({}, labels), labels).set_index(["direction", "method"])
    assert table.loc[("en→xx", "ARPO"), "paper BLEU"] == "27.8"
    assert table.loc[("xx→en", "SimPO"), "paper COMET-22"] == "16.4?"  # an unsure cell shows it
    assert table.loc[("en→xx", "SFT (continued)"), "paper BLEU"] == ""
    assert set(table["our BLEU"]) == {21.0}


@pytest.mark.parametrize(
    ("arpo", "expected"),
    [(25.0, r"ARPO, en→xx: \+5.00 BLEU against SFT \(± 0.00\), more than the interval"), (20.0, r"\+0.00 .* within")],
)
def test_findings_follow_the_records(arpo, expected):
    labels = {"stage4": "SFT", "dpo": "DPO", "cpo": "CPO", "arpo": "ARPO"}
    bleu = {("arpo", "en-xx", seed): arpo for seed in range(3)}
    text = "\n".join(verdicts.preference_findings(records_of(bleu, labels), labels))
    assert re.search(expected, text)


def test_findings_compare_the_order_with_the_papers():
    labels = {"stage4": "SFT", "dpo": "DPO", "cpo": "CPO", "arpo": "ARPO"}
    paper = {"stage4": 26.5, "dpo": 0.7, "cpo": 22.2, "arpo": 27.8}
    bleu = {(name, "en-xx", seed): value for name, value in paper.items() for seed in range(3)}
    text = "\n".join(verdicts.preference_findings(records_of(bleu, labels), labels))
    assert "rank correlation of 1.00 over 4 methods" in text


def test_push_findings_name_the_fallen():
    table = pd.DataFrame(
        {"method": ["A", "B"], "chosen change": [-0.1, 0.2], "rejected change": [-0.5, -0.2]},
    )
    first, second = verdicts.push_findings(table)
    assert first == "The chosen answers became less likely with: A; no less likely with: B."
    assert "fell most with A, by 0.50" in second


def test_ablation_table_and_findings():
    bleu = {("no-stage4", "en-xx", seed): 3.0 for seed in range(3)}
    records = records_of(bleu, CHAINS)
    table = verdicts.ablation_table(records, dict.fromkeys(CHAINS, 5)).set_index(["direction", "recipe"])
    assert table.loc[("en→xx", CHAINS["no-stage4"]), "BLEU minus full"] == pytest.approx(-17)
    assert table.loc[("en→xx", CHAINS["no-stage5"]), "paper COMET-22"] == "90.1"
    assert (
        table.loc[("en→xx", CHAINS["no-stage1"]), "paper COMET-22"] == ""
    )  # the paper adds stages, it leaves none out
    last = {"base": 0, "no-stage5": 4, "full": 5, "no-stage1": 4}
    text = "\n".join(verdicts.ablation_findings(records, last))
    assert "without stage 4, SFT scores lowest, 4.0 BLEU against 21.0" in text
    assert text.count("no preference pair passed") == 1


# --- the picture of gradients ---


def trl_self(method: str, **more) -> SimpleNamespace:
    spec = METHODS[method]
    return SimpleNamespace(
        alpha=0.0, beta=spec.beta, label_smoothing=0.0, loss_type=spec.options.get("loss_type"),
        simpo_gamma=spec.options.get("simpo_gamma"), accelerator=SimpleNamespace(device="cpu"), **more,
    )  # fmt: skip


LOGPS = (torch.tensor([-12.0, -3.0, -20.0]), torch.tensor([-9.0, -8.0, -19.5]), torch.tensor([10.0, 4.0, 16.0]))


@pytest.mark.parametrize(("label", "averaged"), [("CPO", False), ("SimPO", True)])
def test_pair_losses_are_trls_cpo(label, averaged):
    chosen, rejected, n = LOGPS
    scale = n if averaged else torch.ones_like(n)
    trainer = METHODS[label.lower()].trainer
    theirs = trainer.cpo_loss(trl_self(label.lower()), chosen / scale, rejected / scale)[0]
    assert pair_losses()[label](chosen, rejected, n).tolist() == pytest.approx(theirs.tolist(), rel=1e-5)


def test_pair_losses_are_trls_orpo():
    chosen, rejected, n = LOGPS
    theirs = METHODS["orpo"].trainer.odds_ratio_loss(trl_self("orpo"), chosen / n, rejected / n)[0]
    # TRL adds beta * log sigmoid to be subtracted; ours is the loss
    assert pair_losses()["ORPO"](chosen, rejected, n).tolist() == pytest.approx((-theirs).tolist(), rel=1e-5)


@pytest.mark.parametrize(("label", "push"), [("DPO", 0.1 / 2), ("KTO", 0.1 / 8)])
def test_methods_with_a_reference_do_not_see_similarity(label, push):
    frame = gradient_frame().query("label == @label")
    assert frame["chosen"].tolist() == pytest.approx([push] * len(frame))
    assert frame["rejected"].tolist() == pytest.approx([-push] * len(frame))


def test_what_the_picture_says_near_zero():
    near = gradient_frame(differences=[-0.05, 0.05]).set_index(["label", "difference"])
    for side in (-0.05, 0.05):
        assert near.loc[("CPO", side), "rejected"] < -0.04
        assert abs(near.loc[("ARPO detached", side), "rejected"]) < 0.01
    assert near.loc[("ARPO", -0.05), "chosen"] < 0 < near.loc[("ARPO", -0.05), "rejected"]
    assert near.loc[("ARPO", 0.05), "rejected"] < near.loc[("CPO", 0.05), "rejected"]


@pytest.mark.parametrize("label", ["ARPO", "ARPO released code", "ORPO", "SimPO"])
def test_gradients_against_finite_differences(label):
    n, step = torch.tensor([16.0], dtype=torch.float64), 1e-5
    chosen, rejected = -1.0 * n, (-1.0 - 0.21) * n
    loss = pair_losses()[label]
    push = -(loss(chosen, rejected + step, n) - loss(chosen, rejected - step, n)) / (2 * step)
    found = gradient_frame(differences=[0.21]).query("label == @label")["rejected"].item()
    assert found == pytest.approx(push.item(), rel=1e-6)


def test_gradient_frame_refuses_probabilities_above_one():
    with pytest.raises(ValueError, match=r"chosen_avg=-0\.5"):
        gradient_frame(chosen_avg=-0.5, differences=[-0.6])


@pytest.mark.parametrize(
    ("preset", "z", "tau"),
    [("paper", 0.0, 0.0), ("paper", 0.2, 0.349859), ("paper", 0.47, 1.0), ("released-code", 0.0, -0.1),
     ("released-code", 1.0, 0.342642), ("released-code", 2.0, 1.0)],
)  # fmt: skip
def test_tau_curve(preset, z, tau):
    assert tau_curve(preset, [z]) == pytest.approx([tau], abs=1e-6)
