"""Each system of the papers on a tiny random model of its architecture: asked, decoded and read in its own way."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_systems import KINDS, TEXTS
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, LlamaTokenizer

from xalma.cli import main as cli
from xalma.languages import GROUPS, LANGUAGES
from xalma.prompts import extract_translation, translation_prompt
from xalma.published import published
from xalma.systems import registry
from xalma.systems.decoding import batches
from xalma.systems.registry import open_system, supports
from xalma.systems.table import SYSTEMS, Decoding
from xalma.systems.templates import CHINESE, TEMPLATES, few_shot_prompt

SHORT = Decoding(num_beams=1, max_new_tokens=6)
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """A folder for each architecture, made at first use."""
    root = tmp_path_factory.mktemp("tiny")

    class Folders(dict):
        def __missing__(self, kind: str) -> Path:
            folder = root / kind
            folder.mkdir()
            KINDS[kind](folder)
            self[kind] = folder
            return folder

    return Folders()


def opened(name: str, decoding: Decoding = SHORT, **options):
    system = open_system(name, **options)
    system.row = replace(system.row, decoding=decoding)
    return system


# The table


def test_every_system_of_the_papers_tables_has_a_row():
    in_papers = set()
    for table in "abef":
        in_papers |= set(published(table)["system"])
    titles = {row.title for row in SYSTEMS.values()}
    # X-ALMA before ARPO is a stage of this recipe; GPT-3.5-D is text-davinci-003, no chat model
    assert in_papers - titles == {"X-ALMA (only SFT)", "GPT-3.5-D zero-shot"}


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_say_where_things_were_read(name):
    row = SYSTEMS[name]
    assert row.name == name and row.template in TEMPLATES and set(row.languages) <= set(LANGUAGES)
    assert row.id_source and row.licence and row.decoding_source and TEMPLATES[row.template].source
    assert TEMPLATES[row.template].confidence in ("read", "unsure")
    assert row.hub or row.family in ("endpoint", "files", "swie", "apertium") or "path=" in row.note


def test_the_listing_has_a_line_for_each():
    frame = registry.listing().set_index("name")
    assert list(frame.index) == list(SYSTEMS)
    assert (
        frame.loc["alma-13b-lora", "weights"]
        == "haoranxu/ALMA-13B-Pretrain + haoranxu/ALMA-13B-Pretrain-LoRA"
    )
    assert frame.loc["bayling-13b", "prompt"] == "unsure"
    no_model = frame.loc[["apertium", "files"], ["prompt", "decoding"]]
    assert set(no_model.to_numpy().ravel()) == {"none"}


@pytest.mark.parametrize("name", [name for name, row in SYSTEMS.items() if row.family != "files"])
def test_licences_that_limit_what_outputs_may_do_say_so(name):
    limited = ("Llama 2", "LLaMA-2", "Llama 3", "Gemma", "OpenAI", "Tencent HY")
    licence = SYSTEMS[name].licence
    assert "outputs" in licence or not any(words in licence for words in limited)


@pytest.mark.parametrize(
    ("name", "direction", "expected"),
    [
        ("alma-7b", "en-is", True),
        ("alma-7b", "en-fr", False),
        ("alma-7b", "de-cs", False),
        ("xalma-all", "ky-en", True),
        ("xalma-all", "ky-fr", False),
        ("nllb-3.3b", "ky-fr", True),
        ("aya-23-8b", "en-uk", True),
        ("aya-23-8b", "en-sv", False),
        ("llamax3-alpaca", "en-mg", False),
        ("tim-bloomz-7b", "en-is", False),
        ("bigtranslate", "en-mg", True),
        ("gpt-4", "th-en", True),
        ("milmmt-46-4b", "uz-en", True),
        ("milmmt-46-4b", "en-uk", False),
        ("hy-mt2-7b", "en-sv", False),
        ("salamandrata-7b", "en-zh", False),
        ("apertium", "en-es", True),
        ("apertium", "es-ca", False),
    ],
)
def test_supported_directions(name, direction, expected):
    assert supports(name, direction) is expected
    if not expected:
        with pytest.raises(ValueError, match=r"does not support|not English-centric"):
            SYSTEMS[name].check(*direction.split("-"))


@pytest.mark.parametrize("bad", [("gpt-5", "en-de"), ("alma-7b", "en-xx"), ("alma-7b", "en_de")])
def test_unknown_systems_and_bad_directions(bad):
    with pytest.raises(ValueError, match=r"unknown system|unknown language|bad direction"):
        supports(*bad)


# Prompts, written out as they were read

PROMPTS = {
    "xalma": "[INST] Translate this from English to Chinese:\nEnglish: Hi {x}\nChinese: [/INST]",
    "alma": "Translate this from English to Chinese:\nEnglish: Hi {x}\nChinese:",
    "source": "Hi {x}",
    "aya-101": "Translate to Chinese: Hi {x}",
    "llamax": f"{ALPACA}\n### Instruction:\nTranslate the following sentences from English to Chinese.\n"
    "### Input:\nHi {x}\n### Response:",
    "bigtranslate": "以下是一个描述任务的指令，请写一个完成该指令的适当回复。\n\n"
    "### 指令:\n请将以下英语句子翻译成汉语：Hi {x}\n\n### 回复:",
    "tim": "Write a response that appropriately completes the request.\n\n### Request:\n"
    "Translate from English to Chinese.\nHi {x}\n\n### Response:",
    "swie": f"{ALPACA}\n\n### Instruction:\nTranslate the following sentences from English to Chinese.\n\n### Input:\n"
    "Hi {x}\n\n### Response:\n",
    "milmmt": "Translate this from English to Chinese (Simplified):\nEnglish: Hi {x}\nChinese (Simplified):",
    "hy-mt1.5": "将以下文本翻译为中文，注意只需要输出翻译后的结果，不要额外解释：\n\nHi {x}",
    "lmt": "Translate the following text from English into Chinese:\nEnglish: Hi {x}\nChinese:",
    "seed-x": "Translate the following English sentence into Chinese:\nHi {x} <zh>",
    "salamandrata": "Translate the following text from English into Chinese.\nEnglish: Hi {x} \nChinese:",
    "tower-plus": "Translate the following English source text to Chinese:\nEnglish: Hi {x}\nChinese: ",
}  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_those_of_the_sources(name):
    assert TEMPLATES[name].prompt("Hi {x}", "en", "zh") == PROMPTS[name], "braces in a text are text"


@pytest.mark.parametrize(
    ("name", "src", "tgt", "end"),
    [
        ("hy-mt1.5", "en", "id", "segment into Indonesian, without additional explanation.\n\nHi"),
        ("hy-mt1.5", "zh", "id", "翻译为印尼语，注意只需要输出翻译后的结果，不要额外解释：\n\nHi"),
        ("hy-mt2", "de", "fr", "result without any additional explanation:\n\nHi"),
        ("lmt", "no", "he", "Norwegian Bokmål: Hi\nModern Hebrew:"),
        ("seed-x", "en", "no", "into Norwegian:\nHi <nb>"),
        ("translategemma", "de", "en", "translate the following German text into English:\n\n\nHi"),
    ],
)
def test_systems_have_names_and_codes_of_their_own(name, src, tgt, end):
    assert TEMPLATES[name].prompt("Hi", src, tgt).endswith(end)


def test_thoughts_are_no_translation():
    assert TEMPLATES["qwen3"].clean("<think>\n\n</think>\n\nHallo\nda") == "Hallo da"
    assert TEMPLATES["qwen3"].clean("Hallo") == "Hallo"


@pytest.mark.parametrize("style", ["xalma", "alma"])
@pytest.mark.parametrize("pair", [("en", "de"), ("ka", "en")])
def test_the_papers_own_prompts_are_the_packages(style, pair):
    assert TEMPLATES[style].prompt("Hi", *pair) == translation_prompt("Hi", *pair, style)


def test_bigtranslate_has_a_chinese_name_for_all_fifty():
    assert set(CHINESE) == set(LANGUAGES) and len(set(CHINESE.values())) == len(LANGUAGES)


def test_few_shot_prompt():
    shots = [("One.", "Eins."), ("Two.", "Zwei.")]
    assert few_shot_prompt("Three.", "en", "de", shots) == (
        "Translate this from English to German:\nEnglish: One.\nGerman: Eins.\nEnglish: Two.\nGerman: Zwei.\n"
        "English: Three.\nGerman:"
    )


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("alma", "\n Hallo. \nEnglish: More", "Hallo."),
        ("tim", " Guten\nMorgen ", "GutenMorgen"),
        ("llamax", " Guten\n\n Morgen\n", "Guten Morgen"),
        ("source", "Guten Morgen", "Guten Morgen"),
    ],
)
def test_translations_are_cut_out_as_the_sources_do(name, output, expected):
    assert TEMPLATES[name].clean(output) == expected


# Decoder-only


def by_hand(model, ids: list[int], seq2seq: bool = False, **options) -> list[int]:
    """transformers' own generation of one row, without padding."""
    out = model.generate(torch.tensor([ids]), do_sample=False, **options)[0]
    return out.tolist() if seq2seq else out[len(ids) :].tolist()


