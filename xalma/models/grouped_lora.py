"""LoRA for a batch whose rows use different modules: every row through its own module, exactly, in one forward.

X-ALMA §3 gates by language. The released loader takes one language per batch and rebuilds W + 2BA of every layer at
every step; here a row adds scale · (x Aᵀ) Bᵀ of its own module to the plain layer's output, so that nothing is rebuilt
and the base is never written to.

Rows come sorted by group (`xalma.models.bank` sorts once per call): each module sees one slice. Layers that read one
tensor (q, k and v; gate and up) keep their A matrices under each other, so that one product serves them all.
Letters: G loaded groups, P projections that share an input, r rank (the largest among the groups), N tokens, D input
and O output width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from xalma.languages import adapter_name

# of one module: up to here a CPU is faster with weights on the left; measured, as `products` says
FEW_TOKENS = 4
PIECES = 8
PADDED_TOKENS = 256  # of one module: up to here a GPU's product is reading weights, and padding costs nothing

# Which projections read one tensor, by the last part of their name; any other reads its own.
SHARED_INPUT = {
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "gate_proj": "gate_up",
    "up_proj": "gate_up",
}


@dataclass(frozen=True)
class GroupRun:
    """g neighbouring modules of one scale and their rows, n tokens each: one batched product serves them.

    Where they have unequal numbers of tokens: take (g n,), which of the run's tokens stands where, any of them in
    places that no token has; put, (tokens,), the place of each.
    """

    slots: slice  # of the loaded groups, in order
    tokens: slice  # of the batch's
    scale: float
    take: Tensor | None = None
    put: Tensor | None = None

    def rows(self, flat: Tensor) -> Tensor:
        """The run's part of (N, D) as (g, n, D); a view where all groups have as many tokens."""
        part = flat[self.tokens]
        if self.take is not None:
            part = part.index_select(0, self.take)
        return part.view(self.slots.stop - self.slots.start, -1, flat.shape[-1])


@dataclass
class Gate:
    """Which module each row of a batch goes through: first `counts[0]` rows of `groups[0]`, and so on, ascending."""

    groups: tuple[int, ...]
    counts: tuple[int, ...]
    made: dict[Any, list[GroupRun]] = field(default_factory=dict)  # for a shape, once and not once a layer

    @classmethod
    def of(cls, sorted_groups: Sequence[int]) -> Gate:
        """The gate of a batch from its rows' groups, which must be sorted."""
        groups = tuple(dict.fromkeys(sorted_groups))
        return cls(groups, tuple(sorted_groups.count(group) for group in groups))

    def tokens(self, x: Tensor) -> int:
        """Tokens a row of the gate has in x (rows, T, D), whose rows are the gate's or each of them k times over, as
        beams and return sequences come. Raises ValueError for other numbers of rows.
        """
        rows = sum(self.counts)
        if x.shape[0] % rows:
            raise ValueError(
                f"a layer got {x.shape[0]} rows for {rows} languages: give one language for each row"
            )
        return x.shape[:-1].numel() // rows

    def runs(
        self, scales: Mapping[int, float], each: int = 1, device: torch.device | None = None
    ) -> list[GroupRun]:
        """The batch as few batched products; scales: of all loaded groups, in order; each: tokens of a row.

        Groups of unequal numbers of rows share a product, padded, on a CUDA `device` where they are short.
        """
        loaded = list(scales)
        together = []
        end = 0
        for group, count in zip(self.groups, self.counts, strict=True):
            slot = loaded.index(group)
            n = count * each
            last = together[-1] if together else []
            next_to = bool(last) and last[-1][0] + 1 == slot and scales[loaded[slot - 1]] == scales[group]
            pads = device is not None and max([n, *(size for _, size in last)]) <= PADDED_TOKENS
            if next_to and (pads or last[-1][1] == n):
                last.append((slot, n))
            else:
                together.append([(slot, n)])
        runs = []
        for members in together:
            slots = slice(members[0][0], members[-1][0] + 1)
            sizes = [n for _, n in members]
            start, end = end, end + sum(sizes)
            padding = {} if len(set(sizes)) == 1 else _padding(sizes, device)
            runs.append(GroupRun(slots, slice(start, end), scales[loaded[slots.start]], **padding))
        return runs


