"""The long form of notebook 08: all methods and ARPO's switches over several seeds, filed, and read back from files.

It takes much longer than `make reproduce` may, so its results have a folder of their own under results/<profile>: a
short run leaves them alone, and shows them from these files, which need no trained module.

    scores.jsonl  a record for each system, seed, direction and metric
    probes.csv    average log-probabilities of fixed pairs during training (`over_rejection.probe_frame`)
    tau.csv       ARPO's z and tau, means and histograms of each batch (`over_rejection.tau_frame`)
    run.json      the command, systems, pairs, versions, hardware
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.evaluation.records import Record, footnote, read_records, write_run
from xalma.files import read_json
from xalma.paper.studies.module_sharing import (
    MEAN,
    OWN,
    SHARING_STAGES,
    SUM,
    compare_sharing,
    sharing_labels,
    size_sets,
)
from xalma.paper.studies.over_rejection import probe_frame, tau_frame
from xalma.paper.studies.preference_methods import (
    MethodSetup,
    arpo_variants,
    compare_methods,
    read_pairs,
    system_folder,
    systems,
)
from xalma.paper.studies.preference_tables import method_labels
from xalma.paper.studies.seeds import MIN_SEEDS, SFT, by_seed, paired, seeds_of
from xalma.paper.studies.sft_data import DATA, sft_languages, shared_updates
from xalma.paper.studies.study import Study, file_records, file_study, one_share, read_study, rows_of
from xalma.paper.studies.style import content_records, with_renderings
from xalma.paper.tables import write_csv, write_table
from xalma.profiles import Profile, load_profile
from xalma.runs import BASE, read_log, read_run, recipe_hash, results_folder, stage_folder
from xalma.training.ladder import MODULE_STAGES, for_each_group, translate_test
from xalma.training.stages import stage0_backbone, stage1_monolingual_base

_COUNTS = ["tau_counts", "z_counts"]


@dataclass(frozen=True)
class LongForm:
    """What a long run found. run: run.json; probes, taus: as in `over_rejection`."""

    run: dict[str, Any]
    records: list[Record]
    probes: pd.DataFrame
    taus: pd.DataFrame

    @property
    def systems(self) -> list[MethodSetup]:
        """All systems compared, the methods of Table 5 first."""
        return [MethodSetup(**values) for values in self.run["systems"]]

    @property
    def methods(self) -> list[MethodSetup]:
        """Those that are methods of Table 5."""
        return [system for system in self.systems if system.name == system.method]

    @property
    def variants(self) -> list[MethodSetup]:
        """Those that are ARPO with other values."""
        return [system for system in self.systems if system.name != system.method]

    def of(self, chosen: Iterable[MethodSetup]) -> list[Record]:
        """The records of some systems and of the SFT module they start from."""
        names = {SFT, *(system.name for system in chosen)}
        return [record for record in self.records if record.stage in names]


def is_long(p: Profile) -> bool:
    """Whether the profile asks for the long form: enough seeds for an interval."""
    return p.seeds >= MIN_SEEDS


def long_folder(p: Profile) -> Path:
    """Where the long form's files lie."""
    return results_folder(p) / "preference" / "long"


def plan(p: Profile) -> str:
    """One sentence on what the long form will do; its time is in no file before it was run once."""
    n = len(systems(p)) + len(arpo_variants(p))
    return (
        f"{n} systems × {p.seeds} seeds: {n * p.seeds} modules to train and to test on {p.workers} worker(s)."
    )


def run_long_form(p: Profile, records: Iterable[Record]) -> LongForm:
    """Train and test ARPO's variants, and file all. records: those of the methods, from `compare_methods`.

    Finished systems are not trained again.
    """
    variants = arpo_variants(p)
    groups = p.comparison_group_numbers
    chosen = [*systems(p), *variants]
    folder = long_folder(p)
    found = [*records, *(record for group in groups for record in compare_methods(p, group, variants))]
    # the start comes twice
    file_records(folder / "scores.jsonl", {record.key: record for record in found}.values())
    write_csv(folder / "probes.csv", pd.concat([probe_frame(p, group, chosen) for group in groups]))
    taus = pd.concat([tau_frame(p, group, chosen) for group in groups])
    joined = {name: taus[name].map(lambda counts: " ".join(map(str, counts))) for name in _COUNTS}
    write_csv(folder / "tau.csv", taus.assign(**joined))
    write_run(
        folder / "run.json",
        p.command("08"),
        profile=p.name,
        groups=list(groups),
        seeds=list(seeds_of(p)),
        updates=int(taus["step"].max()),
        pairs={group: read_pairs(p, group)[1] for group in groups},
        systems=[asdict(system) for system in chosen],
        **p.values("stage5_batch_size", "stage5_learning_rate", "test_pairs"),
    )
    return read_long_form(p)


