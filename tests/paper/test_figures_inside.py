"""What happens inside a model, as it is drawn: rows of attention, log-probabilities of tokens, a module's matrices."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from xalma.models.backbone import load_base
from xalma.paper.figures import inside


@pytest.fixture(scope="module")
def base():
    return load_base("tiny-base")


def test_attention_rows_are_where_tokens_are_predicted(base):
    """Against the model's own weights: the row before a token, the source's columns, the head that looks most."""
    model, tokenizer = base
    before, source, between, target = "English: ", "May 6", "\n", "6 May"
    found = inside.attention(model, tokenizer, before, source, between, target)
    ids, src, tgt = inside.split_ids(tokenizer, before, source, between, target)
    assert tokenizer.decode(ids[src]) == source and tokenizer.decode(ids[tgt]) == target
    assert found.weights.shape == (tgt.stop - tgt.start, src.stop - src.start)
    kept = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(torch.tensor([ids]), output_attentions=True).attentions
    model.set_attn_implementation(kept)
    heads = [layer[0, i] for layer in layers for i in range(layer.shape[1])]
    best = max(heads, key=lambda head: head[tgt.start - 1 : tgt.stop - 1, src].sum())
    for row in range(tgt.stop - tgt.start):
        assert found.weights[row] == pytest.approx(best[tgt.start - 1 + row, src].numpy(), abs=1e-5)
    fig = inside.attention_maps({"one": found, "two": found})
    assert len(fig.axes) == 3  # and the scale


def test_token_logps_sum_to_the_answers(base):
    """The independent truth: transformers' own loss on the answer and the end token alone."""
    model, tokenizer = base
    found = inside.token_logps(model, tokenizer, "English: May 6\nFinnish:", " 6. toukokuuta")
    ids, _, span = inside.split_ids(tokenizer, "English: May 6\nFinnish:", "", "", " 6. toukokuuta")
    ids = torch.tensor([[*ids, tokenizer.eos_token_id]])
    labels = ids.clone()
    labels[:, : span.start] = -100
    with torch.no_grad():
        loss = model(ids, labels=labels).loss.item()
    assert found["logp"].mean() == pytest.approx(-loss, rel=1e-4)
    assert list(found["token"])[-1] == "</s>"


def test_token_changes_have_a_row_per_method():
    rows = pd.DataFrame({"method": ["CPO"] * 2 + ["ARPO"] * 2, "answer": ["chosen", "rejected"] * 2,
                         "token": list("abcd"), "change": [1.0, -2.0, 0.5, 0.0]})  # fmt: skip
    fig = inside.token_changes(rows)
    assert [ax.patches[0].get_height() for ax in fig.axes] == [1.0, -2.0, 0.5, 0.0]


def test_lora_matrices_draw_what_a_module_adds():
    weight, up, down = torch.eye(6), torch.ones(6, 2), torch.ones(2, 6)
    fig = inside.lora_matrices(weight, up, down, 0.5, "layer")
    assert (fig.axes[3].images[0].get_array() == 1.0).all()  # 0.5 · (1 + 1)
    own, added = (line.get_ydata() for line in fig.axes[4].lines[:2])
    assert (
        own == pytest.approx([1] * 6)
        and added[0] == pytest.approx(6)
        and added[1] == pytest.approx(0, abs=1e-5)
    )
