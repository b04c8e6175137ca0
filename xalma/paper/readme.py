"""The measured parts of README.md, written from results/ by `python -m xalma.paper.readme`; a test keeps them current.

`python -m xalma.paper.readme DIR` first takes scores and tables of DIR, a second run of tiny as `SECOND_RUN` makes
it, into results/tiny-avx2: the same commit and seed, computed as another kind of processor does.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.files import read_json, write_atomically
from xalma.paper.paper_tables import ALPHA, ARROWS, difference_text
from xalma.runtime import REPOSITORY

RESULTS = REPOSITORY / "results" / "tiny"
SECOND = REPOSITORY / "results" / "tiny-avx2"
SECOND_RUN = "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 xalma run --profile tiny --set mixed_precision=off"
REAL_TEXT = REPOSITORY / "results" / "small-cpu"
ALMA = REPOSITORY / "results" / "alma-small-cpu"
REAL = REPOSITORY / "results" / "real"

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
        f"({hardware['cpu']}, {hardware['memory_gib']} GiB, no GPU); minutes a notebook: {minutes}. "
        f"Seed {cost['seed']}, commit of the last start `{cost['provenance']['commit'][:10]}`, "
        "from `results/tiny/cost.json`.\n\n"
        "Of `tiny` a GPU run: not measured."
    )


def ladder_block(results: Path = RESULTS, metric: str = "bleu") -> str:
    """The ladder table of the committed run, as Markdown."""
    return table_block(results, f"ladder_{metric}")


def table_block(results: Path, name: str) -> str:
    """A table of the committed run without its caption and note, as Markdown."""
    lines = (results / "tables" / f"{name}.md").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return "\n".join(line for line in lines if line.startswith("|"))


def minutes_block(results: Path) -> str:
    """One sentence on how long a committed run on real text took."""
    cost = _cost(results)
    hardware, minutes = cost["provenance"]["hardware"], sum(cost["seconds"].values()) / 60
    return (
        f"Profile `{results.name}` took {minutes:.0f} minutes, the sum of its notebooks, on {hardware['cores']} cores "
        f"({hardware['cpu']})."
    )


def adopt(run: Path, target: Path = SECOND) -> None:
    """Copy scores, tables, run.json and cost.json of results folder `run` to `target`, in place of what is there.

    Raises ValueError where `run` was not made with `SECOND_RUN`'s values.
    """
    command = read_json(run / "run.json", MADE_AGAIN, keys=("command",))["command"]
    if not SECOND_RUN.endswith(command):
        raise ValueError(f"{run} was made by `{command}`, not by `{SECOND_RUN}`")
    shutil.rmtree(target, ignore_errors=True)
    for part in ("scores", "tables"):
        shutil.copytree(run / part, target / part)
    for file in ("run.json", "cost.json"):
        shutil.copy(run / file, target / file)


def real_block(results: Path = REAL) -> str:
    """BLEU of the ladder on a real base, group by group, as Markdown."""
    about = read_json(results / "tables" / "12_about.json", MADE_AGAIN, keys=("segments",))
    rows = pd.read_csv(results / "tables" / "12_ladder_bleu.csv").drop(columns=["n", "stage4 few-shot", "sft+"])
    rows["direction"] = rows["direction"].map(ARROWS)
    lines = [list(rows), ["---", "---", *["---:"] * (len(rows.columns) - 2)], *rows.to_numpy().tolist()]
    head = f"BLEU on the first {about['segments']} sentences of FLORES-200 devtest, 95 % intervals over documents:"
    return head + "\n\n" + "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def processors_block(first: Path = RESULTS, second: Path = SECOND) -> str:
    """SFT and ARPO of two runs side by side, and what of their difference both runs show, as Markdown."""
    head = (
        "**One seed on one processor is not a result.** The same commit and seed round otherwise on another kind of "
        "processor, and training turns that into other models."
    )
    if not (second / "tables").is_dir():
        return f"{head} The second column, made by `{SECOND_RUN}`, is not measured yet.\n\n{_side_table([first])}"
    return f"{head} {_what_holds(first, second)}\n\n{_side_table([first, second])}"


def _what_holds(first: Path, second: Path) -> str:
    rows = _differences(first).merge(_differences(second), on=["group", "direction"], suffixes=("", "_2"))
    apart = (rows["sft"] - rows["sft_2"]).abs()
    widest = rows.loc[apart.idxmax()]
    same = (rows["delta"] > 0) == (rows["delta_2"] > 0)
    both = rows[same & (rows["p_adjusted"] < ALPHA) & (rows["p_adjusted_2"] < ALPHA)]
    held = [
        f"{'better' if row['delta'] > 0 else 'worse'} in {difference_text(row)}" for row in both.to_dict("records")
    ]
    once = (rows["p_adjusted"] < ALPHA).sum() + (rows["p_adjusted_2"] < ALPHA).sum()
    return (
        f"After SFT the two runs are up to {apart.max():.1f} BLEU apart (group {widest['group']} "
        f"{ARROWS[widest['direction']]}). ARPO's difference from SFT has another sign in {(~same).sum()} of "
        f"{len(rows)} means, and is significant {once} times in {2 * len(rows)}; significant in both runs and of one "
        f"sign: {', '.join(held) or 'none, so that nothing is claimed of it here'}."
    )


def _differences(results: Path) -> pd.DataFrame:
    """A row a group and direction class: SFT, ARPO (mean BLEU), delta and p_adjusted of the test over all languages."""
    ladder = pd.read_csv(results / "tables" / "ladder_bleu.csv")
    ladder = ladder[ladder["group"] != "all"].assign(group=lambda t: t["group"].str.split().str[0].astype(int))
    tests = pd.read_csv(results / "tables" / "tests_stage4_stage5_bleu_groups.csv").query("subset == 'All'")
    rows = ladder.merge(tests, on=["group", "direction"]).rename(columns={"stage4": "sft", "stage5": "arpo"})
    return rows.sort_values(["group", "direction"])[["group", "direction", "sft", "arpo", "delta", "p_adjusted"]]


def _side_table(runs: list[Path]) -> str:
    heads = [f"{stage}, {_processor(run)}" for run in runs for stage in ("SFT", "ARPO", "ARPO − SFT (p)")]
    rows = []
    for i, row in enumerate(_differences(runs[0]).to_dict("records")):
        cells = [f"{row['group']} {ARROWS[row['direction']]}"]
        for run in runs:
            own = _differences(run).iloc[i]
            cells += [f"{own['sft']:.2f}", f"{own['arpo']:.2f}", f"{own['delta']:+.2f} ({own['p_adjusted']:.3f})"]
        rows.append(cells)
    lines = [["group", *heads], ["---", *["---:"] * len(heads)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _processor(results: Path) -> str:
    run: dict[str, Any] = read_json(results / "run.json", MADE_AGAIN, keys=("hardware", "profile"))
    kind = run["hardware"].get("instructions", run["hardware"]["cpu"])
    return kind if run["profile"]["mixed_precision"] == "auto" else f"{kind}, no bfloat16"


def refreshed(
    text: str, results: Path = RESULTS, real_text: Path = REAL_TEXT, alma: Path = ALMA, second: Path = SECOND,
    real: Path = REAL,
) -> str:
    """README `text` with its measured blocks filled. Raises ValueError where a block's markers are missing."""
    blocks = {
        "cost": cost_block(results),
        "real": real_block(real),
        "ladder": ladder_block(results),
        "processors": processors_block(results, second),
        "real-text": f"{minutes_block(real_text)} Bits a byte, mean over each group's directions:\n\n"
        f"{ladder_block(real_text, 'bits_per_byte')}",
        "alma": f"{minutes_block(alma)} Means over its languages:\n\n{table_block(alma, '11_quality')}",
    }
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no block {name}: put <!-- {name}:start --> and <!-- {name}:end --> in it")
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    if sys.argv[1:]:
        adopt(Path(sys.argv[1]))
    readme = REPOSITORY / "README.md"
    write_atomically(readme, refreshed(readme.read_text(encoding="utf-8")))
    print(f"wrote {readme}")
