"""Scores against sacreBLEU called directly, worked values, and what the ALMA paper printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sacrebleu

from xalma.evaluation.metrics import (
    copy_rate,
    empty_rate,
    length_ratio,
    missing_spbleu_model,
    overlong_rate,
    sacrebleu_metric,
    score,
    wrong_language_rate,
)
from xalma.evaluation.records import Record, direction_class, group_means
from xalma.languages import directions
from xalma.published import published
from xalma.text_files import check_parallel, read_lines

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
    assert scores[0].signature == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )
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


def test_spbleu_where_its_model_is(tmp_path, monkeypatch):
    import sentencepiece
    from sacrebleu.tokenizers import tokenizer_spm

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    (absent,) = score(HYPS, REFS, "de", ("spbleu",))
    assert (
        absent.reason
        == f"not scored: spBLEU model flores200sacrebleuspm not available in {tmp_path / 'models'}"
    )
    with pytest.raises(FileNotFoundError, match="spBLEU model"):
        sacrebleu_metric("spbleu", "de")
    (tmp_path / "models").mkdir()
    model = tmp_path / "models" / "flores200sacrebleuspm"  # a small one in its place: pieces of one character
    with model.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(HYPS + REFS),
            model_writer=file,
            vocab_size=24,
            model_type="char",
            minloglevel=2,
        )
    assert missing_spbleu_model() is None
    (found,) = score(["ab", "cat sat"], ["ab", "cat sit"], "de", ("spbleu",))
    assert "tok:flores200" in found.signature
    # 10 of 11 pieces, then 7 of 9, 5 of 7, 3 of 5 runs of them are right ("_ab", "_cat_s.t").
    assert found.value == pytest.approx(100 * (10 / 11 * 7 / 9 * 5 / 7 * 3 / 5) ** 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], ["a", "b"], "de"), "1 hypotheses, 2 references"),
        (([], [], "de"), "no segments to score"),
        ((["a"], ["a"], "dee"), "unknown language code 'dee'"),
        ((["a"], ["a"], "de", ("blue",)), r"unknown metric 'blue': use one of bleu, chrf, chrf\+\+, spbleu"),
    ],
)
def test_bad_input_to_score(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(*arguments)


def test_rates():
    assert empty_rate(["", " \t", "a", "b"]) == 0.5
    assert copy_rate(["a  b", "c", "", "x"], ["a b", "d", "", "x"]) == 0.5
    assert length_ratio(["abc", ""], ["ab", "abcd"]) == 0.5
    assert (
        wrong_language_rate(["да, это так", "yes", "12", "ні, це не так, як ви думаєте"], "ru") == 0.75
    )  # "12" too


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ("x" * 201, "y" * 100, 1),
        ("x" * 200, "y" * 100, 0),
        ("x" * 50, "", 0),
        ("x" * 51, "", 1),
        ("x" * 53, "abc", 0),  # a short reference is soon doubled
    ],
)
def test_overlong(output, reference, expected):
    assert overlong_rate([output], [reference]) == expected


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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_read_lines_names_utf16(tmp_path, encoding):
    """`iconv -f latin1` would make a file of NULs with as many lines."""
    path = tmp_path / "wide.txt"
    path.write_bytes("good\nfine\n".encode(encoding))
    with pytest.raises(ValueError, match=r"wide\.txt is not UTF-8 but UTF-16: .*`iconv -f utf-16 -t utf-8`"):
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
