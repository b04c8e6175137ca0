"""The five stages of X-ALMA, each one short function whose body is the stage (X-ALMA, figure and table of stages).

    stage 0  the backbone as it came (built here, or read from hub or disk)
    stage 1  monolingual fine-tuning of the base, full weights, all languages
    stage 2  monolingual fine-tuning of a group's module, base frozen from here on
    stage 3  pseudo-monolingual fine-tuning of the module on concatenated bitext
    stage 4  supervised fine-tuning of the module on high-quality bitext, loss on the answer
    stage 5  ARPO: chosen is the reference, rejected the stage-4 model's own translation

A stage takes a profile, a group (0 for the base) and the previous stage's folder, and returns its own folder with
weights (safetensors), log.json and run.json. With group 0 stages 2 to 5 train the base on, without a module, which the
recipe never does: notebook 09 compares it. What all have in common, around the body, is `run_stage`'s.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.corpora.base import Corpus, Pair
from xalma.corpora.registry import mixing_sizes, open_corpus, tokenizer_sample
from xalma.data.blocks import MixedBlocks, PackedBlocks, looked_at, prepared_blocks
from xalma.data.collate import sft_rows, tokenize_rows
from xalma.data.contamination import guard_report, guarded_corpus
from xalma.data.mixing import mixture, profile_shares, pseudo_monolingual
from xalma.data.token_files import STAGE_TEXT
from xalma.files import fingerprint, read_json, write_json
from xalma.languages import ENGLISH
from xalma.models.adapters import attach_adapter, load_adapters, merge_adapter, save_adapter
from xalma.models.backbone import build_llama, load_base, save_base, train_tokenizer
from xalma.models.generation import generate
from xalma.models.losses import evaluate_loss
from xalma.preference.packed_pairs import tokenize_pairs
from xalma.preference.pairs import build_pairs, require_pairs
from xalma.preference.released import read_preference
from xalma.profiles import Profile
from xalma.prompts import extract_translation, translation_prompt
from xalma.runs import BASE, open_stage
from xalma.runs import read_log as read_log
from xalma.runs import read_run as read_run
from xalma.runs import stage_folder as stage_folder
from xalma.runtime import device
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.distributed import rank, together, world_size
from xalma.training.objectives import Arpo
from xalma.training.stage_runner import Folder, StageRecord, run_stage
from xalma.training.trainer import train

PAIRS_FILE = "pairs.json"  # beside the checkpoints of stage 5
PROBED = 16  # pairs whose log-probabilities stage 5 follows, as many as notebook 08
TOKENIZER_DOCUMENTS = 3000  # of each language, for the small backbone's tokenizer; our choice


def stage0_backbone(
    p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder"
) -> Path:
    """The base before any training: a hub or local model, or a small LLaMA with a tokenizer trained on our texts."""

    def make(previous: Path | None, out: Path) -> StageRecord | None:
        if p.base:
            model, tokenizer = load_base(p.base, p.dtype)
        else:
            languages = (ENGLISH, *p.languages)
            texts = [*tokenizer_sample(open_corpus(p), languages, TOKENIZER_DOCUMENTS), *_prompt_frames(p)]
            tokenizer = train_tokenizer(texts, p.vocab_size)
            model = build_llama(
                tokenizer,
                hidden_size=p.hidden_size,
                layers=p.layers,
                heads=p.heads,
                max_positions=max(p.max_length + p.max_new_tokens, p.block_tokens),
                seed=p.seed,
            )
        save_base(model, tokenizer, out)
        return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}

    return run_stage(0, p, group, previous, branch, make=make)


def stage1_monolingual_base(
    p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder"
) -> Path:
    """Full-weight training of the base on monolingual text of English and all languages of the profile's groups."""

    def make(previous: Path, out: Path) -> StageRecord | None:
        open_stage(previous)
        # full weights are trained in float32, products may be bfloat16
        model, tokenizer = load_base(previous, "float32")
        corpus, languages = guarded_corpus(p, p.languages), (ENGLISH, *p.languages)
        blocks = packed({code: partial(corpus.monolingual, code) for code in languages}, tokenizer, p, 1)
        record = train_blocks(model, blocks, tokenizer, p, 1, "stage 1, base", out)
        if record is not None:
            save_base(model, tokenizer, out)
        return record

    return run_stage(1, p, group, previous, branch, make=make)


