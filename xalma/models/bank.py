"""The module bank: one base, any number of group modules, batches that mix languages (X-ALMA §3, plug-and-play).

The released weights load in three ways: a merged checkpoint a group, base and PEFT adapter, or all modules in one class
that takes one language per batch and rebuilds each weight as W + 2BA per step. The bank is a fourth; it reads any of
those layouts, and each row of a batch goes through its own language's module at every step of `forward` and `generate`.

The gate is hard and checked: a row names its language ("zh"), its direction ("en-zh") or its group (6), and nothing
else passes. `xalma.models.adapters` keeps peft's side, one module at a time, which the training stages use.

    bank = xalma.load_modules("runs/tiny/ladder/stage5_arpo")
    bank.translate(["Guten Tag", "Hello"], src=["de", "en"], tgt=["en", "zh"])
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.base_files import check_folder, has_tokenizer
from xalma.files import new_directory
from xalma.languages import PAPER_GROUPS, adapter_name, gated_group, group_of, other_side
from xalma.models.backbone import load_base, load_weights
from xalma.models.cuda_graphs import replayed
from xalma.models.generation import (
    check_segments,
    cut_in_batches,
    decode_batches,
    decoding_config,
    is_blank,
    prompt_rows,
)
from xalma.models.grouped_lora import (
    SHARED_INPUT,
    Gate,
    PackedHead,
    Router,
    SharedInput,
    can_pack,
    restore_rows,
    sort_rows,
)
from xalma.prompts import extract_translation, translation_prompt
from xalma.runtime import usable_device, usable_dtype

if TYPE_CHECKING:
    from xalma.models.layouts import Checkpoint

Source = str | Path | Mapping[int, str | Path]


def load_modules(
    source: Source,
    only: str | int | Sequence[str | int] | None = None,
    *,
    base: str | Path | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> ModuleBank:
    """A bank of the base and modules found at `source`: a folder, a hub id, or {group: folder or hub id}.

    source: an adapter folder, a stage's folder or the one above it, an all-modules checkpoint, or a name with "{g}" in
        it, once for each group: "haoranxu/X-ALMA-13B-Group{g}".
    only: a language, direction or group, or a list of them: just their modules are read.
    base: folder or hub id of the base, where the adapters do not name one that is there.
    dtype: a torch dtype's name, "bfloat16" on a GPU and "float32" elsewhere unless given; device: GPU if there is one.
    A base without a tokenizer beside it gives a bank for ids, which translates no text.
    On a CPU in float32 the base is packed, see `ModuleBank.pack`, where its weights fit in half of the free memory.
    Raises ValueError for a language or group that is not there, OSError for files that are not.
    """
    from xalma.models.layouts import ALL_MODULES, open_checkpoint

    device = usable_device(device)
    dtype = usable_dtype(dtype, device)
    names = [] if only is None else [only] if isinstance(only, str | int) else list(only)
    wanted = sorted({gated_group(name) for name in names})
    if "{g}" in str(source):
        source = {group: str(source).replace("{g}", str(group)) for group in wanted or PAPER_GROUPS}
    elif isinstance(source, Mapping) and wanted:
        source = {group: source[group] for group in wanted if group in source}
    checkpoint = open_checkpoint(source, base)
    check_folder(checkpoint.base)
    besides = checkpoint.module_names if checkpoint.layout == ALL_MODULES else ()
    if has_tokenizer(checkpoint.base):
        model, tokenizer = load_base(checkpoint.base, dtype, besides)
    else:  # ids are all that can be asked then
        model = load_weights(checkpoint.base, dtype, besides)
        tokenizer = None
    bank = ModuleBank(model.to(device), checkpoint.layers, tokenizer)
    bank.read(checkpoint, wanted or checkpoint.groups)
    if can_pack(next(bank.base.parameters())) and _fits_once_more(bank.base):
        bank.pack()
    return bank


def _fits_once_more(base: PreTrainedModel) -> bool:
    """Whether a second copy of the base's weights leaves half of the free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2 * sum(weight.nbytes for weight in base.parameters()) < free


