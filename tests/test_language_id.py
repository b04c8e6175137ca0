"""Script and language of texts: cases read by hand, and human translations."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from xalma.evaluation.metrics import wrong_language_rate
from xalma.language_id import (
    MIN_MARGIN,
    identifier_decides,
    not_told_apart,
    off_target,
    own_letters,
    signature,
    wrong_language,
)
from xalma.languages import LANGUAGES
from xalma.runtime import data_root
from xalma.text_files import read_lines


@pytest.mark.parametrize(
    ("text", "tgt", "expected"),
    [
        ("Der Hund schläft.", "de", False),
        ("The dog sleeps.", "de", False),  # one script: can't be told, and says so
        ("Собака спит.", "de", True),
        ("The dog sleeps.", "ru", True),
        ("Собака Microsoft Windows спит.", "ru", False),  # 10 letters of 26 are Cyrillic
        ("Ο σκύλος κοιμάται.", "el", False),
        ("ძაღლს სძინავს.", "ka", False),
        ("कुत्ता सो रहा है।", "hi", False),
        ("કૂતરો ઊંઘે છે.", "hi", True),
        ("الكلب نائم", "ur", False),  # Arabic for Urdu: one script
        ("הכלב ישן", "ar", True),
        ("สุนัขกำลังหลับ", "th", False),
        ("개가 자고 있어요.", "ko", False),
        ("犬が寝ています。", "ko", True),
        ("Pas retard", "sr", True),  # Serbian is Cyrillic in FLORES
        ("狗在睡觉，这是我们的。", "zh", False),
        ("犬が寝ています。", "zh", True),
        ("犬が寝ています。", "ja", False),
        ("狗在睡觉，这是我们的。", "ja", True),
        ("2024年1月5日金曜日", "ja", False),  # no kana, yet Japanese
        ("コンピューター", "ja", False),
        ("", "zh", False),
        ("12,5 % — 2024!", "zh", False),
    ],
)
def test_off_target(text, tgt, expected):
    assert off_target(text, tgt) is expected


@pytest.mark.parametrize(
    ("text", "tgt", "expected"),
    [
        ("Der Hund schläft heute den ganzen Tag im Garten.", "de", False),
        ("The dog sleeps in the garden all day today.", "de", True),
        ("De hond slaapt vandaag de hele dag in de tuin.", "de", True),
        ("Собака спит.", "de", True),  # another script
        ("Собака сьогодні цілий день спить у саду.", "uk", False),
        ("Собака сегодня целый день спит в саду.", "uk", True),
        ("Hunden sover i hagen hele dagen i dag, og ingen vekker den.", "no", False),
        ("کتا آج سارا دن باغ میں سوتا ہے۔", "ur", False),
        ("الكلب ينام في الحديقة طوال اليوم.", "ur", True),
        ("The dog sleeps in the garden all day today.", "uz", True),
        ("It bugun butun kun bog'da uxlaydi va hech kim uni uyg'otmaydi.", "uz", False),
        ("Собака сегодня целый день спит в саду, и никто её не будит.", "ky", True),
        ("Ит бүгүн күнү бою бакта уктайт, аны эч ким ойготпойт.", "ky", False),
        ("ძაღლი დღეს მთელი დღე ბაღში სძინავს.", "ka", False),
        ("", "de", False),
        ("2024: 12,5 %", "de", False),
        ("OK", "de", False),  # too short to tell
    ],
)
def test_wrong_language(text, tgt, expected):
    assert wrong_language(text, tgt) is expected


def test_unknown_language():
    with pytest.raises(ValueError, match="unknown language code 'sw'"):
        wrong_language("Mbwa analala.", "sw")


def test_signature_says_what_decided():
    assert signature("ka") == "script of letters only"
    assert signature("de").startswith("script of letters|py3langid:0.2.")
    assert f"margin:{MIN_MARGIN:g} nats" in signature("de")
    alone = {code for code in LANGUAGES if not identifier_decides(code)}
    assert alone == {"el", "gu", "he", "ja", "ka", "ko", "th", "zh"}


ALIKE = [("ms", "Indonesian"), ("id", "Malay"), ("no", "Danish"), ("uz", "Azerbaijani")]


@pytest.mark.parametrize(("tgt", "alike"), ALIKE)
def test_what_cannot_be_told_apart_is_said(tgt, alike):
    assert f"|hardly told from {alike}" in signature(tgt)
    assert all(LANGUAGES[code].script == LANGUAGES[tgt].script for code in not_told_apart(tgt))
    assert not_told_apart("de") == () and "hardly" not in signature("de")


@pytest.mark.parametrize("times", [1, 3, 10, 40])
def test_strictness_does_not_grow_with_length(times):
    """The same text said again is no less good; another language is found however long it is."""
    malay = "Perdana Menteri berkata bahawa kerajaan akan membantu semua penduduk yang terjejas akibat banjir itu. "
    danish = "Hunden sover i haven hele dagen i dag, og ingen vækker den, for vejret er godt. "
    assert not wrong_language(malay * times, "ms")
    assert wrong_language(danish * times, "de") and wrong_language(malay * times, "vi")


@pytest.mark.parametrize(
    ("outputs", "rate"), [(["", "123", "?!"], 1.0), (["Der Hund schläft.", "", "OK", "7"], 0.5)]
)
def test_an_output_without_letters_is_not_on_target(outputs, rate):
    assert wrong_language_rate(outputs, "de") == rate
    assert not any(
        wrong_language(text, "de") for text in outputs
    )  # undecided: a row of numbers is no fault of data


def ntrex(code: str) -> list[str]:
    root = data_root()
    if root is None or not (root / "ntrex").is_dir():
        pytest.skip("XALMA_DATA points to no folder with ntrex/")
    return read_lines(Path(root) / "ntrex" / f"{code}.txt")


@pytest.mark.data
@pytest.mark.parametrize(
    ("text", "tgt", "low", "high"),
    [
        ("en", "en", 0, 0),
        ("zh", "zh", 0, 0.002),
        ("ja", "ja", 0, 0.001),
        ("ko", "ko", 0, 0.002),
        ("th", "th", 0, 0.002),
        ("sr", "sr", 0, 0.002),
        ("zh", "ja", 0.98, 1),
        ("ja", "zh", 0.99, 1),
        ("zh", "en", 0.98, 1),
        ("th", "en", 0.98, 1),
        ("en", "sr", 0.99, 1),
    ],
)
def test_off_target_on_human_translations(text, tgt, low, high):
    assert low <= fmean(off_target(line, tgt) for line in ntrex(text)) <= high


@pytest.mark.data
@pytest.mark.parametrize(
    ("text", "tgt", "low", "high"),
    [
        ("de", "de", 0, 0.02),
        ("mk", "mk", 0, 0.04),
        ("ne", "ne", 0, 0.02),
        ("en", "de", 0.97, 1),
        ("es", "gl", 0.9, 1),
        ("ru", "kk", 0.97, 1),
        ("no", "da", 0.6, 0.95),  # close languages: many a sentence can't be told
    ],
)
def test_wrong_language_on_human_translations(text, tgt, low, high):
    assert low <= wrong_language_rate(ntrex(text)[1:400:2], tgt) <= high


@pytest.mark.data
def test_human_documents_pass_and_others_are_found():
    """NTREX's documents, up to 1,000 characters: of the 50 languages none loses more than 1 in 50."""
    ids = [line.partition("\t")[0] for line in read_lines(Path(data_root()) / "ntrex" / "DOCUMENT_IDS.tsv")]
    lost, found = {}, {}
    for code in LANGUAGES:
        texts = documents_of(code, ids)
        lost[code] = sum(wrong_language(text, code) for text in texts) / len(texts)
        other = "ru" if LANGUAGES[code].script == "Cyrl" and code != "ru" else "en" if code != "en" else "de"
        found[code] = sum(wrong_language(text, code) for text in documents_of(other, ids)[:20]) / 20
    assert lost["ms"] == 0 and max(lost.values()) <= 0.02
    assert min(found.values()) >= 0.95


def documents_of(code: str, ids: list[str]) -> list[str]:
    documents: dict[str, list[str]] = {}
    for document, line in zip(ids, ntrex(code), strict=True):
        documents.setdefault(document, []).append(line)
    return [" ".join(lines)[:1000] for lines in documents.values()]


@pytest.mark.parametrize(
    ("text", "code", "kept"),
    [
        ("Trump тест 3!", "ru", "тест"),
        ("Trump, 3 Tage", "de", "trump tage"),
        ("東京タワー Tokyo", "ja", "東京タワー"),
        ("東京タワー", "zh", "東京"),
        ("हिन्दी OK", "hi", "हिन्दी"),  # vowel signs stay with their letters
    ],
)
def test_own_letters_are_those_of_the_script(text, code, kept):
    assert own_letters(text, code).split() == kept.split()
