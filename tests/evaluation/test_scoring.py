"""Systems found in folders, scored as sacreBLEU scores them, with the errors that files of outputs really have."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sacrebleu.metrics import BLEU, CHRF

from xalma.cli.main import main
from xalma.corpora.test_sets import directions_of, load
from xalma.evaluation import scoring
from xalma.evaluation.score_file import check_outputs
from xalma.evaluation.scoring import chosen_directions, find_outputs, score_all
from xalma.files import write_atomically
from xalma.text_files import read_lines

REFERENCES = {
    "en-de": [
        "Das Haus ist sehr klein.",
        "Ich sehe einen Hund am Fluss.",
        "Wir gehen heute nach Hause.",
        "Es regnet.",
    ],
    "de-en": ["The house is very small.", "I see a dog at the river.", "We go home today.", "It is raining."],
    "en-ja": ["家はとても小さいです。", "川で犬を見ます。", "今日は家に帰ります。", "雨です。"],
}
SOURCES = {"en-de": REFERENCES["de-en"], "de-en": REFERENCES["en-de"], "en-ja": REFERENCES["de-en"]}


def write(path: Path, lines: list[str]) -> None:
    write_atomically(path, "\n".join(lines) + "\n")


def spoilt(lines: list[str], n: int) -> list[str]:
    """The lines with the first n cut to a half."""
    return [line[: len(line) // 2] if i < n else line for i, line in enumerate(lines)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A test set of three directions, and systems good, fair and bad with all of them."""
    for direction, lines in REFERENCES.items():
        write(tmp_path / "set" / direction / "src.txt", SOURCES[direction])
        write(tmp_path / "set" / direction / "ref.txt", lines)
        for n, system in enumerate(("good", "fair", "bad")):
            write(tmp_path / "systems" / system / f"{direction}.txt", spoilt(lines, n + 1))
    monkeypatch.setattr(scoring, "home", lambda: tmp_path)
    return tmp_path


def test_three_layouts_and_a_pattern(folder):
    expected = {"en-de", "de-en", "en-ja"}
    several = find_outputs(folder / "systems")
    assert list(several) == ["bad", "fair", "good"] and all(
        files.keys() == expected for files in several.values()
    )
    assert find_outputs(folder / "systems" / "good") == {"good": several["good"]}
    for direction in expected:
        for system in ("ours", "theirs"):
            write(folder / "release" / direction / "systems" / f"{system}.txt", ["x"])
    release = find_outputs(folder / "release")
    assert list(release) == ["ours", "theirs"] and release["ours"].keys() == expected
    assert find_outputs(f"{folder}/release/{{direction}}/systems/ours.txt") == {"ours": release["ours"]}
    assert find_outputs(f"{folder}/systems/good/{{direction}}.txt")["good"] == several["good"]
    with pytest.raises(FileNotFoundError, match=r"no outputs in .*set: it should hold <direction>\.txt"):
        find_outputs(folder / "set")
    with pytest.raises(FileNotFoundError, match=r"no outputs like .*nothing-\{direction\}"):
        find_outputs(f"{folder}/systems/nothing-{{direction}}.txt")


def test_missing_directions_are_named(folder):
    (folder / "systems" / "fair" / "en-ja.txt").unlink()
    outputs = find_outputs(folder / "systems")
    with pytest.raises(
        ValueError, match=r"missing directions: fair lacks en-ja\. Add the files, .* --partial"
    ):
        chosen_directions(outputs)
    assert chosen_directions(outputs, ["de-en", "en-de"]) == ["de-en", "en-de"]
    assert chosen_directions({"good": outputs["good"]}) == [
        "en-de",
        "en-ja",
        "de-en",
    ]  # English sources first
    with pytest.raises(ValueError, match="unknown language code 'xx'"):
        chosen_directions(outputs, ["en-xx"])


