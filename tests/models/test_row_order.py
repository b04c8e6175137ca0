"""Rows go in sorted by group and come out in the caller's order; what has no rows stays as it is."""

from __future__ import annotations

import pytest
import torch
from transformers.generation import GenerateBeamDecoderOnlyOutput
from transformers.modeling_outputs import CausalLMOutput

from xalma.models.grouped_lora import restore_rows, sort_rows

IDS = torch.tensor([[10, 10], [20, 20], [30, 30]])


def test_sorted_rows_are_left_alone():
    inputs, back = sort_rows({"input_ids": IDS, "labels": None, "use_cache": True}, [1, 1, 6])
    assert back is None and inputs["input_ids"] is IDS and set(inputs) == {"input_ids", "use_cache"}
    assert restore_rows(IDS, None) is IDS


def test_sorting_is_stable_and_undone():
    inputs, back = sort_rows({"input_ids": IDS, "attention_mask": IDS + 1, "max_new_tokens": 3}, [6, 1, 6])
    assert inputs["input_ids"][:, 0].tolist() == [20, 10, 30]
    assert inputs["attention_mask"][:, 0].tolist() == [21, 11, 31] and inputs["max_new_tokens"] == 3
    assert torch.equal(restore_rows(inputs["input_ids"], back), IDS)
    twice = inputs["input_ids"].repeat_interleave(2, 0)  # two beams a row
    assert restore_rows(twice, back)[:, 0].tolist() == [10, 10, 20, 20, 30, 30]


def test_outputs_of_a_model():
    _, back = sort_rows({"input_ids": IDS}, [6, 1, 6])
    found = CausalLMOutput(
        loss=torch.tensor(1.5), logits=torch.tensor([[2.0], [1.0], [3.0]]), hidden_states=(IDS,)
    )
    found = restore_rows(found, back)
    assert found.loss.item() == 1.5 and found.logits[:, 0].tolist() == [1, 2, 3]
    assert found.hidden_states[0][:, 0].tolist() == [20, 10, 30]


def test_beam_indices_name_the_callers_rows():
    """Each value is the row of `scores` that a token's score lies in: found there after both were put in order."""
    _, back = sort_rows({"input_ids": IDS[:2]}, [6, 1])
    scores = torch.tensor([[0.0], [1.0], [2.0], [3.0]])  # two rows of two beams, sorted
    named = torch.tensor([[1, 0, -1], [2, 3, 3]])
    before = [[scores[i, 0].item() for i in row if i >= 0] for row in named]
    found = GenerateBeamDecoderOnlyOutput(sequences=IDS[:2], scores=(scores,), beam_indices=named)
    found = restore_rows(found, back)
    after = [[found.scores[0][i, 0].item() for i in row if i >= 0] for row in found.beam_indices]
    assert after == before[::-1] and found.beam_indices[1].tolist()[2] == -1


def test_a_group_for_each_row():
    with pytest.raises(ValueError, match="2 languages for 3 rows of input_ids: give one for each"):
        sort_rows({"input_ids": IDS}, [1, 6])