def stage2_monolingual_modules(
    p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder"
) -> Path:
    """The group's module on monolingual text of its languages and English; the base is frozen from here on."""

    def make(previous: Path, out: Path) -> StageRecord | None:
        model, tokenizer = open_for_training(p, group, previous)
        corpus, languages = guarded_corpus(p, p.languages_of(group)), (ENGLISH, *p.languages_of(group))
        blocks = packed({code: partial(corpus.monolingual, code) for code in languages}, tokenizer, p, 2)
        record = train_blocks(model, blocks, tokenizer, p, 2, f"stage 2, group {group}", out)
        if record is not None:
            save_trained(model, tokenizer, group, out)
        return record

    return run_stage(2, p, group, previous, branch, make=make)


def stage3_pseudo_monolingual(
    p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder"
) -> Path:
    """The group's module on web bitext, each pair one running text in random order."""

    def make(previous: Path, out: Path) -> StageRecord | None:
        model, tokenizer = open_for_training(p, group, previous)
        corpus, languages = guarded_corpus(p, p.languages_of(group)), p.languages_of(group)
        blocks = packed({code: partial(_pair_texts, corpus, code, p) for code in languages}, tokenizer, p, 3)
        record = train_blocks(model, blocks, tokenizer, p, 3, f"stage 3, group {group}", out)
        if record is not None:
            save_trained(model, tokenizer, group, out)
        return record

    return run_stage(3, p, group, previous, branch, make=make)


