"""Exports in ordinary programs: the card's own snippets, as printed, in fresh processes, say what the bank says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from test_arpo import tiny_tokenizer
from tiny_systems import KINDS
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from xalma.languages import ENGLISH
from xalma.models.bank import load_modules
from xalma.models.generation import generate
from xalma.profiles import load_profile
from xalma.prompts import STYLES, chat_style, translation_prompt
from xalma.training.export.clients import chat_template, save_tokenizer
from xalma.training.export.export import export
from xalma.training.stage_models import open_merged

CHAT = '<|user|>\n{prompt}\n"quoted" {{ 7 }} {% x %} é\\ <|assistant|>\n'


@pytest.fixture(scope="module")
def merged(micro, finished, tmp_path_factory):
    return export(micro, 6, tmp_path_factory.mktemp("clients") / "merged", sentences=4)


@pytest.fixture(scope="module")
def adapter(micro, finished, tmp_path_factory):
    """With its base beside it."""
    return export(
        micro, 6, tmp_path_factory.mktemp("clients") / "adapter", what="adapter", with_base=True, sentences=4
    )


@pytest.fixture(scope="module")
def expected(micro, finished) -> str:
    """What the bank answers to the card's example."""
    bank = load_modules(finished[5])
    options = {"prompt_style": micro.prompt_style, "max_new_tokens": micro.max_new_tokens}
    (text,) = bank.translate(["Good morning."], ENGLISH, micro.languages_of(6)[0], **options)
    assert text
    return text


def snippets(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, folder: Path, **more: str) -> str:
    """What a fresh Python in that folder prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_the_cards_snippet_in_plain_transformers(merged, expected):
    code = snippets(merged)[0]
    assert run(code, merged) == expected
    assert run(code.replace(", **options", ""), merged).startswith(
        expected
    )  # the pipeline alone samples, up to 256


def test_the_cards_snippet_in_plain_peft(adapter, expected):
    (code,) = snippets(adapter)
    assert "AutoPeftModelForCausalLM" in code
    assert run(code, adapter) == expected


def test_the_cards_snippet_in_ctranslate2(merged, expected, tmp_path):
    site = os.environ.get("XALMA_CTRANSLATE2", "")  # a folder it is installed in
    if not site and find_spec("ctranslate2") is None:
        pytest.skip(
            "ctranslate2 is not installed: pip install ctranslate2, or name its folder in XALMA_CTRANSLATE2"
        )
    code = snippets(merged)[1].replace('"ct2"', repr(str(tmp_path / "ct2")))
    assert run(code, merged, PYTHONPATH=site) == expected


def test_every_direction_by_the_chat_template(merged, micro, finished):
    """A user's turn with the bare prompt gives the very tokens, and so the answers, of xalma's own decoding."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(merged), AutoTokenizer.from_pretrained(merged)
    ours, own = open_merged(finished[5])
    assert (model.generation_config.num_beams, model.generation_config.top_k) == (micro.beams, 1)
    for code in micro.languages_of(6):
        for src, tgt in ((ENGLISH, code), (code, ENGLISH)):
            prompt = translation_prompt("A cat.", src, tgt, micro.prompt_style)
            turn = [{"role": "user", "content": translation_prompt("A cat.", src, tgt, "alma")}]
            ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt")
            assert ids[0].tolist() == [own.bos_token_id, *own(prompt, add_special_tokens=False)["input_ids"]]
            assert ids[0].tolist() == tokenizer(prompt)["input_ids"]
            answer = tokenizer.decode(model.generate(ids)[0, ids.shape[1] :], skip_special_tokens=True)
            assert answer == generate(ours, own, [prompt], max_new_tokens=micro.max_new_tokens)[0]


@pytest.mark.parametrize("style", [*STYLES, CHAT])
def test_a_template_is_the_prompt_whatever_its_letters(style):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = chat_template(style)
    question = translation_prompt("{{ x }}", "en", "de", "alma")
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": question}]
    found = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert found == "<s>" + translation_prompt("{{ x }}", "en", "de", style)


@pytest.mark.parametrize("kind", ["llama", "llama3", "bloom", "cohere"])
def test_tokenizers_of_all_kinds_begin_with_bos_once(kind, tmp_path):
    """Byte-level and sentencepiece, with and without a habit of their own; the same tokens but for that one."""
    KINDS[kind](tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    save_tokenizer(tokenizer, "xalma", tmp_path / "out")
    found, text = AutoTokenizer.from_pretrained(tmp_path / "out"), "Good morning.\nThe cat: 12 days"
    assert found(text)["input_ids"] == [
        tokenizer.bos_token_id,
        *tokenizer(text, add_special_tokens=False)["input_ids"],
    ]
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["add_bos_token"] is True
    assert found.decode(found(text)["input_ids"], skip_special_tokens=True) == text


def test_an_adapter_names_a_base_that_can_be_loaded(micro, finished, ladder, adapter, tmp_path):
    """Without --with-base and --base-id: the stage's own, seen from the export; and nothing of this machine's paths."""
    out = export(micro, 6, tmp_path / "out", what="adapter", sentences=2)
    named = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert not Path(named).is_absolute() and (out / named).resolve() == ladder[1].resolve()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    a, b = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (adapter / "base", ladder[1])
    )
    assert all(torch.equal(a[name], b[name]) for name in b) and a.keys() == b.keys()
    assert load_modules({6: adapter}).groups == (6,)


def test_bad_requests(micro, tmp_path):
    for options, why in (
        ({"sentences": 0}, "can't compare 0 sentences"),
        ({"with_base": True}, "base goes beside an"),
    ):
        with pytest.raises(ValueError, match=why):
            export(micro, 6, tmp_path / "out", **options)


def test_prompt_style_chat_is_the_bases_own_form(tmp_path):
    KINDS["llama3"](tmp_path)
    p = load_profile("tiny", base=str(tmp_path), prompt_style="chat")
    assert (
        p.prompt_style == chat_style(AutoTokenizer.from_pretrained(tmp_path)) and "{prompt}" in p.prompt_style
    )
    assert load_profile("tiny", prompt_style="chat", base=str(tmp_path)) == p == p.but(prompt_style="chat")
    with pytest.raises(
        ValueError, match="prompt_style=chat takes the chat template of a base: give --set base="
    ):
        load_profile("alma-tiny", base="", prompt_style="chat")
    KINDS["llama"](tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="this base has no chat template"):
        load_profile("tiny", base=str(tmp_path), prompt_style="chat")
    assert AutoConfig.from_pretrained(tmp_path).model_type == "llama"
