"""The measured parts of the teaching pages: `make readme` writes reproduced.md and the minutes in syllabus.md.

A claim is that something is higher or lower, or that it makes no difference. A measurement agrees where its whole 95 %
interval lies on the claim's side of 0, contradicts where it lies on the other side, and is open otherwise.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from xalma.languages import LANGUAGES
from xalma.published import published

ROOT = Path(__file__).resolve().parents[2]
PAGE, SYLLABUS = ROOT / "docs" / "teaching" / "reproduced.md", ROOT / "docs" / "teaching" / "syllabus.md"
WAYS = ("en→xx", "xx→en")
STEPS = "results/real/tables/12_steps.csv"
METHODS = "results/real/tables/12_methods_group6.csv"
OWN_STEPS = "results/real-cpu/tables/12_steps.csv"
OWN_WITHOUT = "results/real-cpu/ablations/tables/12_without.csv"
OWN_METHODS = "results/real-cpu/tables/12_methods_group6.csv"
OWN_CLONING = "results/real-cpu/behaviour_cloning/tables/12_methods_group6.csv"
OWN_SAMPLES = "results/real-cpu/samples{}/tables/12_methods_group6.csv"  # preference pairs of samples
OWN = "Gemma-3-270M with its own vocabulary"
LADDER = "results/tiny/ladder/tables/group6.csv"
LARGE = "results/tiny/ladder/large/tables/group6.csv"
STYLES = "results/tiny/styles/tables/styles.csv"
ALMA = "results/alma-tiny/tables/11_gains.csv"
GOLDEN = "results/wmt/wmt22/golden.csv"


class Measured(NamedTuple):
    """A difference and its 95 % interval; low and high are None where one seed has none."""

    what: str
    value: float
    low: float | None
    high: float | None
    note: str = ""  # in place of the interval

    def __str__(self) -> str:
        interval = "one seed" if self.low is None else f"{self.low:+.2f} to {self.high:+.2f}"
        return f"{self.what} {f'{self.value:+.2f} ({self.note or interval})'.replace('-', '−')}"

    def says(self, sign: int) -> str:
        """Whether a claim of that sign agrees with the measurement; 0 claims no difference."""
        if self.low is None:
            return "open"
        side = (self.low > 0) - (self.high < 0)
        if sign == 0:
            return "contradicts" if side else "agrees"
        return {sign: "agrees", -sign: "contradicts", 0: "open"}[side]


def verdict(sign: int, found: list[Measured]) -> str:
    """One of the words that the page explains."""
    said = {one.says(sign) for one in found}
    if not found:
        return "not tested"
    if {"agrees", "contradicts"} <= said:
        return "mixed"
    if said == {"open"}:
        return "undecided" if all(one.low is None for one in found) else "no difference shown"
    word = "reproduced" if "agrees" in said else "contradicted"
    return f"{word} in part" if "open" in said else word


def read(path: str, **where: object) -> pd.DataFrame:
    """The rows of a table of results; raises ValueError where there are none."""
    rows = pd.read_csv(ROOT / path)
    for column, value in where.items():
        rows = rows[rows[column.replace("_", " ")] == value]
    if rows.empty:
        raise ValueError(f"{path} has no row with {where}")
    return rows


def spread(path: str, columns: tuple[str, str], times: int = 1, **where: object) -> list[Measured]:
    """A difference and half its interval, a row for each direction; `times` -1 turns "without" into "with"."""
    rows = read(path, **where).set_index("direction")[list(columns)]
    found = []
    for way in WAYS:
        value, half = rows.loc[way]
        bounds = (None, None) if pd.isna(half) else (times * value - half, times * value + half)
        found.append(Measured(way, times * value, *bounds))
    return found


def interval(text: str, what: str) -> Measured:
    """A cell of results/real, "-0.30 [-0.60, 0.02]*"."""
    return Measured(what, *(float(number) for number in re.findall(r"-?\d+\.\d+", text)))


def steps(compared: str, group: str = "all", path: str = STEPS) -> list[Measured]:
    """A step of the ladder on a real base, BLEU in both directions."""
    rows = read(path, compared=compared, group=group).set_index("direction")["bleu"]
    return [interval(rows[way.replace("→", "-")], way) for way in WAYS]


def methods(name: str, path: str = METHODS) -> list[Measured]:
    """A preference method against the SFT it starts from, on a real base: BLEU over both directions, at each rate."""
    rows = read(path, method=name)
    return [interval(row["bleu, less stage 4"], f"rate {row['rate']:g}:") for _, row in rows.iterrows()]


def table5(system: str) -> str:
    """What Table 5 prints as BLEU: SFT, then the system, en→xx / xx→en."""
    cells = published("g").query("metric == 'BLEU'").set_index(["direction", "system"])["shown"]
    ways = ("en-xx", "xx-en")
    return " / ".join(
        f"{cells[way, 'XALMA (only SFT)']} → {cells[way, system] or 'not readable'}" for way in ways
    )


def bars(stage: str) -> str:
    """What the figure of the stages prints as COMET-22 after a stage, en→xx / xx→en."""
    cells = published("h")
    names = {"2": "pre-training stage 2", "3": "pre-training stage 3"}
    names |= {"4": "post-training stage 1 (SFT)", "5": "post-training stage 2 (ARPO)"}
    return " / ".join(cells.loc[cells["system"] == names[stage], "shown"])


def quality(first: tuple[str, str], then: tuple[str, str]) -> str:
    """What ALMA's table of monolingual text × bitext prints as BLEU, en→xx / xx→en."""
    cells = published("c").query("metric == 'BLEU'").set_index(["direction", "subset"])["shown"]
    name = "mono={};parallel={}".format
    return " / ".join(f"{cells[way, name(*first)]} → {cells[way, name(*then)]}" for way in ("en-xx", "xx-en"))


