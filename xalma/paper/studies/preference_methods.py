"""The paper's comparison of preference methods (Table 5, notebook 08), and of ARPO's own switches.

Every method starts from the same SFT module (stage 4 of the ladder), sees the same pairs (chosen: reference, rejected:
the SFT module's own output) for the same number of updates, and translates the same test sentences. Seeds change the
order of the pairs only.

The short form trains each method once. From `MIN_SEEDS` seeds on it is the long form (`long_form`): intervals, and
ARPO's switches beside the methods.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from xalma.corpora.registry import open_corpus
from xalma.evaluation.interference import chosen_by_of
from xalma.evaluation.metrics import length_ratio, score
from xalma.evaluation.records import Record
from xalma.files import read_json, write_json
from xalma.languages import adapter_name
from xalma.models.adapters import save_adapter
from xalma.paper.studies.seeds import SFT, seeds_of
from xalma.paper.studies.study import one_share
from xalma.preference.arpo import PRESETS
from xalma.preference.grpo import reward_metric
from xalma.preference.method_specs import METHODS, OF_PAIRS
from xalma.preference.methods import train_preference
from xalma.profiles import Profile
from xalma.runs import finished, open_stage, read_run, recipe_hash, results_folder, stage_folder
from xalma.runtime import home
from xalma.training.ladder import score_rows, signed, translate_test
from xalma.training.stage_models import open_for_training
from xalma.training.stage_pairs import preference_pairs
from xalma.training.workers import run_jobs

# pairs whose log-probabilities are followed; a dozen probes of 32 would cost as much as the training
N_PROBED = 16
_RELEASED = PRESETS["released-code"]
# Beside the method "arpo" with the profile's values: what reviewers asked for and nobody published. The paper's preset
# has no clamped variant: its tau is 0 or more by itself.
ARPO_VARIANTS: dict[str, dict[str, float | bool]] = {
    "arpo eta 0": {"eta": 0.0},  # tau = 0: no rejection
    "arpo eta 0.5": {"eta": 0.5},
    "arpo eta 3": {"eta": 3.0},
    "arpo eta 5": {"eta": 5.0},  # tau = 1 from z = 0.14 on: nearly CPO
    "arpo detached": {"detach_penalty": True},
    "arpo released code": _RELEASED,
    "arpo released code, eta 1.5": _RELEASED | {"eta": 1.5},
    "arpo released code, clamped": _RELEASED | {"clamp_min": 0.0},
    "arpo released code, detached": _RELEASED | {"detach_penalty": True},
    "arpo released code, clamped, detached": _RELEASED | {"clamp_min": 0.0, "detach_penalty": True},
}


@dataclass(frozen=True)
class MethodSetup:
    """A row of the comparison: a method of `METHODS` with the options it is trained with."""

    name: str
    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


def systems(p: Profile) -> list[MethodSetup]:
    """The methods the profile names, in the order of Table 5. Raises ValueError, with near names, for others.

    "all" are those of Table 5 and continued SFT, which read the same pairs; "all,grpo" has GRPO too.
    """
    words = [word.strip() for word in p.methods.split(",")]
    asked = [name for word in words for name in (OF_PAIRS if word == "all" else (word,))]
    for name in asked:
        if name not in METHODS:
            near = get_close_matches(name, METHODS, n=3) or list(METHODS)
            raise ValueError(
                f"unknown preference method {name!r} in methods: near names are {', '.join(near)}"
            )
    return [
        MethodSetup(name, METHODS[name].label, name, _own_options(p, name))
        for name in METHODS
        if name in asked
    ]


def arpo_variants(p: Profile) -> list[MethodSetup]:
    """ARPO with other eta, and both presets without gradient through tau and (where it does something) clamped at 0."""
    return [
        MethodSetup(name, name.replace("arpo", "ARPO"), "arpo", _own_options(p, "arpo") | changes)
        for name, changes in ARPO_VARIANTS.items()
    ]


def compare_methods(p: Profile, group: int, chosen: Sequence[MethodSetup] | None = None) -> list[Record]:
    """Scores of the SFT module and of each system (default: `systems(p)`) trained from it, for each seed.

    Metrics: bleu, chrf, off_target and empty (percent), length_ratio (percent of the reference's characters) and
    drift_chrf (chrF of the output against the SFT module's output: 100 is no change). Finished systems are not trained
    again. Raises FileNotFoundError where stage 4 of the group is missing.
    """
    chosen = systems(p) if chosen is None else list(chosen)
    start = stage_folder(p, 4, group)
    mine = one_share(p)
    read_run(start)
    run_jobs(p, [(_pairs_folder, (mine, group)), (translate_test, (mine, start, group))])
    jobs = [(_compare, (mine, group, None, p.seed))]
    jobs += [(_compare, (mine, group, system, seed)) for system in chosen for seed in seeds_of(p)]
    return [record for found in run_jobs(p, jobs) for record in found]


def _pairs_folder(p: Profile, group: int) -> Path:
    """The folder with the comparison's preference pairs (rows.json), made if it is not there."""
    start = stage_folder(p, 4, group)
    decides = ("corpus", "phrasebook_", "sft_", "comparison_pairs", "prompt_style", "beams", "max_new_tokens")
    inputs = {
        "previous": read_run(start)["fingerprint"],
        "recipe": recipe_hash(),
        "group": group,
        "seed": p.seed,
        "text": open_corpus(p).fingerprint(),
        **p.values(*decides, "generation_batch", "threads"),
    }

    def make(out: Path) -> dict[str, Any]:
        rows, report = preference_pairs(p, group, start, p.comparison_pairs)
        random.Random(p.seed).shuffle(rows)  # the first rows are those that are probed: of all directions
        write_json(out / "rows.json", rows)
        return {"pairs": report}

    return finished(_comparisons(p) / "pairs" / adapter_name(group), inputs, make)


def read_pairs(p: Profile, group: int) -> tuple[list[dict[str, str]], dict[str, int]]:
    """(rows of prompt, chosen, rejected, src, tgt; counts of kept and dropped) of `_pairs_folder`."""
    folder = _pairs_folder(one_share(p), group)
    return _rows(folder), read_run(folder)["pairs"]


def _rows(folder: Path) -> list[dict[str, str]]:
    open_stage(folder)
    return read_json(folder / "rows.json", f"remove {folder}, and its pairs are made again", list)


def _train_system(p: Profile, group: int, system: MethodSetup, seed: int) -> Path:
    """The folder of `system` trained from the group's SFT module, made if it is not there: module, log, run.json."""
    start = stage_folder(p, 4, group)
    pairs = _pairs_folder(p, group)
    rows = _rows(pairs)
    steps = p.comparison_steps or max(1, round(len(rows) * p.stage5_epochs / p.stage5_batch_size))
    settings = dict(
        learning_rate=p.stage5_learning_rate,
        batch_size=p.stage5_batch_size,
        max_steps=steps,
        seed=seed,
        n_probe_rows=N_PROBED,
        **system.options,
    )
    inputs = {
        "previous": read_run(start)["fingerprint"],
        "pairs": read_run(pairs)["fingerprint"],
        "recipe": recipe_hash(),
        "method": system.method,
        "settings": settings,
        **p.values("threads", "dtype"),
    }

    def make(out: Path) -> dict[str, Any]:
        logging.getLogger("transformers.modeling_utils").addFilter(_but_token_estimate)
        model, tokenizer = open_for_training(p, group, start)
        model, log = train_preference(system.method, model, tokenizer, rows, output_dir=out, **settings)
        save_adapter(model, group, out)
        details = {
            "system": asdict(system),
            "group": group,
            "base": read_run(start)["base"],
            "rows": len(rows),
        }
        if system.method == "grpo":  # its reward is no judge of it: see `evaluation.interference`
            details["pairs"] = {"chosen_by": [reward_metric(system.options["reward"])]}
        return details | settings | {"log": log}

    return finished(system_folder(p, group, system, seed), inputs, make)


def system_folder(p: Profile, group: int, system: MethodSetup, seed: int) -> Path:
    """Where a trained system lies."""
    return (
        _comparisons(p) / system.name.replace(" ", "-").replace(",", "") / f"seed{seed}" / adapter_name(group)
    )


def preference_file(p: Profile) -> Path:
    """Where the records of notebook 08's last run lie."""
    return results_folder(p) / "preference" / "scores.jsonl"


def _compare(p: Profile, group: int, system: MethodSetup | None, seed: int) -> list[Record]:
    """Train a system (None: the SFT module as it is), translate the test sentences, score."""
    start = stage_folder(p, 4, group)
    name, folder = (SFT, start) if system is None else (system.name, _train_system(p, group, system, seed))
    rows = translate_test(p, folder, group)
    before = translate_test(p, start, group)
    records = signed(score_rows(rows, p, name, seed), chosen_by_of(folder))
    for direction in dict.fromkeys(row["direction"] for row in rows):
        own = [i for i, row in enumerate(rows) if row["direction"] == direction]
        outputs, references = ([rows[i][key] for i in own] for key in ("output", "reference"))
        drift, signature = _drift(outputs, [before[i]["output"] for i in own], direction.split("-")[1])
        length = 100 * length_ratio(outputs, references)
        for metric, value, how in (
            ("drift_chrf", drift, signature),
            ("length_ratio", length, "characters, percent of the reference"),
        ):
            records.append(Record(p.name, name, direction, metric, value, len(own), how, seed))
    return records


def _drift(outputs: list[str], before: list[str], tgt: str) -> tuple[float, str]:
    """(chrF of outputs against the SFT model's, signature); equal outputs have 100, all of them empty too."""
    found = score(outputs, before, tgt, ("chrf",))[0]
    return 100.0 if outputs == before else found.value, f"{found.signature}, reference: SFT output"


def _own_options(p: Profile, method: str) -> dict[str, Any]:
    """What the profile says of one method alone: stage 5's options for ARPO, reward and samples for GRPO."""
    return {
        "arpo": {
            "beta": p.arpo_beta,
            "eta": p.arpo_eta,
            "eta_scale": p.arpo_eta_scale,
            "detach_penalty": p.arpo_detach_penalty,
            "nll_weight": p.arpo_nll_weight,
        },
        "grpo": {
            "reward": p.grpo_reward,
            "num_generations": p.grpo_samples,
            "max_completion_length": p.max_new_tokens,
        },
    }.get(method, {})


def _but_token_estimate(record: logging.LogRecord) -> bool:
    """Not the warning that transformers can't count operations on TRL's batches: nobody asked for that count."""
    return "Could not estimate the number of tokens" not in record.getMessage()


def _comparisons(p: Profile) -> Path:
    return home() / p.run_dir / p.name / "comparisons"
