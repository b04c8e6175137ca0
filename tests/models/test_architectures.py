"""The fast paths against each architecture's own plain forward; whatever is not on the list is refused."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from test_arpo import tiny_model, tiny_rows, tiny_tokenizer
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from xalma.data.collate import IGNORE
from xalma.models.architectures import UNDERSTOOD, window_of
from xalma.models.losses import labelled_loss
from xalma.preference.packed_pairs import layout_for, pair_logps

SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
MORE = {"mixtral": {"num_local_experts": 4}}
WINDOW = 12  # tokens; pairs are longer
MIXED = ["full_attention", "sliding_attention"]
WINDOWED = {
    "mistral": {"sliding_window": WINDOW}, "phi3": {"sliding_window": WINDOW}, "mixtral": {"sliding_window": WINDOW},
    "starcoder2": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 8},
    "smollm3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
}  # fmt: skip
CASES = [
    (kind, {"sliding_window": None} if kind in ("mistral", "phi3", "mixtral", "starcoder2") else {})
    for kind in UNDERSTOOD
] + list(WINDOWED.items())


def model_of(kind: str, attention: str = "eager", **options) -> torch.nn.Module:
    """A tiny random model of an architecture, its attention sharp enough for a lost window to show."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SIZES | MORE.get(kind, {}) | options)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=lambda value: value if isinstance(value, str) else str(len(value))
)
def test_packed_pairs_are_plain_rows(kind, options, attention):
    """Summed log-probabilities of each answer, from one row at a time by the model alone."""
    model, tokenizer, rows = model_of(kind, attention, **options), tiny_tokenizer(), tiny_rows(5)
    found = pair_logps(model, tokenizer, rows)
    lengths = []
    for side in ("chosen", "rejected"):
        for i, row in enumerate(rows):
            prompt = [1, *tokenizer(row["prompt"])["input_ids"]]
            ids = torch.tensor([[*prompt, *tokenizer(row[side])["input_ids"], 2]])
            with torch.no_grad():
                logps = model(ids).logits.float().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
            torch.testing.assert_close(
                found[f"{side}_logps"][i], logps[len(prompt) - 1 :].sum(), rtol=1e-4, atol=1e-3
            )
            lengths.append(ids.shape[1])
    assert max(lengths) > 2 * WINDOW


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=lambda value: value if isinstance(value, str) else str(len(value))
)
def test_labelled_loss_is_the_models_own(kind, options, attention):
    model = model_of(kind, attention, **options)
    ids = torch.randint(3, 259, (3, 40), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(40) < 15, IGNORE)
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss
        found = labelled_loss(model, {"input_ids": ids, "labels": labels})
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_window_changes_something():
    """Else the tests above would hold without it."""
    rows, logps = tiny_rows(5), []
    for window in (WINDOW, None):
        logps.append(
            pair_logps(model_of("mistral", sliding_window=window), tiny_tokenizer(), rows)["chosen_logps"]
        )
    assert (logps[0] - logps[1]).abs().max() > 0.05


HEADS = {"n_embd": 32, "n_head": 4, "n_layer": 1}
OTHER = {
    "bloom": {"hidden_size": 32}, "opt": {"word_embed_proj_dim": 32}, "falcon": {"alibi": True}, "mpt": {"d_model": 32},
    "mamba": {}, "rwkv": {}, "xglm": {"d_model": 32}, "gpt2": HEADS, "gpt_neox": {}, "cohere": {"logit_scale": 0.5},
    "gemma2": {},
}  # fmt: skip
REFUSED = {kind: (options, "an architecture that was not checked") for kind, options in OTHER.items()} | {
    "granite": ({"logits_scaling": 8.0}, "logits_scaling"),
    "mixtral": ({"output_router_logits": True}, "output_router_logits"),
    "t5": ({"d_model": 32}, "an encoder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_others_are_refused_in_one_sentence(kind):
    options, why = REFUSED[kind]
    sizes = {
        name: size for name, size in (SIZES | MORE.get(kind, {}) | options).items() if name != "head_dim"
    }

    class Model:
        config = CONFIG_MAPPING[kind](**sizes)

    with pytest.raises(ValueError, match=rf"^{kind} has .*{why}.*: set efficient=False in ARPOConfig\.$"):
        layout_for(Model())


def test_adapters_that_depend_on_the_row_are_refused():
    prompt = get_peft_model(tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    options = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    invoked = get_peft_model(tiny_model(), LoraConfig(alora_invocation_tokens=[5], **options))
    for model in (prompt, invoked):
        with pytest.raises(
            ValueError, match=r"an adapter that depends on the tokens of a row .* efficient=False"
        ):
            layout_for(model)
    assert layout_for(get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))) == "shared"


def test_a_base_whose_logits_are_scaled_trains_on_no_wrong_loss():
    model = model_of("granite", logits_scaling=8.0)
    ids = torch.tensor([[1, 40, 41, 2]])
    with pytest.raises(ValueError, match="a granite model with logits_scaling is no base here"):
        labelled_loss(model, {"input_ids": ids, "labels": ids})


def test_windows_that_are_off_are_none():
    assert window_of(CONFIG_MAPPING["qwen2"](use_sliding_window=False, sliding_window=4096)) is None
    assert window_of(CONFIG_MAPPING["mistral"]()) == 4096
    assert window_of(CONFIG_MAPPING["llama"]()) is None
