"""What happens inside a model, as it is drawn: rows of attention, log-probabilities of tokens, a module's matrices."""

from __future__ import annotations

import warnings
from base64 import b64decode
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from PIL import Image

from xalma.languages import GROUPS
from xalma.models.backbone import load_base
from xalma.paper.figures import inside, letters, style
from xalma.paper.tables import save_figure


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
    rows = pd.DataFrame(
        {
            "method": ["CPO"] * 2 + ["ARPO"] * 2,
            "answer": ["chosen", "rejected"] * 2,
            "token": list("abcd"),
            "change": [1.0, -2.0, 0.5, 0.0],
        }
    )
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


def test_tokens_of_any_script_are_drawn_without_a_box(tmp_path, monkeypatch):
    """With matplotlib's own fonts alone: letters that they lack are code points, and a sentence says so."""
    fonts = font_manager.fontManager
    own = [font for font in fonts.ttflist if "mpl-data" in str(font.fname)]
    monkeypatch.setattr(fonts, "ttflist", own)
    tokens = ["May", "мая", "მაი", "مايو", "मई", "ก", "월", "、", "␣"]
    rows = pd.DataFrame({"method": "CPO", "answer": "chosen", "token": tokens, "change": 1.0})
    fig = inside.token_changes(rows)
    shown = [label.get_text() for label in fig.axes[0].get_xticklabels()]
    assert shown[:4] == tokens[:4] and shown[4] == "⟨92E⟩⟨908⟩" and shown[6] == "⟨C6D4⟩" and shown[8] == "␣"
    assert "(Devanagari, Thai, Hangul)" in fig.get_supxlabel().replace("\n", " ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph … missing from font(s)"
        save_figure(fig, tmp_path / "tokens.png")


def test_a_font_of_the_system_is_used_where_it_has_the_letters(monkeypatch):
    """The first Noto of those that have them; never the last resort or the second font of a collection."""
    kinds = {"A": "月", "Noto Sans X": "月", "Noto Sans Y": "ก", "Last Resort": "月火", "B": "x"}
    fonts = [SimpleNamespace(name=name, fname=name, style="normal", weight=400, index=0) for name in kinds]
    fonts.append(SimpleNamespace(name="Noto Sans A", fname="A", style="normal", weight=400, index=1))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(letters, "_has", lambda path, wanted: wanted & set(kinds.get(path, "may ")))
    found = letters.drawable(["may", "月", "火ก"])
    assert found.families == [letters.OWN, "Noto Sans X", "Noto Sans Y"]
    assert found.texts == ["may", "月", "⟨706B⟩ก"] and "(CJK)" in found.note
    assert letters.drawable(["may"]) == (["may"], [letters.OWN], "")


def test_a_figure_in_a_notebook_is_sharp_and_small():
    """Twice the points of its size, a palette in place of full colours, and less than half of matplotlib's bytes."""
    fig, ax = style.subplots(size=(4.0, 2.0))
    ax.plot(range(10), color=style.CHOSEN)
    text, shown = style.small_png(fig)
    image = Image.open(BytesIO(b64decode(text)))
    assert image.mode == "P" and abs(image.width - 2 * shown["width"]) <= 1
    own = BytesIO()
    fig.savefig(own, dpi=200, bbox_inches="tight")
    assert len(b64decode(text)) < 0.6 * len(own.getvalue())
    colours = {
        image.convert("RGB").getpixel((x, y))
        for x in range(0, image.width, 2)
        for y in range(0, image.height, 2)
    }
    line = tuple(round(255 * part) for part in to_rgb(style.CHOSEN))
    assert min(max(abs(a - b) for a, b in zip(line, one, strict=True)) for one in colours) <= 3


def test_a_heat_map_leaves_the_colours_of_its_legend_as_they_are():
    """A palette by frequency gave groups 4 and 5 one colour in the legend of notebook 02's heat map."""
    fig, ax = style.subplots(size=(6.0, 6.0))
    ax.imshow(np.random.default_rng(0).random((30, 30)))
    ax.grid(False)
    style.group_legend(fig, GROUPS, loc="outside lower center", ncols=2)
    image = Image.open(BytesIO(b64decode(style.small_png(fig)[0]))).convert("RGB")
    colours = np.array([colour for _, colour in image.getcolors(1 << 24)])
    for group in GROUPS:
        wanted = np.array([round(255 * part) for part in to_rgb(style.GROUP_COLOURS[group])])
        assert np.abs(colours - wanted).max(1).min() <= 16, group
