"""The prompt byte for byte, and the way back from an output to a translation."""

from __future__ import annotations

import pytest

from xalma.prompts import extract_translation, translation_prompt


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
