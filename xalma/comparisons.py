"""The two comparisons of the paper: preference methods (Table 5, notebook 08) and one stage left out (notebook 09).

Preference methods: every method starts from the same SFT module (stage 4 of the ladder), sees the same pairs (chosen:
reference, rejected: the SFT module's own output) for the same number of updates, and translates the same test
sentences. Seeds change the order of the pairs only.

Stages: the recipe with one stage left out. A stage that is kept has the same number of updates in every chain, so a
chain without one has fewer in all; `n_updates` says how many. Chains share what they have in common (without stage 3
starts from the full chain's stage 2). Seeds change the text that is drawn, test sentences included, its order and the
fresh modules; the untrained backbone is one for all. The paper says nothing of seeds.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from xalma.data import open_corpus
from xalma.evaluate import length_ratio, score
from xalma.methods import METHODS, train_preference
from xalma.modules import save_module
from xalma.profiles import Profile, load_profile
from xalma.recipe import evaluate_folder, results_folder, run_chain, score_rows, side_by_side, translate_test
from xalma.results import Record, read_records, write_records
from xalma.runtime import fingerprint, home, new_directory, provenance, write_json
from xalma.stages import (
    BASE,
    open_for_training,
    preference_pairs,
    read_run,
    recipe_hash,
    stage1_monolingual_base,
    stage_folder,
)

SFT = "stage4"  # the start of every method, a row of its own
FULL = "full"
N_PROBED = 16  # pairs whose log-probabilities are followed; a dozen probes of 32 would cost as much as the training
# Beside the method "arpo" with the profile's values: what reviewers asked for and nobody published.
ARPO_VARIANTS: dict[str, dict[str, float | bool]] = {
    "arpo eta 0": {"eta": 0.0},  # tau = 0: no rejection
    "arpo eta 0.5": {"eta": 0.5},
    "arpo eta 5": {"eta": 5.0},  # tau = 1 from z = 0.14 on: nearly CPO
    "arpo detached": {"detach_penalty": True},
    "arpo released code": {"eta": 0.4, "eta_scale": 0.9},
    "arpo released code, clamped": {"eta": 0.4, "eta_scale": 0.9, "clamp_min": 0.0},
}
CHAINS = {
    "base": "untrained",
    "no-stage1": "without stage 1, monolingual base",
    "no-stage2": "without stage 2, monolingual module",
    "no-stage3": "without stage 3, pseudo-monolingual",
    "no-stage4": "without stage 4, SFT",
    "no-stage5": "without stage 5, ARPO",
    FULL: "all five stages",
}


@dataclass(frozen=True)
class System:
    """A row of the comparison: a method of `METHODS` with the options it is trained with."""

    name: str
    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


def systems(p: Profile) -> list[System]:
    """The methods the profile names, in the order of Table 5. Raises ValueError, with near names, for others."""
    asked = list(METHODS) if p.methods == "all" else [word.strip() for word in p.methods.split(",")]
    for name in asked:
        if name not in METHODS:
            near = get_close_matches(name, METHODS, n=3) or list(METHODS)
            raise ValueError(f"unknown preference method {name!r} in methods: near names are {', '.join(near)}")
    return [
        System(name, METHODS[name].label, name, _arpo_options(p) if name == "arpo" else {})
        for name in METHODS
        if name in asked
    ]


def arpo_variants(p: Profile) -> list[System]:
    """ARPO with other eta, without gradient through tau, and as in the released code, with and without a clamp."""
    return [
        System(name, name.replace("arpo", "ARPO"), "arpo", _arpo_options(p) | changes)
        for name, changes in ARPO_VARIANTS.items()
    ]


def compare_methods(p: Profile, group: int, chosen: Sequence[System] | None = None) -> list[Record]:
    """Scores of the SFT module and of each system (default: `systems(p)`) trained from it, for each seed.

    Metrics: bleu, chrf, off_target and empty (percent), length_ratio (percent of the reference's characters) and
    drift_chrf (chrF of the output against the SFT module's output: 100 is no change). Finished systems are not trained
    again. Raises FileNotFoundError where stage 4 of the group is missing.
    """
    chosen = systems(p) if chosen is None else list(chosen)
    start, mine = stage_folder(p, 4, group), _one_share(p)
    read_run(start)
    side_by_side(p, [(_pairs_folder, (mine, group)), (translate_test, (mine, start, group))])
    jobs = [(_compare, (mine, group, None, p.seed))]
    jobs += [(_compare, (mine, group, system, seed)) for system in chosen for seed in seeds_of(p)]
    return [record for found in side_by_side(p, jobs) for record in found]


def _pairs_folder(p: Profile, group: int) -> Path:
    """The folder with the comparison's preference pairs (rows.json), made if it is not there."""
    start = stage_folder(p, 4, group)
    decides = ("corpus", "phrasebook_", "sft_", "comparison_pairs", "prompt_style", "beams", "max_new_tokens")
    inputs = {
        "previous": read_run(start)["fingerprint"], "recipe": recipe_hash(), "group": group, "seed": p.seed,
        "text": open_corpus(p).fingerprint(), **p.values(*decides, "generation_batch", "threads"),
    }  # fmt: skip

    def body(out: Path) -> dict[str, Any]:
        rows, report = preference_pairs(p, group, start, p.comparison_pairs)
        random.Random(p.seed).shuffle(rows)  # the first rows are those that are probed: of all directions
        write_json(out / "rows.json", rows)
        return {"pairs": report}

    return _finished(_comparisons(p) / "pairs" / f"group{group}", inputs, body)


def read_pairs(p: Profile, group: int) -> tuple[list[dict[str, str]], dict[str, int]]:
    """(rows of prompt, chosen, rejected, src, tgt; counts of kept and dropped) of `_pairs_folder`."""
    folder = _pairs_folder(_one_share(p), group)
    return json.loads((folder / "rows.json").read_text(encoding="utf-8")), read_run(folder)["pairs"]


def _train_system(p: Profile, group: int, system: System, seed: int) -> Path:
    """The folder of `system` trained from the group's SFT module, made if it is not there: module, log, run.json."""
    start, pairs = stage_folder(p, 4, group), _pairs_folder(p, group)
    rows = json.loads((pairs / "rows.json").read_text(encoding="utf-8"))
    steps = p.comparison_steps or max(1, round(len(rows) * p.stage5_epochs / p.stage5_batch_size))
    settings = dict(
        learning_rate=p.stage5_learning_rate, batch_size=p.stage5_batch_size, max_steps=steps, seed=seed,
        n_probe_rows=N_PROBED, **system.options,
    )  # fmt: skip
    inputs = {
        "previous": read_run(start)["fingerprint"], "pairs": read_run(pairs)["fingerprint"], "recipe": recipe_hash(),
        "method": system.method, "settings": settings, **p.values("threads", "dtype"),
    }  # fmt: skip

    def body(out: Path) -> dict[str, Any]:
        logging.getLogger("transformers.modeling_utils").addFilter(_but_token_estimate)
        model, tokenizer = open_for_training(p, group, start)
        model, log = train_preference(system.method, model, tokenizer, rows, output_dir=out, **settings)
        save_module(model, group, out)
        write_json(out / "log.json", log)
        return {"system": asdict(system), "group": group, "base": read_run(start)["base"], "rows": len(rows)} | settings

    return _finished(system_folder(p, group, system, seed), inputs, body)


def system_folder(p: Profile, group: int, system: System, seed: int) -> Path:
    """Where a trained system lies."""
    return _comparisons(p) / system.name.replace(" ", "-").replace(",", "") / f"seed{seed}" / f"group{group}"


def ablate_stages(p: Profile, group: int) -> list[Record]:
    """Scores of the chains of `CHAINS` for each seed, every stage with `ablation_share` of its budget.

    Finished stages are not run again. With ablation_share = 1 the full chain of the profile's own seed is the main
    ladder's. Raises FileNotFoundError where stage 0 of the ladder (or, then, its other stages) is missing.
    """
    read_run(stage_folder(p, 0))
    mine, found = _one_share(p), []
    for chains in ((FULL, "no-stage1"), ("no-stage2", "no-stage3", "no-stage4", "no-stage5", "base")):
        jobs = [(_ablate, (mine, group, seed, chain)) for chain in chains for seed in seeds_of(p)]
        found += [record for records in side_by_side(p, jobs) for record in records]
    return found


def _chain_folder(p: Profile, group: int, seed: int, chain: str) -> Path:
    """The last folder of a chain, its stages run where they are not finished."""
    if chain == "base":
        return stage_folder(p, 0)
    short, branch = shortened(p, seed), _branch(seed, chain)
    left_out = None if chain == FULL else int(chain[-1])
    if left_out is not None:
        start, stages = _full_folder(p, group, seed, left_out - 1), range(left_out + 1, 6)
    elif _is_ladder(p, seed):
        start, stages = _full_folder(p, group, seed, 5), range(0)
    else:
        start, stages = stage1_monolingual_base(short, BASE, stage_folder(p, 0), branch=branch), range(2, 6)
    folder = run_chain(short, group, start, [number for number in stages if number < 5], branch)
    return _arpo(short, group, folder, branch) if 5 in stages else folder


def _arpo(p: Profile, group: int, folder: Path, branch: str) -> Path:
    """Stage 5 after `folder`; `folder` itself where its translations are so far off that no pair passes the filters."""
    try:
        return run_chain(p, group, folder, [5], branch)
    except ValueError as error:
        if "no preference pairs" not in str(error):
            raise
        return folder


def shortened(p: Profile, seed: int) -> Profile:
    """The profile with `ablation_share` of every stage's budget, at least one update each."""
    changes: dict[str, Any] = {}
    for stage in ("stage1", "stage2", "stage3"):
        values = p.values(stage)
        least = values[f"{stage}_batch_size"] * p.block_tokens
        changes[f"{stage}_tokens"] = max(least, round(values[f"{stage}_tokens"] * p.ablation_share))
    return p.but(
        seed=seed, stage4_epochs=p.stage4_epochs * p.ablation_share,
        stage5_pairs=max(1, round(p.stage5_pairs * p.ablation_share)), **changes,
    )  # fmt: skip


def n_updates(folder: str | Path) -> int:
    """Updates of a folder's stage and of all stages it was made from."""
    total, place = 0, str(folder)
    while place:
        run = read_run(place)
        total, place = total + run.get("steps", 0), run.get("previous")
    return total


def chain_folders(p: Profile, group: int) -> dict[str, Path]:
    """The last folder of each finished chain, for the profile's own seed; unfinished stages are run."""
    mine = _one_share(p)
    return {chain: _chain_folder(mine, group, p.seed, chain) for chain in CHAINS}


def gating_records(p: Profile, group: int) -> list[Record]:
    """Scores on a group's test sentences with its own module, with each other group's, and with none (stage 1)."""
    mine = _one_share(p)
    jobs = [(evaluate_folder, (mine, stage_folder(p, 1), group, "no module"))]
    for other in sorted({group, *p.group_numbers}, key=lambda g: (g != group, g)):
        jobs.append((evaluate_folder, (mine, stage_folder(p, 5, other), group, f"module of group {other}")))
    return [record for found in side_by_side(p, jobs) for record in found]


def preference_file(p: Profile) -> Path:
    """Where the records of notebook 08 lie."""
    return results_folder(p) / "preference" / "scores.jsonl"


def ablation_file(p: Profile) -> Path:
    """Where the records of notebook 09 lie."""
    return results_folder(p) / "ablations" / "scores.jsonl"


def file_records(path: Path, records: Iterable[Record]) -> list[Record]:
    """Write the records to `path` and return them as read back, in the file's order."""
    return read_records(write_records(path, records))


def command(p: Profile, notebook: str) -> str:
    """The command that makes a notebook's results: the profile and each value that was changed in it, paths aside."""
    plain = load_profile(p.name)
    given = [f"{k}={v}" for k, v in p.values().items() if v != getattr(plain, k) and not k.endswith("_dir")]
    return f"xalma run --profile {p.name} --only {notebook}" + "".join(f" --set {text}" for text in given)


def _compare(p: Profile, group: int, system: System | None, seed: int) -> list[Record]:
    """Train a system (None: the SFT module as it is), translate the test sentences, score."""
    start = stage_folder(p, 4, group)
    name, folder = (SFT, start) if system is None else (system.name, _train_system(p, group, system, seed))
    rows, before = translate_test(p, folder, group), translate_test(p, start, group)
    records = score_rows(rows, p, name, seed)
    for direction in dict.fromkeys(row["direction"] for row in rows):
        places = [i for i, row in enumerate(rows) if row["direction"] == direction]
        outputs, references = ([rows[i][key] for i in places] for key in ("output", "reference"))
        drift, signature = _drift(outputs, [before[i]["output"] for i in places], direction.split("-")[1])
        length = 100 * length_ratio(outputs, references)
        for metric, value, how in (
            ("drift_chrf", drift, signature),
            ("length_ratio", length, "characters, percent of the reference"),
        ):
            records.append(Record(p.name, name, direction, metric, value, len(places), how, seed))
    return records


def _drift(outputs: list[str], before: list[str], tgt: str) -> tuple[float, str]:
    """(chrF of outputs against the SFT model's, signature); equal outputs have 100, all of them empty too."""
    found = score(outputs, before, tgt, ("chrf",))[0]
    return 100.0 if outputs == before else found.value, f"{found.signature}, reference: SFT output"


def _ablate(p: Profile, group: int, seed: int, chain: str) -> list[Record]:
    return evaluate_folder(p.but(seed=seed), _chain_folder(p, group, seed, chain), group, chain)


def _full_folder(p: Profile, group: int, seed: int, number: int) -> Path:
    """Stage `number` of the full chain."""
    branch = "ladder" if number == 0 or _is_ladder(p, seed) else _branch(seed, FULL)
    return stage_folder(p, number, BASE if number <= 1 else group, branch)


def _is_ladder(p: Profile, seed: int) -> bool:
    return p.ablation_share == 1 and seed == p.seed


def _branch(seed: int, chain: str) -> str:
    return f"ablations/seed{seed}/{chain}"


def _arpo_options(p: Profile) -> dict[str, Any]:
    """Stage 5's own options."""
    return {
        "beta": p.arpo_beta, "eta": p.arpo_eta, "eta_scale": p.arpo_eta_scale,
        "detach_penalty": p.arpo_detach_penalty, "nll_weight": p.arpo_nll_weight,
    }  # fmt: skip


def seeds_of(p: Profile) -> range:
    """The seeds of the repeats."""
    return range(p.seed, p.seed + p.seeds)


def _one_share(p: Profile) -> Profile:
    """The profile with the threads of one worker, as the ladder's group stages have it (`recipe.for_each_group`)."""
    return p.but(threads=max(1, (p.threads or torch.get_num_threads()) // max(1, p.workers)))


def _but_token_estimate(record: logging.LogRecord) -> bool:
    """Not the warning that transformers can't count operations on TRL's batches: nobody asked for that count."""
    return "Could not estimate the number of tokens" not in record.getMessage()


def _comparisons(p: Profile) -> Path:
    return home() / p.run_dir / p.name / "comparisons"


def _finished(out: Path, inputs: Mapping[str, Any], body: Callable[[Path], dict[str, Any]]) -> Path:
    """`out`, made by `body` unless it was made from the same inputs; a folder that is there is whole."""
    key = fingerprint(inputs)
    if not (out / "run.json").exists() or read_run(out)["fingerprint"] != key:
        with new_directory(out) as partial_out:
            facts = body(partial_out) | {"fingerprint": key, "inputs": dict(inputs)}
            write_json(partial_out / "run.json", facts | provenance())
    return out
