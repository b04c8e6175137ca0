"""X-ALMA's three ways (X-ALMA §3, its README): one answer, three forms of the same weights.

1  one merged model per group: least work per token, one 26 GB checkpoint for each group touched
2  one base and a module per group beside it: 26 GB once and 4 GB a group
3  one checkpoint with all modules: as way 2, from a single repository

The released class of way 3 adds 2·B·A to each weight again at every step and needs remote code; ways 2 and 3 are read
into `xalma.models.bank` here, which is the same function. A group is loaded when a direction first needs it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.base_files import check_folder
from xalma.languages import gated_group
from xalma.models.backbone import check_vocabulary
from xalma.models.bank import ModuleBank, Source, load_modules
from xalma.models.layouts import open_checkpoint
from xalma.systems.causal import Causal
from xalma.systems.decoding import open_model, open_tokenizer
from xalma.systems.table import System
from xalma.systems.templates import TEMPLATES

Loaded = tuple["PreTrainedModel | OneGroup", PreTrainedTokenizerBase]


class Grouped(Causal):
    """X-ALMA: the non-English side of a direction picks the group, `way` gives its model."""

    def __init__(self, row: System, way: Merged | Banked) -> None:
        self.row, self.way, self.shots, self.template = row, way, None, TEMPLATES[row.template]
        self.counts = Counter()

    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`. Raises ValueError for a direction without English."""
        self.row.check(src, tgt)
        self.model, self.tokenizer = self.way.select(gated_group(f"{src}-{tgt}"))
        return super().translate(texts, src, tgt, progress=progress)


class Merged:
    """Way 1: the merged model of one group at a time; another group's takes its place."""

    def __init__(self, path: str, device: str | None, dtype: str | None) -> None:
        if "{group}" not in path:
            raise ValueError(
                f"{path!r} names one group's model: write its number as {{group}}, as in X-ALMA-Group{{group}}"
            )
        self.path, self.device, self.dtype = path, device, dtype
        self.group, self.loaded = 0, None

    def select(self, group: int) -> Loaded:
        """(model, tokenizer) of a group."""
        if group != self.group or self.loaded is None:
            self.loaded = None  # the old one must go before the new one comes
            with without_adapter(self.path.replace("{group}", str(group))) as folder:
                model = open_model(folder, device=self.device, dtype=self.dtype, checked=True)
                tokenizer = open_tokenizer(folder, checked=True)
            check_vocabulary(model, tokenizer)
            self.group, self.loaded = group, (model, tokenizer)
        return self.loaded


class Banked:
    """Ways 2 and 3: a module bank on one base; a group's module is read when a direction first needs it."""

    def __init__(
        self, source: Callable[[int], Source], base: str | None, device: str | None, dtype: str | None
    ) -> None:
        if device == "auto":
            raise ValueError(
                "base and modules lie on one device: name it, as cuda:0, or take xalma-merged for several"
            )
        self.source, self.base, self.device, self.dtype = source, base, device, dtype
        self.bank: ModuleBank | None = None

    def select(self, group: int) -> Loaded:
        """(the bank, decoding for a group as a plain model would; tokenizer). Raises ValueError for no such module."""
        if self.bank is None:
            self.bank = load_modules(
                self.source(group), group, base=self.base, dtype=self.dtype, device=self.device
            )
        elif group not in self.bank.groups:
            self.bank.read(open_checkpoint(self.source(group), self.base), [group])
        return OneGroup(self.bank, group), self.bank.tokenizer


class OneGroup:
    """A bank with the gate set for one group: what `decode` asks of a model."""

    def __init__(self, bank: ModuleBank, group: int) -> None:
        self.bank, self.group = bank, group

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bank.base, name)  # config, generation_config, device

    def __call__(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        return self.bank(input_ids, languages=[self.group] * len(input_ids), **inputs)

    def generate(self, input_ids: torch.Tensor, **options: Any) -> Any:
        return self.bank.generate(input_ids, languages=[self.group] * len(input_ids), **options)


def adapters(base: str, adapter: str, device: str | None, dtype: str | None) -> Banked:
    """Way 2: the base once, and the groups' adapters beside each other."""
    if "{group}" not in adapter:
        raise ValueError(f"{adapter!r} names one module: write its number as {{group}}, as in group{{group}}")
    return Banked(lambda group: {group: adapter.replace("{group}", str(group))}, base, device, dtype)


def all_modules(path: str, device: str | None, dtype: str | None) -> Banked:
    """Way 3: the single checkpoint."""
    if open_checkpoint(path).layout != "all-modules":
        raise ValueError(f"{path} holds no modules beside its base: use xalma-modules or xalma-merged for it")
    return Banked(lambda group: path, None, device, dtype)


@contextmanager
def without_adapter(path: str) -> Iterator[str]:
    """A view of a folder or hub repository without its adapter files.

    X-ALMA's group repositories hold the merged model and the adapter side by side, and transformers, where it sees an
    adapter, loads that one's base instead of the model asked for.
    """
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(path, ignore_patterns=["adapter_*"]))
    check_folder(folder)
    with tempfile.TemporaryDirectory() as view:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(view) / file.name).symlink_to(file.resolve())
        yield view


def open_grouped(
    row: System, path: str, adapter: str | None, device: str | None, dtype: str | None
) -> Grouped:
    """X-ALMA the way its row says. Raises OSError or ValueError for weights that are not there or of another form."""
    ways = {
        "xalma-merged": lambda: Merged(path, device, dtype),
        "xalma-modules": lambda: adapters(path, adapter or row.adapter, device, dtype),
        "xalma-all": lambda: all_modules(path, device, dtype),
    }
    return Grouped(row, ways[row.name]())
