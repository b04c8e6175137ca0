"""Replayed decoding says what plain decoding says: greedy, sampled, beams, with and without modules.

Without a GPU a stand-in for the graph runs the same kernels at each replay, from the places where they were recorded.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_bank import LANGUAGES, batch, folder  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

import xalma
from xalma.models import cuda_graphs
from xalma.models.adapters import attach_adapter
from xalma.models.generation import generate

GREEDY = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}


@pytest.fixture
def recorded(monkeypatch):
    """Replays on any device; a list with an entry for each recording."""
    found: list[int] = []

    def record(run):
        kept = [cell.cell_contents for cell in run.__closure__]
        steps = next(one for one in kept if isinstance(one, cuda_graphs.Steps))
        state = [
            t for layer in steps.cache.layers for t in vars(layer).values() if isinstance(t, torch.Tensor)
        ]
        before = [t.clone() for t in state]
        output = run()
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        output.logits.fill_(torch.nan)  # a recording computes nothing
        found.append(0)
        keys = [layer.keys for layer in steps.cache.layers]

        def replay():
            assert all(layer.keys is place for layer, place in zip(steps.cache.layers, keys, strict=True))
            found[-1] += 1
            output.logits.copy_(run().logits)

        return replay, output

    if not torch.cuda.is_available():
        monkeypatch.setattr(cuda_graphs, "has_graphs", lambda model: not model.training)
        monkeypatch.setattr(cuda_graphs, "record", record)
    return found


def unrecorded(monkeypatch, run):
    """What `run` gives where nothing can be replayed."""
    with monkeypatch.context() as patch:
        patch.setattr(cuda_graphs, "has_graphs", lambda model: False)
        return run()


def bank_and_inputs(folder):  # noqa: F811
    bank = xalma.load_modules(folder, only=[1, 3, 6, 8], dtype="float32")
    return bank, {name: value.to(bank.base.device) for name, value in batch(len(LANGUAGES)).items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2},
    ],
    ids=["greedy", "beams", "two of three beams", "sampled"],
)
def test_a_mixed_batch_decodes_as_without(folder, recorded, monkeypatch, options):  # noqa: F811
    bank, inputs = bank_and_inputs(folder)

    def run():
        torch.manual_seed(0)
        return bank.generate(**inputs, languages=LANGUAGES, **GREEDY | options)

    found = run()
    assert torch.equal(found, unrecorded(monkeypatch, run))
    assert torch.cuda.is_available() or recorded == [
        10
    ]  # 12 tokens: the prompt's, a plain step's, ten replays


def test_scores_are_each_steps_own(folder, recorded, monkeypatch):  # noqa: F811
    """What a replay overwrites has been copied before."""
    bank, inputs = bank_and_inputs(folder)
    options = GREEDY | {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    run = lambda: bank.generate(**inputs, languages=LANGUAGES, **options)  # noqa: E731
    found, expected = run(), unrecorded(monkeypatch, run)
    for a, b in zip(found.scores + found.logits, expected.scores + expected.logits, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "PEFT module"])
def test_text_in_text_out(base, tokenizer, recorded, monkeypatch, adapter):
    model = attach_adapter(base, 6, rank=8, alpha=16, dropout=0.0) if adapter else base
    model.to(xalma.runtime.device())
    prompts = ["Guten Tag", "Hello", "2 kilometers: this one is longer than the others"]
    run = lambda: generate(model, tokenizer, prompts, max_new_tokens=16, batch_size=2, beams=2)  # noqa: E731
    assert run() == unrecorded(monkeypatch, run)
    assert "forward" not in vars(base)  # as it was


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 4},
        {"use_cache": False},
        {"output_hidden_states": True},
        {"generation_config": None},
    ],
    ids=["few tokens", "no cache", "hidden states", "no length"],
)
def test_what_cannot_be_replayed_decodes_as_ever(folder, recorded, monkeypatch, options):  # noqa: F811
    bank, inputs = bank_and_inputs(folder)
    options = (
        {"generation_config": GenerationConfig(do_sample=False, max_length=20)}
        if len(options) == 1 and ("generation_config" in options)
        else GREEDY | {"min_new_tokens": 1} | options
    )
    assert cuda_graphs.static_cache(bank.base, inputs | options) is None
    run = lambda: bank.generate(**inputs, languages=LANGUAGES, **options)  # noqa: E731
    assert torch.equal(run(), unrecorded(monkeypatch, run))
    assert not recorded


def test_an_error_leaves_the_model_as_it_was(folder, recorded):  # noqa: F811
    bank, inputs = bank_and_inputs(folder)

    def fail(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        bank.generate(**inputs, languages=LANGUAGES, **GREEDY, stopping_criteria=[fail])
    assert "forward" not in vars(bank.base)
    assert (
        bank.generate(**inputs, languages=LANGUAGES, **GREEDY).shape[1] == inputs["input_ids"].shape[1] + 12
    )


def test_a_step_that_cannot_be_recorded_runs_anew_each_time(folder, recorded, monkeypatch):  # noqa: F811
    bank, inputs = bank_and_inputs(folder)
    run = lambda: bank.generate(**inputs, languages=LANGUAGES, **GREEDY)  # noqa: E731

    def refuse(_):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be …")

    monkeypatch.setattr(cuda_graphs, "record", refuse)
    with pytest.warns(
        UserWarning, match="can't be recorded, so each runs anew: operation not permitted.*capturing$"
    ):
        found = run()
    assert torch.equal(found, unrecorded(monkeypatch, run))


WINDOWED = {
    "gemma3_text": {
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
        "head_dim": 8,
    },
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("kind", WINDOWED)
def test_sliding_windows_are_replayed(kind, options, recorded, monkeypatch):
    """Prompts and outputs longer than the window, padded on the left, in layers with it and without."""
    config = AutoConfig.for_model(
        kind,
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **WINDOWED[kind],
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().to(xalma.runtime.device())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    ids = torch.randint(3, 60, (3, 9), device=model.device)
    mask = torch.ones_like(ids)
    mask[0, :7], mask[1, :2] = 0, 0
    inputs = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}

    def run():
        with cuda_graphs.replayed(model, inputs | GREEDY | options) as all_options:
            return model.generate(**all_options)

    found = run()
    assert torch.equal(found, unrecorded(monkeypatch, run))
    assert torch.cuda.is_available() or recorded == [10]


@pytest.mark.parametrize(
    ("rope", "yes"),
    [
        ({"rope_type": "default"}, True),
        ({"rope_type": "llama3"}, True),
        ({"rope_type": "dynamic"}, False),
        (None, True),
    ],
)
def test_which_models_have_graphs(rope, yes):
    config = SimpleNamespace(_attn_implementation="sdpa", rope_parameters=None, rope_scaling=rope)
    model = SimpleNamespace(config=config, device=torch.device("cuda"), training=False)
    assert cuda_graphs.has_graphs(model) is yes
    config._attn_implementation = "flash_attention_2"  # wants a mask that grows
    assert cuda_graphs.has_graphs(model) is False
    for changes in ({"device": torch.device("cpu")}, {"training": True}, {"hf_device_map": {"a": 0, "b": 1}}):
        other = SimpleNamespace(**vars(model) | changes)
        other.config = SimpleNamespace(
            **vars(config) | {"_attn_implementation": "sdpa", "rope_scaling": None}
        )
        assert cuda_graphs.has_graphs(other) is False