def read_long_form(p: Profile) -> LongForm | None:
    """The profile's long form from its files alone; None where it was not run."""
    folder = long_folder(p)
    run = _read_run(folder, "08", ("systems",))
    if run is None:
        return None
    taus = pd.read_csv(folder / "tau.csv")
    for name in _COUNTS:
        taus[name] = [list(map(int, text.split())) for text in taus[name]]
    return LongForm(run, read_records(folder / "scores.jsonl"), pd.read_csv(folder / "probes.csv"), taus)


GRPO_STUDY = "sft,cpo,arpo,grpo"  # continued SFT, of which a gain over SFT may come, and two that read pairs
_SCORES = {"BLEU": "bleu", "chrF": "chrf", "content %": "content", "bits per byte": "bits_per_byte"}


def grpo_folder(p: Profile) -> Path:
    """Where the comparison with GRPO lies: scores.jsonl, rewards.csv, run.json and tables/."""
    return results_folder(p) / "grpo"


def grpo_table(records: Sequence[Record], labels: Mapping[str, str]) -> pd.DataFrame:
    """One row per direction class and method: scores with ±, and the content score − continued SFT's.

    BLEU and chrF are of the family of GRPO's reward, and marked; the content score and the bits per byte are not.
    """
    values = by_seed(records).sort_index()

    def after(name: str, direction: str, _: Mapping[str, float]) -> dict[str, float]:
        gap, half = math.nan, math.nan
        if name not in (SFT, "sft"):
            gap, half = paired(values, name, "sft", direction, "content")
        return {"content − continued SFT": gap, "± of it": half}

    return rows_of(records, labels, lambda name, _: {"method": labels[name]}, _SCORES, after)


def _content(p: Profile, group: int, chosen: Sequence[MethodSetup]) -> Iterator[Record]:
    """The content score, which no method was rewarded by, of the SFT module and of each system and seed."""
    folders = {(SFT, p.seed): stage_folder(p, 4, group)}
    folders |= {(s.name, seed): system_folder(p, group, s, seed) for s in chosen for seed in seeds_of(p)}
    for (name, seed), folder in folders.items():
        rows = translate_test(one_share(p), folder, group)
        yield from content_records(with_renderings(p, rows), p, name, seed)


def reward_frame(p: Profile, group: int) -> pd.DataFrame:
    """Mean reward of each update's answers, and the share of prompts whose answers were all rewarded alike."""
    columns, rows = {"reward": "reward", "frac_reward_zero_std": "groups without a difference"}, []
    for system, seed in itertools.product(systems(p), seeds_of(p)):
        if system.method == "grpo":
            log = read_log(system_folder(p, group, system, seed))
            rows += [
                {"seed": seed, "step": entry["step"], **{to: entry[name] for name, to in columns.items()}}
                for entry in log
                if entry["kind"] == "train"
            ]
    return pd.DataFrame(rows, columns=["seed", "step", *columns.values()])


def read_grpo(p: Profile) -> tuple[dict[str, Any], pd.DataFrame] | None:
    """(run.json, `grpo_table`) of the comparison with GRPO from its files alone; None where it was not run."""
    path = grpo_folder(p) / "run.json"
    if not path.exists():
        return None
    run = read_json(path, "run `make grpo` again", keys=("systems",))
    labels = method_labels([MethodSetup(**values) for values in run["systems"]])
    return run, grpo_table(read_records(grpo_folder(p) / "scores.jsonl"), labels)


def run_grpo_study(argv: Sequence[str] | None = None) -> None:
    """GRPO beside methods of Table 5, from the SFT module of a profile's ladder; `make grpo`."""
    parser = argparse.ArgumentParser(prog="python -m xalma.paper.studies.long_form")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="values")
    asked = parser.parse_args(argv)
    p = load_profile(asked.profile, seeds=3, methods=GRPO_STUDY)
    p = p.but(**dict(value.split("=", 1) for value in asked.values))
    group = p.comparison_group_numbers[0]
    chosen = systems(p)
    folder = grpo_folder(p)
    records = [*compare_methods(p, group), *_content(p, group, chosen)]
    records = file_records(folder / "scores.jsonl", records)
    rewards = reward_frame(p, group)
    write_csv(folder / "rewards.csv", rewards)
    values = [f"--set {value}" for value in asked.values]
    made = (
        " ".join([f"python -m {parser.prog.split()[-1]} --profile {p.name}", *values])
        if values
        else "make grpo"
    )
    caption = f"GRPO beside other methods, Group {group}, from one SFT module"
    table = grpo_table(records, method_labels(chosen))
    write_table(table, folder / "tables" / "grpo", caption, footnote(records, "content", made), decimals=3)
    start = read_run(stage_folder(p, 4, group))
    seconds = {
        system.name: [read_run(system_folder(p, group, system, seed))["seconds"] for seed in seeds_of(p)]
        for system in chosen
    }
    write_run(
        folder / "run.json",
        made,
        profile=p.name,
        group=group,
        seeds=list(seeds_of(p)),
        updates=int(rewards["step"].max()),
        seconds=seconds,
        pairs=read_pairs(p, group)[1],
        systems=[asdict(system) for system in chosen],
        recipe=recipe_hash(),
        start={"fingerprint": start["fingerprint"], "recipe": start["inputs"]["recipe"]},
        **p.values("stage5_batch_size", "stage5_learning_rate", "test_pairs", "comparison_pairs"),
    )