def _padding(sizes: Sequence[int], device: torch.device | None) -> dict[str, Tensor]:
    """`take` and `put` of a run whose groups have these numbers of tokens."""
    n = max(sizes)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    take = [start + min(t, size - 1) for start, size in zip(starts, sizes, strict=True) for t in range(n)]
    put = [k * n + t for k, size in enumerate(sizes) for t in range(size)]
    return {"take": torch.tensor(take, device=device), "put": torch.tensor(put, device=device)}


class Router:
    """The gate that is set now; None lets the plain base through. All layers of a bank look at one router."""

    gate: Gate | None = None


@dataclass
class Now:
    """The tensor that the layers are reading, and what each of them gives for it."""

    x: Tensor | None = None
    y: Sequence[Tensor] = ()


class SharedInput(nn.Module):
    """The LoRA matrices, of every loaded group, of the P linear layers that read one tensor, which it stands in for.

    All groups' matrices lie in one tensor, A: (G, P, r, D) and B: P times (G, O, r), and each module's parameters are
    slices of it: a product takes as many as it needs at once, an optimiser or a file takes the slices.
    """

    def __init__(self, linears: Mapping[str, nn.Module], router: Router) -> None:
        super().__init__()
        self.names = tuple(linears)
        self.router = router
        self.linears = tuple(linears.values())  # in a tuple, so that the base is no part of this module
        self.modules_of = nn.ModuleDict()  # "group6" -> its parameters A0, B0, A1, …
        self.scales: dict[int, float] = {}
        self.dropout = 0.0
        self.packed: Packed | None = None  # see `pack`
        self.now = Now()
        self.attach()

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(self.scales)

    def matrices(self, group: int) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """(A, B) of each projection of the group, A: (r, D), B: (O, r), r the group's own."""
        module = self.modules_of[adapter_name(group)]
        return [(module[f"A{i}"], module[f"B{i}"]) for i in range(len(self.names))]

    # -- storage ------------------------------------------------------------------------------------------------------

    def add(self, ranks: Mapping[int, int], scale: float) -> None:
        """Room, filled with zeros, for modules of these ranks, which no loaded group has yet."""
        self.scales = dict(sorted((self.scales | dict.fromkeys(ranks, scale)).items()))  # as rows are sorted
        self._lay(self._ranks() | ranks)

    def drop(self, group: int) -> None:
        """Forgets a group's matrices and gives their memory back."""
        del self.scales[group], self.modules_of[adapter_name(group)]
        self._lay(self._ranks())

    def _ranks(self) -> dict[int, int]:
        return {int(name[len("group") :]): module["A0"].shape[0] for name, module in self.modules_of.items()}

    def _lay(self, ranks: Mapping[int, int]) -> None:
        """Lays all groups' matrices side by side; one of smaller rank than the largest gets zeros, which add nothing.

        Parameters stay the objects they are, as an optimiser may hold them; only what they look at moves.
        """
        self.views: dict[tuple[int, int], tuple[Tensor, list[Tensor]]] = {}
        rank = max(ranks.values(), default=0)
        old = next(self.parameters(), self.linears[0].weight)
        widths = [(linear.in_features, linear.out_features) for linear in self.linears]
        options = {"dtype": old.dtype, "device": old.device}
        self.a = torch.zeros(len(ranks), len(widths), rank, widths[0][0], **options)
        self.b = [torch.zeros(len(ranks), out, rank, **options) for _, out in widths]
        for slot, (group, own) in enumerate(sorted(ranks.items())):
            views = {f"A{i}": self.a[slot, i, :own] for i in range(len(widths))}
            views |= {f"B{i}": self.b[i][slot, :, :own] for i in range(len(widths))}
            if adapter_name(group) not in self.modules_of:
                fresh = {key: nn.Parameter(view, requires_grad=False) for key, view in views.items()}
                self.modules_of[adapter_name(group)] = nn.ParameterDict(fresh)
                continue
            for key, parameter in self.modules_of[adapter_name(group)].items():
                views[key].copy_(parameter.detach())
                parameter.data = views[key]

    def _apply(self, move: Any, recurse: bool = True) -> SharedInput:
        """What .to() and the like call: torch moves parameters one by one, so that they must be laid together again."""
        super()._apply(move, recurse)
        if self.scales and self.matrices(self.groups[0])[0][0].data_ptr() != self.a.data_ptr():
            self._lay(self._ranks())
        return self

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Takes the place of the layers' forward: with a gate set they give base output + LoRA, else just the first."""
        # an own one, as accelerate sets it
        self.before = [vars(linear).get("forward") for linear in self.linears]
        self.plain = [linear.forward for linear in self.linears]
        for i, linear in enumerate(self.linears):
            linear.forward = partial(self._forward, i)

    def detach(self) -> None:
        """Leaves the layers as they were."""
        for linear, before in zip(self.linears, self.before, strict=True):
            del linear.forward
            if before is not None:
                linear.forward = before

    def pack(self) -> None:
        """Lays the linear layers' weights out a second time as oneDNN reads them fastest; see `ModuleBank.pack`."""
        self.packed = Packed(self.linears)

    def _forward(self, i: int, x: Tensor) -> Tensor:
        """What layer i gives for x. Without autograd, the first of the layers that read x computes for all of them."""
        if torch.is_grad_enabled():
            y = self.plain[i](x)
            return y if self.router.gate is None else self._recorded(i, x, y)
        if x is not self.now.x:
            packed = self.packed is not None and self.packed.fits(x)
            y = self.packed(x) if packed else [plain(x) for plain in self.plain]
            if self.router.gate is not None:
                self._add(x, y)
            self.now = Now(x, y)
        y = self.now.y[i]
        if i == len(self.names) - 1:
            self.now = Now()
        return y

    def _recorded(self, i: int, x: Tensor, y: Tensor) -> Tensor:
        """y (B, T, O) + the rows' LoRA of projection i, for autograd: a module's gradient comes from its rows only."""
        gate, parts = self.router.gate, []
        sizes = [count * gate.tokens(x) for count in gate.counts]
        for group, part in zip(gate.groups, x.flatten(0, -2).split(sizes), strict=True):
            a, b = self.matrices(group)[i]
            part = F.dropout(part, self.dropout, self.training)
            parts.append(F.linear(F.linear(part, a), b) * self.scales[group])
        return y + torch.cat(parts).view_as(y)

    def _add(self, x: Tensor, outputs: Sequence[Tensor]) -> None:
        """Adds the rows' LoRA to each projection's output y (B, T, O), in place."""
        gate, rank = self.router.gate, self.a.shape[2]
        key = (x.shape[:-1], *self.scales.items(), x.device)
        if key not in gate.made:
            gate.made[key] = gate.runs(self.scales, gate.tokens(x), x.device if x.is_cuda else None)
        flat = x.flatten(0, -2)
        outputs = [y.flatten(0, -2) for y in outputs]
        for run in gate.made[key]:
            a, b = self._views(run)
            down = products(run.rows(flat), a).split(rank, -1)  # x Aᵀ of all projections, (g, n, r) each
            for y, h, up in zip(outputs, down, b, strict=True):
                _add_products(y, run, h, up)

    def _views(self, run: GroupRun) -> tuple[Tensor, list[Tensor]]:
        """A of the run's modules, (g, P r, D), and B of each projection, (g, O, r)."""
        key = (run.slots.start, run.slots.stop)
        if key not in self.views:
            self.views[key] = (self.a[run.slots].flatten(1, 2), [b[run.slots] for b in self.b])
        return self.views[key]


