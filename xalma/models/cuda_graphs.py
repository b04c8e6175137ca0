"""Decoding on a GPU at the GPU's speed: each step of `generate` is the replay of one CUDA graph.

A step of one token is a thousand small kernels, and Python takes longer to ask for them than a GPU to run them. A CUDA
graph is recorded once per call of `generate` and asked for as a whole. transformers' own way to one is torch.compile,
which first compiles for minutes; here the kernels are those of the plain step, and so are the outputs. The cache is
transformers' StaticCache, since a graph reads and writes the same places each time.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from xalma.models.losses import plain_model

WORTH_IT = 8  # new tokens: fewer are over before a recording has paid
# Options of `generate` with which it decodes in another way, keeps what a replay overwrites, or has a cache of its own.
UNUSUAL = (
    "past_key_values", "cache_implementation", "assistant_model", "prompt_lookup_num_tokens", "penalty_alpha",
    "custom_generate", "prefill_chunk_size", "output_hidden_states", "output_attentions",
)  # fmt: skip


@contextmanager
def replayed(model: torch.nn.Module, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Inside, steps of one token of `model` are replays of a graph; yields `options` and what `generate` needs besides.

    model: a causal language model, with PEFT's modules or without. Where nothing can be replayed (no GPU, an unusual
    way to decode, no `max_new_tokens`, layers of a kind that no `StaticLayer` serves) all is as it was.
    """
    plain = plain_model(model)
    options = dict(options)
    cache = static_cache(plain, options)
    if cache is None:
        yield options
        return
    before = plain.__dict__.get("forward")  # an instance's own, as accelerate sets it
    plain.forward = Steps(plain.forward, cache)
    try:
        yield options | {"past_key_values": cache, "disable_compile": True}
    finally:
        del plain.forward
        if before is not None:
            plain.forward = before


def static_cache(model: PreTrainedModel, options: Mapping[str, Any]) -> StaticCache | None:
    """A cache for the longest text that `generate` may write; None if these options or the model allow no replays."""
    config = options.get("generation_config") or model.generation_config
    value = lambda name: options.get(name, getattr(config, name, None))  # noqa: E731
    new = value("max_new_tokens")
    ids = options.get("input_ids")
    usual = not any(value(name) for name in UNUSUAL) and value("use_cache") is not False
    if not (has_graphs(model) and usual and new and new >= WORTH_IT and isinstance(ids, Tensor)):
        return None
    cache = StaticCache(config=unwindowed(model.config), max_cache_len=ids.shape[1] + new)
    return cache if all(type(layer) is StaticLayer for layer in cache.layers) else None


def unwindowed(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration for a cache that keeps every token in layers with sliding windows, too, each in its own place.

    The windows stand in the masks, which the model makes from its own configuration. A cache as long as the window
    would shift what it holds, and count in Python: a replay would do neither. Other kinds of layers stay as they are.
    """
    config = copy.copy(config.get_text_config(decoder=True))
    kinds = getattr(config, "layer_types", None)
    if kinds is None or set(kinds) <= {"full_attention", "sliding_attention"}:
        config.layer_types, config.sliding_window = ["full_attention"] * config.num_hidden_layers, None
    return config


def has_graphs(model: PreTrainedModel) -> bool:
    """Whether the whole model is on one CUDA device, in evaluation mode, with an attention that a mask of fixed shape
    tells all it needs, and rotary embeddings that do not look at how long the text is.
    """
    config, one = model.config, len(getattr(model, "hf_device_map", None) or {"": 0}) == 1
    rotary = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))
    usual = config._attn_implementation in ("sdpa", "eager") and not re.search("dynamic|longrope", rotary)
    return model.device.type == "cuda" and one and usual and not model.training


class Steps:
    """A model's forward whose steps of one token are replays: the first runs as ever, the second is recorded.

    Where that fails, as with a model that reads a tensor's values in Python, a warning says so and nothing is replayed.
    """

    def __init__(self, forward: Callable[..., Any], cache: StaticCache) -> None:
        update_wrapper(self, forward)  # `generate` reads its signature
        self.forward, self.cache = forward, cache
        self.kind: dict[str, Any] = {}
        self.replay: Callable[[], None] | None = None
        self.failed = False

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        ids = inputs.get("input_ids")
        if (
            args
            or ids is None
            or ids.shape[1] > 1
            or inputs.get("past_key_values") is not self.cache
            or self.failed
        ):
            return self.forward(*args, **inputs)
        kind = mapped(inputs, lambda v: (v.shape, v.dtype))
        if kind != self.kind:  # kernels are loaded and workspaces made, neither of which a recording allows
            self.kind, self.replay = kind, None
            return self.forward(**inputs)
        if self.replay is None:
            self.inputs = mapped(inputs, torch.clone)
            self.places = [(layer, layer.keys, layer.values) for layer in self.cache.layers]
            try:
                self.replay, self.output = record(lambda: self.forward(**self.inputs))
            except RuntimeError as error:
                self.failed = True
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(f"a decoding step can't be recorded, so each runs anew: {reason}", stacklevel=2)
                return self.forward(**inputs)
        for kept, value in zip(tensors_of(self.inputs), tensors_of(inputs), strict=True):
            kept.copy_(value)
        for layer, keys, values in self.places:
            if layer.keys is not keys:  # beam search has put its choice of rows into new tensors
                layer.keys = keys.copy_(layer.keys)
                layer.values = values.copy_(layer.values)
        self.replay()
        return self.output


def mapped(inputs: Mapping[str, Any], change: Callable[[Tensor], Any]) -> dict[str, Any]:
    """The inputs of a model's call with each tensor changed: also those of masks by kind of layer, which are a dict."""
    return {
        name: change(v) if isinstance(v, Tensor) else mapped(v, change) if type(v) is dict else v
        for name, v in inputs.items()
    }


def tensors_of(inputs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of `mapped`, in its order."""
    for value in inputs.values():
        if isinstance(value, Tensor):
            yield value
        elif type(value) is dict:
            yield from tensors_of(value)


def record(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """(what runs the kernels of `run` anew, its output, which each replay overwrites); `run` is recorded, not run."""
    graph = torch.cuda.CUDAGraph()
    here = torch.cuda.current_stream()
    # A failed recording leaves torch on the stream it recorded from. Other threads may use the GPU meanwhile.
    with torch.cuda.stream(here), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = run()
    return graph.replay, output
