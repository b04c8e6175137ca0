"""Token ids of texts in which the name of a special token is text: "Use <s>old</s> tags" holds no token <s>.

A tokenizer reads "</s>" in a sentence as the end of the sequence, which cuts prompts, labels and documents. Special
tokens that the form of a prompt has of its own, as [INST] of Mistral or <|im_start|> of Qwen, stay tokens: they stand
before "Translate this from" and behind the last line, `xalma.prompts`. Texts without such names are encoded as ever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# head (the form's), the text between, tail (the form's); the last line with the target's name ends the text
_PROMPT = re.compile(r"(.*?)(Translate this from (.+?) to (.+?):\n\3: .*\n\4:)(.*)", re.DOTALL)


def token_ids(
    tokenizer: Any,
    prompts: Sequence[str],
    completions: Sequence[str] | None = None,
    *,
    add_special_tokens: bool = False,
    foreign_forms: bool = False,
    spans: Sequence[tuple[int, int]] | None = None,
) -> list[list[int]]:
    """The ids of each prompt or text, with its completion behind it.

    foreign_forms: leave a prompt of another form than `xalma.prompts` writes, and its completion, to the tokenizer.
    spans: where in each prompt the text stands, from and to, in a form that is none of `xalma.prompts`.
    """
    prompts = list(prompts)
    completions = [""] * len(prompts) if completions is None else list(completions)
    if not prompts:
        return []
    texts = [prompt + answer for prompt, answer in zip(prompts, completions, strict=True)]
    ids = list(tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"])
    if names := _names(tokenizer):
        for i, text in enumerate(texts):
            span = _span(prompts[i]) if spans is None else spans[i]
            if names.search(text) and not (foreign_forms and not span):
                ids[i] = _ids(tokenizer, names, prompts[i], completions[i], add_special_tokens, span)
    return ids


def special_names_in(tokenizer: Any, prompt: str, *answers: str) -> list[str]:
    """Names of special tokens in the text of a prompt and its answers, the form's own left out."""
    names = _names(tokenizer)
    form = _PROMPT.fullmatch(prompt)
    return (
        [name for text in (form[2] if form else prompt, *answers) for name in names.findall(text)]
        if names
        else []
    )


def _special(tokenizer: Any) -> dict[str, int]:
    """Name → id of the special tokens, the unknown one aside: a text may well have what the vocabulary lacks."""
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {name: i for name, i in (added | named).items() if name and i != tokenizer.unk_token_id}


def _names(tokenizer: Any) -> re.Pattern | None:
    names = sorted(_special(tokenizer), key=len, reverse=True)  # the longest first: one may begin another
    return re.compile("|".join(map(re.escape, names))) if names else None


def _span(prompt: str) -> tuple[int, int] | None:
    form = _PROMPT.fullmatch(prompt)
    return form.span(2) if form else None


def _ids(
    tokenizer: Any,
    names: re.Pattern,
    prompt: str,
    answer: str,
    add_special_tokens: bool,
    text: tuple[int, int] | None,
) -> list[int]:
    special = _special(tokenizer)
    found = [match.span() for match in names.finditer(prompt)] if text else []
    own = [(start, end) for start, end in found if text and not text[0] <= start < text[1]]
    if not own:
        return _plain(tokenizer, names, prompt + answer, add_special_tokens)
    ids, done = [], 0
    for start, end in own:
        ids += [*_plain(tokenizer, names, prompt[done:start]), special[prompt[start:end]]]
        done = end
    return ids + _plain(tokenizer, names, prompt[done:] + answer)


def _plain(tokenizer: Any, names: re.Pattern, text: str, add_special_tokens: bool = False) -> list[int]:
    """The ids of text without special tokens in it."""
    if not text:
        return []
    ids = tokenizer(text, add_special_tokens=add_special_tokens, split_special_tokens=True)["input_ids"]
    around = tokenizer.num_special_tokens_to_add() if add_special_tokens else 0
    if len(set(_special(tokenizer).values()).intersection(ids)) <= around:
        return ids
    # a vocabulary of pieces may hold the names themselves: their first character goes apart
    parts, done = [], 0
    for match in names.finditer(text):
        parts += [text[done : match.start() + 1]]
        done = match.start() + 1
    split = [
        tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"] for part in parts
    ]
    rest = tokenizer(text[done:], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    body = [i for part in split for i in part] + rest
    return tokenizer.build_inputs_with_special_tokens(body) if add_special_tokens else body
