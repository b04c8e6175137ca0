"""The measured parts of README.md and docs/findings.md, written from results/; a test keeps them current.

`python docs/readme.py DIR` first takes scores and tables of DIR, a second run of tiny as `SECOND_RUN` makes
it, into results/tiny-avx2: the same commit and seed, computed as another kind of processor does.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.evaluation.records import read_records
from xalma.evaluation.significance import ALPHA
from xalma.evaluation.thresholds import THRESHOLDS
from xalma.files import read_json, write_atomically
from xalma.languages import ARROWS
from xalma.paper.figures.real_base import method_label
from xalma.paper.paper_tables import difference_text, groups_sentence
from xalma.paper.real_base.tables import READABLE, method_seeds, read_methods
from xalma.paper.studies.ladder import RANDOM
from xalma.paper.studies.seeds import by_seed, cells_of, paired
from xalma.paper.studies.stage_ablation import FULL_CHAIN
from xalma.paper.studies.study import read_study
from xalma.paper.tables import markdown_grid
from xalma.profiles import load_profile
from xalma.runtime import REPOSITORY

RESULTS = REPOSITORY / "results" / "tiny"
SECOND = REPOSITORY / "results" / "tiny-avx2"
SECOND_RUN = (
    "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 xalma run --profile tiny --set mixed_precision=off"
)
_REAL = REPOSITORY / "results" / "real"
_REAL_CPU = REPOSITORY / "results" / "real-cpu"

PAGES = ("README.md", "docs/findings.md")
MADE_AGAIN = "take the committed file back with `git restore`, or run the profile again"


def _cost(results: Path) -> dict[str, Any]:
    return read_json(results / "cost.json", MADE_AGAIN, keys=("provenance", "seconds", "seed"))


def cost_block(results: Path = RESULTS) -> str:
    """Minutes of each notebook of the committed run, its hardware and seed, as Markdown."""
    cost = _cost(results)
    hardware, seconds = cost["provenance"]["hardware"], cost["seconds"]
    minutes = " · ".join(f"{name[:2]} {value / 60:.1f}" for name, value in seconds.items())
    return (
        f"The notebooks took **{sum(seconds.values()) / 60:.1f} minutes** in sum on {hardware['cores']} cores "
        f"({hardware['cpu']}, {hardware['memory_gib']} GiB, no GPU); minutes per notebook: {minutes}. "
        f"Seed {cost['seed']}, commit of the last start `{cost['provenance']['commit'][:10]}`, "
        "from `results/tiny/cost.json`.\n\n"
        "Of `tiny` a GPU run: not measured."
    )


def ladder_block(results: Path = RESULTS) -> str:
    """The ladder table of the committed run without its caption and note, as Markdown."""
    text = (results / "tables" / "ladder_bleu.md").read_text(encoding="utf-8")
    return "\n".join(line for line in text.split("\n") if line.startswith("|"))


def findings_block(results: Path = RESULTS, group: int = 6) -> str:
    """What the ladder over seeds and the group tests of the default run show, in sentences with their intervals."""
    ladder = Ladder(results / "ladder", group)
    early = [max(ladder.cells[stage, d][0]["bleu"] for stage in ("base", "stage1", "stage2")) for d in ARROWS]
    lines = [
        f"Over {ladder.seeds} seeds of group {group} (`make ladder`, [tables](../results/tiny/ladder/tables); "
        "one test set for all; en→xx / xx→en; ± is half a 95 % interval over seeds):",
        "",
        f"- After stage 3, with one example pair and no prompt: BLEU {_bleu(ladder.cells, 'stage3')}; after stages 0 "
        f"to 2 at most {' / '.join(f'{value:.1f}' for value in early)}.",
        f"- Of those continuations {_percent(ladder.cells, 'stage3')} % state the facts of their source letter for "
        f"letter, in any of the CLDR's styles; after SFT, of the answers to the prompt, "
        f"{_percent(ladder.answers, FULL_CHAIN)} %.",
        f"- After SFT, with the prompt: BLEU {_bleu(ladder.answers, FULL_CHAIN)}; from the lowest seed to the highest "
        f"{' / '.join(f'{spread:.1f}' for spread in _spreads(ladder.sft))} BLEU.",
        *ladder.without({"stage 1": "no-stage1", "stage 3": "no-stage3", "": RANDOM}),
        *ladder.text_bits({"stage1": "base", "stage2": "stage1"}),
        *_large_lines(results / "ladder" / "large", group),
        *_sharing_lines(results / "ablations" / "long"),
    ]
    for metric, name in (("bleu", "BLEU"), ("chrf", "chrF")):
        file = results / "tables" / f"tests_stage4_stage5_{metric}_groups.csv"
        lines.append(
            f"- The default run, one seed: {groups_sentence(pd.read_csv(file), 'SFT', 'ARPO', name)}"
        )
    return "\n".join(lines)


def _large_lines(folder: Path, group: int) -> list[str]:
    """The same with more text in stages 2 and 3, where that was run."""
    if not (folder / "run.json").exists():
        return []
    ladder = Ladder(folder, group)
    run = read_json(folder / "run.json", "run `make ladder-large` again")
    return [
        f"- With more text, {run['stage2_tokens']:,} tokens in stage 2 and {run['stage3_tokens']:,} in stage 3 "
        f"(`make ladder-large`, {ladder.seeds} seeds, [tables](../results/tiny/ladder/large/tables)): after stage 3 "
        f"BLEU {_bleu(ladder.cells, 'stage3')}, and {_percent(ladder.cells, 'stage3')} % of the continuations state "
        f"the facts of their source; after SFT BLEU {_bleu(ladder.answers, FULL_CHAIN)} and "
        f"{_percent(ladder.answers, FULL_CHAIN)} %.",
        *(
            f"{line[:2]}With more text: {line[2].lower()}{line[3:]}"
            for line in ladder.without({"stage 1": "no-stage1"}) + ladder.text_bits({"stage2": "stage1"})
        ),
    ]


def _sharing_lines(folder: Path) -> list[str]:
    """Each other system against a module per group, where that was run."""
    if not (folder / "modules.json").exists():
        return []
    study = read_study(folder, "modules")
    values = by_seed(study.records).sort_index()
    seeds = cells_of(study.records)["n_seeds", "max"]
    names = {
        "shared": "one module for all",
        "dense": "full weights",
        "language": "one per language",
        "mean": "their mean",
    }
    gaps = {
        label: {d: paired(values, name, study.baseline, d) for d in ARROWS} for name, label in names.items()
    }
    said = "; ".join(f"{label} {_gaps(gap)}{_inside(gap)}" for label, gap in gaps.items())
    return [
        f"- Against a module per group, from one base with the same updates in sum (`make sharing`, {seeds} seeds): "
        f"{said} BLEU."
    ]


class Ladder:
    """A filed ladder over seeds: `cells` before SFT, `answers` after it, and the values of each seed."""

    def __init__(self, folder: Path, group: int) -> None:
        study = read_study(folder, f"group{group}")
        before = read_records(folder / f"group{group}_few_shot.jsonl")
        self.sft = by_seed(study.records).sort_index()
        self.few_shot = by_seed(before).sort_index()
        self.cells = cells_of(before)
        self.answers = cells_of(study.records)
        self.seeds = self.cells["n_seeds", "max"]

    def without(self, systems: dict[str, str]) -> list[str]:
        """A sentence for each {what is left out, "" for all of it: name of the system}."""
        gaps = {
            left_out: {d: paired(self.sft, name, FULL_CHAIN, d) for d in ARROWS}
            for left_out, name in systems.items()
        }
        return [
            f"- The same SFT pairs {f'without {left_out}' if left_out else 'on random weights'}: {_gaps(gap)} "
            f"BLEU{_inside(gap)}."
            for left_out, gap in gaps.items()
        ]

    def text_bits(self, stages: dict[str, str]) -> list[str]:
        """A sentence for each {stage: the stage before it}."""
        gaps = {
            one: {d: paired(self.few_shot, one, other, d, "text_bits") for d in ARROWS}
            for one, other in stages.items()
        }
        return [
            f"- What stage {one[-1]} adds to the bits per byte of text alone (less is better; the other languages / "
            f"English): {_gaps(gap, 3)}{_inside(gap)}."
            for one, gap in gaps.items()
        ]


def _bleu(cells: dict, system: str) -> str:
    found = [cells[system, direction] for direction in ARROWS]
    return " / ".join(f"{mean['bleu']:.1f} ± {half['bleu']:.1f}" for mean, half in found)


def _percent(cells: dict, system: str) -> str:
    return " / ".join(f"{cells[system, direction][0]['content']:.0f}" for direction in ARROWS)


def _spreads(values: pd.Series) -> list[float]:
    seeds = [values[FULL_CHAIN, direction, "bleu"] for direction in ARROWS]
    return [found.max() - found.min() for found in seeds]


def _gaps(pairs: dict[str, tuple[float, float]], places: int = 1) -> str:
    return " / ".join(f"{gap:+.{places}f} ± {half:.{places}f}" for gap, half in pairs.values())


def _inside(pairs: dict[str, tuple[float, float]]) -> str:
    """Names the directions whose difference is within its interval: of them nothing is claimed."""
    inside = [ARROWS[direction] for direction, (gap, half) in pairs.items() if abs(gap) <= half]
    return f" (within its interval: {', '.join(inside)})" if inside else ""


def adopt(run: Path, target: Path = SECOND) -> None:
    """Copy scores, tables, run.json and cost.json of results folder `run` to `target`, in place of what is there.

    Raises ValueError where `run` was not made with `SECOND_RUN`'s values.
    """
    for file in (
        "run.json",
        "cost.json",
    ):  # cost.json stays as it was where a run with other values overwrites results
        command = read_json(run / file, MADE_AGAIN, keys=("command",))["command"]
        if not SECOND_RUN.endswith(command):
            raise ValueError(f"{run / file} was made by `{command}`, not by `{SECOND_RUN}`")
    shutil.rmtree(target, ignore_errors=True)
    for part in ("scores", "tables"):
        shutil.copytree(run / part, target / part)
    for file in ("run.json", "cost.json"):
        shutil.copy(run / file, target / file)


def real_block(results: Path = _REAL) -> str:
    """BLEU on a real base after each stage, means over all languages, and what preference methods add, as Markdown."""
    about = read_json(results / "tables" / "12_about.json", MADE_AGAIN, keys=("segments",))
    ladder = pd.read_csv(results / "tables" / "12_ladder_bleu.csv")
    ladder["direction"] = ladder["direction"].map(ARROWS)
    ladder = ladder.loc[
        ladder["group"].str.startswith("all"),
        ["group", "direction", *(f"stage{n}" if n else "base" for n in range(5))],
    ]
    methods = _by_rate(read_methods([results], 6), ("bleu", "chrf++"))
    n = about["segments"]
    return (
        f"BLEU on the first {n} sentences of FLORES-200 devtest, 95 % intervals over documents:\n\n{_grid(ladder)}\n\n"
        f"Preference methods on group 6 at two learning rates: what each adds to SFT (\\* leaves out 0; ° is below "
        f"{THRESHOLDS['bleu']:g} BLEU, which people would not notice; of chrF++ nobody has published that):\n\n"
        f"{_grid(methods)}"
    )


def _by_rate(methods: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A table of `read_methods` as method by metric and learning rate: what each adds to SFT."""
    columns = [f"{metric}, less stage 4" for metric in metrics]
    methods = methods[methods["rate"] != ""]
    pivot = methods.pivot_table(index="method", columns="rate", values=columns, aggfunc="first", sort=False)
    pivot = pivot[[(column, rate) for column in columns for rate in pivot.columns.levels[1]]]
    pivot = pivot.rename(index=method_label).sort_index()
    pivot.columns = [f"{READABLE[column].removesuffix(' − SFT')}, {rate}" for column, rate in pivot]
    return pivot.reset_index()


