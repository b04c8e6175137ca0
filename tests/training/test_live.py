"""The live figure: for a person in JupyterLab alone, of every training that runs, and gone when it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from xalma import progress
from xalma.runs import stage_folder
from xalma.training import monitor
from xalma.training import workers as workers_
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.monitor import PROGRESS_FILE, Meter

SAID = {"label": "stage 2, group 6", "step": 50, "steps": 2000, "loss": 2.34567, "tokens/s": 12345,
        "memory_gib": 61.5, "seconds_left": 3700, "curve": [[10, 3.0], [50, 2.34567]]}  # fmt: skip


def test_a_line_a_training_and_its_numbers_over_it():
    other = SAID | {"label": "stage 2, group 3", "utilisation_%": 45.2, "curve": [[1, 4.0]]}
    fig = monitor.live_figure([SAID, other])
    first, second = fig.axes[0].lines
    assert first.get_xydata().tolist() == SAID["curve"] and second.get_xydata().tolist() == other["curve"]
    assert first.get_color() != second.get_color()
    captions = [text.get_text() for text in fig.legends[0].get_texts()]
    assert captions == [
        "stage 2, group 6: 50 of 2,000, loss 2.346, 12,345 tokens/s, 61.5 GiB, 1:01:40 left",
        "stage 2, group 3: 50 of 2,000, loss 2.346, 12,345 tokens/s, 45.2 %, 61.5 GiB, 1:01:40 left",
    ]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def kernel(monkeypatch):
    """This process looks like the kernel of an open notebook."""
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setenv(progress.SESSION, "notebooks/04.ipynb")
    monkeypatch.delenv("XALMA_STATUS", raising=False)


@pytest.fixture
def shown(kernel, monkeypatch):
    """What is displayed, in order; a picture every twentieth of a second."""
    places = []

    def display(data, raw, display_id):
        places.append([data])
        return SimpleNamespace(update=lambda data, raw: places[-1].append(data))

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(monitor, "PICTURE_EVERY_S", 0.05)
    return places


def test_watched_is_a_kernel_of_jupyter_s_server(kernel, monkeypatch):
    assert progress.is_watched()
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace())
    assert not progress.is_watched(), "IPython in a terminal"
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert not progress.is_watched(), "a script"


def test_papermill_and_xalma_run_are_not_watched(kernel, monkeypatch):
    monkeypatch.setenv("XALMA_STATUS", "somewhere")
    assert not progress.is_watched(), "xalma run"
    monkeypatch.delenv("XALMA_STATUS")
    monkeypatch.delenv(progress.SESSION)
    assert not progress.is_watched(), "papermill"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc: a parent can't be asked")
def test_papermill_called_in_a_notebook_is_not_watched(kernel, monkeypatch):
    with subprocess.Popen(["sleep", "60"], env={**os.environ, progress.SESSION: "outer.ipynb"}) as papermill:
        started = Path(f"/proc/{papermill.pid}/environ")
        wait_for(started.read_bytes)
        monkeypatch.setattr(os, "getppid", lambda: papermill.pid)
        assert not progress.is_watched()
        papermill.kill()


def test_a_training_is_shown_while_it_runs_and_nothing_stays(micro, shown, tmp_path):
    p = micro.but(run_dir=str(tmp_path))
    old, folder = (checkpoint_folder(stage_folder(p, number, 6)) for number in (3, 2))
    old.mkdir(parents=True)
    (old / PROGRESS_FILE).write_text(
        json.dumps({"at": time.time() - 9})
    )  # of a killed run: it could not be drawn
    with monitor.view(p):
        with Meter("stage 2, group 6", 10, 0, p, 1e6, folder) as meter:
            meter.step(100, lambda: 2.5)
            wait_for(lambda: any(shown[0]))
        assert len(shown) == 1, "the view in the Meter is inside this one"
        assert shown[0][-1] != {}, "and does not end it"
    (place,) = shown
    assert place[0] == place[-1] == {}
    assert all(b64decode(data["image/png"]).startswith(b"\x89PNG") for data in place[1:-1])
    with monitor.view(p):
        pass
    assert len(shown) == 2, "another one can be opened"


def test_an_error_in_the_training_takes_the_figure_away_too(micro, shown, tmp_path):
    with pytest.raises(FloatingPointError), monitor.view(micro.but(run_dir=str(tmp_path))):
        raise FloatingPointError
    assert shown == [[{}, {}]]


def test_nothing_happens_where_nobody_looks(micro, shown, monkeypatch):
    monkeypatch.delenv(progress.SESSION)
    with monitor.view(micro):
        pass
    assert shown == []


def test_the_pool_s_wait_is_a_view(micro, shown, monkeypatch):
    monkeypatch.setattr(workers_, "_pool", ThreadPoolExecutor)
    assert workers_.run_jobs(micro.but(workers=2), [(abs, (-1,)), (abs, (-2,))]) == [1, 2]
    assert shown == [[{}, {}]]


def test_the_wait_for_a_launched_stage_is_a_view(micro, shown, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, env: subprocess.CompletedProcess(command, 0))
    workers_.launch(micro.but(launch="1x"), 2, 6, None, "ladder")
    assert shown == [[{}, {}]]


class Client(NotebookClient):
    """Runs a notebook and keeps what kinds of output came over the wire."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.came = [*getattr(self, "came", []), *msg["content"]["data"]]
        return super().process_message(msg, cell, cell_index)


@pytest.mark.slow
def test_a_stage_in_a_worker_process_under_a_real_kernel(micro, micro_values, ladder, tmp_path, monkeypatch):
    shutil.copytree(Path(micro.run_dir), tmp_path / "runs")
    values = micro_values | {"workers": 2, "stage2_tokens": 40_960, "run_dir": str(tmp_path / "runs")}
    cells = [
        "from xalma.training import monitor, stages, workers\nfrom xalma.profiles import load_profile\n"
        "monitor.PICTURE_EVERY_S = 0.3",
        f"p = load_profile('tiny', **{values})\nprint('before')\n"
        "workers.run_jobs(p, [(stages.stage2_monolingual_modules, (p, 6)), (abs, (-1,))])[1]",
    ]
    monkeypatch.setenv(progress.SESSION, "04.ipynb")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = Client(notebook, kernel_name="python3", timeout=300)
    client.execute()
    assert "image/png" in client.came
    printed, place, result = notebook.cells[1].outputs
    assert (printed.text, result.output_type) == ("before\n", "execute_result")
    assert place.data == {}, "an empty place is all that is saved"
