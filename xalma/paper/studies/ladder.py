"""`make ladder`: the default run's ladder over several seeds, its budgets unchanged, and SFT without what is before it.

Every system ends with the same SFT pairs: after all of stages 1 to 3, without one of them, and on random weights.
Seeds change the text that is drawn, its order and the fresh modules. Base and test sentences are one for all, those of
`p.seed`, so that the spread over seeds is of training alone. Another seed's training text holds none of them: the
content of a phrase chooses its split. The content score counts outputs that state their source's facts, in any of the
CLDR's styles.

Before SFT the full chain is measured without a prompt (`few_shot_rows`). With seed `p.seed` it is the main ladder's.

`make ladder-large` is the same with more text in stages 2 and 3 (`LARGE`): what a module learns from more of it, and
how much less stage 1 is then missed. Its stages and files lie in a folder of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xalma.evaluation.records import Record, footnote, read_records, write_records, write_run
from xalma.files import read_json
from xalma.languages import ARROWS
from xalma.paper.studies.seeds import by_seed, cells_of, judged, paired, seeds_of
from xalma.paper.studies.stage_ablation import FULL_CHAIN, branch_of, full_folder, full_stage, n_tokens
from xalma.paper.studies.study import Study, file_study, one_share, read_study, rows_of, study_note
from xalma.paper.studies.style import content_records, with_renderings
from xalma.paper.tables import mark_doubtful, mark_unnoticed, write_table
from xalma.profiles import Profile, load_profile
from xalma.runs import read_run, results_folder, stage_folder
from xalma.training.ladder import (
    MODULE_STAGES,
    continue_test,
    run_chain,
    score_continuations,
    score_rows,
    translate_test,
)
from xalma.training.stages import stage0_backbone, stage1_monolingual_base
from xalma.training.workers import run_jobs

RANDOM = "random"
SFT_SYSTEMS = {
    FULL_CHAIN: "stages 1 to 3, then SFT",
    "no-stage1": "without stage 1, monolingual base",
    "no-stage3": "without stage 3, pseudo-monolingual",
    RANDOM: "random weights, SFT alone",
}
SEEDS, LARGE_SEEDS = 5, 3
LARGE = {"stage2_tokens": 240_000, "stage3_tokens": 1_200_000}  # four times and three times the default run's
BEFORE_SFT = ("base", "stage1", "stage2", "stage3")
FEW_SHOT = {
    "one-shot BLEU": "bleu",
    "content %": "content",
    "text bits": "text_bits",
    "partner gain": "partner_gain",
}


def ladder_study(p: Profile, group: int) -> tuple[Study, list[Record]]:
    """(SFT's scores with and without the stages before it, the full chain's few-shot scores), for each seed.

    Finished stages are not run again. Raises FileNotFoundError where stage 0 of the main ladder is missing.
    """
    mine = one_share(p.but(ablation_share=1.0))
    seeds = seeds_of(p)
    read_run(stage_folder(p, 0))
    found: list[Record] = []
    for systems in (
        (FULL_CHAIN,),
        tuple(name for name in SFT_SYSTEMS if name != FULL_CHAIN),
    ):  # the others start from its stages
        jobs = [(_score, (mine, group, seed, name)) for seed in seeds for name in systems]
        found += [record for records in run_jobs(p, jobs) for record in records]
    jobs = [(_continue, (mine, group, seed, number)) for seed in seeds for number in range(len(BEFORE_SFT))]
    few_shot = [record for records in run_jobs(p, jobs) for record in records]
    tokens = {name: n_tokens(_folder(mine, group, p.seed, name)) for name in SFT_SYSTEMS}
    systems = {name: {"system": label, "tokens read": tokens[name]} for name, label in SFT_SYSTEMS.items()}
    return Study(
        f"group{group}",
        f"SFT with and without the stages before it, Group {group}",
        FULL_CHAIN,
        systems,
        found,
    ), few_shot


def _folder(p: Profile, group: int, seed: int, system: str) -> Path:
    """The stage-4 folder of a system, its stages run where they are not finished."""
    if system == FULL_CHAIN and seed == p.seed:
        stage1_monolingual_base(p)
        return [MODULE_STAGES[number](p, group) for number in (2, 3, 4)][-1]
    if system == FULL_CHAIN:
        return full_stage(p, group, seed, 4)
    q = p.but(seed=seed)
    branch = branch_of(seed, f"sft-{system}")
    if system == RANDOM:
        blank = q.but(base="")
        return run_chain(blank, group, stage0_backbone(blank, branch=branch), [4], branch)
    left_out = int(system[-1])
    return run_chain(q, group, full_folder(p, group, seed, left_out - 1), range(left_out + 1, 5), branch)


def _score(p: Profile, group: int, seed: int, system: str) -> list[Record]:
    rows = translate_test(p, _folder(p, group, seed, system), group)
    return score_rows(rows, p, system, seed) + content_records(with_renderings(p, rows), p, system, seed)


def _continue(p: Profile, group: int, seed: int, number: int) -> list[Record]:
    rows = continue_test(p, full_folder(p, group, seed, number), group)
    name = BEFORE_SFT[number]
    return score_continuations(rows, p, name, seed) + content_records(with_renderings(p, rows), p, name, seed)


def sft_table(study: Study) -> pd.DataFrame:
    """One row per direction class and system: BLEU with ±, its range over seeds, and the difference to all stages."""
    found = cells_of(study.records)
    values = by_seed(study.records).sort_index()
    rows, cells = [], {}
    for direction, arrow in ARROWS.items():
        for name, facts in study.systems.items():
            mean, half = found[name, direction]
            seeds = values[name, direction, "bleu"]
            gap, gap_half = paired(values, name, study.baseline, direction, "bleu")
            row = {"direction": arrow, **facts, "BLEU": mean["bleu"], "±": half["bleu"]}
            row |= {
                "range over seeds": seeds.max() - seeds.min(),
                "BLEU − all stages": gap,
                "± of it": gap_half,
            }
            cells[len(rows), "BLEU"] = (name, "bleu")
            rows.append(row | {"content %": mean["content"], "bits per byte": mean["bits_per_byte"]})
    table = mark_unnoticed(pd.DataFrame(rows), {"BLEU − all stages": "bleu"})
    return mark_doubtful(table, study.records, cells)


def sft_findings(study: Study) -> list[str]:
    """Sentences made from the records: each system's BLEU against all stages, per direction class."""
    values = by_seed(study.records).sort_index()
    sentences = []
    for direction, arrow in ARROWS.items():
        for name, label in study.labels.items():
            if name != study.baseline:
                gap, half = paired(values, name, study.baseline, direction)
                sentences.append(f"{arrow}, {label}: {judged(gap, half)}.")
    return sentences


