"""The pairs that stage 5 trains on: the stage-4 model's own outputs against the references, or released ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.corpora.base import Pair
from xalma.data.contamination import guard_report, guarded_corpus
from xalma.files import fingerprint, read_json, write_json
from xalma.languages import ENGLISH
from xalma.models.generation import generate
from xalma.preference.pairs import build_pairs, require_pairs
from xalma.preference.released import read_preference
from xalma.profiles import Profile
from xalma.prompts import extract_translation, translation_prompt
from xalma.training.checkpoints import checkpoint_folder
from xalma.training.distributed import rank, together, world_size
from xalma.training.stage_models import open_merged

PAIRS_FILE = "pairs.json"  # beside the checkpoints of stage 5


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
