"""`xalma stage`, from outside: a loss that is no number, or prepared text whose bytes changed, ends in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import GROUP, copied, folder_of, options

from xalma.cli import main as cli


def ended(capsys, *arguments: object) -> tuple[int, list[str]]:
    """(status, the lines of stderr that xalma wrote) of a command; no traceback."""
    code = cli.main([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, [line for line in err.splitlines() if line.startswith("xalma: ")]


@pytest.mark.parametrize("number", [3, 4, 5])
def test_a_loss_that_is_no_number(micro, finished, tmp_path, capsys, number):
    runs = copied(Path(micro.run_dir), tmp_path / "runs", upto=number - 1)
    rate = f"stage{number}_learning_rate"
    code, told = ended(capsys, "stage", number, "--group", GROUP, *options(runs, **{rate: 1e30}))
    assert code == 1 and len(told) == 1
    assert f"the loss is not a number; lower {rate}, now 1e+30" in told[0]
    assert not folder_of(runs, number).exists()
    assert [path.name for path in folder_of(runs, number - 1).parent.glob(".partial-*")] == []


@pytest.fixture(scope="module")
def prepared(ladder, tmp_path_factory) -> tuple[Path, list[str]]:
    """(text of group 6, as `xalma prepare` writes it for a base; the values a training on it is given)."""
    folder = tmp_path_factory.mktemp("prepared")
    own = {"base": ladder[0], "stage1_tokens": 2048, "prompt_style": "xalma"}
    made = ("prepare", "--tokens", 3000, "--processes", 1, "--to", folder / "text", "--profile", "tiny")
    assert cli.main([str(argument) for argument in (*made, *options(folder / "runs", **own))]) == 0
    own["mixing_blocks"] = folder / "text"
    assert cli.main(["stage", "0", *options(folder / "runs", **own)]) == 0
    return folder / "text", options(folder / "runs", **own)


@pytest.mark.parametrize("damage", ["a bit", "a cut", "none"])
def test_prepared_text_whose_bytes_changed(prepared, capsys, damage):
    """The file's hash is checked when a stage opens it, before a step; what is whole trains."""
    text, values = prepared
    file = sorted(text.glob("monolingual/*/*.bin"))[0]
    stage1, whole = folder_of(text.parent / "runs", 1), file.read_bytes()
    changed = {"a bit": bytes([whole[0] ^ 1]) + whole[1:], "a cut": whole[:-2], "none": whole}
    try:
        file.write_bytes(changed[damage])
        code, told = ended(capsys, "stage", 1, *values)
    finally:
        file.write_bytes(whole)
    if damage == "none":
        assert (code, told) == (0, []), told
        assert stage1.exists()
        return
    assert (
        code == 2 and len(told) == 1 and str(file) in told[0] and "prepare" in told[0].rsplit(": ", 1)[1]
    ), told
    assert not stage1.exists()
