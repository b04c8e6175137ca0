"""Products of a frozen base in FP8: a byte per weight and, on a GPU that has them, twice the speed of bfloat16.

Format e4m3 (Micikevicius et al. 2022, arXiv 2209.05433). A frozen matrix is rounded once, with a scale per output;
activations and gradients at each product, with a scale per token. Adapters, norms, embeddings and the head stay as
they are. Without such a GPU the same rounded numbers are multiplied in float32: FP8's losses, at no gain of speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max  # 448
SIDE = 16  # a GPU multiplies matrices whose sides are multiples of this; other layers are left as they are


def has_products(device: torch.device) -> bool:
    """Whether torch multiplies FP8 with a scale per row there: NVIDIA's Ada and Hopper, and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(x in e4m3, (N, 1) float32 scale per row) of x (N, D): their product is x, each number within 1/16 of it
    or, near zero, within 1/458,752 (2^-10/448) of the row's largest."""
    scale = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x / scale).to(FP8), scale


def product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, fast: bool = True) -> torch.Tensor:
    """(…, K) of x (…, D) and e4m3 numbers (K, D), times the scale (K, 1) of their rows; in x's dtype.

    fast: a GPU sums in fewer bits than float32 has, as is usual in a forward pass and not in a backward one.
    """
    rows, x_scale = rounded(x.reshape(-1, x.shape[-1]).contiguous())
    if has_products(x.device):
        found = torch._scaled_mm(
            rows,
            weight.contiguous().t(),
            scale_a=x_scale,
            scale_b=scale.t(),
            out_dtype=torch.bfloat16,
            use_fast_accum=fast,
        )
    else:
        with torch.autocast(x.device.type, enabled=False):
            found = rows.float() @ weight.float().t() * x_scale * scale.t()
    return found.to(x.dtype).view(*x.shape[:-1], -1)


class _Product(torch.autograd.Function):
    """`product`, with the gradient of x as a product in FP8 too; the weight has none."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        return product(x, weight, scale)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        # the scales of the outputs, summed over here, go to the gradient
        ones = scale.new_ones(weight.shape[1], 1)
        return product(gradient * scale.view(-1).to(gradient.dtype), weight.t(), ones, fast=False), None, None


class FP8Linear(torch.nn.Module):
    """A frozen linear layer whose product is in FP8, in the dtype that the layer's own would have."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(linear.weight.detach())
        # numbers that a CPU can multiply at once: it is slow to turn FP8 into them
        weight = weight if has_products(weight.device) else weight.float()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        found = _Product.apply(x, self.weight, self.scale)
        return found if self.bias is None else found + self.bias.to(found.dtype)


@contextmanager
def fp8_base(model: torch.nn.Module, on: bool = True) -> Iterator[None]:
    """Inside, frozen linear layers that carry an adapter multiply in FP8; their own weights wait on the CPU.

    Nothing changes in a model all of whose weights are trained. Raises ValueError for a base in shards.
    """
    found = [m for m in model.modules() if on and isinstance(getattr(m, "base_layer", None), torch.nn.Linear)]
    if any(hasattr(layer.base_layer.weight, "full_tensor") for layer in found):
        raise ValueError("base_precision=fp8 takes a base that each device has whole: set sharding=none")
    kept = [(m, m.base_layer) for m in found if not any(side % SIDE for side in m.base_layer.weight.shape)]
    for layer, linear in kept:
        device = linear.weight.device
        layer.base_layer = FP8Linear(linear)
        linear.to("cpu")
    try:
        yield
    finally:
        for layer, linear in kept:
            layer.base_layer = linear.to(device)
