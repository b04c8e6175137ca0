"""The recipe with one stage left out (notebook 09), and with another group's module in place of its own.

A stage that is kept has the same number of updates in every chain, so a chain without one has fewer in all; `n_updates`
says how many. Chains share what they have in common (without stage 3 starts from the full chain's stage 2). Seeds
change the text that is drawn, test sentences included, its order and the fresh modules; the untrained backbone is one
for all. The paper (its figure of stages, Group 6) says nothing of seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.evaluation.records import Record, off_target_label
from xalma.languages import ARROWS
from xalma.paper.studies.preference_tables import apart, printed_scores
from xalma.paper.studies.seeds import by_seed, cells_of, seeds_of
from xalma.paper.studies.study import BITS, Study, one_share, study_findings, study_table
from xalma.paper.tables import mark_doubtful
from xalma.preference.pairs import NoPairs
from xalma.profiles import Profile
from xalma.published import published
from xalma.runs import BASE, lineage, read_run, stage_folder
from xalma.training.ladder import evaluate_folder, run_chain
from xalma.training.stages import stage1_monolingual_base
from xalma.training.workers import run_jobs

FULL_CHAIN = "full"
CHAINS = {
    "base": "untrained",
    "no-stage1": "without stage 1, monolingual base",
    "no-stage2": "without stage 2, monolingual module",
    "no-stage3": "without stage 3, pseudo-monolingual",
    "no-stage4": "without stage 4, SFT",
    "no-stage5": "without stage 5, ARPO",
    FULL_CHAIN: "all five stages",
}
# The paper's figure (table h) adds stage after stage; only its ends are chains of ours.
PAPER_CHAINS = {
    "base": "none (LLaMA-2)", "no-stage5": "post-training stage 1 (SFT)", FULL_CHAIN: "post-training stage 2 (ARPO)",
}  # fmt: skip


def ablate_stages(p: Profile, group: int) -> Study:
    """The chains of `CHAINS` for each seed, every stage with `ablation_share` of its budget, scored.

    Finished stages are not run again. With ablation_share = 1 the full chain of the profile's own seed is the main
    ladder's. Raises FileNotFoundError where stage 0 of the ladder (or, then, its other stages) is missing.
    """
    read_run(stage_folder(p, 0))
    mine = one_share(p)
    found = []
    for chains in ((FULL_CHAIN, "no-stage1"), ("no-stage2", "no-stage3", "no-stage4", "no-stage5", "base")):
        jobs = [(_ablate, (mine, group, seed, chain)) for chain in chains for seed in seeds_of(p)]
        found += [record for records in run_jobs(p, jobs) for record in records]
    folders = {chain: _chain_folder(mine, group, p.seed, chain) for chain in CHAINS}
    systems = {
        chain: {
            "system": label,
            "updates": n_updates(folders[chain]),
            "ends with": read_run(folders[chain])["number"],
        }
        for chain, label in CHAINS.items()
    }
    return Study("stages", f"One stage left out, Group {group}", FULL_CHAIN, systems, found)


def _ablate(p: Profile, group: int, seed: int, chain: str) -> list[Record]:
    return evaluate_folder(p.but(seed=seed), _chain_folder(p, group, seed, chain), group, chain)


def _chain_folder(p: Profile, group: int, seed: int, chain: str) -> Path:
    """The last folder of a chain, its stages run where they are not finished."""
    if chain == "base":
        return stage_folder(p, 0)
    short = shortened(p, seed)
    branch = branch_of(seed, chain)
    if chain == FULL_CHAIN:
        folder = full_stage(p, group, seed, 4)
        return full_folder(p, group, seed, 5) if _is_ladder(p, seed) else _arpo(short, group, folder, branch)
    left_out = int(chain[-1])
    start = full_folder(p, group, seed, left_out - 1)
    stages = range(left_out + 1, 6)
    folder = run_chain(short, group, start, [number for number in stages if number < 5], branch)
    return _arpo(short, group, folder, branch) if 5 in stages else folder


def full_stage(p: Profile, group: int, seed: int, number: int) -> Path:
    """The folder of stage `number`, 1 to 4, of a group's full chain; what is not finished of it is run.

    Stage 1 is one for all groups of a seed: run it before several of them side by side.
    """
    if not _is_ladder(p, seed):
        short = shortened(p, seed)
        branch = branch_of(seed, FULL_CHAIN)
        base = stage1_monolingual_base(short, BASE, stage_folder(p, 0), branch=branch)
        run_chain(short, group, base, range(2, number + 1), branch)
    return full_folder(p, group, seed, number)


def full_folder(p: Profile, group: int, seed: int, number: int) -> Path:
    """Where stage `number` of the full chain lies: in the main ladder if that has the same budget and seed."""
    branch = "ladder" if number == 0 or _is_ladder(p, seed) else branch_of(seed, FULL_CHAIN)
    return stage_folder(p, number, BASE if number <= 1 else group, branch)


def _is_ladder(p: Profile, seed: int) -> bool:
    return p.ablation_share == 1 and seed == p.seed


def branch_of(seed: int, chain: str) -> str:
    """Where the stages of a chain lie, beside the main ladder."""
    return f"ablations/seed{seed}/{chain}"


def _arpo(p: Profile, group: int, folder: Path, branch: str) -> Path:
    """Stage 5 after `folder`; `folder` itself where its translations are so far off that no pair passes the filters."""
    try:
        return run_chain(p, group, folder, [5], branch)
    except NoPairs:
        return folder


def shortened(p: Profile, seed: int) -> Profile:
    """The profile with `ablation_share` of every stage's tokens or pairs, at least one update or pair each."""
    changes: dict[str, Any] = {}
    for number in (1, 2, 3):
        stage = p.stage(number)
        least = stage.batch_size * p.block_tokens
        changes[f"stage{number}_tokens"] = max(least, round(stage.tokens * p.ablation_share))
    for pairs in ("sft_pairs", "dev_pairs", "stage5_pairs"):
        changes[pairs] = max(1, round(getattr(p, pairs) * p.ablation_share))
    return p.but(seed=seed, **changes)


