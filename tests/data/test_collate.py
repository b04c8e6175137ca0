"""From prompt and completion to ids and masks, read back as text."""

from __future__ import annotations

import pytest
import torch

from xalma.data.collate import IGNORE, PadCollator, completion, sft_rows, tokenize_rows
from xalma.models.backbone import train_tokenizer

PAIRS = [("Germany and Japan", "Saksa ja Japani"), ("in 3 weeks", "3 viikon päästä")]


def kept(row, tokenizer) -> str:
    return tokenizer.decode([i for i in row["labels"] if i != IGNORE])


@pytest.mark.parametrize("style", ["xalma", "alma"])
def test_rows_are_both_directions(style):
    rows = sft_rows(PAIRS, "fi", style)
    assert [(r["src"], r["tgt"]) for r in rows] == [("en", "fi"), ("fi", "en")] * 2
    assert rows[1]["completion"] == " Germany and Japan"
    assert "Finnish: 3 viikon päästä\nEnglish:" in rows[3]["prompt"]
    assert rows[0]["prompt"].startswith("[INST]") == (style == "xalma")


@pytest.mark.parametrize("style", ["xalma", "alma"])
def test_the_loss_is_on_the_answer_alone(tokenizer, style):
    rows = sft_rows(PAIRS, "fi", style)
    encoded, dropped = tokenize_rows(rows, tokenizer, 300)
    assert dropped == 0
    for row, made in zip(rows, encoded, strict=True):
        assert tokenizer.decode(made["input_ids"]) == f"<s>{row['prompt']}{row['completion']}</s>"
        assert kept(made, tokenizer) == f"{row['completion']}</s>"
        assert len(made["labels"]) == len(made["input_ids"])
        assert made["labels"][0] == IGNORE


def test_a_merge_across_the_border_moves_it():
    """With "b c" one token, the model is given no part of it and must produce it whole."""
    tokenizer = train_tokenizer(["xyxyxy"] * 50, 300)
    row = {"prompt": "ax", "completion": "yb"}
    (made,), _ = tokenize_rows([row], tokenizer, 100)
    merged = tokenizer.convert_tokens_to_ids("xy")
    assert merged in made["input_ids"], "the tokenizer of this test must merge x and y"
    assert tokenizer.decode(made["input_ids"]) == "<s>axyb</s>"
    assert kept(made, tokenizer) == "xyb</s>"


def test_too_long_rows_are_counted(tokenizer):
    rows = sft_rows([*PAIRS, ("word " * 100, "sana " * 100)], "fi", "alma")
    encoded, dropped = tokenize_rows(rows, tokenizer, 150)
    assert (len(encoded), dropped) == (4, 2)
    longest = max(len(row["input_ids"]) for row in encoded)
    assert tokenize_rows(rows, tokenizer, longest)[1] == 2
    assert tokenize_rows(rows, tokenizer, longest - 1)[1] > 2
    with pytest.raises(ValueError, match="all 6 rows are longer than max_length=3 tokens: raise max_length"):
        tokenize_rows(rows, tokenizer, 3)
    with pytest.raises(ValueError, match="no sentence pairs"):
        tokenize_rows([], tokenizer, 300)


@pytest.mark.parametrize("left", [False, True])
def test_padding(left):
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORE, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = PadCollator(9, left=left)(rows)
    short = {
        True: ([9, 9, 8], [IGNORE, IGNORE, 8], [0, 0, 1]),
        False: ([8, 9, 9], [8, IGNORE, IGNORE], [1, 0, 0]),
    }[left]
    assert batch["input_ids"].tolist() == [[5, 6, 7], short[0]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7], short[1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], short[2]]


def test_a_text_that_holds_the_padding_token_is_not_hidden():
    """LLaMA-2 has no padding token and takes another's id; the mask must come from lengths."""
    batch = PadCollator(2)([{"input_ids": [1, 5, 2]}, {"input_ids": [2]}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "labels" not in batch


def test_packed_blocks_of_tensors_are_padded_too():
    block = torch.tensor([3, 4, 5])
    batch = PadCollator(0)([{"input_ids": block, "labels": block}] * 2)
    assert batch["input_ids"].tolist() == [[3, 4, 5]] * 2


def test_completion_starts_with_one_blank():
    assert completion("Saksa") == " Saksa"
