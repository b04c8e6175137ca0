"""README's measured blocks come from the committed results."""

import csv
import json
import shutil

import nbformat
import pytest
import readme

from xalma.evaluation.records import Record, write_records
from xalma.paper.studies.ladder import SFT_SYSTEMS
from xalma.paper.studies.stage_ablation import FULL_CHAIN
from xalma.paper.studies.study import Study, file_study

LADDER = """group,direction,n,base,stage1,stage2,stage3,stage4,stage5
3 Slavic,en-xx,5,0.10,0.20,0.30,44.00,60.00,58.00
6 Eurasian,xx-en,6,0.10,0.20,0.60,41.00,50.00,53.00
all,en-xx,11,0.10,0.20,0.45,42.50,55.00,55.50
"""
METHODS = """direction,method,BLEU
en→xx,"SFT, the start",40
en→xx,DPO,2
en→xx,CPO,19
en→xx,ARPO,41
xx→en,"SFT, the start",50
xx→en,DPO,1
xx→en,CPO,26
xx→en,ARPO,49
"""
GROUP_TESTS = """group,subset,direction,delta,p_value,p_adjusted,how
3,All,en-xx,-2.00,0.01,0.020,how
3,High,en-xx,-4.00,0.001,0.002,how
6,All,xx-en,3.00,0.02,0.030,how
"""


def file_ladder_by_hand(folder):
    """Three seeds of one direction each way; differences to the full chain of -10, -9, -11 en→xx, 0, 1, -1 xx→en."""

    def record(stage, direction, metric, value, seed):
        return Record("tiny", stage, direction, metric, value, 9, "s", seed)

    found = [
        record(name, direction, metric, 50 + seed + (0 if name == FULL_CHAIN else gap), seed)
        for metric in ("bleu", "content")
        for name in SFT_SYSTEMS
        for direction, gaps in (("en-fi", (-10, -9, -11)), ("fi-en", (0, 1, -1)))
        for seed, gap in enumerate(gaps)
    ]
    systems = {name: {"system": label} for name, label in SFT_SYSTEMS.items()}
    file_study(folder, Study("group6", "t", FULL_CHAIN, systems, found))
    few_shot = [
        record(stage, direction, metric, value - 0.1 * number, seed)
        for number, stage in enumerate(("base", "stage1", "stage2", "stage3"))
        for direction in ("en-fi", "fi-en")
        for metric, value in (
            ("bleu", 40.3 if stage == "stage3" else 0.4),
            ("content", 20.4),
            ("text_bits", 2),
            ("partner_gain", 1),
        )
        for seed in range(3)
    ]
    write_records(folder / "group6_few_shot.jsonl", few_shot)