def run_full_chains(p: Profile, groups: Sequence[int]) -> None:
    """Stages 1 to 4 of the full chains of some groups, for each seed; what is finished is not run again.

    Raises FileNotFoundError where stage 0 of the ladder is missing.
    """
    read_run(stage_folder(p, 0))
    mine = one_share(p)
    seeds = seeds_of(p)
    run_jobs(p, [(full_stage, (mine, BASE, seed, 1)) for seed in seeds])
    run_jobs(p, [(full_stage, (mine, group, seed, 4)) for seed in seeds for group in groups])


def sft_updates(p: Profile, group: int, seed: int) -> int:
    """Updates of stage 4 in a group's full chain."""
    return read_run(full_folder(p, group, seed, 4))["steps"]


def n_updates(folder: str | Path) -> int:
    """Updates of a folder's stage and of all stages it was made from."""
    return sum(run.get("steps", 0) for _, run in lineage(folder))


def n_tokens(folder: str | Path) -> int:
    """Tokens trained on in a folder's stage and in all stages it was made from; stage 5 counts none."""
    return sum(run.get("tokens_seen", 0) for _, run in lineage(folder))


def gating_records(p: Profile, group: int) -> list[Record]:
    """Scores on a group's test sentences with its own module, with each other group's, and with none (stage 1)."""
    mine = one_share(p)
    jobs = [(evaluate_folder, (mine, stage_folder(p, 1), group, "no module"))]
    for other in sorted({group, *p.group_numbers}, key=lambda g: (g != group, g)):
        jobs.append((evaluate_folder, (mine, stage_folder(p, 5, other), group, f"module of group {other}")))
    return [record for found in run_jobs(p, jobs) for record in found]


def gating_table(records: Iterable[Record], names: Sequence[str]) -> pd.DataFrame:
    """One row per direction class and module: BLEU, chrF, bits per byte, off-target and empty rate."""
    records = list(records)
    found = cells_of(records)
    columns = {
        "bleu": "BLEU",
        "chrf": "chrF",
        BITS: "bits per byte",
        "off_target": off_target_label(records),
        "empty": "empty %",
    }
    rows = list(itertools.product(ARROWS.items(), names))
    table = pd.DataFrame(
        [
            {"direction": arrow, "module": name}
            | {columns[key]: found[name, direction][0][key] for key in columns}
            for (direction, arrow), name in rows
        ]
    )
    cells = {(i, columns[key]): (name, key) for i, (_, name) in enumerate(rows) for key in columns}
    return mark_doubtful(table, records, cells)


def ablation_table(study: Study) -> pd.DataFrame:
    """`study_table` of `ablate_stages`, with the paper's COMET-22 where it shows that chain."""
    paper = {
        (direction, chain): printed_scores("h", direction, name, "COMET-22")
        for direction in ARROWS
        for chain, name in PAPER_CHAINS.items()
    }
    return study_table(study, paper).drop(columns="ends with")


def published_stages() -> pd.DataFrame:
    """The paper's stage ablation (table h) as printed: stages added one after another; "?" is an unsure cell."""
    cells = published("h")
    cells = cells[cells["table"] == "h_ablation_stages"]
    wide = cells.pivot(index="system", columns="direction", values="shown").reindex(cells["system"].unique())
    wide = wide.rename(columns=lambda direction: f"paper COMET-22 {ARROWS[direction]}")
    return wide.rename_axis(columns=None).rename_axis("stages up to").reset_index()


def ablation_findings(study: Study) -> list[str]:
    """`study_findings`, after which recipe is worst and which best, and who got no pairs.

    Worst and best are named where their interval keeps them apart from the next, and so never from one seed.
    """
    found = cells_of(study.records)
    values = by_seed(study.records).sort_index()
    sentences = []
    for direction, arrow in ARROWS.items():
        bits = {name: found[name, direction][0][BITS] for name in CHAINS if name != "base"}
        best, second, *_, last_but_one, worst = sorted(bits, key=bits.__getitem__)
        parts = (
            [f"worst is the recipe {CHAINS[worst]}"]
            if apart(values, worst, last_but_one, direction, BITS)
            else []
        )
        if apart(values, best, second, direction, BITS):
            parts.append(
                "the full recipe is best" if best == FULL_CHAIN else f"best is the recipe {CHAINS[best]}"
            )
        sentences += [f"{arrow}, in bits per byte: {'; '.join(parts)}."] if parts else []
    sentences += [
        f"The recipe {CHAINS[chain]} ends with stage {columns['ends with']}: its translations were so far from the "
        f"references that no preference pair passed the filters."
        for chain, columns in study.systems.items()
        if chain not in ("base", "no-stage5") and columns["ends with"] < 5
    ]
    return [*sentences, *study_findings(study)]