@dataclass(frozen=True)
class LongAblations:
    """What a long run found. run: run.json."""

    run: dict[str, Any]
    studies: list[Study]


def ablations_folder(p: Profile) -> Path:
    """Where the long form's files lie."""
    return results_folder(p) / "ablations" / "long"


def ablations_plan(p: Profile) -> str:
    """One sentence on how long the trainings of notebook 09 will take, going by the main ladder's stages."""
    try:
        seconds = training_seconds(p) / p.workers
    except FileNotFoundError:
        return "How long this takes is not known: the main ladder's stages, notebooks 03 to 07, are not all there."
    return (
        f"Training takes about {seconds / 60:.0f} minutes on {p.workers} worker(s), going by the seconds that the main "
        f"ladder's stages took; scoring comes on top, and what is finished is not trained again."
    )


def training_seconds(p: Profile) -> float:
    """Seconds of one worker for all chains of notebook 09. Raises FileNotFoundError where the ladder is not whole."""
    group = p.comparison_group_numbers[0]
    sums = [_seconds(p, 1), *(_chain(p, group, first, 5) for first in range(2, 6))]
    stages = sums[0] + sums[1] + sum(sums[1:])  # the full chain, and each without one of stages 1 to 4
    groups = {*p.group_numbers, *p.comparison_group_numbers}
    own = {g: _chain(p, g, SHARING_STAGES[0], SHARING_STAGES[-1]) for g in groups}
    sharing = len(sharing_labels(p).keys() - {OWN, MEAN, SUM}) * sum(own[g] for g in p.group_numbers)
    sizes = sum((len(size_sets(p, g, p.seed)) - 1) * own[g] for g in p.comparison_group_numbers)
    others = sum(own.values()) - own[group]  # the full chains of the other groups
    shared = p.ablation_share * (stages + sharing + sizes + others)
    return p.seeds * (shared + _sft_seconds(p, group))


def _chain(p: Profile, group: int, first: int, last: int) -> float:
    return sum(_seconds(p, number, group) for number in range(first, last + 1))


def _seconds(p: Profile, number: int, group: int = BASE) -> float:
    return read_run(stage_folder(p, number, group))["seconds"]


def _sft_seconds(p: Profile, group: int) -> float:
    if not sft_languages(p, group):
        return 0.0
    run = read_run(stage_folder(p, 4, group))
    return len(DATA) * shared_updates(p, group) * run["seconds"] / run["steps"]


def file_ablations(p: Profile, studies: Sequence[Study], command: str = "") -> None:
    """Write the studies, and run.json, which names them and the command, notebook 09's if no other is given."""
    for study in studies:
        file_study(ablations_folder(p), study)
    write_run(
        ablations_folder(p) / "run.json",
        command or p.command("09"),
        profile=p.name,
        seeds=list(seeds_of(p)),
        studies=[study.name for study in studies],
        **p.values("ablation_share", "ablation_sft_share", "groups", "comparison_groups"),
    )


def read_ablations(p: Profile) -> LongAblations | None:
    """The profile's long form from its files alone; None where it was not run."""
    folder = ablations_folder(p)
    run = _read_run(folder, "09", ("studies",))
    return run and LongAblations(run, [read_study(folder, name) for name in run["studies"]])


def _read_run(folder: Path, notebook: str, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """run.json of a notebook's long form; None where it was not run. Raises ValueError for a damaged one."""
    path = folder / "run.json"
    return (
        read_json(path, f"run the long form of notebook {notebook} again", keys=keys)
        if path.exists()
        else None
    )


def run_sharing_study() -> None:
    """Whose module (`compare_sharing`) at the default run's whole budgets, three seeds; `make sharing`.

    The main ladder's stages are run where they are not finished.
    """
    p = load_profile("tiny", seeds=MIN_SEEDS, ablation_share=1.0)
    stage0_backbone(p)
    stage1_monolingual_base(p)
    for number in SHARING_STAGES:
        for_each_group(MODULE_STAGES[number], p)
    file_ablations(p, [compare_sharing(p)], "make sharing")


if __name__ == "__main__":
    run_sharing_study() if sys.argv[1:] == ["sharing"] else run_grpo_study()