def llama_ids(tokenizer, prompt: str) -> list[int]:
    return [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def plain_ids(tokenizer, prompt: str) -> list[int]:
    return tokenizer(prompt, add_special_tokens=False)["input_ids"]


def llama3_ids(tokenizer, prompt: str) -> list[int]:
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    form = f"{head.format('user')}{prompt}<|eot_id|>{head.format('assistant')}"
    return [0, *plain_ids(tokenizer, form)]


def cohere_ids(tokenizer, prompt: str) -> list[int]:
    form = f"{prompt}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    return [2, 4, 6, *plain_ids(tokenizer, form)]  # BOS, start of turn, user


CAUSAL = {
    "alma-7b": ("llama", "alma", llama_ids, Decoding(5, 6)),
    "alma-13b-r": ("llama", "alma", llama_ids, Decoding(5, 6)),
    "llama-2-7b": ("llama", "alma", llama_ids, SHORT),
    "bigtranslate": ("llama", "bigtranslate", llama_ids, Decoding(2, 20, 2)),
    "bayling-13b": ("llama", "bayling", llama_ids, SHORT),
    "tim-llama-7b": ("llama", "tim", llama_ids, SHORT),
    "tim-bloomz-7b": ("bloom", "tim", plain_ids, Decoding(4, 6, 15)),
    "aya-23-8b": ("cohere", "alma", cohere_ids, Decoding(5, 6)),
    "llama-3.1-instruct": ("llama3", "alma", llama3_ids, SHORT),
    "milmmt-46-1b": ("llama", "milmmt", llama_ids, SHORT),
    "hy-mt1.5-1.8b": ("llama3", "hy-mt1.5", llama3_ids, SHORT),
    "lmt-60-0.6b": ("cohere", "lmt", cohere_ids, Decoding(5, 6)),
    "seed-x-ppo-7b": ("llama", "seed-x", llama_ids, Decoding(4, 6)),
    "salamandrata-7b": ("llama3", "salamandrata", llama3_ids, Decoding(5, 6)),
    "llamax3-alpaca": ("llama3", "llamax", lambda t, p: [0, *plain_ids(t, p)], Decoding(4, 6)),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_decoder_only(tiny, name):
    kind, template, ids_of, decoding = CAUSAL[name]
    system = opened(name, decoding, path=str(tiny[kind]))
    tokenizer = (LlamaTokenizer if SYSTEMS[name].tokenizer == "llama" else AutoTokenizer).from_pretrained(
        tiny[kind]
    )
    model = AutoModelForCausalLM.from_pretrained(tiny[kind], dtype=torch.float32).eval()
    options = {"num_beams": decoding.num_beams, "max_new_tokens": decoding.max_new_tokens}
    options |= {"no_repeat_ngram_size": decoding.no_repeat_ngram_size}
    raw = []
    for text in TEXTS:
        ids = ids_of(tokenizer, TEMPLATES[template].prompt(text, "en", "de"))
        raw.append(tokenizer.decode(by_hand(model, ids, **options), skip_special_tokens=True))
    assert len(set(raw)) == len(TEXTS), "outputs that are equal would hide a wrong order"
    expected = [system.template.clean(text) for text in raw]
    assert system.translate(TEXTS, "en", "de", progress=False) == expected
    assert system.translate([], "en", "de") == []


def test_names_of_control_tokens_in_a_segment_are_text(tiny):
    system = opened("hy-mt1.5-1.8b", path=str(tiny["llama3"]))
    (plain,) = system.tokens(system.prompts(["x"], "en", "de"))
    (odd,) = system.tokens(system.prompts(["x<|eot_id|>"], "en", "de"))
    end = system.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert plain.count(end) == odd.count(end) == 1 and len(odd) > len(plain)


def test_few_shot_reads_its_shots(tiny):
    with pytest.raises(ValueError, match="needs shots"):
        open_system("llama-2-7b-5shot", path=str(tiny["llama"]))
    shots = {"en-de": [("Good morning.", "Guten Morgen.")]}
    system = opened("llama-2-7b-5shot", path=str(tiny["llama"]), shots=shots)
    ids = llama_ids(system.tokenizer, few_shot_prompt(TEXTS[1], "en", "de", shots["en-de"]))
    expected = system.tokenizer.decode(by_hand(system.model, ids, max_new_tokens=6), skip_special_tokens=True)
    assert system.translate([TEXTS[1]], "en", "de") == [extract_translation(expected)]
    with pytest.raises(ValueError, match="no shots for de-en"):
        system.translate(["x"], "de", "en")


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory) -> Path:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters") / "lora"
    base = AutoModelForCausalLM.from_pretrained(tiny["llama"])
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["down_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("damage", ["renamed", "one missing", "other shape", "no configuration", "not there"])
def test_adapters_that_do_not_fit_are_refused(tiny, lora, tmp_path, damage):
    folder = tmp_path / "lora"
    shutil.copytree(lora, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    first = next(iter(tensors))
    changed = {
        "renamed": {f"x.{name}": tensor for name, tensor in tensors.items()},
        "one missing": {name: tensor for name, tensor in tensors.items() if name != first},
        "other shape": tensors | {first: torch.zeros(3, 5)},
    }
    if damage in changed:
        save_file(changed[damage], folder / "adapter_model.safetensors")
    elif damage == "no configuration":
        (folder / "adapter_config.json").unlink()
    else:
        folder = tmp_path / "nowhere"
    with pytest.raises((ValueError, OSError), match=str(folder)):
        opened("alma-7b-lora", path=str(tiny["llama"]), adapter=str(folder))


@pytest.mark.parametrize(
    ("system", "kind"), [("alma-7b", "llama"), ("nllb-3.3b", "nllb"), ("xalma-merged", "llama")]
)
def test_a_tokenizer_with_more_ids_than_the_model_has_rows(tiny, tmp_path, system, kind):
    folder = tmp_path / "model"
    shutil.copytree(tiny[kind], folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{i}" for i in range(500)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="rows of embeddings"):
        path = str(folder).replace("model", "mode{group}") if system == "xalma-merged" else str(folder)
        folder.rename(tmp_path / "mode6") if system == "xalma-merged" else None
        opened(system, path=path).translate(["a"], "en", "et" if system == "xalma-merged" else "de")


@pytest.mark.parametrize("text", ["a{b}", "a{}", "{0}/x", "a{b}{group}", "{direction}{x}"])
@pytest.mark.parametrize(
    "system", ["alma-7b", "xalma-merged", "xalma-modules", "xalma-all", "nllb-3.3b", "files"]
)
def test_braces_in_a_path_are_part_of_it(capsys, tmp_path, monkeypatch, system, text):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "in.txt").write_text("Hello.\n")
    code = cli.main(
        [
            "translate",
            "--system",
            system,
            "--path",
            text,
            "--from",
            "en",
            "--to",
            "de",
            str(tmp_path / "in.txt"),
        ]
    )
    err = capsys.readouterr().err
    assert code == 2 and err.startswith("xalma: ") and err.count("\n") == 1


def test_code_that_comes_with_weights_is_not_run(tiny, tmp_path):
    """A configuration that names its own classes: neither run nor asked for; the plain architecture is read."""
    folder = tmp_path / "model"
    shutil.copytree(tiny["llama"], folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    for name, kind in (("config.json", "AutoModelForCausalLM"), ("tokenizer_config.json", "AutoTokenizer")):
        config = json.loads((folder / name).read_text())
        auto = {kind: "evil.Evil"} if name == "config.json" else {kind: ["evil.Evil", None]}
        (folder / name).write_text(json.dumps(config | {"auto_map": auto}))
    with suppress(ValueError):
        opened("alma-7b", path=str(folder)).translate(["a"], "en", "de", progress=False)
    assert not (tmp_path / "ran").exists()


def test_a_lora_adapter_is_folded_in(tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny["llama"], dtype=torch.float32)
    torch.manual_seed(1)
    peft = get_peft_model(
        base, LoraConfig(r=2, lora_alpha=8, target_modules=["down_proj"], init_lora_weights=False)
    )
    peft.save_pretrained(tmp_path / "lora")
    system = opened("alma-7b-lora", path=str(tiny["llama"]), adapter=str(tmp_path / "lora"))
    ids = torch.tensor([llama_ids(system.tokenizer, "Hello")])
    with torch.no_grad():
        torch.testing.assert_close(system.model(ids).logits, peft.eval()(ids).logits, atol=1e-4, rtol=1e-4)
        plain = opened("alma-7b", path=str(tiny["llama"])).model(ids).logits
        assert (system.model(ids).logits - plain).abs().max() > 0.1
    assert len(system.translate(TEXTS, "en", "de")) == len(TEXTS)


def test_a_tokenizer_without_chat_template_is_refused(tiny):
    with pytest.raises(ValueError, match="no chat template"):
        opened("llama-3.1-instruct", path=str(tiny["llama"])).translate(["x"], "en", "de")


# Encoder-decoder


@pytest.mark.parametrize(("name", "kind"), [("nllb-3.3b", "nllb"), ("nllb-54b", "nllb_moe")])
def test_nllb_languages_are_tokens(tiny, name, kind):
    system = opened(name, Decoding(3, 6), path=str(tiny[kind]))
    tokenizer = AutoTokenizer.from_pretrained(tiny[kind])
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny[kind], dtype=torch.float32).eval()
    source, target = (tokenizer.convert_tokens_to_ids(code) for code in ("kir_Cyrl", "fra_Latn"))
    expected = []
    for text in TEXTS:
        ids = [source, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert system.tokens([text], "ky", "fr") == [ids]
        options = {"forced_bos_token_id": target, "num_beams": 3, "max_new_tokens": 6}
        written = by_hand(model, ids, seq2seq=True, **options)
        assert written[:2] == [2, target], "decoder start, then the forced language"
        expected.append(tokenizer.decode(written, skip_special_tokens=True))
    assert system.translate(TEXTS, "ky", "fr") == [TEMPLATES["source"].clean(text) for text in expected]
    assert system.translate(TEXTS, "ky", "fr") != system.translate(TEXTS, "ky", "de")
    assert system.translate(TEXTS, "ky", "fr") != system.translate(TEXTS, "th", "fr")


def test_nllb_has_a_token_for_each_language(tiny):
    system = opened("nllb-3.3b", path=str(tiny["nllb"]))
    tokens = {code: system.tokenizer.convert_ids_to_tokens(system.language_token(code)) for code in LANGUAGES}
    assert tokens == {code: row.flores for code, row in LANGUAGES.items()}


def test_a_tokenizer_without_the_language_is_an_error(tiny):
    with pytest.raises(ValueError, match="has no token"):
        opened("nllb-3.3b", path=str(tiny["t5"])).translate(["x"], "en", "de")


def test_aya_101(tiny):
    system = opened("aya-101", Decoding(5, 6), path=str(tiny["t5"]))
    tokenizer = AutoTokenizer.from_pretrained(tiny["t5"])
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny["t5"], dtype=torch.float32).eval()
    expected = []
    for text in TEXTS:
        ids = tokenizer(f"Translate to German: {text}")["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        expected.append(by_hand(model, ids, seq2seq=True, num_beams=5, max_new_tokens=6))
    texts = tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert system.translate(TEXTS, "en", "de") == [TEMPLATES["aya-101"].clean(text) for text in texts]


# X-ALMA three ways


@pytest.fixture(scope="module")
def xalma(tiny, tmp_path_factory) -> Path:
    """base/, group1/, group6/ (merged model and adapter side by side, as on the hub) and all/."""
    from xalma.models.adapters import attach_adapter, merge_adapter, save_adapter
    from xalma.models.backbone import load_base, save_base
    from xalma.models.convert import convert
    from xalma.models.layouts import open_checkpoint

    root = tmp_path_factory.mktemp("xalma")
    base, tokenizer = load_base(tiny["llama"])
    save_base(base, tokenizer, root / "base")
    for group in (1, 6):
        model = attach_adapter(load_base(root / "base")[0], group, rank=4, alpha=8, dropout=0.0)
        generator = torch.Generator().manual_seed(group)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        save_adapter(model, group, root / f"adapter{group}")
        merged = merge_adapter(load_base(root / "base")[0], group, root / f"adapter{group}")
        save_base(merged, tokenizer, root / f"group{group}")
        for file in (root / f"adapter{group}").iterdir():
            if file.name.startswith("adapter_"):
                (root / f"group{group}" / file.name).write_bytes(file.read_bytes())
    adapters = {group: root / f"adapter{group}" for group in (1, 6)}
    convert(open_checkpoint(adapters, root / "base"), root / "all", "all-modules", groups=(1, 6))
    return root


def test_xalmas_three_ways_say_the_same(xalma):
    two = Decoding(2, 6)
    ways = [
        opened("xalma-merged", two, path=f"{xalma}/group{{group}}"),
        opened("xalma-modules", two, path=str(xalma / "base"), adapter=f"{xalma}/group{{group}}"),
        opened("xalma-all", two, path=str(xalma / "all")),
    ]
    said = {}
    for direction in ("en-de", "en-zh", "zh-en", "en-de"):  # there and back: a gate left open would show
        outputs = [way.translate(TEXTS, *direction.split("-")) for way in ways]
        assert outputs[0] == outputs[1] == outputs[2]
        assert said.setdefault(direction, outputs[0]) == outputs[0]
    logits = []
    for way in ways:
        model, tokenizer = way.way.select(6)
        with torch.no_grad():
            logits.append(model(torch.tensor([llama_ids(tokenizer, "Hello there")])).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0], logits[2], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="not English-centric"):
        ways[0].translate(["x"], "de", "zh")


def test_xalma_is_the_papers_prompt_and_the_groups_weights(xalma):
    system = opened("xalma-merged", path=f"{xalma}/group{{group}}")
    model = AutoModelForCausalLM.from_pretrained(xalma / "base", dtype=torch.float32)
    from xalma.models.adapters import merge_adapter

    model = merge_adapter(model, 6, xalma / "adapter6").eval()
    tokenizer = AutoTokenizer.from_pretrained(xalma / "base")
    expected = []
    for text in TEXTS:
        ids = llama_ids(tokenizer, translation_prompt(text, "en", "ja", "xalma"))
        raw = tokenizer.decode(by_hand(model, ids, max_new_tokens=6), skip_special_tokens=True)
        expected.append(extract_translation(raw))
    assert "ja" in GROUPS[6]
    assert system.translate(TEXTS, "en", "ja") == expected


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("xalma-merged", {"path": "{x}/group6"}, "write its number as"),
        ("xalma-modules", {"path": "{x}/base", "adapter": "{x}/adapter6"}, "write its number as"),
        ("xalma-all", {"path": "{x}/base"}, "holds no modules"),
    ],
)
def test_xalma_from_the_wrong_place(xalma, name, options, why):
    with pytest.raises(ValueError, match=why):
        open_system(name, **{key: value.replace("{x}", str(xalma)) for key, value in options.items()})


def test_a_group_that_is_not_there(xalma):
    with pytest.raises(ValueError, match="no module of group 3"):
        opened("xalma-all", path=str(xalma / "all")).translate(["x"], "en", "ru")


# Opening


def test_systems_without_released_weights_need_a_folder():
    with pytest.raises(ValueError, match="give path=FOLDER"):
        open_system("tim-llama-7b")


def test_swie_is_a_row_of_the_papers_and_is_run_by_nobody(tiny):
    with pytest.raises(ValueError, match=r"never released.*--system files"):
        open_system("swie-llama-7b", path=str(tiny["llama"]))


def test_force_runs_what_its_authors_do_not_name(tiny):
    path = str(tiny["llama"])
    with pytest.raises(ValueError, match="does not support en-fr"):
        opened("alma-7b", path=path).translate(["x"], "en", "fr")
    assert len(opened("alma-7b", path=path, force=True).translate(["x"], "en", "fr")) == 1


def test_batches_keep_the_budget():
    lengths = [5, 100, 40, 7, 90]
    plan = batches(lengths, Decoding(num_beams=5, max_new_tokens=60), budget=1600)
    assert sorted(i for batch in plan for i in batch) == list(range(5))
    assert [lengths[i] for batch in plan for i in batch] == sorted(lengths, reverse=True)
    assert all(len(b) == 1 or 5 * (lengths[b[0]] + 60) * len(b) <= 1600 for b in plan)
    assert batches([10_000], SHORT, budget=1) == [[0]]