@pytest.mark.parametrize("workers", [1, 2])
def test_scores_are_sacrebleus(folder, workers):
    """Values and half widths of intervals, against its own corpus_score; the Japanese tokenizer for Japanese."""
    found = score_all(find_outputs(folder / "systems"), str(folder / "set"), workers=workers)
    table = found.table.set_index(["system", "direction", "metric"])
    assert len(table) == 3 * 3 * 2
    for direction, tokenizer in {"en-de": "13a", "en-ja": "ja-mecab"}.items():
        outputs = read_lines(folder / "systems" / "fair" / f"{direction}.txt")
        for metric, name in ((BLEU(tokenize=tokenizer), "bleu"), (CHRF(word_order=2), "chrf++")):
            expected = metric.corpus_score(outputs, [REFERENCES[direction]], n_bootstrap=1000)
            row = table.loc[("fair", direction, name)]
            assert row["value"] == pytest.approx(expected.score, abs=1e-9)
            assert row["half_width"] == pytest.approx(expected._ci, abs=1e-6)
            assert row["signature"] == str(metric.get_signature()).replace("|bs:1000|seed:12345", "")
    assert found.statistics["bleu"]["good"]["en-de"].shape == (4, 10)


def test_statistics_are_kept_by_their_texts(folder, monkeypatch):
    outputs = find_outputs(folder / "systems")
    first = score_all(outputs, str(folder / "set"), workers=1)
    kept = list((folder / "runs" / "statistics").iterdir())
    assert len(kept) == 3 * 3 * 2
    monkeypatch.setattr(scoring, "segment_statistics", None)  # would be called for a text not counted yet
    assert score_all(outputs, str(folder / "set"), workers=1).table.equals(first.table)
    monkeypatch.undo()
    monkeypatch.setattr(scoring, "home", lambda: folder)
    write(outputs["good"]["en-de"], REFERENCES["en-de"])
    again = score_all(outputs, str(folder / "set"), workers=1).table.set_index(
        ["system", "direction", "metric"]
    )
    assert again.loc[("good", "en-de", "bleu"), "value"] == pytest.approx(100)
    assert len(list((folder / "runs" / "statistics").iterdir())) == len(kept) + 2


def test_spbleu_without_its_model_is_not_scored_and_the_others_are(folder, monkeypatch):
    monkeypatch.setattr(scoring, "missing_spbleu_model", lambda: "not scored: no model here")
    outputs, place = find_outputs(folder / "systems"), str(folder / "set")
    scores = score_all(outputs, place, metrics=("spbleu", "bleu"), workers=1, cache=None)
    rows = scores.table[scores.table["metric"] == "spbleu"]
    assert (
        len(rows) == 9
        and rows["value"].isna().all()
        and set(rows["signature"]) == {"not scored: no model here"}
    )
    assert not any(scores.statistics["spbleu"].values())
    alone = score_all(outputs, place, metrics=("bleu",), workers=1, cache=None).table
    assert scores.table[scores.table["metric"] == "bleu"]["value"].tolist() == alone["value"].tolist()


def test_neural_metrics_without_a_checkpoint_say_so(folder):
    found = score_all(
        find_outputs(folder / "systems"),
        str(folder / "set"),
        metrics=("bleu", "comet22"),
        workers=1,
        cache=None,
    )
    comet = found.table[found.table["metric"] == "comet22"]
    assert len(comet) == 9 and comet["value"].isna().all()
    assert comet["signature"].str.startswith("not scored: ").all()
    assert found.table[found.table["metric"] == "bleu"]["value"].notna().all()


# --- the command line -------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    return main([str(a) for a in arguments])


