"""The one translation prompt of the package, and the way back from a model's output to a translation.

Follows the released code ("Translate this from {Src} to {Tgt}:"; the released README's "into" is not used).
X-ALMA wraps it in LLaMA-2's chat form, ALMA uses it raw. The begin-of-text token is the tokenizer's business
and is added once in `collate`, so the "<s>" of LLaMA-2's template does not stand here.
"""

from __future__ import annotations

from xalma.languages import language

STYLES = ("xalma", "alma")


def translation_prompt(text: str, src: str, tgt: str, style: str = "xalma") -> str:
    """The prompt asking for `text` (language code `src`) in language `tgt`.

    style: "xalma" (LLaMA-2 [INST] chat form, X-ALMA) or "alma" (raw, ALMA and ALMA-R).
    Raises ValueError for an unknown language or style.
    """
    if style not in STYLES:
        raise ValueError(f"unknown prompt style {style!r}: use one of {', '.join(STYLES)}")
    source, target = language(src).name, language(tgt).name
    prompt = f"Translate this from {source} to {target}:\n{source}: {text}\n{target}:"
    return f"[INST] {prompt} [/INST]" if style == "xalma" else prompt


def extract_translation(output: str) -> str:
    """The translation in a generated continuation: its first line that is not blank, stripped.

    As in the released evaluation code a line break ends the translation; blank lines before it are skipped.
    """
    return next((line.strip() for line in output.splitlines() if line.strip()), "")
