"""Decoder-only systems: ALMA, LLaMA-2 with and without shots, Aya-23, LLaMAX, BigTranslate, BayLing, TIM, LLaMA-3.1."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.data.literal import token_ids
from xalma.models.backbone import check_vocabulary
from xalma.models.generation import blank_lines_kept
from xalma.models.layouts import check_adapter, fetch
from xalma.prompts import extract_translation, holds_separator
from xalma.systems.decoding import decode, open_model, open_tokenizer
from xalma.systems.table import System
from xalma.systems.templates import TEMPLATES, Shot, few_shot_prompt

Shots = Mapping[str, Sequence[Shot]]  # direction -> examples


class Causal:
    """A decoder-only model behind its prompt. Attributes: row, model, tokenizer, template."""

    def __init__(
        self,
        row: System,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        shots: Shots | None = None,
    ) -> None:
        self.row, self.model, self.tokenizer, self.shots = row, model, tokenizer, shots
        self.template = TEMPLATES[row.template]
        # of all answers: `cut` at max_new_tokens, `separators` made blanks
        self.counts: Counter[str] = Counter()

    def prompts(self, texts: Sequence[str], src: str, tgt: str) -> list[str]:
        """What the model reads for each segment. Raises ValueError for a direction without shots where it has them."""
        if self.shots is not None:
            shots = self.shots.get(f"{src}-{tgt}")
            if not shots:
                raise ValueError(
                    f"no shots for {src}-{tgt}: {self.row.name} needs examples for each direction"
                )
            return [few_shot_prompt(text, src, tgt, shots) for text in texts]
        prompts = [self.template.prompt(text, src, tgt) for text in texts]
        return [chat_form(self.tokenizer, prompt) for prompt in prompts] if self.template.chat else prompts

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids; the tokenizer adds its begin-of-text, if it has the habit, unless the chat template wrote it."""
        spans = None
        if self.template.chat:  # control tokens of the form stay tokens, their names in a segment are text
            head, _, tail = chat_form(self.tokenizer, "PROBE").partition("PROBE")
            spans = [(len(head), len(prompt) - len(tail)) for prompt in prompts]
        rows = token_ids(self.tokenizer, prompts, add_special_tokens=not self.template.chat, spans=spans)
        end = self.tokenizer.eos_token_id
        # a prompt is not at its end
        return [row[:-1] if len(row) > 1 and row[-1] == end else row for row in rows]

    @blank_lines_kept
    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`. Raises ValueError for a direction the row does not support."""
        self.row.check(src, tgt)
        outputs = decode(
            self.model,
            self.tokenizer,
            self.tokens(self.prompts(texts, src, tgt)),
            self.row.decoding,
            show_progress=progress,
            label=f"{self.row.name} {src}-{tgt}",
            counts=self.counts,
        )
        if self.template.clean is extract_translation:
            self.counts["separators"] += sum(map(holds_separator, outputs))
        return [self.template.clean(output) for output in outputs]


def chat_form(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt as a user's turn, up to where the answer begins. Raises ValueError for a tokenizer without one."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"{tokenizer.name_or_path} has no chat template: take the instruction-tuned checkpoint"
        )
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )


def open_causal(
    row: System,
    path: str,
    adapter: str | None,
    device: str | None,
    dtype: str | None,
    shots: Shots | None = None,
) -> Causal:
    """The system with its model loaded; a LoRA adapter is folded into the weights.

    Raises ValueError where the row needs shots and none are given, OSError for what can't be read.
    """
    if row.name.endswith("-5shot") and not shots:
        raise ValueError(f"{row.name} needs shots={{'en-de': [(source, translation)]}}, or --shots FOLDER")
    model = open_model(path, device=device, dtype=dtype)
    tokenizer = open_tokenizer(path, row.tokenizer)
    check_vocabulary(model, tokenizer)
    return Causal(row, with_adapter(model, adapter) if adapter else model, tokenizer, shots)


def with_adapter(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """The model with a LoRA adapter folded into its weights, as peft folds it.

    Raises ValueError for an adapter that is not there, or lacks tensors of its layers: peft would leave these as they
    were made, which changes nothing, and only warn.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            folder = str(check_adapter(fetch(adapter)))
            return PeftModel.from_pretrained(model, folder, trust_remote_code=False).merge_and_unload()
    except UserWarning as error:
        raise ValueError(
            f"the adapter {adapter} lacks tensors of layers that its configuration names"
        ) from error
    # a configuration that is none, tensors of another shape
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the adapter {adapter} does not fit {model.name_or_path}: {reason}") from error
