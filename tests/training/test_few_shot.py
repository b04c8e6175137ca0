"""Continuations in stage 3's form: what is asked, what is counted, and the partner gain."""

from __future__ import annotations

import math

import pytest
import torch

from xalma.corpora.registry import open_corpus
from xalma.data.mixing import pseudo_monolingual
from xalma.models.losses import plain_model
from xalma.training import ladder as recipe
from xalma.training.ladder import (
    continue_test,
    few_shot_rows,
    own_rows,
    partner_gain,
    reference_nats,
)
from xalma.training.stage_models import open_merged


def test_rows_have_the_form_of_the_training_text(micro):
    code = micro.languages_of(6)[0]
    dev, tests = (getattr(open_corpus(micro), split)(code) for split in ("dev", "test"))
    rows = [row for row in few_shot_rows(micro, 6) if code in row["direction"]]
    assert len(rows) == 2 * micro.test_pairs
    english_first = [f"{dev[0][0]} {dev[0][1]}", f"{tests[0][0]} {tests[0][1]}"]
    asked = rows[0]
    assert asked["direction"] == f"en-{code}"
    assert f"{asked['prompt']} {asked['reference']}" == "\n".join(english_first)
    trained_on = [dev[0], tests[0]]
    texts = {next(iter(pseudo_monolingual(trained_on, seed, per_document=2))) for seed in range(30)}
    assert f"{asked['prompt']} {asked['reference']}" in texts
    back = next(row for row in rows if row["direction"] == f"{code}-en")
    assert f"{back['prompt']} {back['reference']}" in texts
    assert asked["other"].endswith(f"\n{tests[1][0]}") and back["other"].endswith(f"\n{tests[1][1]}")


def test_without_examples_the_source_stands_alone(micro):
    assert all(row["prompt"] == row["source"] for row in few_shot_rows(micro, 6, shots=0))
    with pytest.raises(ValueError, match=r"5 example pairs asked for, but .* has 2 dev pairs"):
        few_shot_rows(micro, 6, shots=5)


def test_reference_nats_are_those_of_a_plain_forward(micro, ladder):
    model, tokenizer = open_merged(ladder[1])
    row = few_shot_rows(micro, 6)[0]
    start = [tokenizer.bos_token_id, *tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]]
    whole = [
        tokenizer.bos_token_id,
        *tokenizer(f"{row['prompt']} {row['reference']}", add_special_tokens=False)["input_ids"],
    ]
    assert whole[: len(start)] == start
    with torch.no_grad():
        logps = plain_model(model)(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
    expected = -sum(logps[i - 1, whole[i]].item() for i in range(len(start), len(whole)))
    assert reference_nats(model, tokenizer, [(row["prompt"], f" {row['reference']}")])[0] == pytest.approx(
        expected, rel=1e-4
    )


def test_partner_gain_is_in_bits_per_byte():
    rows = [
        {"nats": 1.0, "other_nats": 1.0 + 3 * math.log(2), "reference": "äb"},
        {"nats": 2.0, "other_nats": 2.0 + 2 * math.log(2), "reference": "cd"},
    ]
    assert partner_gain(rows) == pytest.approx(5 / 5)  # five bits saved over five bytes
    assert partner_gain([rows[0] | {"other_nats": 1.0 - 3 * math.log(2)}]) == pytest.approx(-1)


def test_each_stage_is_asked_in_its_own_form(micro, finished):
    """Up to stage 3 an example pair stands before the source; from stage 4 on the prompt asks."""
    assert [own_rows(micro, finished[n], 6)[0]["prompt"].startswith("[INST]") for n in (2, 3, 4)] == [0, 0, 1]


def test_continuations_are_kept_and_read_back(micro, ladder, monkeypatch):
    first = continue_test(micro, ladder[1], 6)

    def never(*args, **kwargs):
        raise AssertionError("decoded a second time")

    monkeypatch.setattr(recipe, "continued", never)
    assert continue_test(micro, ladder[1], 6) == first
    with pytest.raises(AssertionError, match="second time"):
        continue_test(micro, ladder[1], 6, shots=2)


def test_an_output_is_one_line(micro, ladder):
    rows = continue_test(micro, ladder[1], 6)
    assert all("\n" not in row["output"] for row in rows)
    assert all(row[key] > 0 for row in rows for key in ("nats", "other_nats", "text_nats"))
