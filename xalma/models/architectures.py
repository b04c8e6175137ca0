"""Which models the fast paths of training understand: their own attention mask, logits only where one is needed.

A list of what is understood: each architecture on it is held against its own plain forward in
tests/models/test_architectures.py. Others (ALiBi, states in place of attention, learned positions, …) are refused,
or get no mask of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# model_type of a decoder with rotary positions whose layers take a 4D mask and position ids as they are.
UNDERSTOOD = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "phi3", "gemma", "gemma3_text", "olmo", "olmo2", "granite", "glm",
    "glm4", "starcoder2", "stablelm", "smollm3", "helium", "arcee",
)  # fmt: skip
_FULL, _SLIDING = "full_attention", "sliding_attention"
_RESCALING = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def layer_kinds(config: PretrainedConfig) -> set[str]:
    """Kinds of attention of a model's layers, as its configuration names them."""
    if types := getattr(config, "layer_types", None):
        return set(types)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return {_SLIDING if windowed else _FULL}


def window_of(config: PretrainedConfig) -> int | None:
    """How many tokens, itself among them, a token sees in layers with a sliding window; None without such layers."""
    return config.sliding_window if _SLIDING in layer_kinds(config) else None


def why_not(model: torch.nn.Module, config: PretrainedConfig) -> str:
    """What of a model is not understood, "" where it is all understood. config: of its text decoder."""
    if config.is_encoder_decoder:
        return "an encoder"
    if config.model_type not in UNDERSTOOD:
        return "an architecture that was not checked"
    if odd := layer_kinds(config) - {_FULL, _SLIDING}:
        return " and ".join(sorted(odd))
    if rescaled := rescaled_head(config):
        return rescaled
    if getattr(config, "output_router_logits", False):
        return "a loss of its router (output_router_logits)"
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.is_prompt_learning or getattr(adapter, "alora_invocation_tokens", None):
            return f"an adapter that depends on the tokens of a row ({adapter.peft_type.value})"
    return ""


def rescaled_head(config: PretrainedConfig) -> str:
    """The setting by which logits are more than the output layer's product with the last states; "" for none."""
    return next((name for name in _RESCALING if getattr(config, name, None) not in (None, 1, 1.0)), "")


def takes_causal_mask(config: PretrainedConfig, length: int) -> bool:
    """Whether one causal mask, added to the scores, says all that layers need at rows of `length` tokens."""
    window = window_of(config)
    return config.model_type in UNDERSTOOD and (window is None or length <= window)
