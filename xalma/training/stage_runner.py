"""What every stage does around its body: skipped when its folder was made from the same inputs, else made aside, timed,
filed with its run.json and renamed, so that a folder that is there is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from xalma.corpora.registry import open_corpus
from xalma.data.blocks import prepared_fingerprint
from xalma.data.contamination import guard_report
from xalma.files import fingerprint, locked, put_back
from xalma.preference.released import preference_fingerprint
from xalma.profiles import Profile
from xalma.runs import (
    BASE,
    NOTEBOOK_OF,
    STAGE_NAMES,
    finished,
    is_finished,
    lineage,
    read_run,
    recipe_hash,
    stage_folder,
)
from xalma.training.checkpoints import checkpoint_folder, checkpoints_for, made_from
from xalma.training.distributed import barrier, rank, together, world_size
from xalma.training.workers import LAUNCHED_STAGES, launch

Folder = str | Path | None
StageRecord = dict[str, Any]

# Profile values that decide a stage's weights, by prefix; `values` of a new field must be named here to count.
_COMMON = ("seed", "corpus", "phrasebook_", "monolingual_id", "bitext_", "sft_", "dev_pairs", "test_id", "dtype",
           "mixed_precision", "warmup_ratio", "weight_decay", "clip_norm", "adam_beta2", "micro_batch", "mixing",
           "block_tokens", "isolate_documents", "contamination")  # fmt: skip
_DECIDES = {
    0: ("base", "vocab_size", "hidden_size", "layers", "heads", "prompt_style"),  # the tokenizer reads prompts
    1: ("stage1_",),
    2: ("lora_", "base_precision", "stage2_"),
    3: ("lora_", "base_precision", "stage3_"),
    4: ("lora_", "base_precision", "stage4_", "prompt_style", "max_length"),
    5: ("lora_", "base_precision", "stage5_", "arpo_", "prompt_style", "max_length", "beams", "max_new_tokens",
        "generation_batch"),
}  # fmt: skip


def run_stage(
    number: int,
    p: Profile,
    group: int,
    previous: Folder,
    branch: str,
    *,
    make: Callable[..., StageRecord | None],
) -> Path:
    """The folder of a stage, made by `make` unless it was made from the same inputs: aside, and then renamed.

    previous: None is the main ladder's folder one stage earlier; the ablations pass another.
    make: (previous, folder to fill) -> what run.json says of it, with "log"; None in all processes but the first.
    """
    out = stage_folder(p, number, group, branch)
    if previous is None and number > 0:
        previous = stage_folder(p, number - 1, BASE if number <= 2 else group)
        _check_chain(p, previous)
    before = {} if previous is None else read_run(previous)
    inputs = _inputs(number, p, group, before)
    key = fingerprint(inputs)
    if _is_finished(out, key):
        return out
    if p.launch and number in LAUNCHED_STAGES and world_size() == 1:
        launch(p, number, group, previous, branch)  # this same stage, in several processes
        return out

    def make_in(folder: Path) -> StageRecord | None:
        if number:
            _require_test_sentences(p, inputs["languages"])
        record = make(previous, folder)
        if record is None:
            return None
        guard = guard_report(p, inputs["languages"]) | record.pop("guard", {}) if number else None
        return (
            {"log": []}
            | record
            | {
                "stage": STAGE_NAMES[number],
                "number": number,
                "group": group,
                "base": str(out) if number <= 1 or group == BASE else before.get("base"),
                "previous": previous and str(previous),
                "contamination": guard,
            }
        )

    with only_run(out):
        if together(lambda: rank() == 0 and _is_finished(out, key))[0]:  # made while this one came
            return out
        checkpoints = checkpoints_for(out, key)
        if rank():
            make_in(out)  # takes part in the training, and writes nothing
        else:
            finished(out, inputs, make_in)
            shutil.rmtree(checkpoints)
        barrier()
    return out


def _inputs(number: int, p: Profile, group: int, before: dict[str, Any]) -> dict[str, Any]:
    """What decides a stage's weights. before: run.json of the previous stage."""
    return {
        "stage": number,
        "group": group,
        "recipe": recipe_hash(),
        "previous": before.get("fingerprint"),
        "languages": p.languages_of(group),
        "text": open_corpus(p).fingerprint(),
        "prepared": prepared_fingerprint(p),
        "dropped_for": p.test_pairs if p.contamination == "drop" else 0,  # test rows to keep out
        **p.values(*_COMMON, *_DECIDES[number]),
        **(
            {"preference_id": p.preference_id, "preference_files": preference_fingerprint(p.preference_id)}
            if number == 5 and p.preference_id
            else {}
        ),  # of a stage 5 that does not decode its own pairs
        **({"frozen_embeddings": True} if p.frozen_embeddings and number > 1 and group == BASE else {}),
    }


def _is_finished(out: Path, key: str) -> bool:
    """`runs.is_finished`; what a run left that was killed after it had finished the stage is removed."""
    if not is_finished(out, key):
        return False
    if made_from(out) == key and rank() == 0:
        with suppress(BlockingIOError), locked(out):
            shutil.rmtree(checkpoint_folder(out))
    return True


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Inside, no other run makes `out`. Raises BlockingIOError, in several processes OSError, if it can't."""
    with ExitStack() as stack:
        lock = lambda: rank() == 0 and stack.enter_context(locked(out))  # noqa: E731
        _ = lock() if world_size() == 1 else together(lock)
        if rank() == 0:
            put_back(out)
        yield


def _require_test_sentences(p: Profile, languages: Iterable[str]) -> None:
    """Raises ValueError where the guard has nothing to look for, unless it is not to."""
    corpus = open_corpus(p)
    if p.contamination != "allow" and not any(corpus.tests(code) for code in languages):
        raise ValueError(
            f"corpus={p.corpus} has no test sentences in {', '.join(languages)} to keep out of training: add "
            f"some (own text: test/), join a corpus that has some with +, or say --set contamination=allow"
        )


def _check_chain(p: Profile, folder: Path) -> None:
    """Raises ValueError if a stage in `folder`'s chain was made with other values, code or text than now, or from
    another stage than the one that now lies before it.
    """
    now = p.values() | {"recipe": recipe_hash(), "text": open_corpus(p).fingerprint()}
    later: tuple[Path, dict[str, Any]] | None = None
    for stage, run in lineage(folder):
        inputs = run.get("inputs", {})
        again = f"run notebooks/{NOTEBOOK_OF[run.get('number', 0)]}.ipynb again first, with the values of now"
        if changed := [key for key, value in inputs.items() if key in now and now[key] != value]:
            raise ValueError(f"{stage} was made with other inputs ({', '.join(changed)}): {again}")
        if later and later[1].get("inputs", {}).get("previous") != run.get("fingerprint"):
            again = f"run notebooks/{NOTEBOOK_OF[later[1]['number']]}.ipynb again first"
            raise ValueError(f"{later[0]} was made from another stage than now lies in {stage}: {again}")
        later = stage, run
