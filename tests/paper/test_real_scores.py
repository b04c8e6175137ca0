"""Scores and tables of a run on a real base, against sacreBLEU itself and numbers made by hand."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from real_base.scores import Drawn, Piece, read_lines_of, records_of_piece
from real_base.tables import difference, real_ladder_table

from xalma.evaluation.records import Record, write_records
from xalma.paper.figures.real_base import ladder_steps, method_label, methods_dots, parsed
from xalma.paper.real_base.tables import STAGES, method_seeds, read_methods, read_table, readable
from xalma.profiles import load_profile

REFERENCES = [
    "The cat sat on the mat today.",
    "A dog runs in the park.",
    "We eat bread with cheese.",
    "It rains.",
]


def piece(system: str, outputs: list[str], direction: str = "de-en") -> Piece:
    nats = [float(len(text)) for text in REFERENCES]
    return Piece(
        system, "flores", direction, "prompted", outputs, REFERENCES, REFERENCES, nats, ["a", "a", "b", "c"]
    )


GOOD = [
    "The cat sat on the mat today.",
    "A dog runs in the park.",
    "We eat bread and cheese.",
    "It is raining.",
]
BAD = ["The cat is there.", "A dog is in a park.", "We have bread.", "Rain."]


def test_first_row_of_the_draws_is_the_score_and_documents_are_drawn_whole() -> None:
    found = Drawn(0).scores(piece("stage4", GOOD))
    assert found["bleu"][0] == pytest.approx(sacrebleu.corpus_bleu(GOOD, [REFERENCES]).score)
    assert found["chrf++"][0] == pytest.approx(sacrebleu.corpus_chrf(GOOD, [REFERENCES], word_order=2).score)
    assert found["bits_per_byte"][0] == pytest.approx(1 / math.log(2))  # a nat per byte
    counts = Drawn(0).counts(piece("stage4", GOOD))
    assert counts.shape == (1001, 3)
    assert (counts.sum(1) == 3).all()


def test_differences_are_paired_and_marked() -> None:
    drawn = Drawn(0)
    scores = {
        (one.system, "flores", "de-en"): drawn.scores(one) for one in (piece("a", GOOD), piece("b", BAD))
    }
    assert difference(scores, "a", "b", "flores", ["de-en"], "chrf++").endswith("*")
    assert difference(scores, "a", "a", "flores", ["de-en"], "bleu") == "0.00 [0.00, 0.00]"
    assert difference(scores, "a", "c", "flores", ["de-en"], "bleu") == "not measured"


def test_the_ladder_has_what_was_measured_and_says_what_was_not() -> None:
    p = load_profile("real", groups="1", only_languages="de", module_languages="1:de")
    scores = {
        ("stage4", "flores", direction): Drawn(0).scores(piece("stage4", GOOD))
        for direction in ("de-en", "en-de")
    }
    table = real_ladder_table(scores, p, "flores", "chrf++")
    assert list(table["group"]) == ["1 Germanic"] * 2 + ["all"] * 2, "German is all languages with much text"
    wide = real_ladder_table(scores, load_profile("real", groups="1,7"), "flores", "chrf++")
    assert list(wide["group"][-2:]) == ["all, High"] * 2 and wide["n"].iloc[-1] < wide["n"].iloc[-3]
    assert set(table["base"]) == {"not measured"}
    assert parsed(table["stage4"][0])[0] == pytest.approx(
        scores["stage4", "flores", "en-de"]["chrf++"][0], abs=0.01
    )
    assert ladder_steps(table, "chrF++", STAGES) is not None


def test_figures_of_nothing_are_none(tmp_path: Path) -> None:
    nothing = read_table(tmp_path, "ladder_bleu")
    assert ladder_steps(nothing, "BLEU", STAGES) is None
    assert methods_dots(nothing) is None


def test_a_page_leaves_out_what_was_not_measured() -> None:
    rows = [
        ("en-de", "bleu", "1.00 [0.50, 1.50]", "not measured"),
        ("de-en", "bleu", "not measured", "not measured"),
    ]
    table = pd.DataFrame(rows, columns=["direction", "metric", "base", "stage1"])
    partly = table.assign(stage1=["2.00 [1.50, 2.50]", "not measured"], base="1.00 [0.50, 1.50]")
    assert readable(partly)["stage1"].tolist() == ["2.00 [1.50, 2.50]", "not measured"]
    assert readable(table).to_dict("list") == {
        "direction": ["en-de"],
        "metric": ["BLEU"],
        "base": ["1.00 [0.50, 1.50]"],
    }
    assert readable(table.assign(base="not measured")).empty and readable(
        table[["direction", "metric"]]
    ).shape == (2, 2)


def test_names_at_the_ends_of_lines_lie_apart() -> None:
    table = pd.DataFrame(
        {
            "group": ["1 Germanic", "2 Romance", "all"],
            "direction": "en-xx",
            "base": "1.00 [0.50, 1.50]",
            "stage1": ["9.00 [8.00, 10.00]", "9.01 [8.00, 10.00]", "5.00 [4.00, 6.00]"],
        }
    )
    both = pd.concat([table, table.assign(direction="xx-en")])
    fig = ladder_steps(both, "BLEU", STAGES)
    assert fig is not None
    heights = {text.get_text(): text.xy[1] for text in fig.axes[0].texts}
    assert set(heights) == {"1", "2"} and heights["2"] - heights["1"] > 0.3


def test_records_have_signatures_and_rates() -> None:
    found = {r.metric: r for r in records_of_piece(piece("stage4", [*GOOD[:3], ""]), load_profile("real"))}
    assert found["empty"].value == 25
    assert found["bleu"].signature.startswith("nrefs:1|case:mixed")
    assert found["bleu"].n == 4


def test_a_file_that_was_cut_off_gives_its_whole_lines(tmp_path: Path) -> None:
    lines = [gzip.compress((json.dumps({"n": n}) + "\n").encode()) for n in range(3)]
    path = tmp_path / "ladder.jsonl.gz"
    path.write_bytes(b"".join(lines)[:-5])
    assert [one["n"] for one in read_lines_of(path)] == [0, 1]
    plain = tmp_path / "log.jsonl"
    plain.write_bytes(b'{"n": 0}\n{"n": 1')
    assert read_lines_of(plain) == [{"n": 0}]
    assert np.isfinite(Drawn(1).scores(piece("a", GOOD))["bleu"]).all()


def test_methods_over_seeds_are_means_of_differences_from_their_own_sft(tmp_path: Path) -> None:
    """By hand: two directions, three seeds, t of 2 degrees of freedom; a method that one seed lacks is left out."""
    p = load_profile("real-cpu")
    values = {  # folder, system: en-ja, ja-en
        ("a", "stage4"): (10, 20), ("a", "arpo@3"): (11, 22), ("a", "stage5"): (10, 21), ("a", "dpo@3"): (1, 1),
        ("b", "stage4"): (8, 20), ("b", "arpo@3"): (9, 22.2), ("b", "stage5"): (7, 18),
        ("c", "stage4"): (9, 20), ("c", "arpo@3"): (10, 23), ("c", "stage5"): (9, 20),
    }  # fmt: skip
    for (folder, system), scores in values.items():
        records = [
            Record("real-cpu", system, direction, metric, value * scale, 150, "")
            for direction, value in zip(("en-ja", "ja-en"), scores, strict=True)
            for metric, scale in (("bleu", 1), ("chrf++", 2))
        ]
        write_records(tmp_path / folder / "scores" / f"{system}.jsonl", records)
    table = method_seeds([tmp_path / name for name in "abc"], p, 6)
    assert table[["method", "rate"]].values.tolist() == [["arpo", "0.0001"], ["arpo", "0.0003"]]
    assert table["BLEU − SFT, each seed"].tolist() == ["0.50, -1.50, 0.00", "1.50, 1.60, 2.00"]
    assert table["BLEU − SFT"].tolist() == ["-0.33 ± 2.59", "1.70 ± 0.66"]
    assert table["chrF++ − SFT"].tolist() == ["-0.67 ± 5.17", "3.40 ± 1.31"]
    two = method_seeds([tmp_path / name for name in "ab"], p, 6)
    assert two["BLEU − SFT"].tolist() == ["-0.50", "1.55"], "two seeds have no interval"
    assert method_seeds([tmp_path / "nowhere"], p, 6).empty


def test_tables_of_methods_join_with_each_row_once(tmp_path: Path) -> None:
    rows = {"a": "stage4,\narpo,0.0001\ncpo,3e-05\n", "b": "stage4,\narpo,0.0001\nkto+bc,3e-05\n"}
    for name, text in rows.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables" / "12_methods_group6.csv").write_text("method,rate\n" + text)
    table = read_methods([tmp_path / "a", tmp_path / "b"], 6)
    expected = [["stage4", ""], ["cpo", "3e-05"], ["kto+bc", "3e-05"], ["arpo", "0.0001"]]
    assert table[["method", "rate"]].values.tolist() == expected
    assert "rate" not in read_methods([tmp_path / "nowhere"], 6)


def test_methods_are_named_as_papers_name_them() -> None:
    names = {"arpo-detach": "ARPO-detach", "simpo+bc": "SimPO+BC", "dpo": "DPO", "sft": "SFT"}
    assert {name: method_label(name) for name in names} == names
