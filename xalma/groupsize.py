"""How many languages should share a module, and does it matter which (notebook 09)? The paper has no such ablation.

Modules for 1, 2, half and all of a group's languages, for as many languages drawn at random, and for all of the
profile's, from one base after stage 1 through stages 2 to 4. Each has the updates of the group's own module: the fewer
languages, the more text of each. All are scored on the group's first language, which each of them serves.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from xalma.ablations import branch_of, full_folder, n_tokens, n_updates, run_full_chains, sft_updates, shortened
from xalma.evaluation.records import Record
from xalma.languages import language
from xalma.profiles import Profile
from xalma.runs import BASE, stage_folder
from xalma.seeds import MIN_SEEDS, seeds_of
from xalma.sharing import STAGES
from xalma.studies import Study, one_share
from xalma.training.ladder import evaluate_folder, run_chain
from xalma.training.workers import side_by_side

GROUP, RANDOM, ALL = "group", "random", "all"  # of `size_sets`, beside the sizes below the group's


def compare_sizes(p: Profile, group: int) -> Study:
    """Modules of the sets of `size_sets`, for each seed, scored on the language that all of them serve.

    Finished stages are not run again. Raises FileNotFoundError where stage 0 of the ladder is missing.
    """
    mine, sets = one_share(p), size_sets(p, group, p.seed)
    run_full_chains(p, (group,))
    jobs = [(_score, (mine, group, seed, name)) for name in sets for seed in seeds_of(p)]
    records = [record for found in side_by_side(p, jobs) for record in found]
    systems = {name: _facts(mine, group, name, codes) for name, codes in sets.items()}
    title = f"Languages a module, Group {group}, scored on {language(p.languages_of(group)[0]).name}"
    return Study(f"sizes_group{group}", title, GROUP, systems, records)


def size_sets(p: Profile, group: int, seed: int) -> dict[str, tuple[str, ...]]:
    """The languages of the modules compared, by name; the group's first language is the first of each.

    RANDOM, drawn from all of the profile's languages, has as many as the group and is drawn anew for each seed. It and
    ALL are missing where the profile has no other languages than the group's, sizes between 1 and the group's in the
    short form, below `MIN_SEEDS` seeds.
    """
    mates = p.languages_of(group)
    target, others = mates[0], [code for code in p.languages if code != mates[0]]
    sizes = sorted({1, 2, math.ceil(len(mates) / 2)}) if p.seeds >= MIN_SEEDS else [1]
    sets = {f"of {n}": mates[:n] for n in sizes if n < len(mates)} | {GROUP: mates}
    if set(others) <= set(mates):
        return sets
    drawn = random.Random(f"group {group}, seed {seed}").sample(others, min(len(mates) - 1, len(others)))
    return sets | {RANDOM: (target, *drawn), ALL: (target, *others)}


def size_profile(p: Profile, group: int, seed: int, codes: tuple[str, ...]) -> Profile:
    """The profile of a module for `codes` with the updates of the group's own module.

    Of each language it has as many SFT pairs as those updates can read once, at most the profile's.
    """
    updates = sft_updates(p, group, seed)
    pairs = math.ceil(updates * p.stage4_batch_size / (2 * len(codes)))
    return shortened(p, seed).but(
        module_languages=f"{group}:{'+'.join(codes)}", stage4_updates=updates, sft_pairs=min(p.sft_pairs, pairs)
    )


def _score(p: Profile, group: int, seed: int, name: str) -> list[Record]:
    codes, folder = size_sets(p, group, seed)[name], _folder(p, group, seed, name)
    if name != GROUP:
        start = full_folder(p, BASE, seed, 1)
        run_chain(size_profile(p, group, seed, codes), group, start, STAGES, _branch(seed, name))
    return evaluate_folder(p.but(seed=seed, module_languages=f"{group}:{codes[0]}"), folder, group, name)


def _folder(p: Profile, group: int, seed: int, name: str) -> Path:
    if name == GROUP:
        return full_folder(p, group, seed, STAGES[-1])
    return stage_folder(p, STAGES[-1], group, _branch(seed, name))


def _branch(seed: int, name: str) -> str:
    return branch_of(seed, f"languages-{name.replace(' ', '-')}")


def _facts(p: Profile, group: int, name: str, codes: tuple[str, ...]) -> dict[str, Any]:
    """Languages, updates and tokens of stages 2 to 4, for the profile's own seed."""
    labels = {
        GROUP: f"the group: {', '.join(codes)}",
        RANDOM: f"{codes[0]} and {len(codes) - 1} drawn at random",
        ALL: f"all {len(codes)}",
    }
    folder, base = _folder(p, group, p.seed, name), full_folder(p, BASE, p.seed, 1)
    return {
        "system": labels.get(name, ", ".join(codes)),
        "languages": len(codes),
        "updates": n_updates(folder) - n_updates(base),
        "tokens": n_tokens(folder) - n_tokens(base),
    }
