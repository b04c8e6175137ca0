"""Exports: checked before they are written, read by the plain libraries, every number of the card a measured one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraModel, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from xalma.cli.main import main
from xalma.evaluation.records import Record
from xalma.languages import GROUPS
from xalma.models.backbone import load_base, save_base
from xalma.runs import read_run
from xalma.training.export import export as exporting
from xalma.training.export.export import check_export, check_merge, export, held_out_rows
from xalma.training.export.opened import open_exported
from xalma.training.ladder import evaluate_folder
from xalma.training.stage_models import open_merged

IDS = torch.tensor([[1, 40, 41, 42, 300, 301, 2]])
FEW = 24  # sentences, where the number is not what is tested


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS.to(model.device)).logits.cpu()


@pytest.fixture(scope="module")
def merged(micro, finished, tmp_path_factory):
    """Group 6 as a merged model."""
    return export(micro, 6, tmp_path_factory.mktemp("export") / "merged", sentences=FEW)


@pytest.fixture(scope="module")
def adapter(micro, finished, tmp_path_factory):
    """Group 6 as an adapter."""
    out = tmp_path_factory.mktemp("export") / "adapter"
    return export(micro, 6, out, what="adapter", base_id="me/tiny-base", licence="mit", sentences=FEW)


def test_a_merged_model_is_a_plain_one(merged, finished):
    """transformers alone reads it, tokenizer and all, and it says what the stage says."""
    model = AutoModelForCausalLM.from_pretrained(
        merged, attn_implementation="eager"
    )  # as `load_base` on a CPU
    assert torch.equal(logits(model), logits(open_merged(finished[5])[0]))
    assert (
        AutoTokenizer.from_pretrained(merged).get_vocab()
        == AutoTokenizer.from_pretrained(finished[0]).get_vocab()
    )
    assert {"README.md", "export.json", "model.safetensors", "config.json"} <= {
        file.name for file in merged.iterdir()
    }
    assert not [file for file in merged.parent.iterdir() if "partial" in file.name]


def test_an_adapter_is_a_plain_one(adapter, finished, ladder):
    assert (adapter / "adapter_model.safetensors").read_bytes() == (
        finished[5] / "adapter_model.safetensors"
    ).read_bytes()
    assert (
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "me/tiny-base"
    )
    model = PeftModel.from_pretrained(load_base(ladder[1])[0], adapter)
    torch.testing.assert_close(logits(model), logits(open_merged(finished[5])[0]), atol=1e-5, rtol=1e-5)


def test_translate_takes_an_export(merged, adapter, finished, ladder, tmp_path, capsys):
    """As a stage's folder: the same weights, so the same lines; an adapter on the base it names."""
    expected = logits(open_merged(finished[5])[0])
    assert torch.equal(logits(open_exported(merged, 6)[0]), expected)
    (tmp_path / "in.txt").write_text("in 3 weeks\nJapan\n")
    words = [
        "translate",
        "--from",
        "en",
        "--to",
        "et",
        str(tmp_path / "in.txt"),
        "--dtype",
        "fp32",
        "--model",
    ]
    printed = []
    for folder in (finished[5], merged):
        assert main([*words, str(folder)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0].count("\n") == 2
    local = tmp_path / "adapter"
    shutil.copytree(adapter, local)
    config = json.loads((local / "adapter_config.json").read_text())
    for base in (str(ladder[1]), None):
        (local / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        if base:
            torch.testing.assert_close(logits(open_exported(local, 6)[0]), expected, atol=1e-5, rtol=1e-5)
    assert main([*words, str(local)]) == 2
    assert "can't find the base of" in capsys.readouterr().err
    with pytest.raises(ValueError, match="export of group 6, and these languages are of group 3"):
        open_exported(merged, 3)


def test_the_card_holds_what_was_measured(merged, micro, finished):
    """Read back by the hub's own class: every score with its signature, every stage with its numbers."""
    card = ModelCard.load(merged / "README.md")
    records = evaluate_folder(micro, finished[5], 6, "stage5")
    told = {
        (r.dataset_config, r.metric_type): (r.metric_value, r.metric_args) for r in card.data.eval_results
    }
    assert told == {
        (r.direction, r.metric): (r.value, {"signature": r.signature, "n": r.n, "seed": r.seed})
        for r in records
    }
    assert card.data.language == ["en", *GROUPS[6]]
    assert (card.data.license, card.data.library_name, card.data.base_model) == (
        "other",
        "transformers",
        None,
    )
    for number in range(6):
        run = read_run(finished[number])
        row = next(line for line in card.text.splitlines() if line.startswith(f"| {number} {run['stage']} "))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[3:6] == [
            f"{run.get('steps', 0):,}",
            f"{run['tokens_seen']:,}" if "tokens_seen" in run else "–",
            f"{run['rows']:,}" if "rows" in run else "–",
        ]
    check = json.loads((merged / "export.json").read_text())["check"]
    assert (check["sentences"], check["outputs_equal"]) == (FEW, FEW)
    assert 0 <= check["largest_logit_difference"] <= check["allowed_logit_difference"]
    assert check["sentence"] in card.text
    assert "[INST] Translate this from English to Estonian:\nEnglish: …\nEstonian: [/INST]" in card.text
    assert run["commit"] in card.text


def test_the_card_of_an_adapter_names_its_base(adapter):
    card = ModelCard.load(adapter / "README.md")
    assert (card.data.license, card.data.library_name, card.data.base_model) == (
        "mit",
        "peft",
        "me/tiny-base",
    )
    assert 'AutoPeftModelForCausalLM.from_pretrained(".")' in card.text


# --- the check ---

ROWS = [{"direction": "en-fi"}, {"direction": "fi-en"}, {"direction": "en-zh"}]


def answers(change: float = 0.0, outputs=("a", "b", "c")) -> tuple[torch.Tensor, list[str]]:
    scores = torch.zeros(3, 5)
    scores[1, 2] = change
    return scores, list(outputs)


@pytest.mark.parametrize("change", [0.0, 1e-4, -1e-4, 3e-6])
def test_equal_within_the_tolerance(change):
    facts = check_export(ROWS, answers(), answers(change))
    assert facts["largest_logit_difference"] == pytest.approx(abs(change))
    assert (facts["sentences"], facts["outputs_equal"]) == (3, 3)
    assert "3 held-out sentences of 3 directions" in facts["sentence"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (answers(1.1e-4), r"logits differ by 0\.00011 in float32, 0\.0001 is allowed; .* number 2, fi-en"),
        (answers(-7.0), "logits differ by 7 in float32"),
        (answers(float("nan")), "logits differ by nan in float32, .* number 2, fi-en"),
        (
            answers(0.0, ("a", "b", "d")),
            "1 of 3 greedy outputs .* differ, the first is number 3, en-zh: 'd' for 'c'",
        ),
        (answers(0.0, ("a", "", "d")), "2 of 3 greedy outputs .* number 2, fi-en: '' for 'b'"),
    ],
)
def test_what_differs_is_said(found, why):
    with pytest.raises(ValueError, match=f"^nothing was exported: .*{why}") as caught:
        check_export(ROWS, answers(), found)
    assert "\n" not in str(caught.value)


def test_the_bound_grows_with_the_logits():
    """A model whose logits are 20 may differ by 20 times as much; one whose logits are small may not differ less."""
    for scale, allowed in ((20.0, 2e-3), (0.01, 1e-4)):
        logits = torch.full((3, 5), scale)
        fine, too_much = (logits + allowed * part for part in (0.9, 1.1))
        facts = check_export(ROWS, (logits, ["a"] * 3), (fine, ["a"] * 3))
        assert facts["allowed_logit_difference"] == pytest.approx(allowed)
        with pytest.raises(ValueError, match=f"differ by .* {allowed:.2g} is allowed"):
            check_export(ROWS, (logits, ["a"] * 3), (too_much, ["a"] * 3))


@pytest.mark.parametrize("what", ["merged", "adapter"])
def test_a_bad_merge_writes_nothing(micro, finished, tmp_path, monkeypatch, what):
    """A merge that loses one entry of one weight, as rounding to a small type would."""

    whole = LoraModel.merge_and_unload

    def lossy(gated):
        model = whole(gated)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[0] += 0.01
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", lossy)
    with pytest.raises(ValueError, match="nothing was exported: merged and gated logits differ"):
        export(micro, 6, tmp_path / "out", what=what, sentences=4)
    assert not list(tmp_path.iterdir())


def test_two_hundred_sentences_of_all_directions(micro):
    """Test sentences, evenly from every direction, also where the profile scores fewer."""
    rows = held_out_rows(micro, 6, 200)
    counts = Counter(row["direction"] for row in rows)
    assert len(rows) == 200
    assert len(counts) == 12
    assert set(counts.values()) <= {16, 17}
    assert len({(row["direction"], row["source"]) for row in rows}) == 200
    assert held_out_rows(micro, 6, 200) == rows


@pytest.mark.long
def test_the_check_at_its_full_size(micro, finished):
    assert check_merge(micro, finished[5], 6)[2]["sentences"] == 200


# --- scores of these weights, and no others ---


@pytest.fixture
def filed(micro, finished, tmp_path):
    """A profile whose results folder holds given records as scores of stage 5."""

    def write(*records: Record):
        path = tmp_path / "results" / "tiny" / "scores" / "stage5.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
        return micro.but(results_dir=str(tmp_path / "results"))

    return write


def test_scores_of_other_weights_are_refused(micro, finished, filed, tmp_path):
    record = next(r for r in evaluate_folder(micro, finished[5], 6, "stage5") if r.metric == "chrf")
    p = filed(Record(**asdict(record) | {"value": record.value + 1}))
    with pytest.raises(
        ValueError, match=r"stage5\.jsonl has chrf .* for .*, these weights score .* other weights"
    ):
        export(p, 6, tmp_path / "out", sentences=4)
    assert not (tmp_path / "out").exists()


def test_filed_scores_of_these_weights_go_along(micro, finished, filed, tmp_path):
    """COMET can't be computed again here; it stands in the card once BLEU and chrF are those of the weights."""
    records = evaluate_folder(micro, finished[5], 6, "stage5")
    comet = Record("tiny", "stage5", "en-fi", "comet22", 71.25, 2, "Unbabel/wmt22-comet-da", micro.seed)
    others = [
        Record("tiny", "stage5", "en-ru", "comet22", 1.0, 2, "x"),
        Record(**asdict(comet) | {"seed": 9}),
    ]
    found = exporting.measured_scores(filed(*records, comet, *others), finished[5], 6)
    assert found == [*records, comet]


# --- the rest ---


def test_written_in_the_type_of_the_base(finished, ladder, tmp_path):
    """A float32 merge of a bfloat16 base is rounded once, on the way out."""
    base, tokenizer = load_base(ladder[1], "bfloat16")
    save_base(base, tokenizer, tmp_path / "base")
    model = open_merged(finished[5])[0]
    (tmp_path / "out").mkdir()
    expected = model.model.layers[0].mlp.up_proj.weight.detach().to(torch.bfloat16)
    exporting._write_merged(model, {"base": str(tmp_path / "base")}, tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.model.layers[0].mlp.up_proj.weight, expected)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--group", "9"], "there is no language group 9"),
        (["--group", "3"], "no module of group 3 in profile tiny"),
        (["--group", "6", "--model", "nowhere"], "no finished stage in nowhere"),
        (["--group", "3", "--model", "STAGE"], "holds the module of group 6, not of group 3"),
    ],
)
def test_bad_requests_are_one_sentence(micro, micro_values, finished, tmp_path, capsys, arguments, why):
    arguments = [str(finished[5]) if argument == "STAGE" else argument for argument in arguments]
    values = micro_values | {"run_dir": micro.run_dir, "results_dir": micro.results_dir}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert main(["export", *arguments, "--to", str(tmp_path / "out"), *sets]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_on_the_command_line(micro, micro_values, finished, tmp_path, capsys):
    values = micro_values | {"run_dir": micro.run_dir, "results_dir": micro.results_dir}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    request = [
        "export",
        "--group",
        "6",
        "--to",
        str(tmp_path / "out"),
        "--licence",
        "mit",
        *sets,
        "--sentences",
        "24",
    ]
    assert main(request) == 0
    assert "compares gated and merged model on 24 sentences" in capsys.readouterr().out
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "mit"
    assert main(request) == 2
    assert "is there already: choose a new folder" in capsys.readouterr().err


def test_both_passes_over_the_logits_show_progress(micro, finished, monkeypatch):
    """The gated and the merged model are asked in turn: a bar each, which ends at the number of sentences."""
    bars, plain = [], exporting.progress

    @contextmanager
    def watched(total, label):
        with plain(total, label) as bar:
            yield bar
        bars.append((label, total, bar.done))

    monkeypatch.setattr(exporting, "progress", watched)
    check_merge(micro, finished[5], 6, 6)
    assert bars == [("logits of held-out sentences", 6, 6)] * 2
