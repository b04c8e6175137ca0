"""Blank segments are blank in every way to translate, and no model is asked; what is no list of texts is refused."""

from __future__ import annotations

import pytest
import torch

from xalma.models import generation as generation
from xalma.models.bank import ModuleBank
from xalma.models.generation import (
    blank_lines_kept,
    check_segments,
    is_blank,
    n_cut,
    translate,
    without_blank,
)
from xalma.prompts import extract_translation, holds_separator
from xalma.systems.chat.endpoint import Endpoint
from xalma.systems.outputs import single_lines
from xalma.systems.registry import open_system
from xalma.systems.table import SYSTEMS

BLANK = ["", "   ", "\t", "\u3000\u00a0", "\u200b", "\ufeff", "\x00"]


@pytest.mark.parametrize("text", BLANK)
def test_blank(text):
    assert is_blank(text) and not is_blank(text + "。")


def test_blank_segments_are_not_asked_for():
    asked = []

    def upper(numbers):
        asked.extend(numbers)
        return [texts[i].upper() for i in numbers]

    texts = ["a", "", "b", *BLANK, "c"]
    assert without_blank(texts, upper) == ["A", "", "B", *[""] * len(BLANK), "C"]
    assert asked == [0, 2, len(texts) - 1]
    assert without_blank(BLANK, lambda numbers: 1 / 0) == [""] * len(BLANK)


@pytest.mark.parametrize(
    ("texts", "message"),
    [("Tere", "single string"), (["a", None], "segment 2 is NoneType"), ([b"a"], "segment 1 is bytes")],
)
def test_what_is_no_text_is_refused(texts, message):
    for call in (
        check_segments,
        lambda texts: object.__new__(ModuleBank).translate(texts, "en", "et"),
        lambda texts: translate(None, None, texts, "en", "et"),
    ):
        with pytest.raises(ValueError, match=message):
            call(texts)


def test_a_model_is_asked_for_the_others_alone(monkeypatch):
    prompts = []
    monkeypatch.setattr(
        generation, "generate", lambda m, t, given, **o: [prompts.append(p) or " x\ny" for p in given]
    )
    assert translate(torch.nn.Linear(1, 1), None, ["a", "", " ", "b"], "en", "et") == ["x", "", "", "x"]
    assert [prompt.split("English: ")[1].split("\n")[0] for prompt in prompts] == ["a", "b"]


def test_systems_keep_blank_lines():
    class System:
        row, asked = None, []

        @blank_lines_kept
        def translate(self, texts, src, tgt, *, progress=True):
            self.asked.append((texts, src, tgt, progress))
            return [f"<{text}>" for text in texts]

    assert System().translate(["a", "", "b", " "], "en", "de", progress=False) == ["<a>", "", "<b>", ""]
    assert System.asked == [(["a", "b"], "en", "de", False)]


def test_an_endpoint_is_not_paid_for_blank_lines(tmp_path, monkeypatch):
    asked = []

    def answers(self, bodies, *args, **options):
        asked.extend(body["messages"][-1]["content"] for body in bodies)
        return [{"text": "x"} for _ in bodies]

    monkeypatch.setattr(Endpoint, "answers", answers)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    name = next(name for name, row in SYSTEMS.items() if row.family == "endpoint")
    system = open_system(name, "model", journal=str(tmp_path / "j.jsonl"), base_url="http://127.0.0.1:9/v1")
    assert system.translate(["Hello one", "", "Hello two", "   "], "en", "de") == ["x", "", "x", ""]
    assert len(asked) == 2 and "Hello one" in asked[0] and "Hello two" in asked[1]


SEPARATORS = ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1d", "\x1e", "\r"]


@pytest.mark.parametrize("mark", SEPARATORS)
def test_what_parts_lines_cuts_no_translation(mark):
    """All that str.splitlines cuts at, line feed aside, becomes one blank."""
    assert f"a{mark}b".splitlines() == ["a", "b"]
    for output in (f"Tere{mark}maailm", f" \n{mark}\n Tere {mark}{mark} maailm \nand more"):
        assert extract_translation(output) == "Tere maailm"
    assert holds_separator(f"\na{mark}b\nc") and not holds_separator(f"a\nb{mark}c")
    assert extract_translation("Tere\nmaailm") == "Tere" and extract_translation("\r\nTere\r\n") == "Tere"


def test_an_output_may_begin_with_a_byte_order_mark():
    """It is no text: read back from a file it would be gone, and the direction never done."""
    assert single_lines(["\ufeffTere", "a\nb", "c"]) == (["Tere", "a b", "c"], 1)


@pytest.mark.parametrize(
    ("ids", "limit", "cut"),
    [([[5, 6, 2], [5, 6, 7]], 3, 1), ([[5, 2], [6, 7]], 3, 0), ([[5, 6, 7]] * 2, 3, 2), ([[9, 5, 5]], 3, 0)],
)
def test_answers_without_an_end_are_counted(ids, limit, cut):
    assert n_cut(torch.tensor(ids), [2, 9], limit) == cut
