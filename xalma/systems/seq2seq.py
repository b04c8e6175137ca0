"""Encoder-decoder systems: NLLB-200 (dense and mixture of experts) and Aya-101 (mT5).

NLLB takes languages as tokens: the source's before the text, set on the tokenizer, the target's forced as the first
token of the output. Codes are FLORES-200's (`xalma.languages`), as in the released evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.data.literal import token_ids
from xalma.languages import language
from xalma.models.backbone import check_vocabulary
from xalma.models.generation import blank_lines_kept
from xalma.systems.decoding import decode, open_model, open_tokenizer
from xalma.systems.table import System
from xalma.systems.templates import TEMPLATES


class Seq2Seq:
    """An encoder-decoder behind its prompt. Attributes: row, model, tokenizer, template."""

    def __init__(self, row: System, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.row, self.model, self.tokenizer = row, model, tokenizer
        self.template = TEMPLATES[row.template]
        self.counts: Counter[str] = Counter()  # of all answers: `cut` at max_new_tokens
        self.has_language_tokens = row.template == "source"

    def language_token(self, code: str) -> int:
        """The id of a language's token. Raises ValueError for a language this tokenizer has no token for."""
        name = language(code).flores
        token = self.tokenizer.convert_tokens_to_ids(name)
        if token in (None, self.tokenizer.unk_token_id):
            raise ValueError(
                f"the tokenizer of {self.row.name} has no token {name}: it can't translate {code}"
            )
        return token

    def tokens(self, texts: Sequence[str], src: str, tgt: str) -> list[list[int]]:
        """Token ids of the prompts; NLLB's begin with the source language's token."""
        if not texts:
            return []
        if self.has_language_tokens:
            self.language_token(src)  # the tokenizer itself would say nothing
            self.tokenizer.src_lang = language(src).flores
        prompts = [self.template.prompt(text, src, tgt) for text in texts]
        return token_ids(self.tokenizer, prompts, add_special_tokens=True)

    @blank_lines_kept
    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`. Raises ValueError for a direction the row does not support."""
        self.row.check(src, tgt)
        first = {"forced_bos_token_id": self.language_token(tgt)} if self.has_language_tokens else {}
        outputs = decode(
            self.model,
            self.tokenizer,
            self.tokens(texts, src, tgt),
            self.row.decoding,
            show_progress=progress,
            label=f"{self.row.name} {src}-{tgt}",
            counts=self.counts,
            **first,
        )
        return [self.template.clean(output) for output in outputs]


def open_seq2seq(row: System, path: str, device: str | None, dtype: str | None) -> Seq2Seq:
    """The system with its model loaded. Raises OSError for what can't be read."""
    model = open_model(path, seq2seq=True, device=device, dtype=dtype)
    tokenizer = open_tokenizer(path)
    check_vocabulary(model, tokenizer)
    return Seq2Seq(row, model, tokenizer)