def _add_products(flat: Tensor, run: GroupRun, h: Tensor, b: Tensor) -> None:
    """Adds scale · h bᵀ, h (g, n, r) and b (g, O, r), to the run's tokens in flat (N, O)."""
    if run.put is not None:
        found = torch.bmm(h, b.transpose(1, 2)).flatten(0, 1).index_select(0, run.put)
        flat[run.tokens].add_(found, alpha=run.scale)
    elif h.is_cuda or h.shape[1] > FEW_TOKENS:
        run.rows(flat).baddbmm_(h, b.transpose(1, 2), alpha=run.scale)
    else:
        run.rows(flat).add_(products(h, b), alpha=run.scale)


def products(x: Tensor, w: Tensor) -> Tensor:
    """x wᵀ for each of g matrices: x (g, n, in), w (g, out, in) -> (g, n, out), as one batched product.

    With few rows this is reading w. A GPU's library does that nearly at memory speed. On a CPU how it is asked for
    decides: MKL reads nearly at memory speed with the weights on the left, more slowly with them on the right, slowest
    in a loop over matrices; and it shares work between cores by matrices of the batch, so that a single one is cut
    into pieces.
    """
    if x.is_cuda:
        return torch.bmm(x, w.transpose(1, 2))
    g, n = x.shape[:2]
    pieces = PIECES if g == 1 and n <= 2 * PIECES and w.shape[1] % PIECES == 0 else 1
    if pieces > 1:
        w = w.view(pieces, -1, w.shape[2])
        x = x.expand(pieces, -1, -1)
    if n <= FEW_TOKENS:
        # Rows of whole width again: MKL is slow at a next product whose rows have stride 1.
        return torch.bmm(w, x.transpose(1, 2)).view(g, -1, n).transpose(1, 2).reshape(g, n, -1).contiguous()
    found = torch.bmm(x, w.transpose(1, 2))
    return found if pieces == 1 else found.transpose(0, 1).reshape(g, n, -1)