class ModuleBank(nn.Module):
    """A frozen base and any number of group modules; each row of a batch goes through its own language's module.

    base: a LLaMA-like model, which stays as it is: outside `forward` and `generate` it is the plain base.
    layers: names of its linear layers that have modules, "model.layers.0.self_attn.q_proj", …
    Not for several threads at once: all layers share one gate.
    """

    def __init__(
        self, base: PreTrainedModel, layers: Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.router = Router()
        self._head: PackedHead | None = None  # see `pack`
        together: dict[str, dict[str, nn.Module]] = {}
        for name in layers:
            parent, _, projection = name.rpartition(".")
            key = f"{parent}.{SHARED_INPUT.get(projection, projection)}"
            together.setdefault(key, {})[name] = base.get_submodule(name)
        self.inputs = nn.ModuleList(SharedInput(linears, self.router) for linears in together.values())

    # -- which modules ------------------------------------------------------------------------------------------------

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups whose modules are loaded."""
        return self.inputs[0].groups

    def add(self, group: int, folder: str | Path) -> None:
        """Loads the module of a group from an adapter folder or hub id; the others stay as they are.

        A group above 8 serves the languages that `xalma.languages.add_language` put in it.
        Raises ValueError for an unknown group and as `read`, OSError for no adapter.
        """
        from xalma.models.layouts import open_checkpoint

        self.read(open_checkpoint({gated_group(group): folder}, self.base.name_or_path or None), [group])

    def read(self, checkpoint: Checkpoint, groups: Sequence[int]) -> None:
        """Loads the modules of `groups` from an open checkpoint, a tensor at a time.

        Raises ValueError for a group that is loaded, or not in the checkpoint, and for a module of another base's
        shape; the bank then is as it was.
        """
        if there := sorted(set(groups) & set(self.groups)):
            raise ValueError(
                f"the module of group {there[0]} is loaded already: bank.unload({there[0]}) first"
            )
        if missing := sorted(set(groups) - set(checkpoint.groups)):
            raise ValueError(
                f"there is no module of group {missing[0]}, only of {_listed(checkpoint.groups)}"
            )
        for shared in self.inputs:
            shared.add(dict.fromkeys(groups, checkpoint.rank), checkpoint.scale)
        try:
            for group in groups:
                self._fill(group, checkpoint)
        except BaseException:
            for group in groups:
                self.unload(group)
            raise

    def _fill(self, group: int, checkpoint: Checkpoint) -> None:
        slots = {}
        for shared in self.inputs:
            for name, (a, b) in zip(shared.names, shared.matrices(group), strict=True):
                slots |= {(name, "A"): a, (name, "B"): b}
        for name, letter, tensor in checkpoint.module_tensors(group):
            slot = slots.get((name, letter))
            if slot is None or slot.shape != tensor.shape:
                wanted = "no such layer" if slot is None else f"{tuple(slot.shape)}"
                raise ValueError(
                    f"the module of group {group} does not fit this base: {letter} of {name} is {tuple(tensor.shape)}, "
                    f"here it would be {wanted}; load it beside the base it was trained on"
                )
            slot.data.copy_(tensor)

    def unload(self, group: int) -> None:
        """Drops a group's module and gives its memory back. Raises ValueError if it is not loaded."""
        self._check([group])
        for shared in self.inputs:
            shared.drop(group)

    def trainable(self, groups: Sequence[int], dropout: float = 0.05) -> None:
        """Makes the modules of `groups`, and nothing else, trainable; dropout acts in training mode (X-ALMA: 0.05).

        A batch then trains each module on its own rows; a module without a row in it gets no gradient at all (None).
        """
        self._check(groups)
        for shared in self.inputs:
            shared.dropout = dropout
            for group in shared.groups:
                shared.modules_of[adapter_name(group)].requires_grad_(group in groups)

    def save(self, group: int, out: str | Path) -> Path:
        """Writes the group's module to the folder `out` in the layout of haoranxu/X-ALMA-13B-Group{g}; returns `out`.

        After training a mixed batch, one call per group. peft, `add` and `xalma convert` read it; a folder that exists
        is replaced once the new one is whole. Raises ValueError if the module is not loaded.
        """
        from xalma.models.convert import adapter_config, adapter_key

        self._check([group])
        tensors = {
            adapter_key(name, letter): matrix.detach().cpu().contiguous()
            for shared in self.inputs
            for name, pair in zip(shared.names, shared.matrices(group), strict=True)
            for letter, matrix in zip("AB", pair, strict=True)
        }
        rank, scale = self.inputs[0].matrices(group)[0][0].shape[0], self.inputs[0].scales[group]
        layers = [name for shared in self.inputs for name in shared.names]
        base = self.base.name_or_path
        base = os.path.relpath(base, out) if Path(base).is_dir() else base
        with new_directory(out, "out=…") as folder:
            save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
            stems = [name for name, _ in self.base.named_modules()]
            adapter_config(rank, scale, layers, base, stems).save_pretrained(folder)
        return Path(out)

    def pack(self) -> None:
        """Lays the base's weights out a second time, as oneDNN reads them fastest; for decoding on a CPU in float32.

        Costs the memory of the base's linear layers and head once more. On AMD CPUs MKL is slow at few rows, and this
        is faster. Outputs differ in rounding only.
        Raises ValueError on another device or dtype: there torch has nothing faster.
        """
        weight = self.inputs[0].linears[0].weight
        if not can_pack(weight):
            raise ValueError(
                f"packing is for float32 on a CPU with oneDNN; this base is {weight.dtype}, {weight.device}"
            )
        for shared in self.inputs:
            shared.pack()
        self._head = PackedHead(self.base.get_output_embeddings())

    def merge(self, group: int) -> PreTrainedModel:
        """A plain copy of the base with the group's module folded in, W + scale · BA; the bank stays as it is."""
        self._check([group])
        attached = [*self.inputs, *([self._head] if self._head else [])]
        for part in attached:
            part.detach()  # a copy would take what stands in for the layers along
        try:
            plain = copy.deepcopy(self.base)
        finally:
            for part in attached:
                part.attach()
        for shared in self.inputs:
            for name, (a, b) in zip(shared.names, shared.matrices(group), strict=True):
                weight = plain.get_submodule(name).weight
                delta = b.detach().float() @ a.detach().float() * shared.scales[group]
                weight.data = (weight.data.float() + delta).to(weight.dtype)  # rounded once
        return plain.eval()

    # -- what transformers does, with a language per row ---------------------------------------------------------------

    def forward(
        self, input_ids: Tensor | None = None, *, languages: Sequence[str | int], **inputs: Any
    ) -> Any:
        """What the base gives for these inputs (logits (B, T, V), …), each row through its own module.

        languages: for each row its language, direction or group. `inputs` as for the base, with labels its mean loss.
        A cache that comes back holds rows sorted by group; the next call with the same languages sorts them alike.
        While gradients are recorded the gate stays set until the next call: checkpointing runs layers again later.
        Raises ValueError as `gated_group`, and for a module that is not loaded.
        """
        with self._sorted(languages, inputs | {"input_ids": input_ids}) as (inputs, back):
            found = self.base(**inputs)
        return restore_rows(found, back)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, *, languages: Sequence[str | int], **options: Any) -> Any:
        """What the base's own `generate` gives for these prompts and options, each row through its own module.

        languages: for each prompt its language, direction or group; beams and return sequences follow their prompt.
        On a GPU its steps are replays of a CUDA graph, see `xalma.models.cuda_graphs`.
        Rows that a logits processor or streamer of the caller sees are sorted by group.
        """
        options |= {"input_ids": input_ids}
        with self._sorted(languages, options) as (options, back), replayed(self.base, options) as options:
            found = self.base.generate(**options)
        return restore_rows(found, back)

    @contextmanager
    def _sorted(
        self, languages: Sequence[str | int], inputs: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], Tensor | None]]:
        """What `sort_rows` gives for rows of these languages, with the gate set for them meanwhile."""
        groups = [gated_group(name) for name in languages]
        self._check(groups)
        inputs, back = sort_rows(inputs, groups)
        self.router.gate = Gate.of(sorted(groups))
        try:
            yield inputs, back
        finally:
            if not torch.is_grad_enabled():
                self.router.gate = None

    # -- text in, text out --------------------------------------------------------------------------------------------

    def translate(
        self,
        texts: Sequence[str],
        src: str | Sequence[str],
        tgt: str | Sequence[str],
        *,
        prompt_style: str = "xalma",
        beams: int = 1,
        max_new_tokens: int = 256,
        batch_size: int = 32,
        counts: Counter[str] | None = None,
    ) -> list[str]:
        """Translations of `texts`, in order; `src` and `tgt` are codes for all texts or one for each.

        Batches mix directions, and groups where one has too few texts to fill them: each module in a batch is read at
        each token. They hold prompts of like length: a group from long to short, the next from short to long.
        A blank text is "", of which the model is not asked. counts: as in `xalma.models.generation.generate`.
        Raises ValueError for an unknown language, a direction without English, or a module that is not loaded.
        """
        rows = self._requests(texts := check_segments(texts), src, tgt, prompt_style)
        tokenizer = self._tokenizer()
        ids = prompt_rows(tokenizer, [prompt for prompt, _ in rows])
        signs = {group: (-1) ** (n + 1) for n, group in enumerate(sorted({group for _, group in rows}))}
        asked = [i for i, text in enumerate(texts) if not is_blank(text)]
        order = sorted(asked, key=lambda i: (rows[i][1], signs[rows[i][1]] * len(ids[i])))
        config = decoding_config(tokenizer, beams, max_new_tokens)

        def continued(batch: dict[str, Tensor], index: list[int]) -> Tensor:
            return self.generate(**batch, languages=[rows[i][1] for i in index], generation_config=config)

        outputs = decode_batches(
            continued,
            tokenizer,
            ids,
            cut_in_batches(order, batch_size),
            config,
            self.base.device,
            counts=counts,
        )
        return [extract_translation(text) for text in outputs]

    def _requests(
        self, texts: Sequence[str], src: str | Sequence[str], tgt: str | Sequence[str], style: str
    ) -> list[tuple[str, int]]:
        """(prompt, group) of each text, all of them checked before any is translated."""
        sides = [[code] * len(texts) if isinstance(code, str) else list(code) for code in (src, tgt)]
        if {len(side) for side in sides} != {len(texts)}:
            raise ValueError(
                f"{len(texts)} texts, {len(sides[0])} sources, {len(sides[1])} targets: give one for each"
            )
        groups = [group_of(other_side(*pair)) for pair in zip(*sides, strict=True)]
        self._check(groups)
        prompts = [translation_prompt(text, *pair, style) for text, *pair in zip(texts, *sides, strict=True)]
        return list(zip(prompts, groups, strict=True))

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ValueError(
                f"this bank has no tokenizer, as {self.base.name_or_path or 'its base'} holds none: copy the base's "
                f"tokenizer files there, or set bank.tokenizer"
            )
        return self.tokenizer

    def _check(self, groups: Sequence[int]) -> None:
        if missing := sorted(set(groups) - set(self.groups)):
            raise ValueError(
                f"the module of group {missing[0]} is not loaded (loaded: {_listed(self.groups)}): "
                f"bank.add({missing[0]}, folder) loads it"
            )


def _listed(groups: Sequence[int]) -> str:
    return ", ".join(map(str, groups)) or "none"
