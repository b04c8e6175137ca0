"""Decoding in batches gives what decoding one by one gives, in the order asked."""

from __future__ import annotations

import pytest
import torch

from xalma.models.adapters import load_adapters
from xalma.models.backbone import build_llama
from xalma.models.generation import generate, translate
from xalma.prompts import translation_prompt

TEXTS = [
    "in 3 weeks",
    "Germany, France and Japan",
    "5 days ago: Finland",
    "x",
    "Monday, 4 May 2020 (12 metres)",
    "Japan",
]
PROMPTS = [translation_prompt(text, "en", "fi") for text in TEXTS]


@pytest.fixture
def lively(tokenizer):
    """A model with no training and large weights: it says something else to each prompt, and has no near ties."""
    model = build_llama(tokenizer, hidden_size=64, layers=2, heads=4, max_positions=512, seed=0).eval()
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() == 2:
                parameter *= 10
    return model


def greedy(model, tokenizer, prompt: str, n: int) -> str:
    """One token at a time, by hand and without cache or padding."""
    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + n:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_equal_greedy_by_hand(lively, tokenizer, batch_size):
    expected = [greedy(lively, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) == len(PROMPTS), "outputs that are equal would hide a wrong order"
    assert generate(lively, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size) == expected


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_shares_are_the_batches_of_the_whole(lively, tokenizer, monkeypatch, n):
    """Each batch is decoded in one share, with the same company, so that no output depends on their number."""
    shapes, inner = [], lively.generate
    spy = lambda **batch: shapes.append(tuple(batch["input_ids"].shape)) or inner(**batch)  # noqa: E731
    monkeypatch.setattr(lively, "generate", spy)
    whole = generate(lively, tokenizer, PROMPTS, max_new_tokens=12, batch_size=2)
    expected, shapes[:] = sorted(shapes), []
    shares = [
        generate(lively, tokenizer, PROMPTS, max_new_tokens=12, batch_size=2, share=(k, n)) for k in range(n)
    ]
    assert sorted(shapes) == expected
    assert ["".join(texts) for texts in zip(*shares, strict=True)] == whole
    assert all(sum(bool(text) for text in texts) == 1 for texts in zip(*shares, strict=True))


def test_longest_first(base, tokenizer, monkeypatch):
    lengths = []
    inner = base.generate

    def spy(**batch):
        lengths.append(batch["attention_mask"].sum(1).tolist())
        return inner(**batch)

    monkeypatch.setattr(base, "generate", spy)
    generate(base, tokenizer, PROMPTS, max_new_tokens=1, batch_size=2)
    flat = [n for batch in lengths for n in batch]
    assert [len(batch) for batch in lengths] == [2, 2, 2]
    assert flat == sorted(flat, reverse=True)


def test_beams_are_transformers_own_without_padding(lively, tokenizer):
    expected = []
    for prompt in PROMPTS:
        ids = [[tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]]
        found = lively.generate(torch.tensor(ids), num_beams=5, do_sample=False, max_new_tokens=8)
        expected.append(tokenizer.decode(found[0, len(ids[0]) :], skip_special_tokens=True))
    assert generate(lively, tokenizer, PROMPTS, beams=5, max_new_tokens=8, batch_size=4) == expected
    assert generate(lively, tokenizer, PROMPTS, beams=1, max_new_tokens=8, batch_size=4) != expected


def test_special_tokens_are_removed_and_the_mode_comes_back(base, tokenizer):
    base.train()
    outputs = generate(base, tokenizer, PROMPTS, max_new_tokens=30)
    assert not any(token in text for text in outputs for token in ("<s>", "</s>", "<pad>"))
    assert base.training


def test_nothing_in_nothing_out(base, tokenizer):
    assert generate(base, tokenizer, []) == []
    assert translate(base, tokenizer, [], "en", "fi") == []


def test_translate_is_prompt_generate_extract(base, tokenizer, monkeypatch):
    seen = {}

    def fake(model, tokenizer, prompts, **options):
        seen.update(prompts=prompts, **options)
        return [f"\n {i} käännös \nEnglish: more" for i in range(len(prompts))]

    monkeypatch.setattr("xalma.models.generation.generate", fake)
    assert translate(base, tokenizer, ["a", "b"], "fi", "en", prompt_style="alma", beams=3) == [
        "0 käännös",
        "1 käännös",
    ]
    assert seen["prompts"] == [
        f"Translate this from Finnish to English:\nFinnish: {t}\nEnglish:" for t in "ab"
    ]
    assert seen["beams"] == 3


def test_translate_gates_by_the_non_english_side(base, tokenizer, finished):
    model = load_adapters(base, {3: finished[2], 6: finished[4]})
    for src, tgt in (("en", "zh"), ("ko", "en")):
        model.set_adapter("group3")
        translate(model, tokenizer, ["x"], src, tgt, max_new_tokens=1)
        assert model.active_adapter == "group6"
    with pytest.raises(ValueError, match="module of group 1 is not loaded"):
        translate(model, tokenizer, ["x"], "en", "de")


@pytest.mark.parametrize(
    ("src", "tgt", "why"),
    [
        ("en", "xx", "unknown language code 'xx'"),
        ("de", "fr", "not English-centric"),
        ("en", "en", "source and target are the same"),
    ],
)
def test_bad_directions(base, tokenizer, src, tgt, why):
    with pytest.raises(ValueError, match=why):
        translate(base, tokenizer, ["x"], src, tgt)