def test_score_system_outputs(folder, capsys):
    assert (
        run(
            "score",
            "--system-outputs",
            folder / "systems",
            "--testset",
            folder / "set",
            "--workers",
            1,
            "--results",
            folder / "results",
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "all 3 directions of set" in out and "± half the 95 % bootstrap interval" in out
    assert "bad against good: " in out and "over 3 directions (bootstrap, " in out
    assert {f.name for f in (folder / "results" / "set").iterdir()} >= {
        "scores.jsonl",
        "bleu.md",
        "chrfpp.tex",
        "run.json",
    }


def test_plain_checks_stand_beside_the_scores(folder, capsys):
    """Of four outputs one in another script, one empty, one copied, one over-long; a system lacks two directions."""
    odd = ["Это стоит по-русски.", "", SOURCES["en-de"][2], REFERENCES["en-de"][3] * 9]
    write(folder / "systems" / "odd" / "en-de.txt", odd)
    command = ("score", "--system-outputs", folder / "systems", "--testset", folder / "set", "--workers", 1)
    assert run(*command, "--partial", "--metrics", "comet22", "--results", folder / "results") == 0
    assert "off-target, percent of outputs" in capsys.readouterr().out
    checks = pd.read_csv(folder / "results" / "set" / "checks.csv").set_index(["system", "direction"])
    assert len(checks) == 3 * 3 + 1
    rates = checks.loc[("odd", "en-de"), ["off-target %", "empty %", "over-long %", "copied %", "n"]]
    assert rates.tolist() == [75, 25, 25, 25, 4]  # the copy is English, the empty one no language
    length = 100 * sum(map(len, odd)) / sum(map(len, REFERENCES["en-de"]))
    assert checks.loc[("odd", "en-de"), "length %"] == pytest.approx(length, abs=0.005)
    assert "`script of letters only|or no letters`: en-ja." in (folder / "results/set/checks.md").read_text()
    for direction in REFERENCES:  # as for a metric that reads no reference
        write(folder / "set" / direction / "ref.txt", [""] * 4)
    found = check_outputs(find_outputs(folder / "systems"), str(folder / "set"), "data", ["en-de"])
    assert found["length %"].isna().all() and found["n"].tolist() == [4] * 4


def test_compare(folder, capsys):
    lines = [f"satz nummer {i} ist lang genug für vier wörter" for i in range(60)]
    for name, n in (("one", 5), ("two", 55)):
        write(folder / name / "en-de.txt", spoilt(lines, n))
    write(folder / "big" / "en-de" / "src.txt", lines)
    write(folder / "big" / "en-de" / "ref.txt", lines)
    for test in ("bootstrap", "randomisation"):
        assert (
            run(
                "compare",
                folder / "one",
                folder / "two",
                "--testset",
                folder / "big",
                "--test",
                test,
                "--metric",
                "chrf++",
                "--workers",
                1,
            )
            == 0
        )
        out = capsys.readouterr().out
        assert "A: 1 win, 0 ties, 0 losses over 1 directions" in out and f"({test}, " in out
        assert "mean A " in out and "A - B +" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "--system-outputs", "systems"), "--testset is missing: give --system-outputs together"),
        (
            ("score", "--output", "x"),
            "--reference is missing: give --system-outputs DIR --testset NAME, or --output",
        ),
        (
            ("score", "--system-outputs", "systems", "--testset", "nowhere"),
            "no test set nowhere: name one of flores200",
        ),
        (
            ("score", "--system-outputs", "systems", "--testset", "set", "--metrics", "blue"),
            "unknown metric 'blue'",
        ),
        (
            ("score", "--system-outputs", "systems", "--testset", "set", "--systems", "best"),
            "no outputs of best",
        ),
        (("score", "--system-outputs", "nowhere", "--testset", "set"), "no outputs in nowhere"),
        (
            ("compare", "systems", "systems/good", "--testset", "set"),
            "systems holds 3 systems (bad, fair, good)",
        ),
        (("compare", "systems/bad", "systems/good"), "--testset is missing"),
    ],
)
def test_bad_input_is_one_sentence(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("xalma: ") and message in error and error.count("\n") == 1


def test_a_file_of_another_length_is_named_with_both_counts(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    write(folder / "systems" / "fair" / "en-de.txt", ["nur", "drei", "Zeilen"])
    assert run("score", "--system-outputs", "systems", "--testset", "set", "--workers", 1) == 2
    assert "systems/fair/en-de.txt has 3 lines, set en-de has 4" in capsys.readouterr().err
    (folder / "systems" / "bad" / "de-en.txt").unlink()
    assert run("compare", "systems/bad", "systems/good", "--testset", "set") == 2
    assert "do not have the same directions (de-en in one alone)" in capsys.readouterr().err


def test_directions_without_outputs_are_told(folder):
    assert scoring.coverage_sentence(["en-de"], str(folder / "set"), "data") == (
        "1 of 3 directions of set; not scored: de-en, en-ja"
    )
    assert directions_of(str(folder / "set")) == ["de-en", "en-de", "en-ja"]


def test_an_added_language_is_scored_compared_and_listed(swahili, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "home", lambda: tmp_path)
    lines = ["Nyumba ni ndogo sana leo.", "Ninaona mbwa mtoni sasa hivi."]
    for side in ("src", "ref"):
        write(tmp_path / "set" / "en-sw" / f"{side}.txt", lines)
    write(tmp_path / "mine" / "en-sw.txt", lines)
    place = ("--testset", tmp_path / "set", "--workers", 1)
    assert run("score", "--system-outputs", tmp_path / "mine", *place, "--results", tmp_path / "results") == 0
    assert "all 1 directions of set" in capsys.readouterr().out
    assert "100.00" in (tmp_path / "results" / "set" / "bleu.md").read_text()
    assert run("compare", tmp_path / "mine", f"{tmp_path}/mine/{{direction}}.txt", *place) == 0
    assert "A: 0 wins, 1 tie, 0 losses" in capsys.readouterr().out
    out = tmp_path / "copied"
    assert run("outputs", "--system", "files", "--path", tmp_path / "mine", *place[:2], "--out", out) == 0
    assert read_lines(out / "en-sw.txt") == lines


def test_an_added_language_of_the_sets_by_name(swahili, tmp_path, monkeypatch):
    """NTREX and FLORES-200 have it once its file is there; WMT in either form once a direction is."""
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    for code in ("en", "sw"):
        write(tmp_path / "ntrex" / f"{code}.txt", [f"{code} {i}" for i in range(1997)])
    for code in ("eng_Latn", "swh_Latn"):
        write(tmp_path / "flores200" / "devtest" / f"{code}.devtest", [f"{code} {i}" for i in range(1012)])
    assert directions_of("ntrex")[-2:] == directions_of("flores200")[-2:] == ["en-sw", "sw-en"]
    assert (
        load("ntrex", "sw-en").sources[1] == "sw 1"
        and load("flores200", "en-sw").references[0] == "swh_Latn 0"
    )


def test_intervals_and_tests_over_documents(folder, capsys):
    command = ("score", "--system-outputs", folder / "systems", "--testset", folder / "set", "--workers", 1)
    assert run(*command, "--resample", "documents") == 2
    assert (
        "the documents of set en-de are not known: give them in docs.txt beside src.txt"
        in capsys.readouterr().err
    )
    write(folder / "set" / "docs.txt", ["news\tone", "news\tone", "news\ttwo", "news\ttwo"])
    assert run(*command, "--resample", "documents", "--results", folder / "results") == 0
    assert "± half the 95 % bootstrap interval over documents)" in capsys.readouterr().out
    found = score_all(find_outputs(folder / "systems"), str(folder / "set"), workers=1, resample="documents")
    plain = score_all(find_outputs(folder / "systems"), str(folder / "set"), workers=1)
    assert found.table["value"].round(9).tolist() == plain.table["value"].round(9).tolist()
    assert set(found.table["n"]) == {4} and found.statistics["bleu"]["good"]["en-de"].shape == (2, 10)
    assert (found.table["half_width"] != plain.table["half_width"]).any()
    assert (
        run(
            "compare",
            folder / "systems" / "bad",
            folder / "systems" / "good",
            *command[3:],
            "--resample",
            "documents",
        )
        == 0
    )


def test_compare_says_what_people_notice(tmp_path, monkeypatch, capsys):
    """BLEU's difference of these is large, chrF++ has no published threshold."""
    monkeypatch.chdir(tmp_path)
    lines = {"src": "Das ist ein Haus im Tal.", "ref": "This is a small house in the valley."}
    (tmp_path / "set" / "de-en").mkdir(parents=True)
    for side, text in lines.items():
        (tmp_path / "set" / "de-en" / f"{side}.txt").write_text(f"{text}\n" * 20)
    for name, text in (("a", lines["ref"]), ("b", "This is a house in a valley."), ("c", lines["ref"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "de-en.txt").write_text(f"{text}\n" * 20)
    (tmp_path / "c" / "de-en.txt").write_text(
        f"{lines['ref']}\n" * 19 + "This is a small house in a valley.\n"
    )
    for other, answer in (("b", "yes"), ("c", "no")):
        assert main(["compare", "a", other, "--testset", "set"]) == 0
        out = capsys.readouterr().out
        assert (
            f": {answer}, below 2.34 the metric agrees" in out
            and "no threshold is published for chrF++" in out
        )
