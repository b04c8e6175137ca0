"""The `xalma` command: what it prints, and one sentence on stderr with exit code 2 for each kind of bad input."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xalma as xalma_package
from xalma.cli import main as cli
from xalma.cli import notebooks
from xalma.languages import LANGUAGES
from xalma.profiles import PROFILES


@pytest.fixture
def xalma(capsys, monkeypatch):
    """Runs the command; returns (exit code, stdout, stderr)."""

    def call(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = cli.main([str(word) for word in argv])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def texts(tmp_path) -> Path:
    (tmp_path / "good.txt").write_text("in 3 weeks\nJapan\n")
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin1.txt").write_bytes("Größe\n".encode("latin1"))
    (tmp_path / "taken").write_text("a file where a folder should be")
    return tmp_path


BAD = {
    "unknown language": (
        "translate --from de --to xx {t}/good.txt", "unknown language code 'xx'",
    ),
    "unknown language in score": (
        "score --output {t}/good.txt --reference {t}/good.txt --to gr", "unknown language code 'gr'",
    ),
    "no English": ("translate --from de --to fr {t}/good.txt", "not English-centric"),
    "empty file": ("translate --from en --to fi {t}/empty.txt", "empty.txt is empty"),
    "empty input": ("translate --from en --to fi", "standard input is empty"),
    "unknown metric": (
        "score --output {t}/good.txt --reference {t}/good.txt --to fi --metrics blue", "unknown metric 'blue'",
    ),
    "neural metric without source": (
        "score --output {t}/good.txt --reference {t}/good.txt --to fi --metrics bleu,comet22",
        "comet22 reads the source",
    ),
    "bad checkpoint": (
        "score --output {t}/good.txt --reference {t}/good.txt --to fi --checkpoint x", "bad --checkpoint 'x'",
    ),
    "negative workers": (
        "score --output {t}/good.txt --reference {t}/good.txt --to fi --workers -3", "--workers -3 is no count",
    ),
    "alpha": ("compare a b --testset ntrex --alpha nan", "--alpha nan is no level of significance"),
    "empty reference": ("score --output {t}/good.txt --reference {t}/empty.txt --to fi", "empty.txt is empty"),
    "line counts": (
        "score --output {t}/good.txt --reference {t}/three.txt --to fi", "good.txt has 2, {t}/three.txt has 3",
    ),
    "line count of the source": (
        "score --output {t}/good.txt --reference {t}/good.txt --source {t}/three.txt --to fi", "three.txt has 3",
    ),
    "invalid UTF-8": ("translate --from en --to fi {t}/latin1.txt", "latin1.txt is not UTF-8: byte 0xf6 at offset 2"),
    "invalid UTF-8 in score": ("score --output {t}/latin1.txt --reference {t}/good.txt --to fi", "is not UTF-8"),
    "no such file": ("translate --from en --to fi {t}/absent.txt", "no file {t}/absent.txt"),
    "missing stages": (
        "translate --from en --to fi --set run_dir={t}/runs {t}/good.txt", "no module of group 6",
    ),
    "missing previous stage": (
        "translate --from en --to fi --model {t}/runs/tiny/ladder/stage4_sft/group6 {t}/good.txt",
        "run notebooks/06_stage4_sft.ipynb first",
    ),
    "bad profile key": ("run --set sft_pair=3", "unknown profile key 'sft_pair': near keys are sft_pairs"),
    "bad profile value": ("run --set sft_pairs=many", "bad value 'many' for sft_pairs"),
    "bad form of --set": ("run --set sft_pairs", "write it as key=value"),
    "bad profile": ("run --profile tinny", "unknown profile 'tinny': choose tiny, "),
    "bad notebook": ("run --only 77", "no notebook '77'"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "why"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_2(xalma, texts, line, why):
    code, out, err = xalma(*(word.format(t=texts) for word in line.split()))
    assert code == 2
    assert why.format(t=texts) in err
    assert err.startswith("xalma: ") and err.count("\n") == 1 and err.endswith("\n")
    assert out == ""


def test_standard_input_that_is_not_utf8(xalma):
    code, _, err = xalma("translate", "--from", "en", "--to", "fi", stdin=b"abc\xff")
    assert (code, err.count("\n")) == (2, 1)
    assert "standard input is not UTF-8: byte 0xff at offset 3" in err


@pytest.mark.parametrize("key", ["run_dir", "results_dir"])
def test_a_folder_that_cannot_be_written(xalma, texts, key, monkeypatch):
    """A file in its place stops root too; found before a kernel starts."""
    monkeypatch.setattr(
        "papermill.execute_notebook", lambda *args, **kwargs: pytest.fail("a notebook was started")
    )
    other = {"run_dir": "results_dir", "results_dir": "run_dir"}[key]
    code, _, err = xalma(
        "run", "--only", "03", "--set", f"{key}={texts}/taken/x", "--set", f"{other}={texts}/{other}"
    )
    assert code == 2
    assert "can't write" in err and str(texts / "taken") in err
    assert err.count("\n") == 1


def test_a_failed_run_is_one_line_and_exit_1(xalma, monkeypatch):
    def fails(*args):
        raise RuntimeError("03.ipynb, cell 2: ValueError: first line\nsecond line")

    monkeypatch.setattr(notebooks, "run", fails)
    code, _, err = xalma("run")
    assert code == 1
    assert err == "xalma: 03.ipynb, cell 2: ValueError: first line second line\n"


def test_an_interrupted_run_says_how_to_go_on(xalma, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "run", stopped)
    code, _, err = xalma("run")
    assert code == 130
    assert "the same command goes on from there" in err


def test_run_passes_checked_values(xalma, monkeypatch):
    seen = []
    monkeypatch.setattr(notebooks, "run", lambda *args: seen.append(args))
    argv = "run --profile full --only 03-05 --force --set groups=6 --set seed=3 --set stage4_learning_rate=1"
    assert xalma(*argv.split())[0] == 0
    assert seen == [("full", {"groups": "6", "seed": 3, "stage4_learning_rate": 1.0}, "03-05", True, False)]


def test_languages_lists_fifty(xalma):
    code, out, err = xalma("languages")
    rows = [line.split() for line in out.splitlines()[1:51]]
    assert (code, err) == (0, "")
    assert [row[0] for row in rows] == list(LANGUAGES)
    assert all(row[1] == LANGUAGES[row[0]].name for row in rows)
    assert out.splitlines()[51:][-1].startswith("groups: 1 Germanic; 2 Romance")
    assert not any(line.split()[0] in LANGUAGES for line in out.splitlines()[51:] if line)


def test_score_prints_signatures(xalma, texts):
    code, out, _ = xalma(
        "score", "--output", texts / "good.txt", "--reference", texts / "good.txt", "--to", "fi"
    )
    assert code == 0
    assert "BLEU|nrefs:1" in out and "tok:13a" in out and "chrF2|" in out
    assert "= 100.00 (n = 2)" in out


@pytest.mark.parametrize("how", ["file", "stdin", "model"])
def test_translate_prints_a_line_a_segment(xalma, micro, finished, micro_values, texts, how):
    sets = [f"--set={k}={v}" for k, v in micro_values.items()]
    argv = ["translate", "--from", "en", "--to", "fi", *sets, f"--set=run_dir={micro.run_dir}"]
    if how == "model":
        argv += ["--model", finished[5]]
    content = "in 3 weeks\nJapan\u2028and Germany\n"
    (texts / "in.txt").write_text(content)
    given = {} if how != "stdin" else {"stdin": content.encode()}
    code, out, err = xalma(*argv, *([] if how == "stdin" else [texts / "in.txt"]), **given)
    assert code == 0 and err == "2 answers reached max_new_tokens=40 and may be cut: raise it with --set\n"
    assert out.count("\n") == 2, "U+2028 stands inside a segment"


def test_usage_errors_exit_2(xalma):
    with pytest.raises(SystemExit) as caught:
        xalma("translate", "--from", "en")
    assert caught.value.code == 2


@pytest.mark.parametrize("metrics", ["bleu,chrf", "bleu, chrf", " bleu ,chrf,"])
def test_lists_with_blanks_are_lists(xalma, texts, metrics):
    code, out, _ = xalma(
        "score",
        "--output",
        texts / "good.txt",
        "--reference",
        texts / "good.txt",
        "--to",
        "fi",
        "--metrics",
        metrics,
    )
    assert code == 0 and out.startswith("BLEU|") and "\nchrF2|" in out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--device cuda:7", "torch sees"),
        ("--device gpu", "no device 'gpu'"),
        ("--device meta", "no device 'meta'"),
        ("--dtype x", "no dtype 'x'"),
        ("--dtype int8", "no dtype 'int8'"),
        ("--dtype Tensor", "no dtype 'Tensor'"),
    ],
)
@pytest.mark.parametrize("system", ["", "--system alma-7b --path {t}"])
def test_devices_and_dtypes_that_are_none(xalma, texts, options, why, system):
    """Without a GPU, as everywhere in these tests; before any weights are looked for."""
    words = f"translate --from en --to de {system} {options} {{t}}/good.txt".format(t=texts).split()
    code, _, err = xalma(*words)
    assert code == 2 and why in err and err.count("\n") == 1


LOCALES = {"ASCII": {"LC_ALL": "C"}, "latin-1": {"PYTHONIOENCODING": "latin-1"}}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("command", [["systems"], ["plan", "--profile", "full", "--gpus", "8"]], ids=" ".join)
def test_any_locale_prints(command, locale):
    """In a process of its own, with an encoding that lacks the letters, into a pipe: UTF-8, as any file of ours."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "xalma.cli", *command]
    done = subprocess.run(command, env=environment | LOCALES[locale], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.decode("utf-8")) > 500