def few_shot_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per direction class and stage before SFT: each measure of `FEW_SHOT` that the records have, with ±."""
    measured = {record.metric for record in records}  # facts are counted over seeds only
    columns = {column: metric for column, metric in FEW_SHOT.items() if metric in measured}
    return rows_of(records, BEFORE_SFT, lambda stage, _: {"after": stage}, columns)


def ladder_folder(p: Profile, large: bool = False) -> Path:
    """Where the study's files lie: per group records and tables, and run.json."""
    return results_folder(p) / "ladder" / ("large" if large else "")


def file_ladder(p: Profile, study: Study, few_shot: Sequence[Record], large: bool = False) -> None:
    """Write a group's records and tables, under the study's name."""
    folder = ladder_folder(p, large)
    made = "make ladder-large" if large else "make ladder"
    study = file_study(folder, study)
    few_shot = read_records(write_records(folder / f"{study.name}_few_shot.jsonl", few_shot))
    write_table(sft_table(study), folder / "tables" / study.name, study.title, study_note(study, made))
    caption = "Before SFT: continuations after one example pair, without a prompt"
    stem = folder / "tables" / f"{study.name}_few_shot"
    write_table(few_shot_table(few_shot), stem, caption, footnote(few_shot, "bleu", made), decimals=3)


def budget_table(p: Profile, group: int) -> pd.DataFrame:
    """What more text in stages 2 and 3 changes: a row per direction class and filed ladder, the default run's first."""
    rows = []
    for direction, arrow in ARROWS.items():
        for folder in (ladder_folder(p), ladder_folder(p, large=True)):
            if not (folder / "run.json").exists():
                continue
            run = read_json(folder / "run.json", "run `make ladder` again", keys=("stage3_tokens",))
            study = read_study(folder, f"group{group}")
            before = cells_of(read_records(folder / f"group{group}_few_shot.jsonl"))["stage3", direction][0]
            after = cells_of(study.records)[FULL_CHAIN, direction][0]
            gap, half = paired(by_seed(study.records).sort_index(), "no-stage1", FULL_CHAIN, direction)
            rows.append(
                {
                    "direction": arrow,
                    "tokens of stage 3": f"{run['stage3_tokens']:,}",
                    "BLEU after stage 3": before["bleu"],
                    "content %": before["content"],
                    "BLEU after SFT": after["bleu"],
                    "without stage 1": gap,
                    "± of it": half,
                }
            )
    return mark_unnoticed(pd.DataFrame(rows), {"without stage 1": "bleu"})


def run_ladder_study(argv: Sequence[str] | None = None) -> None:
    """The study of a profile's comparison groups; the ladder's stages are run where they are not finished."""
    parser = argparse.ArgumentParser(prog="python -m xalma.paper.studies.ladder")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--large", action="store_true", help=f"with {LARGE}, beside the main ladder")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="values")
    asked = parser.parse_args(argv)
    p = load_profile(asked.profile, seeds=LARGE_SEEDS if asked.large else SEEDS)
    if asked.large:
        p = p.but(**LARGE, run_dir=str(Path(p.run_dir) / "large"))
    p = p.but(**dict(value.split("=", 1) for value in asked.values))
    stage0_backbone(p)
    for group in p.comparison_group_numbers:
        file_ladder(p, *ladder_study(p, group), asked.large)
    write_run(
        ladder_folder(p, asked.large) / "run.json",
        "make ladder-large" if asked.large else "make ladder",
        profile=p.name,
        seeds=list(seeds_of(p)),
        groups=list(p.comparison_group_numbers),
        **p.values("stage1_tokens", "stage2_tokens", "stage3_tokens", "sft_pairs", "stage4_epochs"),
    )


if __name__ == "__main__":
    run_ladder_study()
