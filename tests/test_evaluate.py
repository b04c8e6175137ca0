"""Scores against sacreBLEU called directly, worked values, and what the ALMA paper printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sacrebleu

from xalma.evaluate import (
    check_parallel,
    copy_rate,
    direction_class,
    empty_rate,
    group_means,
    length_ratio,
    off_target,
    off_target_rate,
    paired_bootstrap,
    read_lines,
    score,
    score_files,
)
from xalma.languages import directions
from xalma.published import published
from xalma.results import Record

HYPS = ["the cat sat on the mat", "a dog barks at night", "it rains today in the north"]
REFS = ["the cat sat on a mat", "the dog barks at night", "it rains in the north today"]


def test_score_is_sacrebleu_with_its_signature():
    scores = score(HYPS, REFS, "en", ("bleu", "chrf", "chrf++"))
    expected = [
        sacrebleu.corpus_bleu(HYPS, [REFS]).score,
        sacrebleu.corpus_chrf(HYPS, [REFS]).score,
        sacrebleu.corpus_chrf(HYPS, [REFS], word_order=2).score,
    ]
    assert [s.value for s in scores] == expected
    assert [s.metric for s in scores] == ["bleu", "chrf", "chrf++"]
    assert {s.n for s in scores} == {3}
    assert scores[0].signature == (f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}")
    assert "nw:0" in scores[1].signature
    assert "nw:2" in scores[2].signature


@pytest.mark.parametrize(
    ("tgt", "tokenizer"),
    [("de", "tok:13a"), ("th", "tok:13a"), ("zh", "tok:zh"), ("ja", "tok:ja-"), ("ko", "tok:ko-")],
)
def test_the_tokenizer_follows_the_target(tgt, tokenizer):
    (bleu,) = score(["a b c d"], ["a b c d"], tgt, ("bleu",))
    assert tokenizer in bleu.signature
    assert bleu.value == pytest.approx(100)


def test_chinese_counts_characters_not_blanks():
    # Five of six characters are right: precisions 5/6, 4/5, 3/4, 2/3, so BLEU = (1/3) ** .25.
    (bleu,) = score(["今天天气很好"], ["今天天气很坏"], "zh", ("bleu",))
    assert bleu.value == pytest.approx(100 * (1 / 3) ** 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], ["a", "b"], "de"), "1 hypotheses, 2 references"),
        (([], [], "de"), "no segments to score"),
        ((["a"], ["a"], "dee"), "unknown language code 'dee'"),
        ((["a"], ["a"], "de", ("blue",)), "unknown metric 'blue': use one of bleu, chrf, chrf"),
    ],
)
def test_bad_input_to_score(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(*arguments)


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


def test_rates():
    assert off_target_rate(["да", "yes", "12", "нет"], "ru") == 0.25
    assert empty_rate(["", " \t", "a", "b"]) == 0.5
    assert copy_rate(["a  b", "c", "", "x"], ["a b", "d", "", "x"]) == 0.5
    assert length_ratio(["abc", ""], ["ab", "abcd"]) == 0.5


def test_rates_refuse_what_they_cannot_divide_by():
    with pytest.raises(ValueError, match="references that are all empty"):
        length_ratio(["a"], [""])
    with pytest.raises(ValueError, match="no segments"):
        empty_rate([])
    with pytest.raises(ValueError, match="2 hypotheses, 1 sources"):
        copy_rate(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\n", [""]),
        ("a\u2028b\x85c\x0bd\n".encode(), ["a\u2028b\x85c\x0bd"]),  # str.splitlines makes four
    ],
)
def test_read_lines(tmp_path, data, lines):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    assert read_lines(path) == lines


def test_read_lines_says_where_the_bytes_are_wrong(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin1\.txt is not UTF-8: byte 0xf6 at offset 7, line 2"):
        read_lines(path)


def test_read_lines_without_lines(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        read_lines(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.txt"):
        read_lines(tmp_path / "absent.txt")


def test_check_parallel_names_both_files_and_counts(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match=r"a\.txt has 3, .*b\.txt has 2"):
        check_parallel([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert check_parallel([tmp_path / "b.txt", tmp_path / "b.txt"]) == [["1", "2"]] * 2


def test_score_files_prints_what_sacrebleu_prints(tmp_path):
    for name, lines in (("sys", HYPS), ("ref", REFS), ("src", [HYPS[0], "b", "c"])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    report = score_files(tmp_path / "sys", tmp_path / "ref", tmp_path / "src", "en").split("\n")
    bleu = sacrebleu.corpus_bleu(HYPS, [REFS])
    assert report[0].startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert report[0].endswith(f" = {bleu.score:.2f} (n = 3)")
    assert report[1].startswith("chrF2|nrefs:1|")
    assert "copies of the source 33.33%" in report[2]
    assert "copies" not in score_files(tmp_path / "sys", tmp_path / "ref", None, "en")


BETTER, WORSE = REFS * 20, ["the cat sat", "dog barks at night", "rains in north"] * 20


def test_paired_bootstrap_agrees_with_the_sacrebleu_command(monkeypatch):
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    systems = [("a", HYPS * 20), ("b", BETTER)]
    _, expected = PairedTest(systems, {"BLEU": BLEU()}, [REFS * 20], "bs", n_samples=200)()
    found = paired_bootstrap(HYPS * 20, BETTER, REFS * 20, "en", n=200)
    assert (found.value_a, found.value_b) == tuple(r.score for r in expected["BLEU"])
    assert (found.ci_a, found.ci_b) == tuple(r.ci for r in expected["BLEU"])
    assert found.p_value == expected["BLEU"][1].p_value
    assert "bs:200|seed:12345" in found.signature
    assert "SACREBLEU_SEED" not in os.environ


def test_paired_bootstrap_is_seeded_and_finds_the_plain_case():
    runs = [paired_bootstrap(WORSE, BETTER, REFS * 20, "en", "chrf", 100, seed) for seed in (1, 1)]
    assert runs[0] == runs[1]
    assert runs[0].p_value == pytest.approx(1 / 101)
    assert paired_bootstrap(BETTER, BETTER, REFS * 20, "en", n=50).p_value == 1.0
    with pytest.raises(ValueError, match="seed 0"):
        paired_bootstrap(WORSE, BETTER, REFS * 20, "en", seed=0)


def test_group_means_average_seeds_then_directions():
    def record(direction, value, seed=0):
        return Record("tiny", "stage4", direction, "bleu", value, 10, "sig", seed)

    records = [record("en-zh", 10), record("en-zh", 20, 1), record("en-ja", 45), record("de-en", 7)]
    rows = group_means(records).to_dict("records")
    kept = [(r["group"], r["direction"], r["mean"], r["n_directions"]) for r in rows]
    assert kept == [(6, "en-xx", 30.0, 2), (1, "xx-en", 7.0, 1)]
    with pytest.raises(ValueError, match="no records"):
        group_means([])


def test_direction_class_needs_english():
    assert direction_class("ur-en") == {"group": 7, "direction": "xx-en"}
    with pytest.raises(ValueError, match="not English-centric"):
        direction_class("de-fr")


def data_folder(name: str) -> Path:
    root = os.environ.get("XALMA_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"XALMA_DATA points to no folder with {name}/")
    return Path(root) / name


@pytest.mark.data
@pytest.mark.parametrize("direction", directions(["cs", "de", "is", "ru", "zh"]))
def test_alma_outputs_score_what_the_paper_printed(direction):
    folder = data_folder("wmt") / "wmt22" / direction
    src, tgt = direction.split("-")
    hypotheses, references = check_parallel([folder / "systems/ALMA-13B-LoRA.txt", folder / "ref.txt"])
    (bleu,) = score(hypotheses, references, tgt, ("bleu",))
    cells = published("a" if src == "en" else "b").query("system == 'ALMA-13B-LoRA' and metric == 'BLEU'")
    language = tgt if src == "en" else src
    (printed,) = cells.loc[cells["group_or_lang"] == language, "value"]
    assert bleu.value == pytest.approx(printed, abs=0.15)


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
    assert low <= off_target_rate(read_lines(data_folder("ntrex") / f"{text}.txt"), tgt) <= high
