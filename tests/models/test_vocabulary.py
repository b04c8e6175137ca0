"""A trimmed base cuts its texts as the whole one, has the same hidden states and logits, and finds the way back."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("gguf")

import torch
from tiny_gguf import LINES, byte_level, write_gguf
from transformers import PreTrainedTokenizerFast

from xalma.cli.main import main
from xalma.models.backbone import load_base, save_base
from xalma.models.bases.gguf_files import convert_gguf
from xalma.models.bases.vocabulary import (
    count_tokens,
    kept_tokens,
    restore_base,
    trim_base,
    trim_tokenizer,
    used_ids,
)

TEXTS = ["Das Buch liegt auf dem Tisch.", "  two   blanks 12", "", "本が机の上", "½ 🤖"]
OTHER = [*LINES, "никто", "entirely unseen words <b>", "\t\u200b"]
KINDS = {"sentencepiece, tied": ("gemma3", None), "byte level, untied": ("llama", byte_level)}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """(folder of a whole base, its GGUF file)."""
    folder = tmp_path_factory.mktemp("base")
    kind, tokenizer = KINDS[request.param]
    write_gguf(folder / "tiny.gguf", kind, tokenizer and tokenizer())
    return convert_gguf(folder / "tiny.gguf", folder / "whole", "float32", check=False), folder / "tiny.gguf"


def test_texts_are_cut_and_read_as_before(whole, tmp_path):
    model, tokenizer = load_base(whole[0])
    small_model, small = load_base(trim_base(whole[0], TEXTS, tmp_path / "small"))
    kept = torch.tensor(kept_tokens(tokenizer, count_tokens(tokenizer, TEXTS)))
    assert len(kept) == len(small) == small_model.config.vocab_size < len(tokenizer)
    assert small_model.num_parameters() < model.num_parameters()
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.bos_token_id, *used_ids(tokenizer, [text])[0]]])
        own = torch.tensor([[small.bos_token_id, *used_ids(small, [text])[0]]])
        assert torch.equal(kept[own], ids)
        with torch.no_grad():
            one, two = model(ids, output_hidden_states=True), small_model(own, output_hidden_states=True)
        assert torch.equal(one.hidden_states[-1], two.hidden_states[-1])
        torch.testing.assert_close(one.logits[..., kept], two.logits, atol=1e-5, rtol=1e-5)
    record = json.loads((tmp_path / "small" / "base.json").read_text())
    assert record["trimmed"] == {
        "tokens": len(small),
        "of": len(tokenizer),
        "texts": len(TEXTS),
        "texts_cut_otherwise": 0,
    }
    assert record["sha256"]  # of the file it all comes from


def test_special_ids_and_other_texts_survive(whole, tmp_path):
    model, small = load_base(trim_base(whole[0], TEXTS, tmp_path / "small"))
    _, tokenizer = load_base(whole[0])
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(small, name) == getattr(tokenizer, name)
        assert getattr(model.config, f"{name}_id") == small.convert_tokens_to_ids(getattr(tokenizer, name))
    assert (small("x")["input_ids"][0] == small.bos_token_id) == (
        tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    )
    for text in OTHER:  # bytes are kept, so nothing is lost
        assert small.decode(used_ids(small, [text])[0]) == text


def test_the_way_back_keeps_trained_rows(whole, tmp_path):
    trim_base(whole[0], TEXTS, tmp_path / "small")
    model, small = load_base(tmp_path / "small")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.5)
    save_base(model, small, tmp_path / "trained")
    back, tokenizer = load_base(restore_base(tmp_path / "trained", whole[0], tmp_path / "back"))
    before, same = load_base(whole[0])
    assert tokenizer.backend_tokenizer.to_str() == same.backend_tokenizer.to_str()
    assert back.config.vocab_size == before.config.vocab_size
    kept = kept_tokens(same, count_tokens(same, TEXTS))
    for module in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, module)().weight, getattr(back, module)().weight
        assert torch.equal(new[kept], old[kept] + 0.5)
        others = sorted(set(range(len(old))) - set(kept))
        assert torch.equal(new[others], old[others])


def test_a_limit_keeps_the_most_frequent_and_counts_what_changes(whole, tmp_path):
    texts = ["the book the book the book"] * 9 + ["the Tisch"]
    _, tokenizer = load_base(whole[0])
    least = len(kept_tokens(tokenizer, count_tokens(tokenizer, [])))
    every = len(kept_tokens(tokenizer, count_tokens(tokenizer, texts)))
    trim_base(whole[0], texts, tmp_path / "small", limit=every - 1)
    trimmed = json.loads((tmp_path / "small" / "base.json").read_text())["trimmed"]
    assert trimmed["texts_cut_otherwise"] == 1 and least < trimmed["tokens"] < every
    with pytest.raises(ValueError, match=f"can't hold the {least} bytes and special tokens"):
        trim_base(whole[0], texts, tmp_path / "none", limit=least)
    assert not (tmp_path / "none").exists()


def test_placeholders_go_unless_used(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    tokenizer = load_base(convert_gguf(tmp_path / "tiny.gguf", tmp_path / "base", check=False))[1]
    tokenizer.add_tokens(["<unused1>", "<unused2>", "<turn>"], special_tokens=True)
    small = trim_tokenizer(tokenizer, kept_tokens(tokenizer, count_tokens(tokenizer, ["a <unused2>"])))
    assert {"<unused2>", "<turn>"} <= small.get_vocab().keys() and "<unused1>" not in small.get_vocab()


def test_a_tokenizer_that_is_no_bpe_is_refused():
    from tokenizers import Tokenizer, models

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    with pytest.raises(ValueError, match="only the vocabulary of a fast BPE tokenizer"):
        kept_tokens(tokenizer, count_tokens(tokenizer, ["a"]))


def test_another_base_is_no_way_back(whole, tmp_path):
    small = trim_base(whole[0], TEXTS, tmp_path / "small")
    model, tokenizer = load_base(small)
    tokenizer.add_tokens(["<new>"])
    save_base(model, tokenizer, tmp_path / "small2")
    with pytest.raises(ValueError, match=r"has no token '<new>'|has ids up to"):
        restore_base(tmp_path / "small2", whole[0], tmp_path / "back")


def test_trim_on_the_command_line(whole, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    small = tmp_path / "small"
    text = str(tmp_path / "a.txt")
    assert main(["trim", "--from", str(whole[0]), "--texts", text, "--to", str(small)]) == 0
    assert capsys.readouterr().out.strip() == str(small)
    assert (
        main(["trim", "--from", str(small), "--restore", str(whole[0]), "--to", str(tmp_path / "back")]) == 0
    )
    one, two = load_base(tmp_path / "back")[0], load_base(whole[0])[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert main(["trim", "--from", str(small), "--texts", text, "--to", str(small)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["trim", "--from", str(small), "--to", str(tmp_path / "x")]) == 2
    assert "--texts" in capsys.readouterr().err