def test_translations_print_whatever_the_locale_is(monkeypatch):
    """Into a file whole, on a terminal with `?` for what it has no letter for."""
    for terminal, expected in ((False, "en→xx: 你好\n".encode()), (True, b"en?xx: ??\n")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal, raising=False)
        cli._print_any_letter(stream)
        print("en→xx: 你好", file=stream, flush=True)
        assert stream.buffer.getvalue() == expected


def test_a_broken_pipe_is_quiet():
    command = [sys.executable, "-m", "xalma.cli", "systems"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_run_names_every_profile(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", "--help"])
    said = "".join(capsys.readouterr().out.split())
    assert ",".join(PROFILES) in said


def test_the_front_door_lists_its_names():
    """For tab completion and type checkers, before torch is loaded; each is where it says, with its types."""
    code = "import sys, xalma; print(*dir(xalma)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and set(xalma_package.NAMES) <= set(done.stdout.split())
    tree = ast.parse(Path(xalma_package.__file__).read_text(encoding="utf-8"))
    (typed,) = (
        n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"
    )
    typed_from = {n.names[0].asname: n.module for n in typed.body}
    assert typed_from.keys() == set(xalma_package.NAMES)
    for name, module in typed_from.items():
        found = getattr(xalma_package, name)
        assert found is getattr(importlib.import_module(module), name)
        if inspect.isfunction(found):
            hints = inspect.signature(found)
            assert hints.return_annotation is not inspect.Signature.empty, name
            assert all(p.annotation is not inspect.Parameter.empty for p in hints.parameters.values()), name
    assert (Path(xalma_package.__file__).parent / "py.typed").exists()
