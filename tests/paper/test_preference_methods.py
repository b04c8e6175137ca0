"""The same terms for every method, and nothing trained twice."""

from __future__ import annotations

import pytest

from xalma.evaluation.interference import MARK
from xalma.paper.studies import preference_methods, study
from xalma.paper.studies.over_rejection import probe_frame, push_table, tau_frame
from xalma.paper.studies.preference_methods import MethodSetup, compare_methods, systems
from xalma.preference.method_specs import METHODS, OF_PAIRS

METRICS = {"bleu", "chrf", "off_target", "empty", "bits_per_byte", "drift_chrf", "length_ratio"}


# --- which systems ---


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        ("all", list(OF_PAIRS)),
        ("all, grpo", list(METHODS)),
        ("grpo,sft", ["sft", "grpo"]),
        ("arpo, cpo", ["cpo", "arpo"]),
        ("dpo+bc", ["dpo+bc"]),
    ],
)
def test_systems_in_the_order_of_table_5(micro, methods, names):
    assert [system.name for system in systems(micro.but(methods=methods))] == names


def test_unknown_method_names_near_ones(micro):
    with pytest.raises(ValueError, match=r"'arop'.*arpo"):
        systems(micro.but(methods="arop"))


def test_arpo_gets_the_options_of_stage_5_and_variants_change_only_theirs(micro):
    (arpo,) = systems(micro.but(methods="arpo", arpo_eta=0.7))
    assert arpo.options["eta"] == 0.7
    detached = next(s for s in preference_methods.arpo_variants(micro) if s.name == "arpo detached")
    assert detached.options == systems(micro.but(methods="arpo"))[0].options | {"detach_penalty": True}


# --- training on equal terms, once ---


@pytest.fixture(scope="module")
def trained(micro, finished):
    """Two methods trained on made-up pairs; the micro model's own answers may all be filtered out."""
    p = micro.but(methods="cpo,arpo,grpo", seeds=2, grpo_samples=2)
    rows = [
        {
            "prompt": f"Say {i}:",
            "chosen": f" yes {i}",
            "rejected": f" no, {i} and {i}",
            "src": "en",
            "tgt": "fi",
        }
        for i in range(6)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preference_methods, "preference_pairs", lambda *_: (rows, {"considered": 6, "kept": 6}))
        yield p, compare_methods(p, 6)


def test_every_system_seed_direction_and_metric_once(trained):
    p, records = trained
    assert len({record.key for record in records}) == len(records)
    found = {(record.stage, record.seed) for record in records}
    assert found == {("stage4", 0), *((name, seed) for name in ("cpo", "arpo", "grpo") for seed in (0, 1))}
    assert {record.metric for record in records} == METRICS
    assert {record.direction for record in records} == {
        f"{a}-{b}" for c in p.languages for a, b in (("en", c), (c, "en"))
    }


def test_scores_by_the_family_of_grpos_reward_say_that_they_are_no_independent_ones(trained):
    marked = {
        (record.stage, record.metric)
        for record in trained[1]
        if f"{MARK} pairs chosen by chrf" in record.signature
    }
    assert marked == {("grpo", "bleu"), ("grpo", "chrf")}


def test_the_start_has_not_drifted_from_itself(trained):
    values = [r.value for r in trained[1] if r.stage == "stage4" and r.metric == "drift_chrf"]
    assert set(values) == {100.0}


def test_two_empty_outputs_have_not_drifted():
    assert preference_methods._drift(["", ""], ["", ""], "fi")[0] == 100.0
    assert preference_methods._drift(["kolme", ""], ["", ""], "fi")[0] == 0.0


def test_a_second_call_trains_nothing_and_says_the_same(trained, monkeypatch):
    p, records = trained
    monkeypatch.setattr(preference_methods, "train_preference", lambda *_, **__: pytest.fail("trained again"))
    assert compare_methods(p, 6) == records


def test_a_changed_option_is_trained_again(trained, monkeypatch):
    p, _ = trained
    seen = []
    original = preference_methods.train_preference
    monkeypatch.setattr(
        preference_methods,
        "train_preference",
        lambda method, *a, **k: seen.append(k) or original(method, *a, **k),
    )
    system = MethodSetup("arpo", "ARPO", "arpo", {"eta": 3.0})
    preference_methods._train_system(study.one_share(p), 6, system, 0)
    assert [(k["eta"], k["seed"], k["max_steps"]) for k in seen] == [(3.0, 0, p.comparison_steps)]


def test_logs_become_frames(trained):
    p, _ = trained
    chosen = systems(p)
    frame = probe_frame(p, 6, chosen)
    assert set(frame["label"]) == {"CPO", "ARPO", "GRPO"} and set(frame["seed"]) == {0, 1}
    assert frame[frame["step"] == 0]["chosen_avg_logp"].nunique() == 1  # all start alike
    table = push_table(frame)
    assert table["method"].tolist() == ["CPO", "ARPO", "GRPO"]
    change = table["chosen after"] - table["chosen before"]
    assert table["chosen change"].tolist() == pytest.approx(change.tolist())
    history = tau_frame(p, 6, chosen)
    assert set(history["label"]) == {"ARPO"}
    assert {sum(counts) for counts in history["tau_counts"]} == {p.stage5_batch_size}
    assert tau_frame(p, 6, chosen[:1]).empty


def test_missing_sft_module_is_named(micro, tmp_path):
    with pytest.raises(FileNotFoundError, match="06_stage4_sft"):
        compare_methods(micro.but(run_dir=str(tmp_path)), 6)
