"""The prompt byte for byte, and the way back from an output to a translation."""

from __future__ import annotations

import pytest

from xalma.models.backbone import train_tokenizer
from xalma.prompts import chat_style, extract_translation, translation_prompt


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (
            "xalma",
            b"[INST] Translate this from Chinese to English:\nChinese: \xe4\xbd\xa0\xe5\xa5\xbd\nEnglish: [/INST]",
        ),
        ("alma", b"Translate this from Chinese to English:\nChinese: \xe4\xbd\xa0\xe5\xa5\xbd\nEnglish:"),
    ],
)
def test_prompt_is_exact(style, expected):
    assert translation_prompt("你好", "zh", "en", style).encode() == expected


def test_xalma_is_the_default_and_names_follow_the_direction():
    assert translation_prompt("x", "en", "no") == translation_prompt("x", "en", "no", "xalma")
    assert (
        translation_prompt("x", "en", "no", "alma")
        == "Translate this from English to Norwegian:\nEnglish: x\nNorwegian:"
    )


@pytest.mark.parametrize("text", ["", "  two  blanks ", "a\nb", "{0} %s [INST]"])
def test_text_stands_in_the_prompt_unchanged(text):
    assert f"\nFinnish: {text}\nEnglish:" in translation_prompt(text, "fi", "en")


def test_bad_style_and_language():
    with pytest.raises(ValueError, match=r"unknown prompt style 'chat': use one of xalma, alma"):
        translation_prompt("x", "en", "de", "chat")
    with pytest.raises(ValueError, match="unknown language code 'xx'"):
        translation_prompt("x", "en", "xx")


CHATS = {  # the shapes of the released templates, shortened
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}",
    "llama3": "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% endif %}Today: {{ date_string }}{% for m in messages %}<h>{{ m.role }}</h>{{ m.content | trim }}<eot>"
    "{% endfor %}{% if add_generation_prompt %}<h>assistant</h>{% endif %}",
}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("chatml", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think></think>"),
        ("llama3", "Today: 26 Jul 2024<h>user</h>", "<eot><h>assistant</h>"),
    ],
)
def test_a_base_brings_its_own_chat_form(name, before, after):
    """The same bytes as the template on the whole prompt gives, but for the begin-of-text token, which comes later."""
    tokenizer = train_tokenizer(["a b"], 300)
    tokenizer.chat_template = CHATS[name]
    style, text = chat_style(tokenizer), "{0} {prompt} [INST]"
    prompt = translation_prompt(text, "en", "fi", style)
    raw = translation_prompt(text, "en", "fi", "alma")
    assert prompt == before + raw + after
    turn = [{"role": "user", "content": raw}]
    more = {"add_generation_prompt": True, "enable_thinking": False, "date_string": "26 Jul 2024"}
    assert tokenizer.apply_chat_template(turn, tokenize=False, **more).removeprefix("<s>") == prompt


def test_a_base_without_chat_form_is_one_sentence():
    with pytest.raises(ValueError, match="no chat template: use prompt_style alma"):
        chat_style(train_tokenizer(["a b"], 300))


@pytest.mark.parametrize(
    ("output", "translation"),
    [
        (" Guten Tag", "Guten Tag"),
        ("\n\n  Hallo \nEnglish: Hello", "Hallo"),
        ("Hallo\r\nWelt", "Hallo"),
        ("", ""),
        (" \n\t\n", ""),
        ("5 日前：ドイツ、フランス、日本\n", "5 日前：ドイツ、フランス、日本"),
    ],
)
def test_extract(output, translation):
    assert extract_translation(output) == translation
