"""What a chat endpoint answered, read so that nothing that came is lost: it was paid for.

An answer counts as one where the body has `choices` or `usage`. Everything else in it may be odd: usage as strings,
content as parts or absent, half an emoji, bytes that are not UTF-8. Such answers are kept once and never asked again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

BYTES_OF_A_TOKEN = 3  # rough, over scripts: English has more, Devanagari fewer
TEXT_PARTS = (None, "text", "output_text")  # other parts are thoughts, images, refusals
MAX_TOKENS = 10**12  # more is no count


class UnreadableAnswer(ValueError):
    """A body that is no JSON, as a proxy's page or an answer that was cut on the way."""


class NoAnswer(ValueError):
    """JSON that holds no answer. `code`: the status an error names, as 429; None where it names none."""

    def __init__(self, words: str, code: int | None = None) -> None:
        super().__init__(words)
        self.code = code


def read_answer(data: bytes) -> dict[str, Any]:
    """text, finish, model, prompt_tokens and completion_tokens of a response's body.

    text: "" where there is none, U+FFFD for half a character. Counts are None where the server gives none.
    Raises Unreadable for what is no JSON, NoAnswer for JSON without an answer.
    """
    try:
        body = json.loads(data.decode("utf-8-sig", "replace"), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"{len(data):,} bytes that are no JSON") from error
    if not isinstance(body, Mapping):
        raise NoAnswer("no chat completion")
    usage = body.get("usage")
    if not isinstance(body.get("choices"), list) and not usage:
        raise _no_answer(body.get("error"))
    choice = next((c for c in body.get("choices") or () if isinstance(c, Mapping)), {})
    message = choice.get("message", choice.get("text"))
    usage = usage if isinstance(usage, Mapping) else {}
    return {
        "text": text_of(message.get("content") if isinstance(message, Mapping) else message),
        "finish": _word(choice.get("finish_reason")),
        "model": _word(body.get("model")),
        "prompt_tokens": count_of(usage.get("prompt_tokens")),
        "completion_tokens": count_of(usage.get("completion_tokens")),
    }


def text_of(content: Any) -> str:
    """The text of a message's content: a string, parts of it in a list, or "" for anything else."""
    return _whole(_joined(content))


def count_of(value: Any) -> int | None:
    """A number of tokens, also from "20" or 20.0; None for what is no such number."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value[:20])
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if is_number and 0 <= value <= MAX_TOKENS else None


def tokens_of(text: str) -> int:
    """Tokens of a text by the rule of `BYTES_PER_TOKEN`."""
    return -(-len(text.encode()) // BYTES_OF_A_TOKEN)


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_joined, content))
    is_text = isinstance(content, Mapping) and content.get("type") in TEXT_PARTS
    return _joined(content.get("text")) if is_text else ""


def _whole(text: str) -> str:
    """Two halves of a character become one, a half alone U+FFFD: neither can be written to a file."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _word(value: Any) -> str | None:
    return _whole(value) if isinstance(value, str) else None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else math.inf  # python refuses to read thousands of digits


def _no_answer(error: Any) -> NoAnswer:
    """The error of a body with status 200; its own sentence is left out, it may repeat parts of the key."""
    if not error:
        return NoAnswer("no chat completion")
    code = error.get("code") if isinstance(error, Mapping) else None
    named = f" ({code})" if isinstance(code, int) or (isinstance(code, str) and code.isidentifier()) else ""
    return NoAnswer(f"an error in place of an answer{named}", count_of(code))


def is_answer(data: bytes) -> bool:
    """Whether `read_answer` finds an answer in a body."""
    try:
        read_answer(data)
    except (UnreadableAnswer, NoAnswer):
        return False
    return True