def can_pack(weight: Tensor) -> bool:
    """Whether torch has oneDNN's packed product for this weight: float32 on a CPU. The two calls are inductor's own."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return there and weight.dtype is torch.float32 and weight.device.type == "cpu"


class Packed:
    """The weights of linear layers that read one tensor, under each other and laid out as oneDNN reads them fastest:
    one product serves them all.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.linears = tuple(linears)
        self.sizes = [linear.out_features for linear in linears]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(
            torch.cat([linear.weight.data for linear in linears])
        )
        biases = [
            linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.data
            for linear in linears
        ]
        self.bias = None if all(linear.bias is None for linear in linears) else torch.cat(biases)

    def fits(self, x: Tensor) -> bool:
        """Whether x can be multiplied so: it records no gradient, and the layers are still on a CPU in float32."""
        weight = self.linears[0].weight
        return x.dtype is weight.dtype is torch.float32 and weight.is_cpu and not x.requires_grad

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each layer gives for x."""
        product = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product.split(self.sizes, -1)


class PackedHead:
    """The output layer of a model with its weight packed."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        self.packed = Packed([linear])
        self.attach()

    def attach(self) -> None:
        self.linear.forward = self._forward

    def detach(self) -> None:
        del self.linear.forward  # the class's own is seen again

    def _forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and self.packed.fits(x):
            return self.packed(x)[0]
        return F.linear(x, self.linear.weight, self.linear.bias)


# (B, …) of a model's call
ROW_INPUTS = "input_ids", "attention_mask", "position_ids", "inputs_embeds", "labels"


def sort_rows(inputs: Mapping[str, Any], groups: Sequence[int]) -> tuple[dict[str, Any], Tensor | None]:
    """The inputs with rows sorted by group, and each row's place among them, (B,); None if they were sorted.

    Raises ValueError where there is not one group for each row.
    """
    inputs = {name: value for name, value in inputs.items() if value is not None}
    names = [name for name in ROW_INPUTS if name in inputs]
    for name in names:
        if len(inputs[name]) != len(groups):
            raise ValueError(
                f"{len(groups)} languages for {len(inputs[name])} rows of {name}: give one for each"
            )
    order = sorted(range(len(groups)), key=groups.__getitem__)
    if order == list(range(len(groups))):
        return inputs, None
    return inputs | {name: inputs[name][order] for name in names}, torch.tensor(order).argsort()


def restore_rows(found: Any, back: Tensor | None) -> Any:
    """A model's or generate's output in the caller's order, given what `sort_rows` gave.

    Rows may have become k each, as beams and return sequences are. A cache, and what has no rows, stays as it is.
    """
    if isinstance(found, ModelOutput) and back is not None:
        for name in found:
            found[name] = restore_rows(found[name], back)
        if found.get("beam_indices") is not None:  # its values name rows of the scores
            rows = len((found.get("scores") or found["logits"])[0])
            named = found["beam_indices"]
            original = _repeated(back, rows).argsort().to(named.device)
            found["beam_indices"] = torch.where(named < 0, named, original[named.clamp(min=0)])
    elif isinstance(found, tuple):
        return tuple(restore_rows(part, back) for part in found)
    elif isinstance(found, Tensor) and back is not None and found.dim() and len(found) % len(back) == 0:
        return found[_repeated(back, len(found)).to(found.device)]
    return found


def _repeated(back: Tensor, rows: int) -> Tensor:
    """`back` for `rows` rows, each of its own k times over."""
    k = rows // len(back)
    return (back[:, None] * k + torch.arange(k)).flatten()
