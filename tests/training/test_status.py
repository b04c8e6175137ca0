"""Every state a stage can be in, as `xalma status` tells it."""

from __future__ import annotations

import json
import shutil
import time

from xalma.cli.main import main
from xalma.runs import stage_folder
from xalma.training import stage_pairs, stages, trainer
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.monitor import SILENT_S, stage_status, status_table


def test_stage_5_can_be_watched(micro, finished, tmp_path, monkeypatch):
    """Begun while it decodes, training while it trains, done at last."""
    shutil.copytree(micro.run_dir, tmp_path / "runs")
    p, seen = micro.but(run_dir=str(tmp_path / "runs"), stage5_epochs=2.0), []
    decode, update = stage_pairs.generate, trainer.TrainingRun.update

    def watched(function):
        def call(*args, **kwargs):
            seen.append(stage_status(p, 5, 6))
            return function(*args, **kwargs)

        return call

    shutil.rmtree(stage_folder(p, 5, 6))
    monkeypatch.setattr(stage_pairs, "generate", watched(decode))
    monkeypatch.setattr(trainer.TrainingRun, "update", watched(update))
    steps = stages.read_run(stages.stage5_arpo(p, 6))["steps"]
    assert [row["state"] for row in seen] == ["begun", "begun"] + ["training"] * (steps - 1)
    assert seen[2]["progress"] == f"step 1 of {steps} ({100 / steps:.0f} %)" and seen[2]["loss"] > 0
    assert stage_status(p, 5, 6)["state"] == "done"


def test_every_state(micro, tmp_path, capsys):
    p = micro.but(run_dir=str(tmp_path), groups="3,6")

    def write(number, group, name, value, hidden=True):
        folder = stage_folder(p, number, group)
        folder = checkpoint_folder(folder) if hidden else folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
        return folder

    write(0, 0, "run.json", {"fingerprint": "a", "seconds": 2.0}, hidden=False)
    write(1, 0, "run.json", {"fingerprint": "b", "seconds": 3723.4, "steps": 1234}, hidden=False)
    said = {"step": 50, "steps": 200, "loss": 2.5, "tokens/s": 1000, "seconds_left": 90}
    write(2, 3, "progress.json", said | {"at": time.time()})
    old = said | {"at": time.time() - 2 * SILENT_S}
    (write(2, 6, "progress.json", old) / "step-000000040").mkdir()
    write(3, 6, "progress.json", old)
    write(4, 6, "inputs.json", {})
    table = status_table(p).set_index(["stage", "group"])
    assert len(table) == 2 + 2 * 4
    state = table.state.to_dict()
    assert state["0 backbone", "base"] == state["1 monolingual_base", "base"] == "done"
    assert state["2 monolingual_modules", 3] == "training"
    assert state["2 monolingual_modules", 6] == "stopped, goes on from step 40"
    assert state["3 pseudo_monolingual", 6] == "stopped, starts anew"
    assert state["4 sft", 6] == "begun"
    assert state["5 arpo", 6] == state["3 pseudo_monolingual", 3] == "to do"
    assert table.progress["1 monolingual_base", "base"] == "1,234 steps"
    assert table.progress["2 monolingual_modules", 3] == "step 50 of 200 (25 %)"
    assert str(table.time["2 monolingual_modules", 3]) == "0:01:30 left"
    assert str(table.time["1 monolingual_base", "base"]) == "1:02:03"
    assert main(["status", "--profile", "tiny", "--set", f"run_dir={tmp_path}"]) == 0
    assert "goes on from step 40" in capsys.readouterr().out
