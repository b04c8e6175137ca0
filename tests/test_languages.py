"""The language table against Unicode CLDR (through Babel), the papers' table d, and the gate's rules."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from babel import Locale
from babel.core import get_global
from sacrebleu.metrics import BLEU

from xalma.languages import (
    ADDED,
    GROUP_NAMES,
    GROUPS,
    LANGUAGES,
    adapter_name,
    add_language,
    add_languages_from,
    directions,
    group_of,
    language,
    other_side,
    parse_direction,
    parse_groups,
)
from xalma.published import published

# Norwegian: CLDR writes Bokmål "nb". Korean: "Kore" is Hangul with Han, ISO 15924 and FLORES say Hang.
OWN_CODE = {"no": "nb"}
OWN_SCRIPT = {"ko": "Kore"}


def test_fifty_languages_in_eight_groups():
    assert len(LANGUAGES) == 50
    assert len(GROUPS) == len(GROUP_NAMES) == 8
    assert sum(map(len, GROUPS.values())) == 49
    assert "en" not in {code for codes in GROUPS.values() for code in codes}
    assert LANGUAGES["en"].group == 0


def test_groups_are_the_papers():
    """Table d has one row a group and member, taken from the papers by another hand."""
    rows = published("d").query("metric == 'member'")
    for group, codes in GROUPS.items():
        printed = rows.loc[rows["group_or_lang"].eq(f"group{group}"), "shown"]
        assert set(printed) - {"en"} == set(codes)


@pytest.mark.parametrize("row", LANGUAGES.values(), ids=LANGUAGES)
def test_row_agrees_with_cldr(row):
    assert Locale.parse(row.code).english_name == row.name
    script = get_global("likely_subtags")[row.code].split("_")[1]
    assert script == OWN_SCRIPT.get(row.code, row.script)
    alias = get_global("language_aliases")  # three-letter code -> the two-letter one
    assert alias[row.flores[:3]] == alias[row.ntrex[:3]] == OWN_CODE.get(row.code, row.code)
    assert row.flores[4:] == row.script or row.code == "ja"
    assert row.oscar == row.code


@pytest.mark.parametrize("code", LANGUAGES)
def test_sacrebleu_knows_the_tokenizer(code):
    name = language(code).sacrebleu_tokenizer
    assert name in BLEU.TOKENIZERS
    assert (name == "13a") == (code not in ("zh", "ja", "ko"))


@pytest.mark.parametrize(
    ("code", "group"), [("zh", 6), ("af", 1), ("fr", 4), ("uz", 8), ("hi", 7), ("bg", 3)]
)
def test_group_of(code, group):
    assert group_of(code) == group


@pytest.mark.parametrize(
    ("code", "near"),
    [
        ("zz", "zh (Chinese)"),
        ("German", "de (German)"),
        ("finnish", "fi (Finnish)"),
        ("jp", "ja (Japanese)"),
        ("", "af"),
    ],
)
def test_unknown_code_names_near_ones(code, near):
    with pytest.raises(ValueError, match="unknown language code") as caught:
        language(code)
    assert repr(code) in str(caught.value)
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


def test_english_has_no_module():
    with pytest.raises(ValueError, match="English belongs to every group"):
        group_of("en")


@pytest.mark.parametrize(
    ("direction", "pair"), [("en-de", ("en", "de")), ("ja-en", ("ja", "en")), ("fi-zh", ("fi", "zh"))]
)
def test_parse_direction(direction, pair):
    assert parse_direction(direction) == pair


@pytest.mark.parametrize("direction", ["ende", "en_de", "en-de-fr", "en-xx", "de-de", "-", ""])
def test_bad_direction(direction):
    with pytest.raises(ValueError, match=r"direction|unknown language"):
        parse_direction(direction)


@pytest.mark.parametrize(("src", "tgt", "code"), [("en", "de", "de"), ("ko", "en", "ko")])
def test_the_non_english_side_picks_the_module(src, tgt, code):
    assert other_side(src, tgt) == code


@pytest.mark.parametrize(
    ("src", "tgt", "message"),
    [("de", "fr", "not English-centric"), ("en", "en", "are the same"), ("de", "de", "same")],
)
def test_other_side_needs_english_once(src, tgt, message):
    with pytest.raises(ValueError, match=message):
        other_side(src, tgt)


def test_directions_are_both_ways():
    assert directions(("fi", "zh")) == ["en-fi", "fi-en", "en-zh", "zh-en"]


@pytest.mark.parametrize(
    ("text", "groups"), [("all", (1, 2, 3, 4, 5, 6, 7, 8)), ("6", (6,)), ("3, 6", (3, 6)), ("6,3,6", (6, 3))]
)
def test_parse_groups(text, groups):
    assert parse_groups(text) == groups


@pytest.mark.parametrize("text", ["0", "9", "", "3;6", "six", "3,", "-1"])
def test_bad_groups(text):
    with pytest.raises(ValueError, match="bad groups"):
        parse_groups(text)


SWAHILI = "sw|Swahili|Latn|Niger-Congo|Bantu|9|other|inferred|swh_Latn|sw|swa"
ZULU = "zu|Zulu|Latn|Niger-Congo|Bantu|9|other|inferred|zul_Latn|zu|zul"


def test_a_51st_language_has_a_group_of_its_own(swahili):
    """The table, the eight groups and "all" stay; the gate, the directions and parse_groups know the new one."""
    assert len(LANGUAGES) == 50
    assert [*GROUPS] == [*range(1, 10)]
    assert GROUPS[9] == ("sw",)
    assert GROUP_NAMES[9] == "Bantu"
    assert (group_of("sw"), other_side("en", "sw"), parse_direction("sw-en")) == (9, "sw", ("sw", "en"))
    assert parse_groups("all") == tuple(range(1, 9))
    assert parse_groups("3,9") == (3, 9)
    assert adapter_name(9) == "group9"
    assert language("sw").name == "Swahili"
    with pytest.raises(ValueError, match=r"sw \(Swahili\)"):
        language("swahili")


def test_added_languages_may_share_a_group_and_repeat(swahili):
    assert add_language(swahili) == add_language(SWAHILI)
    add_language(ZULU)
    assert GROUPS[9] == ("sw", "zu")
    assert GROUP_NAMES[9] == "Bantu"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (ZULU.replace("|9|", "|6|"), "zu can't join group 6: its module is trained already; .* 9 or above"),
        (ZULU.replace("|9|", "|0|"), "zu can't join group 0"),
        (SWAHILI.replace("sw|Swahili", "de|Swahili"), "code 'de' is taken by German"),
        (SWAHILI.replace("Swahili", "Kiswahili"), "code 'sw' is taken by Swahili"),
        (SWAHILI.replace("sw|Swahili", "sw-TZ|Swahili"), "bad language code 'sw-TZ'"),
        ("sw|Swahili", "write eleven cells"),
        (SWAHILI.replace("|9|", "|nine|"), "the sixth a group number"),
    ],
)
def test_what_a_new_language_may_not_be(swahili, row, why):
    before = dict(ADDED), dict(GROUPS), dict(GROUP_NAMES)
    with pytest.raises(ValueError, match=why) as caught:
        add_language(row)
    assert "\n" not in str(caught.value)
    assert before == (ADDED, GROUPS, GROUP_NAMES)


def test_a_file_of_languages_reaches_every_process(tmp_path):
    """XALMA_LANGUAGES is read on import, so a fresh interpreter knows the rows of the file."""
    (tmp_path / "mine.txt").write_text(f"# code|name|…\n\n{SWAHILI}\n", encoding="utf-8")
    ask = "from xalma.languages import group_of; print(group_of('sw'))"
    environment = os.environ | {"XALMA_LANGUAGES": str(tmp_path / "mine.txt")}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "9"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "can't read the file of languages .*mine.txt, which XALMA_LANGUAGES names: .*No such file"),
        (SWAHILI.encode("utf-16"), "mine.txt, which XALMA_LANGUAGES names, is not UTF-8"),
        (f"# mine\n{SWAHILI}\nsw|Swahili\n".encode(), "mine.txt, line 3: bad language row 'sw|Swahili'"),
        (SWAHILI.replace("|9|", "|8|").encode(), "mine.txt, line 1: sw can't join group 8"),
    ],
)
def test_a_bad_file_of_languages_is_one_sentence(tmp_path, data, why):
    if data is not None:
        (tmp_path / "mine.txt").write_bytes(data)
    environment = os.environ | {"XALMA_LANGUAGES": str(tmp_path / "mine.txt")}
    command = [sys.executable, "-m", "xalma.cli", "languages"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and re.search(why, done.stderr) and done.stderr.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_a_file_of_languages(swahili, tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + f"{SWAHILI}\r\n".encode())
    ADDED.clear()
    add_languages_from(tmp_path / "mine.txt")
    assert language("sw").group == 9
