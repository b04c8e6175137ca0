"""The small tokenizer loses nothing in any script; the small LLaMA has LLaMA's shape and is saved as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from xalma.corpora.phrasebook.phrasebook import Phrasebook
from xalma.models.backbone import build_llama, load_base, save_base, train_tokenizer

# One language of each of the table's twelve scripts.
ONE_A_SCRIPT = ["fi", "ru", "el", "ka", "he", "ar", "th", "hi", "gu", "ko", "ja", "zh"]


@pytest.mark.parametrize("lang", ONE_A_SCRIPT)
def test_every_script_survives(tokenizer, lang):
    """The tokenizer was trained on group 6 alone: bytes carry the rest."""
    for text in Phrasebook().sentences(lang, "test", 20):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["", " ", "  a  b ", "a\n\nb\r\n", "\u200f\u200d\ufeff", "😀 e\u0301", "a ,b 's ."]
)
def test_blanks_and_odd_characters_survive(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_each_digit_is_a_token(tokenizer):
    digits = {tokenizer.convert_tokens_to_ids(d) for d in "0123456789"}
    assert len(digits) == 10
    ids = tokenizer("in 2024 12345 weeks", add_special_tokens=False)["input_ids"]
    assert sum(i in digits for i in ids) == 9
    longer = [
        t
        for t in tokenizer.get_vocab()
        if sum(c.isascii() and c.isdigit() for c in t) > 1
        or (len(t) > 1 and t[-1].isdigit() and t[-1].isascii())
    ]
    assert longer == []


def test_special_tokens_and_size(tokenizer):
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<pad>", "<s>", "</s>")] == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(tokenizer) == 600


TRAIN = """
import json, sys
from xalma.models.backbone import train_tokenizer

print(train_tokenizer(iter(json.load(sys.stdin)), 900).backend_tokenizer.to_str())
"""


@pytest.mark.slow
def test_equal_text_gives_an_equal_tokenizer_to_the_byte():
    """Each process has its own hash seeds, the last one counts words in three threads; so has each training's map."""
    texts = [text for code in ("fi", "ja", "ko") for text in Phrasebook().sentences(code, "monolingual", 400)]
    first, *others = (train_tokenizer(iter(texts), 900).backend_tokenizer.to_str() for _ in range(4))
    assert len(json.loads(first)["model"]["merges"]) > 500

    def trained(seed: str, threads: str) -> str:
        settings = {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": threads, "RAYON_NUM_THREADS": "3"}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **settings},
        )
        return done.stdout.rstrip("\n") or done.stderr

    with ThreadPoolExecutor(2) as pool:
        others += pool.map(trained, ("1", "2"), ("false", "true"))
    assert all(other == first for other in others)


def test_the_model_has_the_size_asked_for(tokenizer):
    model = build_llama(tokenizer, hidden_size=48, layers=2, heads=4, max_positions=128, seed=0)
    width, inner = 48, 128  # 8/3 of 48
    layer = 4 * width**2 + 3 * width * inner + 2 * width
    assert model.num_parameters() == 600 * width + 2 * layer + width  # embeddings tied
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.max_position_embeddings == 128
    assert model.config.model_type == "llama"


def test_the_seed_decides_the_weights(tokenizer):
    def embeddings(seed):
        return (
            build_llama(tokenizer, hidden_size=32, layers=1, heads=2, max_positions=64, seed=seed)
            .get_input_embeddings()
            .weight
        )

    assert torch.equal(embeddings(1), embeddings(1))
    assert not torch.equal(embeddings(1), embeddings(2))


def test_saved_and_loaded_gives_equal_logits(tokenizer, tmp_path):
    model = build_llama(tokenizer, hidden_size=32, layers=2, heads=2, max_positions=64, seed=3).eval()
    save_base(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert not list(tmp_path.glob("*.bin"))
    again, same = load_base(tmp_path)
    text = "5 päivää sitten: 德国 និង ia"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert torch.equal(ids, same(text, return_tensors="pt", add_special_tokens=False)["input_ids"])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with torch.no_grad():  # weights read from a file lie otherwise in memory, which may change the last bit
        torch.testing.assert_close(model(ids).logits, again.eval()(ids).logits, atol=1e-6, rtol=1e-6)


def test_dtype_is_followed(tokenizer, tmp_path):
    save_base(
        build_llama(tokenizer, hidden_size=32, layers=1, heads=2, max_positions=64, seed=0),
        tokenizer,
        tmp_path,
    )
    assert load_base(tmp_path, "bfloat16")[0].dtype == torch.bfloat16
    assert load_base(tmp_path)[0].dtype == torch.float32


def test_a_tokenizer_without_padding_or_start_gets_them(tokenizer, tmp_path):
    """Qwen has no BOS, LLaMA-2 no padding token."""
    save_base(
        build_llama(tokenizer, hidden_size=32, layers=1, heads=2, max_positions=64, seed=0),
        tokenizer,
        tmp_path,
    )
    tokenizer.bos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    _, loaded = load_base(tmp_path)
    assert loaded.pad_token_id == loaded.bos_token_id == loaded.eos_token_id == 2
