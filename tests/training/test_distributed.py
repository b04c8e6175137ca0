"""Many processes give what one gives; a stage is launched with all that its profile says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import two_processes
import yaml
from safetensors.torch import load_file
from smooth import SMOOTH, Weights, assert_same_training

from xalma.cli import main as cli
from xalma.cli import options
from xalma.preference.pairs import NoPairs
from xalma.profiles import load_profile
from xalma.training import distributed, stages, workers
from xalma.training import ladder as recipe


@pytest.mark.long
def test_two_processes_train_what_one_trains(tmp_path):
    """Full weights, a module, and one on pairs: replicated (DDP) and sharded (FSDP2, resumed by two and by one)."""
    command = [sys.executable, two_processes.__file__, str(tmp_path), "none", "full"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 3 * (2 + 2) + (1 + 2)
    for case, gap in found.items():
        assert gap["fell"] > 1e-3, (case, gap)
        assert gap["losses"] < 1e-4 and gap["weights"] < 1e-4, (case, gap)


@pytest.mark.long
def test_a_launched_stage_is_the_stage(micro, ladder, tmp_path):
    """From the same call, through `accelerate launch` and two processes: full weights, then a module."""
    found = {}
    for launch in ("", "2cpu"):
        shutil.copytree(Path(micro.run_dir), tmp_path / f"runs{launch}")
        p = micro.but(run_dir=str(tmp_path / f"runs{launch}"), launch=launch)
        p = p.but(
            stage1_batch_size=32, stage2_batch_size=32, stage2_tokens=4096, **SMOOTH
        )  # two micro-batches each
        stages.stage0_backbone(p)
        one, two = stages.stage1_monolingual_base(p), stages.stage2_monolingual_modules(p, 6)
        assert stages.read_run(one)["steps"] == 20 and stages.read_run(two)["group"] == 6
        found[launch] = load_file(one / "model.safetensors"), load_file(two / "adapter_model.safetensors")
        assert not [
            *one.parent.glob(".*"),
            *two.parent.glob(".*"),
        ]  # what is begun elsewhere is other tests' own
    (base, module), (base_two, module_two) = found.values()
    assert_same_training(base, base_two, load_file(ladder[0] / "model.safetensors"))
    assert_same_training(module, module_two, as_attached(module))


def as_attached(module: Weights) -> Weights:
    """`module` with its B at zero, where each begins."""
    return {name: torch.zeros_like(x) if "lora_B" in name else x for name, x in module.items()}


@pytest.mark.long
def test_a_launched_stage_5_is_the_stage(micro, finished, tmp_path):
    """Two processes decode half the batches of rejected answers each, and train on the same pairs, in the same order.

    Compared before AdamW has made rounding visible: the first row of the log, and what does not rest on weights.
    """
    found = {}
    for launch in ("", "2cpu"):
        shutil.copytree(Path(micro.run_dir), tmp_path / f"runs{launch}")
        p = micro.but(
            run_dir=str(tmp_path / f"runs{launch}"), launch=launch, micro_batch=4, generation_batch=16
        )
        folder = stages.stage5_arpo(p, 6, stages.stage_folder(p, 4, 6))
        found[launch] = (
            stages.read_run(folder),
            stages.read_log(folder),
            load_file(folder / "adapter_model.safetensors"),
        )
        assert [file.name for file in folder.parent.iterdir()] == ["group6"]
    (run, log, one), (run_two, log_two, two) = found.values()
    assert (run["pairs"], run["rows"], run["steps"]) == (run_two["pairs"], run_two["rows"], run_two["steps"])
    for row, row_two in zip(log, log_two, strict=True):
        assert [row.get(key) for key in ("step", "kind", "learning_rate")] == [
            row_two.get(key) for key in ("step", "kind", "learning_rate")
        ]
    first, first_two = (next(row for row in rows if "loss" in row) for rows in (log, log_two))
    assert first["step"] == 1
    assert first_two["loss"] == pytest.approx(first["loss"], abs=2e-4)  # four digits are logged
    assert first_two["nll_loss"] == pytest.approx(first["nll_loss"], abs=1e-5)
    assert first_two["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
    assert one.keys() == two.keys() and all(one[name].shape == two[name].shape for name in one)


def test_a_launched_stage_is_told_the_whole_profile(micro):
    """The child parses what the parent gives and gets the same profile, but runs in its own process."""
    p = micro.but(launch="8x", stage2_schedule="linear", lora_dropout=0.25)
    arguments = cli._parser().parse_args(workers.stage_arguments(p, 2, 6, Path("some/where"), "ablation"))
    assert (arguments.number, arguments.group, arguments.branch, arguments.previous) == (
        2,
        6,
        "ablation",
        "some/where",
    )
    assert load_profile(arguments.profile, **options.overrides(arguments.set)) == p.but(launch="")


def test_a_stage_starts_its_launcher(micro, ladder, monkeypatch):
    started = []

    def run(command, env):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    p = micro.but(launch="8x", stage2_learning_rate=0.5)
    stages.stage2_monolingual_modules(p, 6)
    (command,) = started
    assert command[command.index("--config_file") + 1] == str(workers.CONFIGURATIONS / "8x.yaml")
    assert command[command.index("xalma.cli") + 1 :][:2] == ["stage", "2"]
    assert "stage2_learning_rate=0.5" in command
    assert not list(stages.stage_folder(p, 2, 6).parent.glob(".*")), "the launched process makes the folders"
    stages.stage2_monolingual_modules(micro.but(launch="8x"), 6)
    assert len(started) == 1, "a finished stage starts nothing"


def test_a_failed_launch_and_an_unknown_configuration_are_errors(micro, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"launch='9x' is no file and none of 1x, 2cpu, 2x8, 8x"):
        workers.launch(micro.but(launch="9x"), 2, 6, None, "ladder")
    monkeypatch.setattr(subprocess, "run", lambda command, env: subprocess.CompletedProcess(command, 3))
    with pytest.raises(RuntimeError, match="stage 2, group 6: the launched run ended with 3"):
        workers.launch(micro.but(launch="1x"), 2, 6, None, "ladder")


def test_no_pairs_in_a_launched_stage_are_no_pairs_here(micro, monkeypatch, capsys):
    """So that an ablation whose model answers nothing goes on, launched or not."""

    def no_pairs(*_, **__):
        raise NoPairs("no preference pairs: of 3 considered, 3 identical")

    def run(command, env):
        with monkeypatch.context() as child:
            child.setattr("os.environ", env)
            return subprocess.CompletedProcess(command, cli.main(command[command.index("xalma.cli") + 1 :]))

    monkeypatch.setitem(recipe.MODULE_STAGES, 5, no_pairs)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(NoPairs, match="of 3 considered, 3 identical"):
        workers.launch(micro.but(launch="1x"), 5, 6, None, "ladder")
    assert "3 identical" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "processes"), [("1x", 1), ("8x", 8), ("2x8", 16), ("2cpu", 2)])
def test_configurations_are_accelerates(name, processes):
    from accelerate.commands.config.config_args import load_config_from_file

    path = workers.CONFIGURATIONS / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.num_processes == processes
    assert set(yaml.safe_load(path.read_text())) <= set(vars(config))


def test_a_job_out_of_time_is_queued_again(tmp_path):
    """SLURM's commands by hand: srun waits until it is ended, and USR1 is what SLURM sends two minutes before."""
    fakes = {
        "srun": "trap 'echo ended > srun.log; exit 143' TERM; touch started; while :; do sleep 0.05; done"
    }
    fakes |= {"scontrol": '[ "$1" = show ] && echo node0 || echo "$@" > scontrol.log'}
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node0"}
    env |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "8"}
    script = ["bash", str(workers.CONFIGURATIONS / "stage.sbatch"), "1"]
    with subprocess.Popen(script, cwd=tmp_path, env=env) as job:
        wait_for(tmp_path / "started")
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=20) != 0
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    wait_for(tmp_path / "srun.log")


def wait_for(file, seconds=20):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} is not there"
        time.sleep(0.05)


def test_the_sbatch_file_is_bash():
    done = subprocess.run(
        ["bash", "-n", str(workers.CONFIGURATIONS / "stage.sbatch")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("sharding", "everything", "world", "expected"),
    [
        ("auto", True, 2, True),
        ("auto", False, 2, False),
        ("full", False, 2, True),
        ("none", True, 2, False),
        ("full", True, 1, False),
    ],
)
def test_what_is_sharded(micro, monkeypatch, sharding, everything, world, expected):
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(everything)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    assert distributed.sharded(model, micro.but(sharding=sharding)) == expected


def test_one_process_is_the_first_of_one():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.together(lambda: 7) == [7]
    with pytest.raises(OSError, match="OSError: disk"):
        distributed.together(lambda: (_ for _ in ()).throw(OSError("disk")))


def test_the_stage_command_runs_one_stage(micro, ladder, capsys):
    arguments = workers.stage_arguments(micro, 2, 6, None, "ladder")
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(ladder[2])
    assert cli.main(["stage", "2", "--group", "9"]) == 2
    assert "language group 9" in capsys.readouterr().err
