"""What ordinary programs read beside weights, so that they ask a model as xalma does: a tokenizer that begins a text
with the begin-of-text token, a chat template in the form of the training prompts, greedy or beam decoding.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from tokenizers import processors
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from xalma.prompts import SLOT, STYLE_FORMS

PROBE = "Translate this: 1 cat\n"


def chat_template(style: str) -> str:
    """A Jinja template that makes of a user's turn, the bare translation prompt, what the model was trained on.

    style: as in `translation_prompt`. A system turn is left out: no training prompt has one.
    """
    before, _, after = STYLE_FORMS.get(style, style).partition(SLOT)
    parts = [json.dumps(text, ensure_ascii=False) for text in (before, after)]
    return (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        f"{{{{ {parts[0]} + message['content'] + {parts[1]} }}}}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, style: str, folder: Path) -> None:
    """Writes the tokenizer into a folder as other programs need it; its vocabulary stays as it is.

    Raises ValueError where what is read back would not begin a text with the begin-of-text token, once.
    """
    told = copy.deepcopy(tokenizer)
    told.chat_template = chat_template(style)
    if _begins(told) != 1:
        bos = told.bos_token
        told.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, told.bos_token_id)]
        )
    told.init_kwargs |= {"add_bos_token": True, "add_eos_token": False}
    # no token types
    told.model_input_names = told.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
    told.save_pretrained(folder)
    found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if _begins(found) != 1 or found.get_vocab() != tokenizer.get_vocab():
        kind = type(tokenizer).__name__
        raise ValueError(f"a {kind} can't be saved so that every program begins with {told.bos_token}")


def _begins(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many begin-of-text tokens are put before a text; -1 where anything else is put around it."""
    ids, plain = (tokenizer(PROBE, add_special_tokens=add)["input_ids"] for add in (True, False))
    n = len(ids) - len(plain)
    return n if ids == [tokenizer.bos_token_id] * n + plain else -1


def save_generation_config(
    tokenizer: PreTrainedTokenizerBase, beams: int, max_new_tokens: int, folder: Path
) -> None:
    """Writes generation_config.json: decoding as the scores of the card were made.

    Greedy is written as sampling from the best token: transformers' pipeline samples, whatever a model says, and keeps
    a model's top_k.
    """
    greedy = {"do_sample": True, "top_k": 1} if beams == 1 else {"num_beams": beams, "do_sample": False}
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        **greedy,
    ).save_pretrained(folder)
