"""SWIE (arXiv 2308.12674): a LLaMA-1 or BLOOMZ that is reminded of its instruction inside some layers.

At the input of each selected layer l the same vector is added to every token t after the instruction, with a weight
that grows or swells along the segment the token stands in (segments begin at "###"):

    x_t <- x_t + alpha · f_t · max_s MLP_l(h_s^l)        h^l: states of the instruction read alone, s: its tokens
    f_t = 0 before the second "###";  else i/L ("seg_tri") or sin(pi·i/L) ("seg_sin"), i the place in the segment,
          L the length of the second segment, 64 while that is still the last one

Written from the released code (pppa2019/swie_overmiss_llm4mt src/trainable_multiL_ins_*.py @ 97de055) as hooks on the
library's models; names of weights are as there. One departure: tokens being written get their vector too, as in
training; the released LLaMA code with a cache can't (its weights come out empty). No weights were released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import BloomForCausalLM, LlamaForCausalLM

from xalma.systems.causal import Causal
from xalma.systems.decoding import open_model, open_tokenizer
from xalma.systems.table import System

CONFIG = ("selected_layer", "ins_hidden_size", "cat_post_ins", "seg_id")
OPEN_SEGMENT = 64  # L while the input segment is still being read


def segment_weights(ids: torch.Tensor, seg_id: int, shape: str) -> torch.Tensor:
    """f (B, T) for token ids (B, T); padding stands before the first "###" and gets 0."""
    segments = (ids == seg_id).cumsum(-1)
    weights = torch.zeros(ids.shape, device=ids.device)
    for row, segment in enumerate(segments.tolist()):
        length = segment.count(2) if segment[-1] > 2 else OPEN_SEGMENT
        place = 0
        for t, number in enumerate(segment):
            place = place + 1 if t and number == segment[t - 1] else 0
            if number >= 2:
                weights[row, t] = place / length if shape == "seg_tri" else math.sin(math.pi * place / length)
    return weights


class _Swie:
    """What SWIE adds to a LLaMA or BLOOM: the adapters' weights, the hooks, and the vectors of an instruction."""

    def _add_adapters(self, inner: torch.nn.Module, layers: Sequence[torch.nn.Module]) -> None:
        config, missing = self.config, [name for name in CONFIG if not hasattr(self.config, name)]
        if missing:
            raise ValueError(f"this is no SWIE model: its configuration has no {', '.join(missing)}")
        if getattr(config, "ins_fuse_method", "add") == "fuse" or config.cat_post_ins not in (
            "seg_tri",
            "seg_sin",
        ):
            raise ValueError(
                f"SWIE with cat_post_ins={config.cat_post_ins!r} or ins_fuse_method 'fuse' is not implemented"
            )
        width, narrow = config.hidden_size, config.ins_hidden_size
        inner.ins_transforms = torch.nn.ModuleDict(
            {
                str(i): torch.nn.Sequential(
                    torch.nn.Linear(width, narrow), torch.nn.Tanh(), torch.nn.Linear(narrow, width)
                )
                for i in sorted(int(i) for i in config.selected_layer)
            }
        )
        self._vectors, self._weights = {}, None
        for i in inner.ins_transforms:
            layers[int(i)].register_forward_pre_hook(self._hook(i), with_kwargs=True)

    def _hook(self, layer: str) -> Any:
        def add(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            if layer not in self._vectors or self._weights is None:
                return None
            states = args[0] if args else kwargs["hidden_states"]
            weights = self._weights[:, -states.shape[1] :, None].to(states)
            states = states + self._alpha * weights * self._vectors[layer].to(states)
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        return add

    @property
    def _alpha(self) -> float:
        return float(getattr(self.config, "custom_alpha", None) or 10.0)

    @torch.inference_mode()
    def read_instruction(self, ids: torch.Tensor) -> None:
        """Keeps the vectors (1, 1, width) of an instruction, ids (1, S), for what is generated from here on."""
        self._vectors, self._weights = {}, None
        states = self(input_ids=ids, output_hidden_states=True).hidden_states
        pool = {"max": lambda x: x.amax(1, keepdim=True), "mean": lambda x: x.mean(1, keepdim=True)}
        pooled = pool[getattr(self.config, "ins_pool_method", "mean")]
        self._vectors = {i: pooled(mlp(states[int(i)])) for i, mlp in self.base_model.ins_transforms.items()}

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """The library's, after the weights of all tokens so far are set; beams are in their new order by then."""
        self._weights = segment_weights(input_ids, self.config.seg_id, self.config.cat_post_ins)
        return super().prepare_inputs_for_generation(input_ids, *args, **kwargs)


class SwieLlama(_Swie, LlamaForCausalLM):
    """InsEmbLlamaForCausalLM of the released code."""

    # made, but unused where ins_fuse_method is add
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"ins_fuses\."]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_adapters(self.model, self.model.layers)
        self.post_init()


class SwieBloom(_Swie, BloomForCausalLM):
    """InsEmbBloomForCausalLM of the released code."""

    # made, but unused where ins_fuse_method is add
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"ins_fuses\."]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_adapters(self.transformer, self.transformer.h)
        self.post_init()


class Swie(Causal):
    """A SWIE model behind its prompt; the instruction is the prompt up to "### Input:"."""

    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`."""
        self.row.check(src, tgt)
        instruction = self.template.prompt("", src, tgt).split("### Input:")[0]
        ids = torch.tensor(self.tokens([instruction]), device=self.model.device)
        self.model.read_instruction(ids)
        return super().translate(texts, src, tgt, progress=progress)


def open_swie(row: System, path: str, device: str | None, dtype: str | None) -> Swie:
    """The system with its model loaded. Raises ValueError for a configuration that is not SWIE's."""
    kind = SwieLlama if "llama" in row.name else SwieBloom
    model = open_model(path, device=device, dtype=dtype, kind=kind)
    return Swie(row, model, open_tokenizer(path, row.tokenizer))
