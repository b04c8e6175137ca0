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

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from xalma.corpora.base import Corpus
from xalma.corpora.registry import mixing_sizes, open_corpus, tokenizer_sample
from xalma.data.blocks import MixedBlocks, PackedBlocks, guard_records, prepared_blocks
from xalma.data.collate import sft_rows, tokenize_rows
from xalma.data.contamination import guarded_corpus
from xalma.data.mixing import mixture, profile_shares, pseudo_monolingual
from xalma.data.token_files import STAGE_TEXT
from xalma.languages import ENGLISH
from xalma.models.backbone import build_llama, load_base, save_base, train_tokenizer
from xalma.models.losses import evaluate_loss
from xalma.preference.packed_pairs import tokenize_pairs
from xalma.profiles import Profile
from xalma.prompts import translation_prompt
from xalma.runs import BASE, open_stage
from xalma.runs import read_log as read_log
from xalma.runs import read_run as read_run
from xalma.runs import stage_folder as stage_folder
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.objectives import Arpo
from xalma.training.stage_models import open_for_training, save_trained
from xalma.training.stage_models import open_merged as open_merged
from xalma.training.stage_pairs import pairs_made_once
from xalma.training.stage_pairs import preference_pairs as preference_pairs
from xalma.training.stage_runner import Folder, StageRecord, run_stage
from xalma.training.trainer import train

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
        corpus = guarded_corpus(p, p.languages)
        languages = (ENGLISH, *p.languages)
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
        corpus = guarded_corpus(p, p.languages_of(group))
        languages = (ENGLISH, *p.languages_of(group))
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
        corpus = guarded_corpus(p, p.languages_of(group))
        languages = p.languages_of(group)
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
    guard = {"guard": guard_records(blocks.files)} if isinstance(blocks, MixedBlocks) else {}
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
