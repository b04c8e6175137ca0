"""The organisers' published scores: read, matched with outputs and references, and equal to ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sacrebleu import corpus_bleu, corpus_chrf

from xalma.cli.main import main
from xalma.evaluation.scoring import find_outputs
from xalma.files import write_atomically
from xalma.paper import score_tables
from xalma.paper.score_tables import beside_ours, largest_gaps, published_of, published_scores
from xalma.runtime import REPOSITORY

OUTPUT = {
    "en-ja": ["家はとても小さい。", "川で犬を見る。"],
    "he-en": ["The house is small.", "I see a dog at the river."],
}
REFERENCES = {
    ("en-ja", "ref"): ["家はとても小さいです。", "川で犬を見ます。"],
    ("he-en", "ref"): ["The home is quite small.", "I see one dog at the river."],
    ("he-en", "refA"): ["The house is very small.", "I saw a dog at the river."],
}


def text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


@pytest.fixture
def wmt(tmp_path, monkeypatch) -> Path:
    """A WMT'99 of two directions and one system, with what its organisers would publish, made by sacreBLEU itself."""
    folder = tmp_path / "wmt" / "wmt99"
    for direction, lines in OUTPUT.items():
        write_atomically(folder / direction / "src.txt", text(["a", "b"]))
        write_atomically(folder / direction / "systems" / "ONLINE-B.txt", text(lines))
    for (direction, name), lines in REFERENCES.items():
        write_atomically(folder / direction / f"{name}.txt", text(lines))
    scores, tables = (
        ["pair\tsystem\tid\tis_constrained\tmetric\tscore"],
        ["pair\treference\tsystem\tCOMET\tchrF\tBLEU"],
    )
    for direction, mine, printed, first in (
        ("en-ja", "char", "ja-mecab", "ref"),
        ("he-en", "13a", "13a", "refA"),
    ):
        references = [REFERENCES[direction, first]]
        chrf = corpus_chrf(OUTPUT[direction], references).score
        for reference in ("all", "refA"):
            bleu = corpus_bleu(OUTPUT[direction], references, tokenize=mine).score
            scores += [
                f"{direction}\tONLINE-B\t1\tFalse\t{name}-{reference}\t{value}"
                for name, value in (("bleu", bleu), ("chrf", chrf))
            ]
            scores.append(f"{direction}\tAnother\t2\tFalse\tbleu-{reference}\t11.1")
        bleu = corpus_bleu(OUTPUT[direction], references, tokenize=printed).score
        tables.append(f"{direction}\trefA\tONLINE-B\t80.0\t{chrf:.1f}\t{bleu:.1f}")
    second = [REFERENCES["he-en", "ref"]]
    tables.append(
        f"he-en\trefB\tONLINE-B\t80.0\t{corpus_chrf(OUTPUT['he-en'], second).score:.1f}\t"
        f"{corpus_bleu(OUTPUT['he-en'], second).score:.1f}"
    )
    write_atomically(folder / score_tables.SCORES, text(scores))
    write_atomically(folder / score_tables.TABLES, text(tables))
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    return folder


def test_each_published_number_has_its_reference_and_tokenizer(wmt):
    rows = beside_ours(find_outputs(wmt), str(wmt), wmt)
    assert len(rows) == 4 + 6 and set(rows["system"]) == {"ONLINE-B"}
    assert max(largest_gaps(rows).values()) < 1e-9
    tables = rows[rows["source"] == "tables"]
    assert (tables["ours"] - tables["published"]).abs().max() <= 0.05 + 1e-9
    ja = rows.query("direction == 'en-ja' and metric == 'bleu'").set_index("source")["ours"]
    assert ja["scores"] != ja["tables"]
    he = rows.query("direction == 'he-en' and source == 'tables' and metric == 'bleu'").set_index(
        "reference"
    )["ours"]
    assert he["refA"] != he["refB"]


def test_score_writes_them_beside_ours_and_blanks_where_a_system_has_no_output(
    wmt, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("xalma.evaluation.scoring.home", lambda: tmp_path)
    write_atomically(wmt / "he-en" / "systems" / "Mine.txt", text(OUTPUT["he-en"]))
    command = [
        "score",
        "--system-outputs",
        str(wmt),
        "--testset",
        str(wmt),
        "--results",
        str(tmp_path / "out"),
    ]
    command += ["--metrics", "bleu", "--workers", "1"]
    assert main(command) == 2
    assert "Mine lacks en-ja" in capsys.readouterr().err
    assert main([*command, "--partial"]) == 0
    assert "2 outputs: at most 0.0000 BLEU and 0.0000 chrF from the organisers'" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "wmt99" / "published.csv")
    assert found["BLEU, difference"].dropna().tolist() == [0.0, 0.0] and len(found) == 3
    bleu = pd.read_csv(tmp_path / "out" / "wmt99" / "bleu.csv").set_index("system")
    assert pd.isna(bleu.loc["Mine", "en-ja"]) and bleu.loc["Mine", "he-en"] == bleu.loc["ONLINE-B", "he-en"]


def test_a_set_without_published_scores_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    assert published_of("wmt22") is None and published_of(str(tmp_path)) is None


@pytest.mark.data
def test_wmt23_is_within_a_hundredth_of_print():
    """Three outputs: Japanese by characters and by words, Hebrew against both references. All 60 are in results/wmt."""
    folder = published_of("wmt23")
    outputs = find_outputs(folder)
    some = {
        system: {
            d: path
            for d, path in files.items()
            if (d, system) in (("en-ja", "NLLB_Greedy"), ("he-en", "ONLINE-A"), ("de-en", "GPT4-5shot"))
        }
        for system, files in outputs.items()
    }
    rows = beside_ours(some, "wmt23", folder)
    assert len(rows) == 3 * 2 + 4 * 2
    assert max(largest_gaps(rows).values()) < 0.01
    tables = rows[rows["source"] == "tables"]
    assert (tables["ours"] - tables["published"]).abs().max() < 0.06
    assert len(published_scores(folder)) == 158 * 2 + 170 * 2


def test_the_committed_table_has_all_outputs_within_a_hundredth():
    found = pd.read_csv(REPOSITORY / "results" / "wmt" / "wmt23" / "published.csv")
    gaps = found[["BLEU, difference", "chrF, difference"]].dropna()
    assert len(gaps) == 60 and (gaps.abs() < 0.01).all(axis=None)
    assert found["direction"].nunique() == 12
