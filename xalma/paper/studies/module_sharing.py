"""Whose module: a group's own, one for all languages, or none (notebook 09). The paper has no such ablation.

All chains start from one base after stage 1 and go through stages 2 to 4. Beside the groups' modules: one module for
all of the profile's languages; one of as many times the rank as there are groups, which has as many parameters as their
modules together; and no module, the base going on with all its weights but the embeddings, which no module trains
either.

"The same updates" can mean two things. Here what serves all languages gets the groups' updates in sum, and draws each
language as often as its group does, so that a language is trained on about equally much text in all systems. In
`compare_sizes` every module has the updates of one. The short form, under `MIN_SEEDS` seeds, has no wide module.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from xalma.corpora.registry import mixing_sizes
from xalma.data.mixing import profile_shares
from xalma.data.token_files import STAGE_TEXT
from xalma.evaluation.records import Record
from xalma.languages import ENGLISH, language
from xalma.models.adapters import combine_adapters, save_adapter
from xalma.models.backbone import load_base
from xalma.paper.studies.seeds import MIN_SEEDS, seeds_of
from xalma.paper.studies.stage_ablation import (
    branch_of,
    full_folder,
    n_tokens,
    n_updates,
    run_full_chains,
    sft_updates,
    shortened,
)
from xalma.paper.studies.study import Study, one_share
from xalma.profiles import Profile
from xalma.runs import BASE, finished, read_run, stage_folder
from xalma.training.ladder import evaluate_folder, run_chain
from xalma.training.workers import run_jobs

SHARING_STAGES = (2, 3, 4)  # not ARPO, whose pairs would differ from module to module
OWN, SHARED, WIDE, DENSE = "own", "shared", "wide", "dense"
LANGUAGE, MEAN, SUM = "language", "mean", "sum"  # a module for each language; these in one for each group


def compare_sharing(p: Profile) -> Study:
    """A module per group, per language, one for all, a wider one for all, and none, for each seed, on all sentences.

    With one group nothing is shared by groups: no module for all. Finished stages are not run again. Raises
    FileNotFoundError where stage 0 of the ladder is missing.
    """
    mine = one_share(p)
    labels = sharing_labels(p)
    run_full_chains(p, p.group_numbers)
    joint = [name for name in labels if name in (SHARED, WIDE, DENSE)]
    jobs = [(_score_joint, (mine, name, seed)) for name in joint for seed in seeds_of(p)]
    if LANGUAGE in labels:
        run_jobs(
            p, [(language_module, (mine, *each, seed)) for each in _each_language(p) for seed in seeds_of(p)]
        )
        jobs += [(_score_languages, (mine, group, seed)) for group in p.group_numbers for seed in seeds_of(p)]
    jobs += [(_score_own, (mine, group, seed)) for group in p.group_numbers for seed in seeds_of(p)]
    records = [record for found in run_jobs(p, jobs) for record in found]
    systems = {name: {"system": label} | _columns(mine, name) for name, label in labels.items()}
    return Study("modules", "One module per group, one for all, none", OWN, systems, records)


def sharing_labels(p: Profile) -> dict[str, str]:
    """The systems compared, by name."""
    n = len(p.group_numbers)
    joint = {SHARED: "one module for all"} if n > 1 else {}
    joint |= {WIDE: f"one module for all, {n} × the rank"} if n > 1 and p.seeds >= MIN_SEEDS else {}
    apart = (
        {
            LANGUAGE: "a module for each language",
            MEAN: "the mean of the languages' modules for each group",
            SUM: "the sum of the languages' modules for each group",
        }
        if _has_mates(p)
        else {}
    )
    return {OWN: "a module for each group", **apart, **joint, DENSE: "no module, the base goes on"}


def _has_mates(p: Profile) -> bool:
    """Whether a module for each language is another thing than one for each group."""
    return any(len(p.languages_of(group)) > 1 for group in p.group_numbers)


def _each_language(p: Profile) -> list[tuple[int, str]]:
    return [(group, code) for group in p.group_numbers for code in p.languages_of(group)]


def language_profile(p: Profile, group: int, code: str, seed: int) -> Profile:
    """The profile of one language's module: the group's updates divided by its languages, at least one per stage."""
    q = shortened(p, seed)
    n = len(p.languages_of(group))
    changes: dict[str, Any] = {"stage4_updates": max(1, round(sft_updates(p, group, seed) / n))}
    for number in (2, 3):
        stage = q.stage(number)
        update = stage.batch_size * p.block_tokens
        changes[f"stage{number}_tokens"] = max(1, round(stage.tokens / update / n)) * update
    return q.but(**changes, module_languages=f"{group}:{code}")


def language_module(p: Profile, group: int, code: str, seed: int) -> Path:
    """The folder of a language's own module after SFT, made where it is not there; a group of one has it already."""
    start = full_folder(p, BASE, seed, 1)
    if p.languages_of(group) == (code,):
        return full_folder(p, group, seed, SHARING_STAGES[-1])
    return run_chain(
        language_profile(p, group, code, seed),
        group,
        start,
        SHARING_STAGES,
        branch_of(seed, f"{LANGUAGE}-{code}"),
    )