def arpo_by_group() -> list[Measured]:
    """ARPO against SFT in the default run, with the p of a paired bootstrap in place of an interval."""
    rows = pd.read_csv(ROOT / "results/tiny/tables/tests_stage4_stage5_bleu_groups.csv").query(
        "subset == 'All'"
    )
    found = []
    for _, row in rows.iterrows():
        delta, what = row["delta"], f"group {row['group']} {row['direction'].replace('-', '→')}"
        low, high = (delta, delta) if row["p_adjusted"] < 0.05 else (min(delta, 0), max(delta, 0))
        found.append(Measured(what, delta, low, high, f"p {row['p_adjusted']:.3f}"))
    return found


def rescored() -> tuple[str, str]:
    """The largest difference between BLEU of the released ALMA outputs here and as printed; and the verdict."""
    rows = pd.read_csv(ROOT / GOLDEN).query("BLEU == 'difference'").drop(columns=["BLEU", "run"])
    largest = rows.astype(float).abs().max().max()
    word = "scores reproduced; training not tested" if largest < 0.15 else "contradicted"
    return f"released outputs scored again: at most {largest:.2f} BLEU from the printed score", word


def grouping() -> tuple[str, str]:
    """Whether the gate's table is the printed one, language by language."""
    printed = published("d")
    cells = {(row["shown"], int(row["group_or_lang"].removeprefix("group"))) for _, row in printed.iterrows()}
    ours = {(code, row.group) for code, row in LANGUAGES.items() if row.group}
    same = cells - {("en", group) for group in range(9)} == ours
    return (
        f"the gate has {len(ours)} languages beside English in the same groups",
        "reproduced" if same else "contradicted",
    )


WITHOUT = ("BLEU − all stages", "± of it")  # what leaving a stage out changes
START, CONTINUED = ("− SFT", "± − SFT"), ("− continued", "± − continued")
HARD = {"learning_rate": 0.001}
BY_GROUP = "results/tiny/tables/tests_stage4_stage5_bleu_groups.csv"


class Claim(NamedTuple):
    """What a paper says, what it prints, the sign of the difference, and the runs that measured it."""

    words: str
    printed: str
    sign: int
    runs: list[tuple[str, str, list[Measured]]]  # which run and measure, file, values


