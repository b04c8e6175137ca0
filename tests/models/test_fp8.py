"""FP8 for a frozen base: bounds of the rounding by construction, gradients, and what training leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
from smooth import SMOOTH
from test_trainer import rows

from xalma.models.adapters import attach_adapter
from xalma.models.fp8 import FP8, LARGEST, FP8Linear, fp8_base, product, rounded
from xalma.training.trainer import train

LEAST = 2.0**-10  # half of e4m3's smallest number


def linear(n_out: int = 48, n_in: int = 32, **options) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(n_in, n_out, bias=False, **options).requires_grad_(False)


def adapted(base, rank: int = 4):
    """A module with a B that is not zero: its A has gradients."""
    model = attach_adapter(copy.deepcopy(base), 6, rank=rank, alpha=2 * rank, dropout=0.0)
    for name, x in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(x, std=0.05)
    return model


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
def test_a_rounded_number_is_within_a_sixteenth(size):
    """Three bits after the point: half a step is 1/16; the row's largest is exact, a row of zeros stays zeros."""
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)) * size
    x[0] = 0
    numbers, scale = rounded(x)
    again = numbers.float() * scale
    assert numbers.dtype == FP8 and not again.isnan().any()
    assert torch.all((again - x).abs() <= (x.abs() / 16).maximum(scale * LEAST) * (1 + 1e-6))
    torch.testing.assert_close(again.abs().amax(1), x.abs().amax(1), rtol=1e-6, atol=0)
    assert again[0].eq(0).all()
    torch.testing.assert_close(scale[1:, 0], x[1:].abs().amax(1) / LARGEST)


def test_the_product_is_that_of_the_rounded_numbers():
    x, weight = torch.randn(3, 5, 32), linear().weight
    (a, a_scale), (b, b_scale) = rounded(x.view(-1, 32)), rounded(weight)
    expected = (a.double() * a_scale) @ (b.double() * b_scale).t()
    torch.testing.assert_close(product(x, b, b_scale), expected.float().view(3, 5, 48), atol=1e-5, rtol=1e-5)


def test_a_gpus_call_is_made_with_what_it_takes(monkeypatch):
    """torch's own product of FP8, which this version has for a CPU too: forward, and backward on a turned weight."""
    x = torch.randn(7, 32).bfloat16()
    plain, turned = rounded(linear().weight), (rounded(linear(32, 48).weight)[0].t(), torch.ones(48, 1))
    expected = [product(x, *weight).float() for weight in (plain, turned)]
    monkeypatch.setattr("xalma.models.fp8.has_products", lambda _: True)
    try:
        found = [product(x, *plain), product(x, *turned, fast=False)]
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"this torch has no product of FP8 on a CPU: {error}")
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=2**-7 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_near_its_own_and_its_gradient_too(dtype):
    """Each product of two numbers is off by at most 1/16 + 1/16 + 1/256 of it, and a bit near zero."""
    plain = linear(dtype=dtype)
    layer, x = FP8Linear(plain), torch.randn(7, 32, dtype=dtype)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = layer(a), plain(b)
    assert found.dtype == dtype
    bound = 0.14 * (x.float().abs() @ plain.weight.float().abs().t()) + 1e-3
    assert torch.all((found - expected).float().abs() <= bound)
    upstream = torch.randn_like(found)
    found.backward(upstream)
    expected.backward(upstream)
    bound = 0.14 * (upstream.float().abs() @ plain.weight.float().abs()) + 1e-2
    assert torch.all((a.grad - b.grad).float().abs() <= bound)
    assert torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0) > 0.99


def test_a_bias_is_added_and_autocast_is_followed():
    plain = linear()
    plain.bias = torch.nn.Parameter(torch.ones(48), requires_grad=False)
    x = torch.randn(2, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = FP8Linear(plain)(x)
        plain.bias = None
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found - 1, FP8Linear(plain)(x), atol=0.02, rtol=0.02)


def test_gradients_of_a_module_point_the_same_way_and_none_is_missing(base):
    model, found = adapted(base), []
    batch = {"input_ids": torch.arange(4, 36).view(2, 16)}
    batch["labels"] = batch["input_ids"]
    for on in (False, True):
        model.zero_grad()
        with fp8_base(model, on):
            model(**batch).loss.backward()
        found.append(torch.cat([x.grad.flatten() for x in model.parameters() if x.requires_grad]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.97
    assert not torch.equal(*found)


def test_afterwards_every_weight_is_as_it_was(base):
    model = adapted(base)
    before = {name: (x, x.clone()) for name, x in model.named_parameters()}
    with pytest.raises(RuntimeError), fp8_base(model):
        assert sum(isinstance(m, FP8Linear) for m in model.modules()) == 7, (
            "a layer's projections, not the head"
        )
        raise RuntimeError
    assert {name: x for name, x in model.named_parameters()}.keys() == before.keys()
    assert all(
        x is before[name][0] and torch.equal(x, before[name][1]) for name, x in model.named_parameters()
    )


def test_layers_that_a_gpu_could_not_multiply_are_left_and_so_is_a_model_that_is_all_trained(base):
    model = adapted(base)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.base_layer = torch.nn.Linear(64, 65)
    with fp8_base(model):
        assert isinstance(layer.base_layer, torch.nn.Linear)
    with fp8_base(base):
        assert not any(isinstance(m, FP8Linear) for m in base.modules())


def test_a_training_with_a_base_in_fp8_follows_the_plain_one(base, micro):
    """Its losses differ, and by less than 1 %; recomputation and micro-batches change nothing but rounding."""
    p = micro.but(stage4_batch_size=8, micro_batch=8, **SMOOTH)

    def losses(**changes) -> list[float]:
        model = adapted(base)
        q = p.but(**changes)
        log = train(model, rows(8), q, q.stage(4), steps=4, seed=0, pad_token_id=0, label="test")
        return [row["loss"] for row in log]

    plain, fp8 = losses(), losses(base_precision="fp8")
    assert fp8 != plain and fp8 == pytest.approx(plain, rel=0.01)
    assert losses(base_precision="fp8", gradient_checkpointing=True) == fp8