@pytest.fixture
def results(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ladder_bleu.md").write_text(
        "**Caption**\n\n| group | base |\n|---|---|\n| 6 | 1.50 |\n\nFOOTNOTE\n"
    )
    (tmp_path / "tables" / "ladder_bleu.csv").write_text(LADDER)
    (tmp_path / "tables" / "preference_methods.csv").write_text(METHODS)
    (tmp_path / "tables" / "tests_stage4_stage5_bleu_groups.csv").write_text(GROUP_TESTS)
    (tmp_path / "tables" / "tests_stage4_stage5_chrf_groups.csv").write_text(GROUP_TESTS)
    file_ladder_by_hand(tmp_path / "ladder")
    run = {"command": "c", "hardware": {"cpu": "A CPU"}, "profile": {"mixed_precision": "auto"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    hardware = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "gpu": None}
    cost = {
        "seconds": {"00_a": 60, "01_b": 90},
        "seed": 7,
        "provenance": {"hardware": hardware, "commit": "0123456789abcdef"},
    }
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    return tmp_path


def test_blocks_are_filled_and_the_rest_is_left_alone(results, tmp_path_factory, monkeypatch):
    tmp_path = tmp_path_factory.mktemp("cpu")
    text = (
        "a\n<!-- cost:start -->\nold\n<!-- cost:end -->\nb\n<!-- ladder:start -->\n<!-- ladder:end -->\nc\n"
    )
    (results / "tables" / "12_about.json").write_text('{"segments": 128}')
    ladder = "group,direction,n,base,stage1,stage2,stage3,stage4,stage4 few-shot,sft+\n"
    ladder += "1 Germanic,en-xx,7,1,2,3,4,5,9,9\nall,en-xx,7,1,2,3,4,5,9,9\n"
    (results / "tables" / "12_ladder_bleu.csv").write_text(ladder)
    methods = 'method,rate,"bleu, less stage 4","chrf++, less stage 4"\nstage4,,0,0\n'
    methods += 'dpo,0.0001,"-1.00 [-2.00, -0.50]*",a\ndpo,0.0003,b,c\n'
    (results / "tables" / "12_methods_group6.csv").write_text(methods)
    ladder = "group,direction,n,base,stage1,stage2,stage3,stage4,stage5\n1 Germanic,xx-en,1,a,b,c,d,e,f\n"
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "12_ladder_bleu.csv").write_text(f"{ladder}all,xx-en,2,1,2,3,4,5,6\n")
    (tmp_path / "tables" / "12_about.json").write_text('{"segments": 100}')
    log = [
        {"event": "run", "hardware": {"cpu": "A CPU", "instructions": "AVX9"}},
        {"event": "task", "seconds": 120},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    text += "<!-- real-cpu:start -->\n<!-- real-cpu:end -->\n"
    new = readme.refreshed("README.md", text, *[results] * 3, tmp_path)
    assert "**2.5 minutes** in sum on 2 cores (A CPU, 8.0 GiB, no GPU)" in new
    assert "00 1.0 · 01 1.5" in new and "Seed 7, commit of the last start `0123456789`" in new
    assert "2 minutes in sum of its tasks, each on one core (A CPU, AVX9)" in new
    assert "| de→en | a | b | c | d | e | f |\n<!-- real-cpu:end -->" in new
    assert "| 6 | 1.50 |\n<!-- ladder:end -->\nc\n" in new and "old" not in new and "FOOTNOTE" not in new
    assert readme.refreshed("README.md", new, *[results] * 3, tmp_path) == new
    blocks = ("findings", "processors", "references", "samples", "real")
    text = "".join(f"<!-- {name}:start -->\n<!-- {name}:end -->\n" for name in blocks)
    monkeypatch.setattr(readme, "references_block", lambda folder: f"of {folder}")
    monkeypatch.setattr(readme, "samples_block", lambda folder: "drawn")
    new = readme.refreshed("docs/findings.md", text, *[results] * 3, tmp_path)
    assert "| --- |\n| all | en→xx | 1 | 2 | 3 | 4 | 5 |\n\nPreference" in new
    assert "| method | BLEU, 0.0001 | BLEU, 0.0003 | chrF++, 0.0001 | chrF++, 0.0003 |" in new
    assert "| DPO | -1.00 [-2.00, -0.50]\\*° | b | a | c |\n<!-- real:end -->" in new
    assert f"<!-- references:start -->\nof {tmp_path}\n<!-- references:end -->" in new and "drawn" in new
    assert readme.refreshed("docs/findings.md", new, *[results] * 3, tmp_path) == new


def file_methods(folder, *rows):
    (folder / "tables").mkdir(parents=True)
    head = 'method,rate,"bleu, less stage 4","chrf++, less stage 4"\nstage4,,0,0\n'
    (folder / "tables" / "12_methods_group6.csv").write_text(head + "\n".join(rows) + "\n")


def file_draws(folders):
    """DPO 1, 2 and 3 BLEU above SFT: mean 2, half a 95 % interval 4.303 / sqrt(3)."""
    for seed, folder in enumerate(folders):
        for name, value in (("stage4", 10), ("dpo@1", 11 + seed)):
            records = [
                Record("real-cpu", name, direction, metric, value, 9, "s", seed)
                for direction in ("en-ja", "ja-en")
                for metric in ("bleu", "chrf++")
            ]
            write_records(folder / "scores" / f"{name}.jsonl", records)


def test_methods_on_references_stand_by_rate(tmp_path):
    file_methods(tmp_path, 'arpo,0.0001,"-3.00 [-4.00, -2.00]*",a', 'dpo,3e-05,"0.50 [0.00, 1.00]",b')
    cloning = ('simpo+bc,3e-05,"1.00 [0.50, 1.50]*",c', "simpo+bc,0.0001,d,e")
    file_methods(tmp_path / "behaviour_cloning", *cloning)
    file_draws([tmp_path, tmp_path / "references_seed1", tmp_path / "references_seed2"])
    assert readme.references_block(tmp_path).splitlines()[2:] == [
        "| ARPO |  | -3.00 [-4.00, -2.00]\\* |  |  |",
        "| DPO | 0.50 [0.00, 1.00]° |  | 2.00 ± 2.48 | 1.00, 2.00, 3.00 |",
        "| SimPO+BC | 1.00 [0.50, 1.50]\\*° | d |  |  |",
    ]


def test_methods_on_samples_stand_by_draw(tmp_path):
    first = ('dpo,0.0001,"1.00 [0.50, 1.50]*",a', 'kto,0.0001,"4.00 [3.00, 5.00]*",b')
    file_methods(tmp_path / "samples", *first)
    file_methods(tmp_path / "samples_256", 'dpo,0.0001,"-5.00 [-6.00, -4.00]*",c')
    file_draws([tmp_path / part for part in ("samples", "samples_seed1", "samples_seed2")])
    assert readme.samples_block(tmp_path).splitlines()[2:] == [
        "| DPO | 1.00 [0.50, 1.50]\\*° | 2.00 ± 2.48 | 1.00, 2.00, 3.00 | -5.00 [-6.00, -4.00]\\* |",
        "| KTO | 4.00 [3.00, 5.00]\\* |  |  |  |",
    ]


def test_findings_have_intervals_and_name_what_is_within_them(results):
    half = 4.303 / 3**0.5  # of three values with standard deviation 1
    text = readme.findings_block(results)
    assert (
        f"without stage 1: -10.0 ± {half:.1f} / +0.0 ± {half:.1f} BLEU (within its interval: xx→en)." in text
    )
    assert "no prompt: BLEU 40.0 ± 0.0 / 40.0 ± 0.0; after stages 0 to 2 at most 0.4 / 0.4." in text
    assert (
        "What stage 2 adds to the bits per byte of text alone" in text
        and "-0.100 ± 0.000 / -0.100 ± 0.000." in text
    )
    assert (
        "significantly better in group 6 xx→en (+3.00, p 0.030) and worse in group 3 en→xx (-2.00, p 0.020)"
        in text
    )


def test_a_second_run_of_other_values_is_no_pair(results, second):
    for folder, value in ((results, 5), (second, 6)):
        run = json.loads((folder / "run.json").read_text())
        run["profile"] |= {"stage1_tokens": value}
        (folder / "run.json").write_text(json.dumps(run))
    assert "is not measured yet" in readme.processors_block(results, second)


@pytest.fixture
def second(results, tmp_path_factory):
    """The same run on another processor, as it is made: ARPO loses in both groups there."""
    folder = tmp_path_factory.mktemp("second") / "tiny"
    shutil.copytree(results, folder)
    ladder = LADDER.replace("60.00,58.00", "40.50,39.50").replace("50.00,53.00", "49.00,48.00")
    tests = GROUP_TESTS.replace("3,All,en-xx,-2.00,0.01,0.020", "3,All,en-xx,-1.00,0.0,0.0")
    (folder / "tables" / "ladder_bleu.csv").write_text(ladder)
    tests = tests.replace("6,All,xx-en,3.00,0.02,0.030", "6,All,xx-en,-1.00,0.2,0.400")
    (folder / "tables" / "tests_stage4_stage5_bleu_groups.csv").write_text(tests)
    run = {"command": "xalma run --profile tiny --set mixed_precision=off"}
    run |= {"hardware": {"cpu": "A CPU", "instructions": "AVX2"}, "profile": {"mixed_precision": "off"}}
    (folder / "run.json").write_text(json.dumps(run))
    cost = json.loads((folder / "cost.json").read_text()) | {"command": run["command"]}
    (folder / "cost.json").write_text(json.dumps(cost))
    (folder / "scores").mkdir()
    (folder / "scores" / "stage4.jsonl").write_text("{}")
    (folder / "notebooks").mkdir()
    return folder


def test_two_processors_stand_side_by_side(results, second, tmp_path_factory):
    target = tmp_path_factory.mktemp("committed") / "tiny-avx2"
    readme.adopt(second, target)
    readme.adopt(second, target)
    assert sorted(f.name for f in target.iterdir()) == ["cost.json", "run.json", "scores", "tables"]
    text = readme.processors_block(results, target)
    assert text.startswith("**One seed on one processor is not a result.**")
    assert "up to 19.5 BLEU apart (group 3 en→xx)" in text
    assert "has another sign in 1 of 2 means, and is significant 3 times in 4;" in text
    assert (
        "of one sign: worse in group 3 en→xx (-2.00, p 0.020). The second run's notebooks took 2.5 minutes."
        in text
    )
    heads, _, *rows = text.split("\n\n")[1].splitlines()
    assert (
        "the lowest BLEU of a row is 41.0 after stage 3, asked with one example pair, and 40.5 after SFT"
        in text
    )
    assert "before stage 3 the highest is 0.6. On pairs that differ in style" in text
    assert (
        "SFT's BLEU in both runs and directions: DPO; in none: ARPO. After SFT the two runs are up to" in text
    )
    assert heads.startswith("| group | SFT, A CPU |") and heads.count("AVX2, no bfloat16 |") == 3
    assert rows == [
        "| 3 en→xx | 60.00 | 58.00 | -2.00 (0.020) | 40.50 | 39.50 | -1.00 (0.000) |",
        "| 6 xx→en | 50.00 | 53.00 | +3.00 (0.030) | 49.00 | 48.00 | -1.00 (0.400) |",
    ]


def test_nothing_is_claimed_that_turns_round(results, second):
    tests = second / "tables" / "tests_stage4_stage5_bleu_groups.csv"
    tests.write_text(GROUP_TESTS.replace("-2.00", "2.00").replace(",3.00", ",-3.00"))
    assert "none, so that nothing is claimed of it here" in readme.processors_block(results, second)


def test_a_run_of_other_values_is_not_taken(results, tmp_path):
    with pytest.raises(ValueError, match="was made by `c`, not by `ATEN_CPU_CAPABILITY=avx2"):
        readme.adopt(results, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_the_committed_run_shows_another_processor_shows_too():
    """After stage 3 and after SFT both translate; DPO and SimPO collapse in both; ARPO against SFT is open in both."""
    text = readme.processors_block()
    assert "in both runs and directions: DPO, SimPO; in none: SFT (continued), CPO, ARPO." in text
    assert "of one sign: none, so that nothing is claimed of it here." in text
    for run in (readme.RESULTS, readme.SECOND):
        with (run / "tables" / "ladder_bleu.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert max(float(row[stage]) for stage in ("base", "stage1", "stage2")) < 1
                assert float(row["stage3"]) >= 20 and float(row["stage4"]) >= 45


def test_missing_marker_is_named(results):
    with pytest.raises(ValueError, match="no block cost"):
        readme.refreshed("README.md", "nothing here", results)


@pytest.mark.usefixtures("committed_results")
@pytest.mark.parametrize("page", readme.PAGES)
def test_committed_pages_are_current(page):
    text = (readme.REPOSITORY / page).read_text(encoding="utf-8")
    assert readme.refreshed(page, text) == text, "run `make readme`"


def test_committed_notebooks_were_made_from_these_sources():
    sources = sorted((readme.REPOSITORY / "notebooks").glob("*.ipynb"))
    assert len(sources) == 13
    for source in sources:
        profile = {"11_alma": "alma-tiny", "12_real_base": "real"}.get(source.stem, "tiny")
        executed = nbformat.read(readme.RESULTS.parent / profile / "notebooks" / source.name, as_version=4)
        written = nbformat.read(source, as_version=4)
        assert [c.source for c in executed.cells] == [c.source for c in written.cells], (
            f"run `make reproduce`: {source.name}"
        )
        counts = [c.execution_count for c in executed.cells if c.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1)), source.name
