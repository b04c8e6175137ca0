"""Files are whole or absent, whatever happens while they are written; provenance says where a number comes from."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from xalma import runtime
from xalma.files import fingerprint, new_directory, write_atomically, write_json
from xalma.progress import progress
from xalma.runtime import (
    command_line,
    data_root,
    device,
    git_commit,
    mixed_precision,
    on_device,
    provenance,
    seed_everything,
    usable_dtype,
)


def fail(*args, **kwargs):
    raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def test_writes_utf8_and_makes_folders(tmp_path):
    path = write_atomically(tmp_path / "a" / "b.txt", "Größe 你好\n")
    assert path.read_bytes() == "Größe 你好\n".encode()
    assert [f.name for f in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, broken):
    path = write_atomically(tmp_path / "x.json", "old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runtime.os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"]


def test_text_that_is_no_utf8_keeps_the_old_file(tmp_path):
    path = write_atomically(tmp_path / "x.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["x.txt"]


def test_no_permission_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(PermissionError) as caught:
        write_atomically(tmp_path / "x.txt", "new")
    assert one_sentence(caught.value) == (
        f"can't write {tmp_path / 'x.txt'} (Permission denied): choose a folder you may write"
    )
    monkeypatch.setattr(Path, "mkdir", fail)
    with (
        pytest.raises(PermissionError, match=r"can't write in .*choose a folder you may write"),
        new_directory(tmp_path / "d"),
    ):
        pass


def test_a_file_in_place_of_a_folder_is_one_sentence(tmp_path):
    """The same for root, whom no permission stops."""
    (tmp_path / "taken").write_text("a file")
    for write in (lambda p: write_atomically(p, "new"), lambda p: new_directory(p).__enter__()):
        for path in (tmp_path / "taken" / "x", tmp_path / "taken" / "deep" / "x"):
            with pytest.raises(OSError, match="can't write") as caught:
                write(path)
            assert "taken" in one_sentence(caught.value)
    assert (tmp_path / "taken").read_text() == "a file"


def test_new_directory_appears_whole(tmp_path):
    with new_directory(tmp_path / "stage") as folder:
        (folder / "weights").write_text("1")
        assert not (tmp_path / "stage").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["stage"]
    assert (tmp_path / "stage" / "weights").read_text() == "1"


def test_new_directory_replaces_all_of_the_old_one(tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "old").write_text("0")
    with new_directory(tmp_path / "stage") as folder:
        (folder / "new").write_text("1")
        assert (tmp_path / "stage" / "old").exists(), "the old one serves until the new one is whole"
    assert [f.name for f in (tmp_path / "stage").iterdir()] == ["new"]
    assert [f.name for f in tmp_path.iterdir()] == ["stage"]


def test_a_failed_new_directory_is_no_directory(tmp_path):
    with pytest.raises(ZeroDivisionError), new_directory(tmp_path / "stage") as folder:
        (folder / "half").write_text("1")
        _ = 1 / 0
    assert not (tmp_path / "stage").exists()
    with new_directory(tmp_path / "stage") as folder:
        assert list(folder.iterdir()) == [], "what the failed run left must not get into the next"


def test_json_is_readable_and_stable(tmp_path):
    path = write_json(tmp_path / "x.json", {"b": "日本", "a": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": "日本", "a": [1, 2.5, None]}
    assert "日本" in path.read_text(encoding="utf-8")


def test_fingerprint_follows_content_not_order():
    assert fingerprint({"a": 1, "b": (1, 2)}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(v) for v in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [])}) == 5


def test_seed_decides_every_generator():
    def draws():
        return random.random(), np.random.rand(), torch.rand(2).tolist()

    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_provenance_names_commit_versions_and_hardware():
    found = provenance()
    head = subprocess.run(
        ["git", "-C", str(runtime.REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert found["commit"].removesuffix("-dirty") == (head or "unknown")
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cores"] == os.cpu_count()
    json.dumps(found)


def test_a_model_is_not_moved_inside_inference_mode():
    """What moves there is an inference tensor for good, and no backward pass takes it."""

    class Model:
        def to(self, where):
            self.inside, self.where = torch.is_inference_mode_enabled(), where
            return self

    model = Model()
    with torch.inference_mode():
        assert on_device(model) is model
    assert not model.inside and model.where == device()


def test_no_commit_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("XALMA_COMMIT", raising=False)
    assert git_commit() == "unknown"
    monkeypatch.setenv("XALMA_COMMIT", "0" * 40)  # a copy in a container
    assert git_commit() == "0" * 40


def test_a_given_commit_stands_above_that_of_the_copy(monkeypatch):
    monkeypatch.setenv("XALMA_COMMIT", "a" * 40)  # a lent machine's copy has an older history
    assert git_commit() == "a" * 40


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.delenv("XALMA_DATA", raising=False)
    assert data_root() is None
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("XALMA_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"XALMA_DATA is .*absent.*no folder"):
        data_root()


def test_mixed_precision_can_be_forced():
    assert mixed_precision("on") is True
    assert mixed_precision("off") is False


def test_progress_writes_the_status_file_and_takes_it_away(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setenv("XALMA_STATUS", str(tmp_path / "status"))
    with progress(10, "stage 4") as bar:
        now[0] += 6.0
        bar.update(3, "loss 1.5")
        (file,) = tmp_path.iterdir()
        assert file.read_text() == "stage 4 3/10 0:00:14 left loss 1.5"
    assert list(tmp_path.iterdir()) == []
    with progress(1000, "stage 4", done=990) as bar:  # gone on with: what was done before took no time now
        now[0] += 20.0
        bar.update(2)
        assert file.read_text() == "stage 4 992/1000 0:01:20 left"
    with progress(0, "tokens") as bar:  # nobody knows how many
        bar.update(7)
        assert file.read_text() == "tokens 7/0"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("bf16", "bfloat16"),
        ("torch.bfloat16", "bfloat16"),
        ("fp32", "float32"),
        ("HALF", "float16"),
        (None, "float32"),
    ],
)
def test_dtypes_by_their_short_names(name, full):
    assert usable_dtype(name, "cpu") == full


def test_the_default_dtype_of_a_gpu():
    assert usable_dtype(None, "cuda:1") == usable_dtype(None, "auto") == "bfloat16"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_seen_wherever_it_stands(dtype, value):
    whole = torch.linspace(-3, 3, 1037).to(dtype)
    assert runtime.all_finite(whole) and runtime.all_finite(whole[:0])
    for i in range(0, 1037, 7):
        spoiled = whole.clone()
        spoiled[i] = value
        assert not runtime.all_finite(spoiled), i


def test_papermill_gets_one_line_and_no_bar(tmp_path, monkeypatch):
    """In a real kernel, called as papermill is from a shell: each refresh of a bar would be an output of its own."""
    import nbformat
    import papermill

    monkeypatch.delenv("XALMA_STATUS", raising=False)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    code = """from xalma.progress import progress
