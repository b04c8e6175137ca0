"""Every JSON file that xalma reads, cut, of another kind, not UTF-8 or too deep: one sentence with its name and what
to do. A file is read by `files.read_json` alone; lines, headers and answers have readers of their own.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from readme import adopt, cost_block, real_block
from real_base.pack import Pack
from real_base.scores import read_lines_of
from test_arpo import tiny_model, tiny_tokenizer

from xalma.cli.systems import read_shots
from xalma.data.prepare import _cost
from xalma.data.token_files import TokenFiles
from xalma.evaluation.records import read_records
from xalma.files import read_json
from xalma.models.backbone import load_base
from xalma.models.layouts import lora_config, plain_config
from xalma.models.safetensors_io import read_headers
from xalma.paper.real_base.tables import read_about, run_profile
from xalma.paper.studies.long_form import read_ablations
from xalma.paper.studies.long_form import read_long_form as read_methods
from xalma.paper.studies.study import read_study
from xalma.profiles import load_profile
from xalma.runs import read_run
from xalma.runtime import REPOSITORY
from xalma.systems.decoding import open_tokenizer
from xalma.systems.outputs import _begun
from xalma.training.checkpoints import damage
from xalma.training.export.opened import open_exported
from xalma.training.monitor import stage_status
from xalma.training.plan import utilisation

# Text that is no file of its own: a line, a header, a server's answer, what a library has just written.
OWN_READERS = {
    ("corpora/files.py", "json_lines"), ("files.py", "read_json"),
    ("records.py", "read_records"), ("safetensors_io.py", "read_header"),
    ("systems/answers.py", "read_answer"), ("systems/journal.py", "_read"), ("systems/outputs.py", "_begun"),
    ("vocabulary.py", "bpe_state"),
}  # fmt: skip
DAMAGES = {
    "cut": b'{"a": [1, ',
    "another kind": None,  # a list in place of an object, an object in place of a list
    "not UTF-8": b'{"a": "\xff\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "empty": b"",
    "too deep": b"[" * 100_000,
}


def test_files_are_read_by_the_one_reader():
    """Elsewhere in the package json reads what is no file, and only where this list says so."""
    found = set()
    for path in sorted((REPOSITORY / "xalma").rglob("*.py")):
        for outer in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(outer, ast.FunctionDef) and any(map(_reads_json, ast.walk(outer))):
                found.add((path.name, outer.name))
    assert found == {(Path(file).name, name) for file, name in OWN_READERS}


def _reads_json(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in ("load", "loads")
        and ast.unparse(node.value) == "json"
    )


def _here(results: Path) -> dict[str, object]:
    return {"run_dir": str(results.parent / "runs"), "results_dir": str(results)}


def _profile(folder: Path):
    return load_profile("tiny", **_here(folder))


def _methods(folder: Path) -> tuple[Path, Callable]:
    from xalma.paper.studies.long_form import long_folder

    return long_folder(_profile(folder)) / "run.json", lambda: read_methods(_profile(folder))


def _ablations(folder: Path) -> tuple[Path, Callable]:
    from xalma.paper.studies.long_form import ablations_folder

    return ablations_folder(_profile(folder)) / "run.json", lambda: read_ablations(_profile(folder))


def _progress(folder: Path) -> tuple[Path, Callable]:
    from xalma.runs import stage_folder
    from xalma.training.checkpoints import checkpoint_folder

    begun = checkpoint_folder(stage_folder(_profile(folder), 4, 6))
    return begun / "progress.json", lambda: stage_status(_profile(folder), 4, 6)


# name -> folder -> (file, what reads it)
READERS: dict[str, Callable[[Path], tuple[Path, Callable]]] = {
    "a stage": lambda f: (f / "run.json", lambda: read_run(f)),
    "progress of a stage": _progress,
    "long form of notebook 08": _methods,
    "long form of notebook 09": _ablations,
    "a study": lambda f: (f / "groups.json", lambda: read_study(f, "groups")),
    "cost of README": lambda f: (f / "cost.json", lambda: cost_block(f)),
    "README's second run": lambda f: (f / "run.json", lambda: adopt(f, f / "second")),
    "README's real base": lambda f: (f / "tables" / "12_about.json", lambda: real_block(f)),
    "notebook 12's table": lambda f: (f / "tables" / "12_about.json", lambda: read_about(f)),
    "notebook 12's run": lambda f: (f / "run.json", lambda: run_profile(f, _profile(f))),
    "a pack": lambda f: (f / "index.json", lambda: Pack(f)),
    "an export": lambda f: (f / "export.json", lambda: open_exported(f, 6)),
    "outputs of a system": lambda f: (f / "run.json", lambda: _begun(f, {})),
    "examples for a prompt": lambda f: (f / "shots.en-de.json", lambda: read_shots(f)),
    "prepared text": lambda f: (f / "index.json", lambda: TokenFiles(f)),
    "a configuration": lambda f: (f / "config.json", lambda: plain_config(f)),
    "an adapter": lambda f: (f / "adapter_config.json", lambda: lora_config(f)),
    "an index of shards": lambda f: (f / "model.safetensors.index.json", lambda: read_headers(f)),
}
LISTS = {"examples for a prompt"}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, kind):
    path, read = READERS[name](tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DAMAGES[kind] if DAMAGES[kind] is not None else b"{}" if name in LISTS else b"[1]")
    with pytest.raises(ValueError) as told:
        read()
    sentence = str(told.value)
    assert sentence.count(str(path)) == 1 and "\n" not in sentence
    remedy = sentence.rsplit(": ", 1)[1]
    assert len(remedy.split()) >= 2 and "can't be read" not in remedy


@pytest.mark.parametrize("kind", DAMAGES)
def test_measured_rates_of_plan(tmp_path, monkeypatch, kind):
    path = tmp_path / "results" / "benchmarks" / "training_throughput_h200.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGES[kind] if DAMAGES[kind] is not None else b"[1]")
    monkeypatch.setattr("xalma.training.plan.home", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"throughput_h200\.json .*: remove it"):
        utilisation("h200", full=True)


@pytest.mark.parametrize("kind", DAMAGES)
def test_measured_rates_of_prepare(tmp_path, monkeypatch, kind):
    path = tmp_path / "results" / "benchmarks" / "packing_throughput.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGES[kind] if DAMAGES[kind] is not None else b"[1]")
    monkeypatch.setattr("xalma.data.prepare.home", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"packing_throughput\.json .*: remove it"):
        _cost(1000, 1, 2)


@pytest.mark.parametrize("line", [b'{"a": 1', b"[1]", b'{"a": "\xff"}', b"", b"[" * 100_000])
def test_a_damaged_line_of_records_is_named(tmp_path, line):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=r"scores\.jsonl, line 1 is no record .*: run the notebook again"):
        read_records(path)


def test_a_damaged_line_of_a_real_run_is_named(tmp_path):
    path = tmp_path / "outputs.jsonl"
    path.write_bytes(b'{"a": }\n')
    with pytest.raises(
        ValueError, match=r"outputs\.jsonl holds a damaged line .*: copy it from the run again"
    ):
        read_lines_of(path)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_manifest_makes_a_checkpoint_damaged(tmp_path, kind):
    """Not an error: an older checkpoint is taken."""
    (tmp_path / "manifest.json").write_bytes(DAMAGES[kind] if DAMAGES[kind] is not None else b"[1]")
    assert len(damage(tmp_path)) == 1 and "manifest.json" in damage(tmp_path)[0]


def test_what_is_missing_is_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"a\.json is missing: make it$"):
        read_json(path, "make it")
    path.write_text(json.dumps({"b": 1}), encoding="utf-8")
    assert read_json(path, "make it", keys=("b",)) == {"b": 1}
    with pytest.raises(ValueError, match=r"a\.json lacks c, d: make it$"):
        read_json(path, "make it", keys=("b", "c", "d"))


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_damaged_file_of_a_base_is_named(tmp_path, name, kind):
    """Also those that transformers and tokenizers read: they raise plain Exceptions and TypeErrors."""
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(DAMAGES[kind] if DAMAGES[kind] is not None else b"[1]")
    for opened in (load_base, open_tokenizer):
        if opened is load_base or name.startswith("tokenizer"):
            with pytest.raises(
                ValueError, match=re.escape(str(tmp_path / name)) + ".*: copy or download it again"
            ):
                opened(str(tmp_path))


def test_a_base_without_configuration(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing: copy or download it again"):
        load_base(tmp_path)