def of_methods() -> list[Claim]:
    styles = "`tiny`, pairs that differ in style, learning rate 1e-3, BLEU less the start's"
    real = "Gemma-3-270M, group 6, BLEU less the start's"
    own = f"{OWN}, Japanese, BLEU less the start's"

    def lost(name: str, words: str) -> Claim:
        path = OWN_CLONING if "+" in name else OWN_METHODS
        runs = [(real, METHODS, methods(name.lower())), (own, path, methods(name.lower(), path))]
        if name in ("DPO", "SimPO"):
            runs.insert(0, (styles, STYLES, spread(STYLES, START, method=name, **HARD)))
        return Claim(words, table5(f"+{name}"), -1, runs)

    on_samples = {
        "best over worst of five samples, 64 sources": OWN_SAMPLES.format(""),
        "the same, 256 sources": OWN_SAMPLES.format("_256"),
    }
    gained = [
        ("`tiny`, one seed, BLEU less SFT's", BY_GROUP, arpo_by_group()),
        (styles, STYLES, spread(STYLES, START, method="ARPO", **HARD)),
        (real, METHODS, methods("arpo")),
        (f"{OWN}, German and Japanese, BLEU less SFT's", OWN_STEPS, steps("ARPO", path=OWN_STEPS)),
        *(
            (f"the same, Japanese, {words}", path, methods("arpo", path))
            for words, path in on_samples.items()
        ),
    ]
    than_sft = "that of continued SFT"
    on_styles = spread(STYLES, CONTINUED, method="ARPO", **HARD)
    on_real = steps("ARPO against continued SFT", "6 Eurasian mix")
    on_own = steps("ARPO against continued SFT", path=OWN_STEPS)
    beside = [
        (styles.replace("the start's", than_sft), STYLES, on_styles),
        (real.replace("the start's", than_sft), STEPS, on_real),
        (f"{OWN}, German and Japanese, BLEU less {than_sft}", OWN_STEPS, on_own),
    ]
    return [
        *(lost(name, f"{name} alone loses nearly all BLEU") for name in ("DPO", "SimPO")),
        lost("CPO", "CPO loses BLEU"),
        lost("DPO+BC", "DPO with behaviour cloning loses some BLEU"),
        lost("KTO", "KTO loses some BLEU"),
        lost("ORPO", "ORPO loses some BLEU"),
        Claim("ARPO gains over the SFT model it starts from", table5("+ARPO (Final X-ALMA)"), 1, gained),
        Claim("ARPO gains over continued SFT", "not printed", 1, beside),
    ]


def of_stages() -> list[Claim]:
    ladders = {
        "`tiny`, five seeds, BLEU with the stage less without it": LADDER,
        "the same with more text in stages 2 and 3, three seeds": LARGE,
    }
    real = "Gemma-3-270M, eight groups, BLEU"

    def left_out(name: str) -> list[tuple[str, str, list[Measured]]]:
        return [(what, path, spread(path, WITHOUT, -1, system=name)) for what, path in ladders.items()]

    def on_bases(compared: str, how: str = "") -> list[tuple[str, str, list[Measured]]]:
        own = f"{OWN}, German and Japanese, BLEU{how}"
        return [
            (real + how, STEPS, steps(compared)),
            (own, OWN_STEPS, steps(compared, path=OWN_STEPS)),
        ]

    def after_sft(stage: str) -> list[tuple[str, str, list[Measured]]]:
        what = "the same after SFT, with the stage less without it"
        return [*on_bases(stage), (what, OWN_WITHOUT, steps(stage, path=OWN_WITHOUT))]

    first = [*left_out("without stage 1, monolingual base"), *after_sft("stage 1")]
    third = [*left_out("without stage 3, pseudo-monolingual"), *after_sft("stage 3")]
    return [
        Claim("Stage 1 gains", "not readable", 1, first),
        Claim("Stage 2 gains", f"up to {bars('2')}", 1, after_sft("stage 2")),
        Claim("Stage 3 gains", f"up to {bars('3')}", 1, third),
        Claim("SFT gains", f"up to {bars('4')}", 1, on_bases("stage 4, few-shot", ", four examples")),
        Claim(
            "The whole recipe up to SFT gains over the base", "not printed", 1, on_bases("from base to SFT")
        ),
        Claim(
            "ARPO gains",
            f"up to {bars('5')}",
            1,
            [
                ("Gemma-3-270M, group 6, BLEU", STEPS, steps("ARPO", "6 Eurasian mix")),
                (f"{OWN}, German and Japanese, BLEU", OWN_STEPS, steps("ARPO", path=OWN_STEPS)),
            ],
        ),
    ]


def of_data() -> list[Claim]:
    return [Claim("FLORES dev adds nothing to NTREX and WMT", "not readable", 0, [])]


def of_alma() -> list[Claim]:
    """ALMA's table c; our languages are other ones, which the base has hardly read."""

    def compared(words: str, gain: str, first: tuple[str, str], then: tuple[str, str]) -> Claim:
        found = spread(ALMA, ("our BLEU", "± BLEU"), gain_of=gain)
        return Claim(words, quality(first, then), 1, [("`alma-tiny`, three seeds, BLEU", ALMA, found)])

    human, random, filtered = "human-written", "random", "filtered"
    text = f"monolingual text, before {human} pairs"
    return [
        compared("Monolingual text before human-written pairs gains", text, ("no", human), ("yes", human)),
        compared(
            "Human-written pairs gain over random ones",
            f"{human} over random pairs",
            ("yes", random),
            ("yes", human),
        ),
        compared(
            "Filtered pairs gain over random ones",
            f"{filtered} over random pairs",
            ("yes", random),
            ("yes", filtered),
        ),
    ]