def combined_module(p: Profile, group: int, seed: int, name: str) -> Path:
    """The folder of the `MEAN` or `SUM` of a group's languages' modules, made where it is not there."""
    parts = [language_module(p, group, code, seed) for code in p.languages_of(group)]
    if len(parts) == 1:
        return parts[0]
    weight = 1 / len(parts) if name == MEAN else 1.0
    inputs = {"parts": [read_run(part)["fingerprint"] for part in parts], "weight": weight}

    def make(out: Path) -> dict[str, Any]:
        base = read_run(parts[0])["base"]
        model = combine_adapters(load_base(base)[0], group, parts, [weight] * len(parts))
        save_adapter(model, group, out)
        return {"group": group, "base": base, "number": SHARING_STAGES[-1]}

    return finished(stage_folder(p, SHARING_STAGES[-1], group, branch_of(seed, name)), inputs, make)


def _score_languages(p: Profile, group: int, seed: int) -> list[Record]:
    q = p.but(seed=seed)
    records = []
    for code in p.languages_of(group):
        alone = q.but(module_languages=f"{group}:{code}")
        records += evaluate_folder(alone, language_module(p, group, code, seed), group, LANGUAGE)
    for name in (MEAN, SUM):
        records += evaluate_folder(q, combined_module(p, group, seed, name), group, name)
    return records


def _score_own(p: Profile, group: int, seed: int) -> list[Record]:
    return evaluate_folder(p.but(seed=seed), full_folder(p, group, seed, SHARING_STAGES[-1]), group, OWN)


def _score_joint(p: Profile, name: str, seed: int) -> list[Record]:
    q = joint_profile(p, name, seed)
    group = _group(p, name)
    folder = full_folder(p, BASE, seed, 1)
    for number in SHARING_STAGES:
        mixed = drawn_as_in_groups(q, number) if number in STAGE_TEXT else q  # SFT mixes nothing
        folder = run_chain(mixed, group, folder, [number], branch_of(seed, name))
    return evaluate_folder(q, folder, group, name)


def _group(p: Profile, name: str) -> int:
    """The number under which one module for all is filed, the first group's; no module is the base."""
    return BASE if name == DENSE else p.group_numbers[0]


