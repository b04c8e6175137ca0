"""What happens inside a model, computed and drawn: attention to the source, a module's matrices, tokens one by one.

Tokens are written under the pictures in any script (`letters`); a part of a letter becomes its place, as "#7".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.paper.figures.letters import drawable
from xalma.paper.figures.style import CHOSEN, HIGHLIGHT, INK, REJECTED, subplots


@dataclass(frozen=True)
class Attention:
    """Where a model looks while it writes: weights (target tokens, source tokens), and both as text."""

    weights: np.ndarray
    source: list[str]
    target: list[str]


def split_ids(
    tokenizer: PreTrainedTokenizerBase, before: str, source: str, between: str, target: str
) -> tuple[list[int], slice, slice]:
    """(token ids of the whole text with BOS, where `source` stands in them, where `target` does).

    Each part is tokenised by itself, so that no token lies on a border.
    """
    ids, spans = [tokenizer.bos_token_id], []
    for part in (before, source, between, target):
        found = tokenizer(part, add_special_tokens=False)["input_ids"] if part else []
        spans.append(slice(len(ids), len(ids) + len(found)))
        ids += found
    return ids, spans[1], spans[3]


@torch.inference_mode()
def attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    before: str,
    source: str,
    between: str,
    target: str,
) -> Attention:
    """Attention from each token of `target` to each of `source`, in the text before + source + between + target.

    The row of a token is that of the position *before* it, where it is predicted. Of all heads of all layers the one
    whose weight on the source is largest, over the whole target, is shown: where a model translates, such a head
    follows the source; where it does not, no head does.
    """
    ids, src, tgt = split_ids(tokenizer, before, source, between, target)
    model.eval()
    kept = model.config._attn_implementation
    model.set_attn_implementation("eager")
    outputs = model(torch.tensor([ids], device=model.device), output_attentions=True, use_cache=False)
    model.set_attn_implementation(kept)
    heads = torch.stack(outputs.attentions)[:, 0].flatten(0, 1).float().cpu()  # (layers * heads, T, T)
    looked = heads[:, tgt.start - 1 : tgt.stop - 1, src]  # (heads, target, source)
    best = looked[int(looked.sum((1, 2)).argmax())].numpy()
    return Attention(best, _texts(tokenizer, ids[src]), _texts(tokenizer, ids[tgt]))


def attention_maps(maps: Mapping[str, Attention]) -> Figure:
    """A heat map per model, one scale: target tokens down, source tokens across."""
    first = next(iter(maps.values()))
    height = 1.6 + 0.24 * len(first.target)
    fig, axes = subplots(
        1, len(maps), (max(8.0, 0.34 * len(first.source) * len(maps) + 2), height), sharey=True, squeeze=False
    )
    top = max(one.weights.max() for one in maps.values())
    source = drawable(first.source)
    target = drawable(first.target)
    for ax, (name, one) in zip(axes[0], maps.items(), strict=True):
        image = ax.imshow(one.weights, vmin=0, vmax=top, cmap="Blues", aspect="auto")
        ax.set_xticks(range(len(one.source)), source.texts, rotation=90, fontfamily=source.families)
        ax.set_yticks(range(len(one.target)), target.texts, fontfamily=target.families)
        share = one.weights.sum(1).mean()
        ax.set(title=f"{name}: {share:.0%} of the weight\nis on the source", xlabel="source token")
        ax.grid(False)
    axes[0][0].set_ylabel("target token, top to bottom")
    fig.colorbar(image, ax=axes, label="attention weight", shrink=0.8)
    _say(fig, drawable([*first.source, *first.target]).note)
    return fig


@torch.inference_mode()
def token_logps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str
) -> pd.DataFrame:
    """Log-probability (nats) of each token of `answer` after `prompt`, the end token last: columns token, logp."""
    ids, _, span = split_ids(tokenizer, prompt, "", "", answer)
    ids.append(tokenizer.eos_token_id)
    model.eval()
    logits = model(torch.tensor([ids], device=model.device)).logits[0].float()  # (T, V)
    logps = logits.log_softmax(-1)[span.start - 1 : -1]
    values = logps.gather(1, torch.tensor(ids[span.start :], device=logps.device)[:, None])[:, 0].tolist()
    return pd.DataFrame({"token": [*_texts(tokenizer, ids[span]), "</s>"], "logp": values})


def token_changes(rows: pd.DataFrame) -> Figure:
    """How training moved each token: rows of method, answer ("chosen" or "rejected"), token, change (nats).

    A row of panels per method, the two answers side by side. Above 0 the token became likelier.
    """
    methods = list(dict.fromkeys(rows["method"]))
    fig, axes = subplots(len(methods), 2, (10, 0.9 + 2.2 * len(methods)), sharey=True, squeeze=False)
    for line, method in zip(axes, methods, strict=True):
        for ax, (answer, colour) in zip(line, {"chosen": CHOSEN, "rejected": REJECTED}.items(), strict=True):
            part = rows[(rows["method"] == method) & (rows["answer"] == answer)]
            ax.bar(range(len(part)), part["change"], color=colour)
            ax.axhline(0, color=INK, linewidth=1)
            tokens = drawable(part["token"])
            ax.set_xticks(range(len(part)), tokens.texts, rotation=90, fontsize=8, fontfamily=tokens.families)
            ax.set_title(f"{method}: {answer} answer, sum {part['change'].sum():+.1f}", fontsize=10)
        line[0].set_ylabel("Δ log p (nats)")
    _say(fig, drawable(rows["token"]).note)
    return fig


CORNER = 64  # rows and columns of a matrix that are drawn: entries of more would be smaller than a point


def lora_matrices(
    weight: torch.Tensor, up: torch.Tensor, down: torch.Tensor, scale: float, name: str
) -> Figure:
    """One layer's frozen W (out, in), its B = `up` (out, r), A = `down` (r, in), and what they add, s·BA, with the
    singular values of both.

    Colours: blue below 0, red above; each picture has its own range, written above it, and shows the first `CORNER`
    rows and columns.
    """
    added = scale * up @ down
    parts = {"W, frozen": weight, "B": up, "A": down, f"{scale:g}·BA": added}
    fig, axes = subplots(1, 5, (11.0, 3.2), width_ratios=[1, 1, 1, 1, 1.6])
    for ax, (title, matrix) in zip(axes, parts.items(), strict=False):
        values = matrix.detach().float().cpu().numpy()
        top = max(float(np.quantile(abs(values), 0.999)), 1e-9)
        ax.imshow(
            values[:CORNER, :CORNER], cmap="RdBu_r", norm=TwoSlopeNorm(0, -top, top), interpolation="nearest"
        )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(f"{values.shape[0]} × {values.shape[1]}\n±{top:.2g}", fontsize=9)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for matrix, label, colour in ((weight, "W", INK), (added, f"{scale:g}·BA", HIGHLIGHT)):
        singular = torch.linalg.svdvals(matrix.detach().float().cpu())
        axes[4].plot(range(1, len(singular) + 1), singular, color=colour, label=label)
    axes[4].axvline(up.shape[1], color=INK, linewidth=0.8, linestyle=":")
    axes[4].set(title=f"singular values\n(dotted: rank {up.shape[1]})", xlabel="number", yscale="log")
    axes[4].set_ylim(bottom=1e-3)
    axes[4].title.set_fontsize(10)
    axes[4].legend()
    corner = f" (first {CORNER} rows and columns)" if max(weight.shape) > CORNER else ""
    fig.suptitle(name + corner, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig


def _texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Each token as text, a space as ␣; one that is a part of a letter as its place."""
    texts = [tokenizer.decode([i]) for i in ids]
    return [
        f"#{place}" if not text or "\ufffd" in text else text.replace(" ", "␣").replace("\n", "↵")
        for place, text in enumerate(texts, 1)
    ]


def _say(fig: Figure, note: str) -> None:
    """A sentence under the panels, where there is one to say."""
    if note:
        fig.supxlabel(fill(note, 110), x=0.01, ha="left", fontsize=8)