def references_block(results: Path = _REAL_CPU) -> str:
    """BLEU that preference methods add to SFT on Japanese with references as chosen answers, as Markdown."""
    by_rate = _by_rate(read_methods([results, results / "behaviour_cloning"], 6), ("bleu",))
    draws = _over_draws([results, *(results / f"references_seed{seed}" for seed in (1, 2))])
    return _grid(by_rate.set_index("method").join(draws).fillna("").reset_index())


def samples_block(results: Path = _REAL_CPU) -> str:
    """The same with pairs of the model's own samples: one draw, means over draws, and four times the pairs."""
    parts = [results / f"samples{part}" for part in ("", "_seed1", "_seed2", "_256")]
    one, more = (
        _by_rate(read_methods([folder], 6), ("bleu",)).set_index("method").set_axis([name], axis=1)
        for folder, name in ((parts[0], "one draw"), (parts[3], "256 sources"))
    )
    return _grid(one.join(_over_draws(parts[:3])).join(more).fillna("").reset_index())


def _over_draws(folders: Sequence[Path]) -> pd.DataFrame:
    """What methods add to SFT in BLEU over draws of the pairs, at stage 5's rate, by method."""
    draws = method_seeds(folders, load_profile("real-cpu"), 6).set_index("method").rename(index=method_label)
    bleu = READABLE["bleu, less stage 4"]
    return draws[[bleu, f"{bleu}, each seed"]].set_axis(["three draws", "each draw"], axis=1)


