"""On a CUDA device: what it computes is what a CPU computes, and what only a GPU runs gives the same too.

A GPU sums in another order, so floats are compared within a tolerance; only what a mask hides must not count at all.

`make test-gpu`. Without a GPU these are skipped; XALMA_GPU_TESTS=cpu runs them on the CPU, against itself.
"""

from __future__ import annotations

import copy
import importlib.util
import math

import pytest
import torch
from smooth import SMOOTH
from test_bank import LANGUAGES, batch, by_group, folder, labelled, parameters_of, rows_of  # noqa: F401
from test_objectives import adapted, pairs
from test_trainer import rows
from torch.nn.functional import cosine_similarity

import xalma
from xalma.data.collate import IGNORE, IsolatedDocuments, PadCollator
from xalma.models.adapters import attach_adapter
from xalma.models.fp8 import product, rounded
from xalma.models.losses import answer_nats, evaluate_loss, labelled_loss
from xalma.runs import read_log
from xalma.runtime import device
from xalma.training.distributed import collect, distribute
from xalma.training.export.export import export
from xalma.training.ladder import evaluate_folder
from xalma.training.objectives import Arpo, Labelled
from xalma.training.trainer import Worker, train

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision():
    """TF32 off: its products are right to three digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def on_device(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device()) for name, value in inputs.items()}


@pytest.fixture
def without_gpu(monkeypatch):
    """Call it to hide the GPU from the library for the rest of the test."""
    return lambda: monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# -- the bank ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "gap"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_a_mixed_batch_is_each_groups_own(folder, dtype, gap):  # noqa: F811
    """On a GPU groups with unequal numbers of rows are padded, to one product."""
    bank = xalma.load_modules(folder, only=[1, 3, 6, 8], dtype=dtype)
    inputs = on_device(batch(len(LANGUAGES)))
    with torch.no_grad():
        mixed = bank(**inputs, languages=LANGUAGES).logits.float()
        for group, index in by_group(LANGUAGES):
            alone = bank(**rows_of(inputs, index), languages=[group] * len(index)).logits.float()
            torch.testing.assert_close(mixed[index], alone, atol=gap * alone.abs().max().item(), rtol=0)


def test_generate_is_the_cpus(folder, without_gpu):  # noqa: F811
    """Token for token: two tokens would have to be as likely as each other to the last digits to come out otherwise."""
    bank, inputs = xalma.load_modules(folder, only=[1, 3, 6, 8], dtype="float32"), batch(len(LANGUAGES))
    options = {"languages": LANGUAGES, "do_sample": False, "max_new_tokens": 8}
    found = bank.generate(**on_device(inputs), **options).cpu()
    beams = bank.generate(**on_device(inputs), **options, num_beams=3).cpu()
    without_gpu()
    expected = xalma.load_modules(folder, only=[1, 3, 6, 8])
    assert torch.equal(found, expected.generate(**inputs, **options))
    assert torch.equal(beams, expected.generate(**inputs, **options, num_beams=3))


def test_a_mixed_training_step_is_the_cpus(folder, without_gpu):  # noqa: F811
    def gradients(bank):
        bank.trainable([1, 3, 6, 8], dropout=0.0)
        bank(
            **{name: value.to(bank.base.device) for name, value in labelled(7).items()}, languages=LANGUAGES
        ).loss.backward()
        return [p.grad.cpu() for p in parameters_of(bank, 6)]

    mine = gradients(xalma.load_modules(folder, only=[1, 3, 6, 8], dtype="float32"))
    without_gpu()
    for a, b in zip(mine, gradients(xalma.load_modules(folder, only=[1, 3, 6, 8])), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


# -- the recipe -------------------------------------------------------------------------------------------------------


needs_mecab = pytest.mark.skipif(
    importlib.util.find_spec("MeCab") is None or importlib.util.find_spec("ipadic") is None,
    reason="BLEU of Japanese needs sacrebleu[ja]",
)


@needs_mecab
def test_all_stages_run_and_what_they_made_is_scored(micro, finished):
    """Each stage trains on the device that the one before left, stage 5 on pairs that a merged model decodes."""
    for number in range(1, 6):
        found = [row["loss"] for row in read_log(finished[number]) if "loss" in row]
        assert found and all(map(math.isfinite, found))
    records = evaluate_folder(micro, finished[5], 6, "stage5")
    assert {r.metric for r in records} >= {"bleu", "chrf"} and all(
        map(math.isfinite, (r.value for r in records))
    )


@needs_mecab
def test_an_export_says_what_the_stage_says(micro, finished, tmp_path):
    """`export` compares merged and gated model on the device, logits and outputs, and writes only if they agree."""
    place = export(micro, 6, tmp_path / "merged", sentences=24)
    assert (place / "model.safetensors").is_file() and (place / "export.json").is_file()


# -- training ---------------------------------------------------------------------------------------------------------


def losses(base, p, *, adapter: bool, steps: int = 6) -> list[float]:
    model = copy.deepcopy(base)
    if adapter:
        model = attach_adapter(model, 6, rank=8, alpha=16, dropout=0.0)
    p = p.but(stage4_batch_size=8, stage4_schedule="constant", warmup_ratio=0.0, **SMOOTH)
    log = train(model, rows(8), p, p.stage(4), steps=steps, seed=0, pad_token_id=0, label="test")
    return [row["loss"] for row in log]


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "module"])
def test_training_is_the_cpus(base, micro, adapter, without_gpu, monkeypatch):
    monkeypatch.setattr(
        torch, "set_float32_matmul_precision", lambda _: None
    )  # no TF32 either, which training takes
    found = losses(base, micro, adapter=adapter)
    without_gpu()
    assert found == pytest.approx(losses(base, micro, adapter=adapter), abs=2e-3)
    assert found[-1] < found[0]


@pytest.mark.parametrize("measure", [evaluate_loss, answer_nats], ids=lambda f: f.__name__)
def test_a_model_that_was_measured_can_be_trained(base, micro, measure):
    """As in stage 4, whose loss before training is measured by a model that is not on the GPU yet."""
    model = attach_adapter(base, 6, rank=8, alpha=16, dropout=0.0)
    measure(model, rows(4), 0)
    assert len(losses(model, micro, adapter=False, steps=2)) == 2


@pytest.mark.parametrize(
    ("changes", "gap"),
    [
        ({"gradient_checkpointing": True}, 2e-3),
        ({"base_precision": "fp8"}, 5e-2),
        ({"attention": "sdpa"}, 2e-3),
        ({"attention": "eager"}, 2e-3),
        ({"micro_batch": 2}, 2e-3),
        ({"torch_compile": True}, 2e-3),
        ({"mixed_precision": "on"}, 5e-2),
    ],
    ids=str,
)
def test_choices_of_speed_and_memory_change_no_loss(base, micro, changes, gap):
    if "torch_compile" in changes and device() != "cuda":
        pytest.skip("compiling for a CPU takes a minute")
    found = losses(base, micro.but(**changes), adapter=True)
    assert found == pytest.approx(losses(base, micro, adapter=True), abs=gap)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_fp8_products_are_the_simulated_ones(rows):
    """The GPU sums in another order and rounds its sum to bfloat16; a CPU multiplies the same rounded numbers."""
    x, weight = torch.randn(rows, 128), torch.randn(48, 128)
    numbers, scale = rounded(weight)
    found = product(x.to(device()), numbers.to(device()), scale.to(device())).cpu()
    expected = product(x, numbers, scale)
    torch.testing.assert_close(found, expected, atol=2**-8 * expected.abs().max().item(), rtol=0)


def test_a_document_does_not_see_its_neighbour(base):
    """Two documents in one block: changing the first leaves every loss of the second as it was, to the last bit."""
    base.to(device()).set_attn_implementation("sdpa")
    ids = torch.randint(5, 500, (1, 24), generator=torch.Generator().manual_seed(0))
    ids[0, [0, 10]], ids[0, [9, 23]] = 1, 2

    def second(ids: torch.Tensor) -> torch.Tensor:
        block = IsolatedDocuments(1, 2)([{"input_ids": ids[0], "labels": ids[0]}])
        block["labels"][:, :11] = IGNORE
        return labelled_loss(base, on_device(block))

    changed = ids.clone()
    changed[0, 3] = 7 if ids[0, 3] != 7 else 8
    with torch.no_grad():
        assert torch.equal(second(ids), second(changed))
        alone = labelled_loss(
            base, on_device(PadCollator(0)([{"input_ids": ids[0, 10:], "labels": ids[0, 10:]}]))
        )
    assert second(ids).item() == pytest.approx(alone.item(), abs=1e-5)


def test_packed_pairs_are_the_cpus(without_gpu):
    """ARPO's loss, its gradients and what is logged of it, of pairs that share their prompts in one row."""
    model = adapted()

    def found():
        objective = Arpo()
        worker = Worker(model.to(device()), objective, bf16=False)
        batch = on_device(objective.collator(model, 0)(pairs()))
        out = worker(batch, objective.counts(batch))
        gradients = torch.autograd.grad(out[0], [x for x in model.parameters() if x.requires_grad])
        return out.detach().cpu(), torch.cat([x.flatten() for x in gradients]).cpu()

    out, gradients = found()
    without_gpu()
    expected, expected_gradients = found()
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(
        gradients, expected_gradients, atol=1e-3 * expected_gradients.abs().max(), rtol=0
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed package here")
def test_shards_on_one_device_are_the_whole_model(base):
    """FSDP2 over a group of one: the loss and all gradients, and the weights that are collected."""
    batch, whole = on_device(PadCollator(0)(rows(4))), copy.deepcopy(base).to(device())
    expected = labelled_loss(whole, batch)
    expected.backward()
    torch.distributed.init_process_group(
        "nccl" if device() == "cuda" else "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        worker = Worker(base, Labelled(None), bf16=False)
        sharded, trained = distribute(worker, lambda m: m.get_decoder().layers, shard=True)
        loss = sharded(batch, Labelled(None).counts(batch).to(device()))[0]
        loss.backward()
        gradients = {name: x.grad.full_tensor() for name, x in trained.named_parameters()}
        collect(trained, base)
    finally:
        torch.distributed.destroy_process_group()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, x in whole.named_parameters():
        torch.testing.assert_close(gradients[name], x.grad, atol=1e-5, rtol=1e-3)
        assert torch.equal(base.get_parameter(name).to(x.device), x), "nothing was trained"


def test_a_module_needs_less_memory_than_the_base(base, micro):
    """Gradients and moments of what is trained alone: a module's update peaks below a full one."""
    if device() != "cuda":
        pytest.skip("torch counts no memory on a CPU")
    peaks = []
    for adapter in (False, True):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        losses(base, micro, adapter=adapter, steps=2)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0]


def test_bfloat16_gradients_point_the_same_way(base):
    inputs = on_device(PadCollator(0)(rows()))
    base.to(device())
    found = []
    for bf16 in (False, True):
        base.zero_grad()
        labelled_loss(base, inputs, bf16=bf16).backward()
        found.append(torch.cat([p.grad.flatten() for p in base.parameters()]))
    assert cosine_similarity(*found, dim=0).item() > 0.99
