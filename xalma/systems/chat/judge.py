"""A language model as a judge in GEMBA's ESA form: it marks error spans, then gives a score from 0 to 100.

Kocmi and Federmann; Kocmi et al. 2024 for ESA. The prompts are those of PyPI's `gemba` 0.1.3 (pip install
'xalma[judge]'), from which nothing but the two templates is read: its client keeps no journal, knows no prices and
hides its errors. Each answer goes through `Endpoint`: into the journal before it counts, with its price, asked once.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from xalma.evaluation.comet import SegmentScores
from xalma.evaluation.metrics import NotScored
from xalma.languages import language, parse_direction
from xalma.systems.chat.answers import tokens_of
from xalma.systems.chat.endpoint import PROMPT_OVERHEAD, Endpoint
from xalma.systems.table import SYSTEMS

GEMBA_ESA = "gemba-esa"
TEMPERATURES = (0, 0.5, 1)  # of the first try, and where an answer holds no score; GEMBA goes on to 10
Messages = list[dict[str, str]]


def gemba_prompts() -> tuple[Messages, str]:
    """(the turns that ask for error spans, the text that asks for a score). Raises ImportError without the package."""
    found = find_spec("gemba")
    file = Path(found.submodule_search_locations[0], "gemba_esa.py") if found else None  # type: ignore[index]
    if file is None or not file.is_file():
        raise ImportError("GEMBA's prompts are those of the package gemba: pip install 'xalma[judge]'")
    names = runpy.run_path(str(file))  # the file alone: the package's own import opens a client
    return names["TEMPLATE_GEMBA_ESA_ERROR_SPANS"], names["TEMPLATE_GEMBA_ESA_RANKING"]


class ChatJudge:
    """Scores of translations by the model of a chat endpoint; options are those of `Endpoint`."""

    def __init__(self, model: str, journal: str | Path, **options: Any) -> None:
        self.spans, self.ranking = gemba_prompts()
        self.endpoint = Endpoint(replace(SYSTEMS["endpoint"], name=GEMBA_ESA), model, journal, **options)

    def __call__(
        self, samples: Sequence[Mapping[str, str]], directions: Sequence[str]
    ) -> SegmentScores | NotScored:
        """Scores of samples ("src", "mt"), each in its direction; 1 is perfect. NotScored where an answer has no score.

        Raises what `Endpoint.answers` raises; what was answered is in the journal then.
        """
        fields = [_fields(sample, direction) for sample, direction in zip(samples, directions, strict=True)]
        bodies = [self._body(_filled(self.spans, values)) for values in fields]
        spans = self.endpoint.answers(bodies, f"{GEMBA_ESA}, error spans", self._frame(self.spans))
        fields = [
            values | {"error_spans": answer["text"]} for values, answer in zip(fields, spans, strict=True)
        ]
        scores: list[float | None] = [None] * len(fields)
        for temperature in TEMPERATURES:
            todo = [i for i, score in enumerate(scores) if score is None]
            asked = [
                self._body(_filled([{"role": "user", "content": self.ranking}], fields[i]), temperature)
                for i in todo
            ]
            for i, answer in zip(
                todo, self.endpoint.answers(asked, f"{GEMBA_ESA}, scores") if todo else [], strict=True
            ):
                scores[i] = score_in(answer["text"])
        if unread := scores.count(None):
            return NotScored(
                GEMBA_ESA, f"not scored: {unread} of {len(scores)} answers hold no score", len(scores)
            )
        return SegmentScores(GEMBA_ESA, np.array(scores, dtype=float) / 100, self.signature)

    @property
    def signature(self) -> str:
        try:
            made_by = f"gemba:{version('gemba')}"
        except PackageNotFoundError:
            made_by = "gemba:unknown"
        return f"GEMBA-ESA|judge:{self.endpoint.model}|{made_by}|temperature:0|reads:src+mt|mean of segments, 0-100"

    def _body(self, messages: Messages, temperature: float = 0) -> dict[str, Any]:
        body = {
            "model": self.endpoint.model,
            "messages": messages,
            "temperature": temperature,
            "max_tokens": 500,
        }
        return {name: value for name, value in (body | self.endpoint.body).items() if value is not None}

    @staticmethod
    def _frame(messages: Messages) -> int:
        """Tokens of the prompt without the segment."""
        return sum(tokens_of(message["content"]) for message in messages) + PROMPT_OVERHEAD


def score_in(answer: str) -> float | None:
    """The number from 0 to 100 that an answer gives; None where it gives none, or several."""
    text = re.sub(r"/\s*100\b|\bout of 100\b|\(0\s*[-–]\s*100\)", " ", answer)
    found = {float(number) for number in re.findall(r"(?<![\w.,-])\d+(?:\.\d+)?(?![\w%]|[.,]\d)", text)}
    return found.pop() if len(found) == 1 and max(found) <= 100 else None


def _fields(sample: Mapping[str, str], direction: str) -> dict[str, str]:
    src, tgt = parse_direction(direction)
    names = {"source_lang": language(src).name, "target_lang": language(tgt).name}
    return names | {"source_seg": sample["src"], "target_seg": sample["mt"]}


def _filled(messages: Messages, fields: Mapping[str, str]) -> Messages:
    """The turns with the last one's {names} filled in; braces of the segment stay."""
    fill = re.compile("|".join(f"{{{name}}}" for name in fields))
    last = fill.sub(lambda found: fields[found[0][1:-1]], messages[-1]["content"])
    return [*messages[:-1], {**messages[-1], "content": last}]