def real_cpu_block(results: Path = _REAL_CPU) -> str:
    """BLEU on a real base after each stage and direction of a run on a CPU, and what it took, as Markdown."""
    ladder = pd.read_csv(results / "tables" / "12_ladder_bleu.csv")
    ladder = ladder[(ladder["n"] == 1) & ~ladder["group"].str.startswith("all")]
    languages_of, own = load_profile("real-cpu").languages_of, []
    for group, side in zip(ladder["group"], ladder["direction"], strict=True):
        (code,) = languages_of(int(group.split()[0]))
        own.append(ARROWS[side].replace("xx", code))
    ladder["direction"] = own
    events = [json.loads(line) for line in (results / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    minutes = sum(event["seconds"] for event in events if event["event"] == "task") / 60
    run = next(event for event in events if event["event"] == "run")
    n = read_json(results / "tables" / "12_about.json", MADE_AGAIN, keys=("segments",))["segments"]
    stages = {"base": "base"} | {f"stage{number}": f"stage {number}" for number in range(1, 6)}
    return (
        f"BLEU on the first {n} sentences of FLORES-200 devtest, 95 % intervals over documents; {minutes:.0f} minutes "
        f"in sum of its tasks, each on one core ({run['hardware']['cpu']}, {run['hardware']['instructions']}):\n\n"
        f"{_grid(ladder[['direction', *stages]].rename(columns=stages))}"
    )


def _grid(table: pd.DataFrame) -> str:
    """A Markdown table with text on the left and numbers on the right."""
    rules = ["---:" if re.search(r"[\[±]", str(table[name].iloc[0])) else "---" for name in table]
    cells = [list(table), rules, *table.to_numpy().tolist()]
    return markdown_grid([str(cell).replace("*", "\\*") for cell in row] for row in cells)


def processors_block(first: Path = RESULTS, second: Path = SECOND) -> str:
    """SFT and ARPO of two runs side by side, and what of their difference both runs show, as Markdown."""
    head = (
        "**One seed on one processor is not a result.** The same commit and seed round otherwise on another kind of "
        "processor, and training turns that into other models."
    )
    if not (second / "tables").is_dir() or not _of_same_values(first, second):
        return f"{head} The second column, made by `{SECOND_RUN}`, is not measured yet.\n\n{_side_table([first])}"
    return f"{head} {_what_holds(first, second)}\n\n{_side_table([first, second])}"


def _of_same_values(first: Path, second: Path) -> bool:
    """Whether two runs have one profile, but for what `SECOND_RUN` sets and for values that only one of them knows."""
    one, other = (
        read_json(run / "run.json", MADE_AGAIN, keys=("profile",))["profile"] for run in (first, second)
    )
    shared = (one.keys() & other.keys()) - {"mixed_precision", "run_dir", "results_dir"}
    return all(one[key] == other[key] for key in shared)


def _what_holds(first: Path, second: Path) -> str:
    ladders = [pd.read_csv(run / "tables" / "ladder_bleu.csv") for run in (first, second)]
    rows = _differences(first).merge(_differences(second), on=["group", "direction"], suffixes=("", "_2"))
    apart = (rows["sft"] - rows["sft_2"]).abs()
    widest = rows.loc[apart.idxmax()]
    same = (rows["delta"] > 0) == (rows["delta_2"] > 0)
    both = rows[same & (rows["p_adjusted"] < ALPHA) & (rows["p_adjusted_2"] < ALPHA)]
    held = [
        f"{'better' if row['delta'] > 0 else 'worse'} in {difference_text(row)}"
        for row in both.to_dict("records")
    ]
    once = (rows["p_adjusted"] < ALPHA).sum() + (rows["p_adjusted_2"] < ALPHA).sum()
    early = max(means[stage].max() for means in ladders for stage in ("base", "stage1", "stage2"))
    late = {stage: min(means[stage].min() for means in ladders) for stage in ("stage3", "stage4")}
    seconds = read_json(second / "cost.json", MADE_AGAIN, keys=("seconds",))["seconds"]
    return (
        f"Both learn to translate in stage 3 and in SFT: the lowest BLEU of a row is {late['stage3']:.1f} after stage "
        f"3, asked with one example pair, and {late['stage4']:.1f} after SFT; before stage 3 the highest is "
        f"{early:.1f}. "
        f"{_who_falls(first, second)} "
        f"After SFT the two runs are up to {apart.max():.1f} BLEU apart (group {widest['group']} "
        f"{ARROWS[widest['direction']]}). ARPO's difference from SFT has another sign in {(~same).sum()} of "
        f"{len(rows)} means, and is significant {once} times in {2 * len(rows)}; significant in both runs and of one "
        f"sign: {', '.join(held) or 'none, so that nothing is claimed of it here'}. The second run's notebooks took "
        f"{sum(seconds.values()) / 60:.1f} minutes."
    )


def _who_falls(*runs: Path) -> str:
    """Which methods of notebook 08 fall below half of SFT's BLEU on the style set, in every run and direction."""
    fallen, named = [], []
    for run in runs:
        for _, rows in pd.read_csv(run / "tables" / "preference_methods.csv").groupby("direction"):
            start, methods = rows.iloc[0]["BLEU"], rows.iloc[1:]
            fallen.append(set(methods[methods["BLEU"] < start / 2]["method"]))
            named = list(methods["method"])
    always = [name for name in named if all(name in found for found in fallen)]
    never = [name for name in named if not any(name in found for found in fallen)]
    return (
        f"On pairs that differ in style (notebook 08), below half of SFT's BLEU in both runs and directions: "
        f"{', '.join(always) or 'none'}; in none: {', '.join(never) or 'none'}."
    )


def _differences(results: Path) -> pd.DataFrame:
    """A row per group and direction class: SFT, ARPO (mean BLEU), delta, p_adjusted of the test of all languages."""
    ladder = pd.read_csv(results / "tables" / "ladder_bleu.csv")
    ladder = ladder[ladder["group"] != "all"].assign(
        group=lambda t: t["group"].str.split().str[0].astype(int)
    )
    tests = pd.read_csv(results / "tables" / "tests_stage4_stage5_bleu_groups.csv").query("subset == 'All'")
    rows = ladder.merge(tests, on=["group", "direction"]).rename(columns={"stage4": "sft", "stage5": "arpo"})
    return rows.sort_values(["group", "direction"])[
        ["group", "direction", "sft", "arpo", "delta", "p_adjusted"]
    ]


def _side_table(runs: list[Path]) -> str:
    heads = [f"{stage}, {_processor(run)}" for run in runs for stage in ("SFT", "ARPO", "ARPO − SFT (p)")]
    rows = []
    for i, row in enumerate(_differences(runs[0]).to_dict("records")):
        cells = [f"{row['group']} {ARROWS[row['direction']]}"]
        for run in runs:
            own = _differences(run).iloc[i]
            cells += [
                f"{own['sft']:.2f}",
                f"{own['arpo']:.2f}",
                f"{own['delta']:+.2f} ({own['p_adjusted']:.3f})",
            ]
        rows.append(cells)
    lines = [["group", *heads], ["---", *["---:"] * len(heads)], *rows]
    return markdown_grid(lines)


def _processor(results: Path) -> str:
    run: dict[str, Any] = read_json(results / "run.json", MADE_AGAIN, keys=("hardware", "profile"))
    kind = run["hardware"].get("instructions", run["hardware"]["cpu"])
    return kind if run["profile"]["mixed_precision"] == "auto" else f"{kind}, no bfloat16"


def refreshed(
    page: str,
    text: str,
    results: Path = RESULTS,
    second: Path = SECOND,
    real: Path = _REAL,
    real_cpu: Path = _REAL_CPU,
) -> str:
    """`text` of README.md or docs/findings.md with its measured blocks filled.

    Raises ValueError where a block's markers are missing.
    """
    pages: dict[str, dict[str, Callable[[], str]]] = {
        "README.md": {
            "cost": lambda: cost_block(results),
            "real-cpu": lambda: real_cpu_block(real_cpu),
            "ladder": lambda: ladder_block(results),
        },
        "docs/findings.md": {
            "findings": lambda: findings_block(results),
            "processors": lambda: processors_block(results, second),
            "references": lambda: references_block(real_cpu),
            "samples": lambda: samples_block(real_cpu),
            "real": lambda: real_block(real),
        },
    }
    for name, make in pages[page].items():
        block = make()
        pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(
                f"{page} has no block {name}: put <!-- {name}:start --> and <!-- {name}:end --> in it"
            )
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    if sys.argv[1:]:
        adopt(Path(sys.argv[1]))
    for page in PAGES:
        file = REPOSITORY / page
        write_atomically(file, refreshed(page, file.read_text(encoding="utf-8")))
        print(f"wrote {file}")
