"""The one translation prompt of the package, and the way back from a model's output to a translation.

Follows the released code ("Translate this from {Src} to {Tgt}:"; the released README's "into" is not used).
X-ALMA wraps it in LLaMA-2's chat form, ALMA uses it raw; for another base `chat_style` gives the form of its own chat
template. The begin-of-text token is the tokenizer's business
and is added once in `collate`, so the "<s>" of LLaMA-2's template does not stand here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xalma.languages import language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOT = "{prompt}"  # where the prompt goes in a chat form
STYLE_FORMS = {"xalma": f"[INST] {SLOT} [/INST]", "alma": SLOT}
STYLES = tuple(STYLE_FORMS)
CHAT = "chat"  # of a profile: the form of its base's own template
# What str.splitlines cuts at, line feed aside, and blanks around it.
_SEPARATORS = re.compile("[ \t]*[\r\v\f\x1c-\x1e\x85\u2028\u2029]+[ \t]*")


def translation_prompt(text: str, src: str, tgt: str, style: str = "xalma") -> str:
    """The prompt asking for `text` (language code `src`) in language `tgt`.

    style: "xalma" (LLaMA-2 [INST] chat form, X-ALMA), "alma" (raw, ALMA and ALMA-R), or a text with {prompt} in it,
    as `chat_style` makes it.
    Raises ValueError for an unknown language or style.
    """
    if not is_style(style):
        raise ValueError(
            f"unknown prompt style {style!r}: use one of {', '.join(STYLES)}, or a text with {SLOT} in it"
        )
    source, target = language(src).name, language(tgt).name
    prompt = f"Translate this from {source} to {target}:\n{source}: {text}\n{target}:"
    return STYLE_FORMS.get(style, style).replace(SLOT, prompt)


def source_in(prompt: str, src: str, tgt: str) -> str:
    """The text that `translation_prompt` was asked to translate. Raises ValueError for a prompt of another form."""
    source, target = language(src).name, language(tgt).name
    _, begin, rest = prompt.partition(f"Translate this from {source} to {target}:\n{source}: ")
    text, end, _ = rest.rpartition(f"\n{target}:")
    if not (begin and end):
        raise ValueError(f"{prompt!r} is no prompt for {src}-{tgt}: its source can't be read out of it")
    return text


def is_style(style: str) -> bool:
    """Whether `style` is one `translation_prompt` takes."""
    return style in STYLES or style.count(SLOT) == 1


def chat_style(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat form of a base's own template as a prompt style, for `prompt_style` of a profile.

    Thinking is off and the date is fixed, where a template has them (Qwen3, LLaMA-3): a prompt must not change by day.
    Raises ValueError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "this base has no chat template: use prompt_style alma, the raw prompt, or write a form here"
        )
    turn = [{"role": "user", "content": SLOT}]
    text = tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True, enable_thinking=False, date_string="26 Jul 2024"
    )
    return text.removeprefix(tokenizer.bos_token or "")  # the begin-of-text token is `collate`'s business


def base_chat_style(base: str) -> str:
    """`chat_style` of the tokenizer of a base, a folder or hub id. Raises ValueError for none or one without a form."""
    if not base:
        raise ValueError("prompt_style=chat takes the chat template of a base: give --set base=… too")
    from xalma.base_files import load_tokenizer

    return chat_style(load_tokenizer(base))


def extract_translation(output: str) -> str:
    """The translation in a generated continuation: its first line that is not blank, stripped.

    As in the released evaluation code a line feed ends the translation; blank lines before it are skipped. Other
    characters that part lines (U+2028, NEL, form feed, …), which readers of lines would cut at, become a blank.
    """
    return _SEPARATORS.sub(" ", first_line(output)).strip()


def first_line(output: str) -> str:
    """The first line, ended by a line feed, that is not blank; "" where there is none."""
    return next((line.strip() for line in output.split("\n") if line.strip()), "")


def holds_separator(output: str) -> bool:
    """Whether `extract_translation` puts a blank for a character that parts lines."""
    return bool(_SEPARATORS.search(first_line(output)))
