"""A 51st language as a ninth module (README, 'A new language'): trained beside the others, which stay bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from test_readme_code import example, run

from xalma.evaluation.records import Record
from xalma.languages import group_of
from xalma.models.adapters import gate, load_adapters, parameter_hash
from xalma.models.backbone import load_base
from xalma.models.bank import load_modules as load_bank
from xalma.models.generation import translate
from xalma.paper.ladder_tables import direction_table, ladder_table
from xalma.profiles import load_profile
from xalma.runs import BASE, stage_folder
from xalma.training import stages

IDS = torch.tensor([[1, 40, 41, 42, 300, 301, 2]])


# The example's own process has our values under the name of its profile.
MICRO_FOR_TINY = """import json, sys
from xalma import profiles
profiles.PROFILES["tiny"] = profiles.TINY.but(**json.loads(sys.argv[1]))
"""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder`."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def ninth(micro, micro_values, finished, swahili, tmp_path):
    """(profile, folder of Swahili's module, hashes of all files before) after README's example, on copied stages."""
    shutil.copytree(Path(micro.run_dir), tmp_path / "runs")
    before = hashes(tmp_path / "runs")
    values = micro_values | {"run_dir": str(tmp_path / "runs"), "results_dir": micro.results_dir}
    values |= {"stage2_tokens": 2048, "stage3_tokens": 2048, "stage4_epochs": 0.1}
    folder = run(MICRO_FOR_TINY + example("add_language(") + "\nprint(folder)", tmp_path, json.dumps(values))
    return load_profile("tiny", **values | {"groups": "9"}), Path(folder.splitlines()[-1]), before


def test_a_ninth_module_touches_no_other(ninth, micro, finished, monkeypatch):
    p, folder, before = ninth
    after = hashes(Path(p.run_dir))
    assert {name: after[name] for name in before} == before
    assert {Path(name).parent.name for name in after.keys() - before.keys()} == {"group9"}
    base = load_base(stage_folder(p, 1, BASE))[0]
    plain = parameter_hash(base)
    model = load_adapters(base, {6: finished[4], 9: folder}).eval()
    assert gate(model, "sw") == group_of("sw") == 9
    with torch.no_grad():
        swahili = model(IDS).logits
        gate(model, "zh")
        chinese = model(IDS).logits
        alone = load_adapters(load_base(stage_folder(p, 1, BASE))[0], {6: finished[4]}).eval()
        assert torch.equal(chinese, alone(IDS).logits)
    assert not torch.equal(swahili, chinese)
    assert parameter_hash(model.unload()) == plain
    trained = []
    monkeypatch.setattr(stages, "train", lambda *args, **more: trained.append(args[3]) or [])
    stages.stage4_sft(micro.but(run_dir=p.run_dir), 6)
    assert trained == [], "the other groups' stages are still current"


def test_the_ninth_module_translates_and_joins_a_bank(ninth, finished):
    """Alone through the same calls as any other, and in one batch with a Chinese row, which it does not change."""
    _, folder, _ = ninth
    model, tokenizer = stages.open_merged(folder)
    assert len(translate(model, tokenizer, ["2 days ago: Germany"], "en", "sw", max_new_tokens=8)) == 1
    bank = load_bank(finished[4])
    two = {"input_ids": IDS.repeat(2, 1), "attention_mask": torch.ones(2, IDS.shape[1], dtype=torch.long)}
    with torch.no_grad():
        before = bank(**two, languages=["zh", "zh"]).logits
        bank.add(9, folder)
        after = bank(**two, languages=["zh", "sw"]).logits
        expected = model.eval()(IDS).logits
    torch.testing.assert_close(after[:1], before[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after[1:], expected, atol=1e-5, rtol=1e-5)


def test_its_scores_stand_in_the_tables(swahili):
    """After the 50, with the name of its group."""
    records = [
        Record("p", "stage4", direction, "bleu", 1, 2, "s") for direction in ("en-sw", "en-uz", "sw-en")
    ]
    assert direction_table(records)["direction"].tolist() == ["en-uz", "en-sw", "sw-en"]
    assert "9 Bantu" in set(ladder_table(records)["group"])