def joint_profile(p: Profile, name: str, seed: int) -> Profile:
    """The profile of what takes the place of all groups' modules: their languages, their updates in sum.

    Full weights are trained at the module's learning rates, but at none above stage 1's, and without the embeddings,
    which no module trains either.
    """
    q = shortened(p, seed)
    n = len(p.group_numbers)
    changes: dict[str, Any] = {
        "stage4_updates": sum(sft_updates(p, group, seed) for group in p.group_numbers)
    }
    for number in (2, 3):
        stage = q.stage(number)
        update = stage.batch_size * p.block_tokens  # its tokens
        changes[f"stage{number}_tokens"] = n * (stage.tokens // update) * update
    if name == DENSE:
        least = {
            number: min(p.stage(number).learning_rate, p.stage1_learning_rate) for number in SHARING_STAGES
        }
        changes |= {f"stage{number}_learning_rate": rate for number, rate in least.items()}
        return q.but(**changes, frozen_embeddings=True)
    if name == WIDE:
        changes |= {"lora_rank": n * p.lora_rank, "lora_alpha": n * p.lora_alpha}
    return q.but(**changes, module_languages=f"{_group(p, name)}:{'+'.join(p.languages)}")


def drawn_as_in_groups(p: Profile, number: int) -> Profile:
    """The profile whose mixture for stage `number` draws each language as often as the groups' mixtures in sum."""
    shares: Counter[str] = Counter()
    for group in p.group_numbers:
        codes = tuple(code for code in p.languages if language(code).group == group)
        drawn = ((ENGLISH,) if number == 2 else ()) + codes
        shares.update(profile_shares(p, drawn, mixing_sizes(p, STAGE_TEXT[number], drawn)))
    return p.but(
        mixing="given", mixing_shares=",".join(f"{code}:{share:.6f}" for code, share in shares.items())
    )


def _columns(p: Profile, name: str) -> dict[str, int]:
    """Parameters trained in all and used for a token, updates and tokens of stages 2 to 4, for the profile's seed."""
    base = full_folder(p, BASE, p.seed, 1)
    if name == OWN:
        folders = [full_folder(p, group, p.seed, SHARING_STAGES[-1]) for group in p.group_numbers]
    elif name in (LANGUAGE, MEAN, SUM):
        folders = [language_module(p, *each, p.seed) for each in _each_language(p)]
    else:
        folders = [stage_folder(p, SHARING_STAGES[-1], _group(p, name), branch_of(p.seed, name))]
    combined = p.group_numbers if name in (MEAN, SUM) else ()
    used = [combined_module(p, group, p.seed, name) for group in combined] or folders
    return {
        "parameters trained": sum(n_parameters(folder, "embed_tokens") for folder in folders),
        "parameters used": max(map(n_parameters, used)) + (0 if name == DENSE else n_parameters(base)),
        "updates": sum(n_updates(folder) - n_updates(base) for folder in folders),
        "tokens": sum(n_tokens(folder) - n_tokens(base) for folder in folders),
    }


def n_parameters(folder: Path, but: str = "/") -> int:
    """Parameters in the safetensors files of a folder, from their headers, without those whose name holds `but`."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if but not in name]  # noqa: SIM118
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return total


GROUP, RANDOM, ALL = "group", "random", "all"  # of `size_sets`, beside the sizes below the group's


def compare_sizes(p: Profile, group: int) -> Study:
    """Modules of the sets of `size_sets`, for each seed, scored on the language that all of them serve.

    Finished stages are not run again. Raises FileNotFoundError where stage 0 of the ladder is missing.
    """
    mine = one_share(p)
    sets = size_sets(p, group, p.seed)
    run_full_chains(p, (group,))
    jobs = [(_score, (mine, group, seed, name)) for name in sets for seed in seeds_of(p)]
    records = [record for found in run_jobs(p, jobs) for record in found]
    systems = {name: _size_columns(mine, group, name, codes) for name, codes in sets.items()}
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
        module_languages=f"{group}:{'+'.join(codes)}",
        stage4_updates=updates,
        sft_pairs=min(p.sft_pairs, pairs),
    )


def _score(p: Profile, group: int, seed: int, name: str) -> list[Record]:
    codes = size_sets(p, group, seed)[name]
    folder = _folder(p, group, seed, name)
    if name != GROUP:
        start = full_folder(p, BASE, seed, 1)
        run_chain(size_profile(p, group, seed, codes), group, start, SHARING_STAGES, _branch(seed, name))
    return evaluate_folder(p.but(seed=seed, module_languages=f"{group}:{codes[0]}"), folder, group, name)


def _folder(p: Profile, group: int, seed: int, name: str) -> Path:
    if name == GROUP:
        return full_folder(p, group, seed, SHARING_STAGES[-1])
    return stage_folder(p, SHARING_STAGES[-1], group, _branch(seed, name))


def _branch(seed: int, name: str) -> str:
    return branch_of(seed, f"languages-{name.replace(' ', '-')}")


def _size_columns(p: Profile, group: int, name: str, codes: tuple[str, ...]) -> dict[str, Any]:
    """Languages, updates and tokens of stages 2 to 4, for the profile's own seed."""
    labels = {
        GROUP: f"the group: {', '.join(codes)}",
        RANDOM: f"{codes[0]} and {len(codes) - 1} drawn at random",
        ALL: f"all {len(codes)}",
    }
    folder = _folder(p, group, p.seed, name)
    base = full_folder(p, BASE, p.seed, 1)
    return {
        "system": labels.get(name, ", ".join(codes)),
        "languages": len(codes),
        "updates": n_updates(folder) - n_updates(base),
        "tokens": n_tokens(folder) - n_tokens(base),
    }
