"""GRPO's reward against closed forms, TRL's advantages per group, and a training that is rewarded more and more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_arpo import tiny_model, tiny_rows, tiny_tokenizer
from trl import GRPOTrainer

import xalma.preference.grpo as grpo
from xalma.preference.grpo import GatedReward, reward_metric
from xalma.preference.methods import train_preference
from xalma.prompts import STYLES, source_in, translation_prompt

GERMAN = "Der Ausschuss hat gestern beschlossen, dass die Schule wieder geöffnet wird."
ENGLISH = "The committee decided yesterday that the school will be opened again."


def reward(completions, chosen, tgt, src="en", source="A sentence.", **kind):
    prompts = [translation_prompt(source, src, code or "de") for code in tgt]
    return GatedReward(**kind)(
        completions, prompts=prompts, chosen=chosen, src=[src] * len(tgt), tgt=tgt, completion_ids=None
    )


# --- the reward ---


def test_chrf_as_worked_out_by_hand():
    """abc against abcd: precision 1 at orders 1 to 3, recall 3/4, 2/3, 1/2; F with beta 2 of their means is 115/167."""
    found = reward([" abc", " abcd", " xyz"], [" abcd"] * 3, [""] * 3)
    assert found == pytest.approx([115 / 167, 1.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "tgt", "passes"),
    [
        (f" {GERMAN}", "de", True),
        (f" {ENGLISH}", "de", False),  # of one script: the identifier
        (" Школа открыта", "de", False),
        (" სკოლა ღიაა", "ka", True),
        (" 12.5.2021", "de", True),  # no letters: nothing says that it is wrong, chrF decides
        (" ", "de", False),
        ("", "de", False),
        ("\n\n", "de", False),
    ],
)
def test_the_gate_is_0_for_another_language_and_for_no_answer(answer, tgt, passes):
    """The chosen answer is the answer itself, so that quality alone would give 1."""
    assert reward([answer], [answer or " x"], [tgt]) == [float(passes)]


def test_the_answer_ends_with_its_line_as_in_the_evaluation():
    assert reward([f" {GERMAN}\nand more"], [f" {GERMAN}"], ["de"]) == [1.0]


def test_a_quality_estimate_reads_the_source_and_never_what_the_gate_stopped(monkeypatch):
    asked = []

    def scorer(metric, checkpoint):
        assert (metric, checkpoint) == ("cometkiwi", "FOLDER=1")
        return lambda samples: asked.extend(samples) or np.array([1.7, -0.2, 0.25])

    monkeypatch.setattr(grpo, "scorer_of", scorer)
    answers = [f" {GERMAN}", " Школа", " Guten Tag", " Ja"]
    found = reward(answers, [" r"] * 4, ["de"] * 4, source="Two\twords: yes\n", reward="cometkiwi=FOLDER=1")
    assert found == [1.0, 0.0, 0.0, 0.25]  # cut to 0 to 1, so that the gate's 0 is the least
    assert [sample["mt"] for sample in asked] == [GERMAN, "Guten Tag", "Ja"]
    assert {sample["src"] for sample in asked} == {"Two\twords: yes\n"}
    assert {sample["ref"] for sample in asked} == {"r"}


@pytest.mark.parametrize("style", [*STYLES, "<|user|>{prompt}<|model|>"])
@pytest.mark.parametrize("text", ["Guten Tag", "German:\nEnglish: x\nGerman:", ""])
def test_the_source_is_read_back_out_of_the_prompt(style, text):
    assert source_in(f"<s>{translation_prompt(text, 'en', 'de', style)}", "en", "de") == text


def test_a_prompt_of_another_form_and_an_unknown_reward_are_named():
    with pytest.raises(ValueError, match="'Hello' is no prompt for en-de"):
        source_in("Hello", "en", "de")
    with pytest.raises(ValueError, match=r"unknown reward 'bleurt=x': use a metric .* cometkiwi"):
        reward_metric("bleurt=x")
    assert reward_metric("cometkiwi=FOLDER") == "cometkiwi"


# --- training ---


def trained(tmp_path, monkeypatch, rows, **changes):
    """(log, the trainer's last rewards and advantages) of a small training of all weights."""
    kept, original = [], GRPOTrainer.__init__

    def init(self, *arguments, **options):
        original(self, *arguments, **options)
        kept.append(self)

    monkeypatch.setattr(GRPOTrainer, "__init__", init)
    options = {"learning_rate": 1e-2, "batch_size": 2, "max_steps": 1, "num_generations": 4} | changes
    log = train_preference(
        "grpo",
        tiny_model(),
        tiny_tokenizer(),
        rows,
        seed=0,
        output_dir=tmp_path,
        n_probe_rows=2,
        max_completion_length=12,
        **options,
    )[1]
    logs = kept[0]._logs
    return (
        [e for e in log if e["kind"] == "train"],
        np.array(logs["rewards"]["chrf"]),
        np.array(logs["advantages"]),
    )


def alphabet(n=4):
    return [row | {"chosen": " abcdefghijklmnopqrstuvwxyz"} for row in tiny_rows(n)]


def test_advantages_are_normalised_in_each_group_of_a_prompt(tmp_path, monkeypatch):
    """(r - mean) / (std + 1e-4), std with n - 1, over the answers to one prompt, also where a batch is accumulated."""
    for micro in (2, 1):
        _, rewards, advantages = trained(tmp_path, monkeypatch, alphabet(), micro_batch=micro)
        groups = rewards.reshape(2, 4)
        assert groups.std() > 0
        expected = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
        assert advantages == pytest.approx(expected.ravel(), abs=1e-4)


def test_training_raises_the_mean_reward(tmp_path, monkeypatch):
    """The model begins with bytes at random; letters are rewarded."""
    log, _, _ = trained(
        tmp_path, monkeypatch, alphabet(), max_steps=16, num_generations=16, learning_rate=0.03
    )
    rewards = [entry["reward"] for entry in log]
    assert np.mean(rewards[-4:]) > 2 * np.mean(rewards[:2]), rewards


def test_without_any_reward_nothing_but_weight_decay_moves(tmp_path, monkeypatch):
    """Answers of a model that writes random bytes are no Georgian: the gate is shut, and no answer beats another."""
    rows = [row | {"src": "en", "tgt": "ka"} for row in alphabet()]
    log, rewards, advantages = trained(tmp_path, monkeypatch, rows)
    assert not advantages.any() and len(set(rewards)) <= 2
    assert log[0]["grad_norm"] == pytest.approx(0.0, abs=1e-6)


def test_options_of_grpo_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"'temperature'.* no options of 'grpo'"):
        train_preference(
            "grpo",
            torch.nn.Linear(2, 2),
            tiny_tokenizer(),
            tiny_rows(2),
            learning_rate=1e-3,
            batch_size=2,
            max_steps=1,
            seed=0,
            output_dir=tmp_path,
            temperature=2,
        )