with progress(300, "stage 4") as bar:
    for _ in range(300):
        bar.update(1, "loss 1.0")"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False
    )
    (output,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs
    assert output["data"] == {"text/plain": "stage 4 300/300"}


def test_a_recorded_command_names_no_private_folder(tmp_path, monkeypatch):
    """Run again by a shell, with XALMA_DATA set, it has the words that were given."""
    data, checkout, other = (tmp_path / name for name in ("my data", "checkout", "my data 2"))
    for folder in (data / "wmt" / "wmt24", checkout / "runs" / "a b", other):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    monkeypatch.setattr(runtime, "REPOSITORY", checkout)
    (checkout / "notebooks").mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("XALMA_DATA", str(tmp_path / "link"))
    given = {
        "score": "score",
        "a=b/c": "a=b/c",
        "http://localhost:8000/v1": "http://localhost:8000/v1",
        f"{data}/wmt/wmt24": "$XALMA_DATA/wmt/wmt24",
        "../my data/wmt/wmt24": "$XALMA_DATA/wmt/wmt24",
        f"{tmp_path}/link/wmt/{{direction}}.txt": "$XALMA_DATA/'wmt/{direction}.txt'",
        str(data): "$XALMA_DATA",
        f"{checkout}/runs/a b": "'runs/a b'",
        "runs/a b": "'runs/a b'",
        "results/new": "results/new",
        f"--results={checkout}/results": "--results=results",
        f"comet22={data}/m": "comet22=$XALMA_DATA/m",
        str(other): f"'{other}'",
        "$HOME/x": "'$HOME/x'",
    }
    assert [command_line([word]) for word in given] == list(given.values())
    line = command_line(["xalma", *given])
    again = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    )
    paths = [os.path.realpath(word.rpartition("=")[2]) for word in again.stdout.split("\0")[1:-1]]
    assert paths == [os.path.realpath(word.rpartition("=")[2]) for word in given]
    monkeypatch.delenv("XALMA_DATA")
    assert command_line([str(data)]) == f"'{data}'"
