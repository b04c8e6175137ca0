"""What tests need that compare two ways to the same training: nothing here rests on the rounding of one processor.

AdamW divides a gradient by its own root mean square, so that one of 1e-12, which is rounding alone, moves its weight as
far as one of 1 does. Two ways to the same training (a batch in parts, two processes) round differently, and so do two
processors. Compare what is handed to the optimizer, or train with `SMOOTH`.
"""

from __future__ import annotations

import torch

# Gradients are clipped to a norm far below AdamW's epsilon, 1e-8: an update is then the gradient's direction times a
# tenth of the rate, a smooth function of it. So the rates are high, and the decay, which is a share of them, is low.
SMOOTH = {"clip_norm": 1e-9, "weight_decay": 1e-3} | {f"stage{n}_learning_rate": 1.0 for n in range(1, 6)}

Weights = dict[str, torch.Tensor]


def largest(tensors: Weights) -> float:
    return max(x.abs().max().item() for x in tensors.values())


def difference(a: Weights, b: Weights) -> float:
    """The largest of any element."""
    assert a.keys() == b.keys()
    return largest({name: a[name] - b[name] for name in a})


def assert_same_gradients(a: Weights, b: Weights) -> None:
    """To float32's rounding (6e-8) of the largest element, times what sums of thousands of terms may add up to."""
    assert difference(a, b) <= 1e-4 * largest(a), (difference(a, b), largest(a))


def assert_same_training(a: Weights, b: Weights, start: Weights) -> None:
    """Weights after `SMOOTH` updates, to a thousandth of how far the training moved them."""
    moved = difference(a, start)
    assert moved > 1e-3, "with nothing learned the comparison says nothing"
    assert difference(a, b) <= 1e-3 * moved, (difference(a, b), moved)


def trained_weights(model: torch.nn.Module) -> Weights:
    return {name: x.detach().clone() for name, x in model.named_parameters() if x.requires_grad}