def stage4_sft(p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder") -> Path:
    """The group's module on prompted high-quality bitext, both directions, loss on the answer only."""

    def make(previous: Path, out: Path) -> StageRecord | None:
        model, tokenizer = open_for_training(p, group, previous)
        corpus = guarded_corpus(p, p.languages_of(group))
        rows, n_long = sft_dataset(corpus.sft, p.languages_of(group), tokenizer, p)
        held_out, _ = sft_dataset(corpus.dev, p.languages_of(group), tokenizer, p)
        stage = p.stage(4)
        epochs = stage.updates * stage.batch_size / len(rows) if stage.updates else stage.epochs
        steps = max(1, round(len(rows) * epochs / stage.batch_size))
        before = evaluate_loss(model, held_out, tokenizer.pad_token_id)
        log = train(
            model,
            rows,
            p,
            stage,
            steps=steps,
            seed=p.seed,
            pad_token_id=tokenizer.pad_token_id,
            label=f"stage 4, group {group}",
            checkpoints=checkpoint_folder(out),
        )
        if log is None:
            return None
        after = evaluate_loss(model, held_out, tokenizer.pad_token_id)
        save_trained(model, tokenizer, group, out)
        tokens = sum(len(row["input_ids"]) for row in rows)
        notes = {code: note for code in p.languages_of(group) if (note := corpus.notes(code))}
        return {
            "rows": len(rows),
            "rows_too_long": n_long,
            "sft_notes": notes,
            "steps": steps,
            "log": log,
            "tokens_seen": round(tokens * epochs),
            "dev_loss_before": before,
            "dev_loss_after": after,
        }

    return run_stage(4, p, group, previous, branch, make=make)


def stage5_arpo(p: Profile, group: int = BASE, previous: Folder = None, *, branch: str = "ladder") -> Path:
    """The group's module by ARPO on pairs of reference (chosen) and the previous stage's own translation (rejected).

    With `preference_id` on pairs that others made.
    """

    def make(previous: Path, out: Path) -> StageRecord | None:
        pairs, report, guard = pairs_made_once(p, group, previous, out)
        model, tokenizer = open_for_training(p, group, previous)
        rows, n_long = tokenize_pairs(pairs, tokenizer, p.max_length)
        stage = p.stage(5)
        steps = max(1, round(len(rows) * stage.epochs / stage.batch_size))
        objective = Arpo(
            p.arpo_nll_weight,
            beta=p.arpo_beta,
            eta=p.arpo_eta,
            eta_scale=p.arpo_eta_scale,
            detach_penalty=p.arpo_detach_penalty,
        )
        log = train(
            model,
            rows,
            p,
            stage,
            steps=steps,
            seed=p.seed,
            pad_token_id=tokenizer.pad_token_id,
            label=f"stage 5, group {group}",
            checkpoints=checkpoint_folder(out),
            objective=objective,
            probe=rows[:: max(1, len(rows) // PROBED)][:PROBED],
        )
        if log is None:
            return None
        save_trained(model, tokenizer, group, out)
        return {
            "rows": len(rows),
            "rows_too_long": n_long,
            "pairs": report,
            "steps": steps,
            "log": log,
            "guard": guard,
        }

    return run_stage(5, p, group, previous, branch, make=make)


def packed(
    sources: dict[str, Callable[[], Iterable[str]]], tokenizer, p: Profile, number: int
) -> PackedBlocks | MixedBlocks:
    """Blocks for the token budget of stage `number`, whole batches only. Raises ValueError for a budget below one."""
    budget, batch = p.stage(number).tokens, p.stage(number).batch_size
    steps = budget // (batch * p.block_tokens)
    if steps < 1:
        raise ValueError(
            f"stage{number}_tokens={budget} is less than one batch of {batch} × {p.block_tokens} tokens"
        )
    if p.mixing_blocks:
        return prepared_blocks(p, tokenizer, number, tuple(sources), steps * batch)
    shares = profile_shares(p, tuple(sources), mixing_sizes(p, STAGE_TEXT[number], tuple(sources)))
    return PackedBlocks(mixture(sources, shares, p.seed + number), tokenizer, p.block_tokens, steps * batch)


def train_blocks(
    model, blocks: PackedBlocks, tokenizer, p: Profile, number: int, label: str, out: Path
) -> StageRecord | None:
    """Train on packed blocks; returns what run.json says of it: steps, tokens seen of each language, log.

    None in all processes but the first.
    """
    stage = p.stage(number)
    steps = blocks.n_blocks // stage.batch_size
    log = train(
        model,
        blocks,
        p,
        stage,
        steps=steps,
        seed=p.seed + number,
        pad_token_id=tokenizer.pad_token_id,
        label=label,
        checkpoints=checkpoint_folder(out),
        borders=(tokenizer.bos_token_id, tokenizer.eos_token_id) if p.isolate_documents else None,
    )
    if log is None:
        return None
    tokens = dict(sorted(blocks.tokens.items()))
    guard = {"guard": looked_at(blocks.files)} if isinstance(blocks, MixedBlocks) else {}
    return guard | {
        "steps": steps,
        "tokens_seen": sum(tokens.values()),
        "tokens_by_language": tokens,
        "log": log,
    }


def sft_dataset(
    pairs_of: Callable, languages: Iterable[str], tokenizer, p: Profile
) -> tuple[list[dict], int]:
    """(tokenised SFT rows of the languages, both directions; how many were too long). pairs_of: language -> pairs."""
    rows = [row for code in languages for row in sft_rows(pairs_of(code), code, p.prompt_style)]
    return tokenize_rows(rows, tokenizer, p.max_length)


def pairs_made_once(
    p: Profile, group: int, previous: Path, out: Path
) -> tuple[list[dict[str, str]], dict, dict]:
    """(pairs of stage 5, their counts, what the guard saw of them), kept beside the checkpoints of `out`: a killed run
    does not decode again.
    """
    path = checkpoint_folder(out) / PAIRS_FILE
    # one process reads, so that all do the same
    kept = together(lambda: rank() == 0 and _read_pairs(path))[0]
    if not kept:
        if p.preference_id:
            rows, report = released_pairs(p, group)
        else:
            rows, report = preference_pairs(p, group, previous, p.stage5_pairs)
        kept = {"rows": rows, "report": report, "guard": guard_report(p, p.languages_of(group))}
        together(lambda: rank() == 0 and write_json(path, kept | {"fingerprint": fingerprint(kept)}))
    return kept["rows"], kept["report"], kept.get("guard", {})


def _read_pairs(path: Path) -> dict[str, Any] | None:
    """Rows and report as they were written; None where there are none or, with a warning, where they are damaged."""
    if not path.exists():
        return None
    with suppress(ValueError, KeyError, TypeError):
        kept = read_json(path, "")
        if kept.pop("fingerprint") == fingerprint(kept):
            return kept
    warnings.warn(f"{path} is damaged: it is not used, the rejected answers are decoded again", stacklevel=2)
    return None


def preference_pairs(
    p: Profile, group: int, previous: Path, n: int
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Rows of prompt, chosen, rejected from the first `n` SFT pairs of each direction, and the counts of dropped ones.

    X-ALMA §4: the reference wins, the output of the module as of `previous` (SFT) loses; identical pairs are dropped.
    Of several processes each decodes its share of the batches, and all have all rows, those of one process alone.
    Raises NoPairs, with the counts, where none is left.
    """
    corpus = guarded_corpus(p, p.languages_of(group))
    asked = asked_both_ways(lambda code: corpus.sft(code)[:n], p.languages_of(group), p.prompt_style)
    model, tokenizer = open_merged(previous, p.dtype)
    mine = continued(p, model, tokenizer, asked, share=(rank(), world_size()))
    outputs = ["".join(texts) for texts in zip(*together(lambda: mine), strict=True)]
    rows, report = build_pairs(
        row | {"output": extract_translation(text)} for row, text in zip(asked, outputs, strict=True)
    )
    require_pairs(
        rows, report, "train stage 4 longer, or take more sentences (stage5_pairs, comparison_pairs)"
    )
    return rows, report


def asked_both_ways(
    pairs_of: Callable[[str], Iterable[Pair]], languages: Iterable[str], style: str
) -> list[dict[str, str]]:
    """Pairs asked both ways: {"direction", "prompt", "source", "reference"} rows. pairs_of: language -> pairs."""
    rows = []
    for code in languages:
        for english, other in pairs_of(code):
            for src, tgt, source, target in (
                (ENGLISH, code, english, other),
                (code, ENGLISH, other, english),
            ):
                prompt = translation_prompt(source, src, tgt, style)
                rows.append(
                    {"direction": f"{src}-{tgt}", "prompt": prompt, "source": source, "reference": target}
                )
    return rows


def continued(
    p: Profile, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], **more: Any
) -> list[str]:
    """What the model writes after each row's "prompt", as the profile decodes; more: of `generate`."""
    return generate(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        beams=p.beams,
        max_new_tokens=p.max_new_tokens,
        batch_size=p.generation_batch,
        **more,
    )


def released_pairs(p: Profile, group: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """All pairs of `preference_id` in the directions of a group's module, test sentences kept out, and their counts.

    Raises NoPairs, with the counts, where there are none.
    """
    corpus = guarded_corpus(p, p.languages_of(group))
    directions = [
        pair for code in p.languages_of(group) for pair in (f"{ENGLISH}-{code}", f"{code}-{ENGLISH}")
    ]
    rows, report = read_preference(
        p.preference_id, directions=directions, prompt_style=p.prompt_style, watch=corpus.guard.watch
    )
    require_pairs(
        rows, report, f"{p.preference_id} has none for {', '.join(directions)} that pass the filters"
    )
    return rows, report


def open_for_training(p: Profile, group: int, previous: Path) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """(frozen base with the group's trainable module, tokenizer): `previous`' module, or a fresh one on a base.

    For group 0 the base itself, all its weights trainable, or all but the embeddings (`p.frozen_embeddings`).
    """
    run = open_stage(previous)
    if group == BASE == run["group"]:
        model, tokenizer = load_base(run["base"], "float32")
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            embeddings.requires_grad_(not p.frozen_embeddings)
        return model, tokenizer
    model, tokenizer = load_base(run["base"], p.dtype)
    if run["group"] == BASE:
        fresh = attach_adapter(
            model, group, rank=p.lora_rank, alpha=p.lora_alpha, dropout=p.lora_dropout, seed=p.seed + group
        )
        return fresh, tokenizer
    if run["group"] != group:
        raise ValueError(
            f"{previous} holds the module of group {run['group']}, not of group {group}: pass that group's folder"
        )
    return load_adapters(model, {group: previous}, trainable=group), tokenizer


def save_trained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, group: int, out: Path) -> None:
    """What a stage trained: the group's module, or for group 0 the base and its tokenizer."""
    if group == BASE:
        save_base(model, tokenizer, out)
    else:
        save_adapter(model, group, out)


def open_merged(
    folder: str | Path, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(plain model for decoding, tokenizer) of any stage's folder; a module is merged into its base in float32.

    The model is on this process's device, in torch dtype `dtype`.
    """
    run = open_stage(folder)
    model, tokenizer = load_base(run["base"])
    model = model if run["group"] == BASE else merge_adapter(model, run["group"], folder)
    return model.to(device(), getattr(torch, dtype)), tokenizer


def _pair_texts(corpus: Corpus, code: str, p: Profile) -> Iterator[str]:
    return pseudo_monolingual(corpus.bitext(code), p.seed, p.stage3_document_pairs)


def _prompt_frames(p: Profile) -> list[str]:
    """The prompt with no text in it, often enough for its words to become tokens of the small vocabulary."""
    frames = [
        translation_prompt("", *pair, p.prompt_style)
        for c in p.languages
        for pair in ((ENGLISH, c), (c, ENGLISH))
    ]
    return frames * 30