def row(claim: Claim) -> str:
    here = "<br>".join(
        f"{run}: {', '.join(map(str, found))} ([file](../../{path}))" for run, path, found in claim.runs
    )
    said = verdict(claim.sign, [one for _, _, found in claim.runs for one in found])
    return f"| {claim.words} | {claim.printed} | {here or 'not measured'} | **{said}** |"


def computed(words: str, printed: str, found: tuple[str, str], path: str) -> str:
    return f"| {words} | {printed} | {found[0]} ([file](../../{path})) | **{found[1]}** |"


def page() -> str:
    """The page as Markdown."""
    unseen = "X-ALMA of 13 billion parameters is the best of the systems"
    tables = {
        "X-ALMA, groups of languages": [
            computed("50 languages in eight groups", "table d", grouping(), "xalma/languages.py")
        ],
        "X-ALMA, results by group on FLORES-200 and WMT'23 (COMET-22, XCOMET-XL)": [
            row(Claim(unseen, "tables e and f", 1, []))
        ],
        "X-ALMA, Table 5: preference methods, group 6 (BLEU, en→xx / xx→en)": [*map(row, of_methods())],
        "X-ALMA, figure of the stages, group 6 (COMET-22, en→xx / xx→en)": [*map(row, of_stages())],
        "X-ALMA, figure of the SFT data, group 6": [*map(row, of_data())],
        "ALMA, results on WMT'22 (BLEU, COMET-22)": [
            computed("ALMA-13B-LoRA's BLEU in ten directions", "tables a and b", rescored(), GOLDEN)
        ],
        "ALMA, monolingual text × kind of pairs (BLEU, en→xx / xx→en)": [*map(row, of_alma())],
    }
    head = "| claim | paper | here | verdict |\n| --- | --- | --- | --- |\n"
    return HEAD + "".join(f"\n## {name}\n\n{head}" + "\n".join(rows) + "\n" for name, rows in tables.items())


HEAD = """\
# Reproduced, contradicted, not tested

`make readme` writes this page from the files that it names (`docs/teaching/measured.py`). The papers' models have 7
and 13 billion parameters. Ours are small, or read little text. A verdict is about the direction of an effect and not
about its size, and it holds for the runs that are named. Intervals are over seeds, or over documents where there is one
seed.

| verdict | meaning |
| --- | --- |
| reproduced | every 95 % interval (or significant test) is on the paper's side of 0 |
| contradicted | every one is on the other side |
| … in part | some are, and the others include 0 |
| mixed | some on the one side, some on the other |
| no difference shown | the intervals include 0 |
| undecided | one seed without an interval |
| not tested | nothing here measures it |

The papers' numbers are those of [xalma/published](../../xalma/published/__init__.py). They were read from slides; "?"
marks a number that we are unsure of. Tables are lettered as in that folder: of Table 5 alone we know the number.
"""


WORDS_PER_MINUTE = 200
EXERCISE_MINUTES = {"★": 5, "★★": 8, "★★★": 15}  # our estimate, by level


def study_minutes(notebook: Path) -> int:
    """Minutes to read a notebook's text, formulas aside, and to solve its exercises; a multiple of five."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    levels = re.findall(r"^\*\*Exercise \d+ (★+)", text, re.MULTILINE)
    words = len(re.sub(r"\$\$.*?\$\$", " ", text, flags=re.DOTALL).split())
    return 5 * round((words / WORDS_PER_MINUTE + sum(EXERCISE_MINUTES[level] for level in levels)) / 5)


def with_minutes(text: str) -> str:
    """The syllabus with each notebook's minutes: of a run, from the committed cost files, and of study."""
    seconds = {}
    for profile in ("real", "alma-tiny", "tiny"):
        cost = json.loads((ROOT / "results" / profile / "cost.json").read_text(encoding="utf-8"))
        seconds |= cost["seconds"]
    for name, value in seconds.items():
        study = study_minutes(ROOT / "notebooks" / f"{name}.ipynb")
        row = rf"^(\| \[{name[:2]}\]\([^)]*\) \| )[^|]*\|[^|]*"
        text = re.sub(row, rf"\g<1>{value / 60:.1f} | {study} ", text, flags=re.MULTILINE)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SYLLABUS.write_text(with_minutes(SYLLABUS.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE} and the minutes in {SYLLABUS}")
