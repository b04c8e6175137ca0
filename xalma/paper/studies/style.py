"""Preference methods on pairs that are both right and differ in style (notebook 08, "too hard"; `make styles`).

X-ALMA's over-rejection (§4): a rejected answer that is nearly as good as the chosen one should not be pushed down with
full force. Every method starts from the main ladder's SFT module, which writes full style; chosen answers, and the
references that it is tested against, are in another. BLEU against those references and the content score stand side by
side: which of the two falls says what was rejected, the style or the facts. Continued SFT on the same chosen answers is
the yardstick: a gain over SFT alone may be nothing but more training. Seeds change the order of the pairs.

The default run trains each method once, at `STYLE_RATES`; `make styles` takes more rates and three seeds.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.corpora.phrasebook.styles import content_rate, renderings, style_rows
from xalma.corpora.registry import open_corpus
from xalma.evaluation.metrics import length_ratio
from xalma.evaluation.records import Record, footnote, read_records, write_records, write_run
from xalma.files import read_json, write_json
from xalma.languages import ARROWS, ENGLISH
from xalma.models.adapters import save_adapter
from xalma.paper.studies.preference_methods import _but_token_estimate, _comparisons, _rows
from xalma.paper.studies.preference_tables import PAPER_METHODS, printed_scores
from xalma.paper.studies.seeds import SFT, by_seed, cells_of, judged, paired, seeds_of, summary
from xalma.paper.studies.study import one_share
from xalma.paper.tables import mark_doubtful, mark_unnoticed, write_csv, write_table
from xalma.preference.method_specs import METHODS
from xalma.preference.methods import train_preference
from xalma.preference.pairs import build_pairs
from xalma.profiles import Profile, load_profile
from xalma.prompts import extract_translation
from xalma.runs import finished, read_log, read_run, recipe_hash, results_folder, stage_folder
from xalma.training.ladder import score_rows
from xalma.training.stage_models import open_for_training, open_merged
from xalma.training.stage_pairs import continued
from xalma.training.workers import run_jobs

CONTINUED = "sft"
ASKED = (CONTINUED, "dpo", "simpo", "cpo", "arpo")
STYLE_RATES = (1e-3,)  # rejection without behaviour cloning collapses there; by trial
ALL_RATES = (1e-4, 2e-4, 5e-4, 1e-3)  # the second is stage 5's own
STYLE_STEPS = 40  # updates of `stage5_batch_size` pairs, where `comparison_steps` names no other number
CONTENT_SIGNATURE = "percent of outputs that state the source's facts, in any CLDR style, letter for letter"


def style_study(
    p: Profile,
    group: int,
    methods: Sequence[str] = ASKED,
    rates: Sequence[float] = STYLE_RATES,
) -> list[Record]:
    """Scores on the style set of the SFT module and of each method at each rate, for each seed.

    Metrics: those of `score_rows`, content and length_ratio. Finished trainings are not repeated.
    Raises FileNotFoundError where stage 4 of the group is missing, ValueError for a corpus without styles.
    """
    mine = one_share(p)
    read_run(stage_folder(p, 4, group))
    run_jobs(p, [(_pairs, (mine, group))])
    jobs = [(_score, (mine, group, "", 0.0, p.seed))]
    jobs += [
        (_score, (mine, group, name, rate, seed))
        for rate in rates
        for name in methods
        for seed in seeds_of(p)
    ]
    return [record for found in run_jobs(p, jobs) for record in found]


def has_styles(p: Profile) -> bool:
    """Whether the profile's corpus can say the same thing in several styles."""
    return hasattr(open_corpus(p), "book")


def n_steps(p: Profile) -> int:
    """Updates of each method."""
    return p.comparison_steps or STYLE_STEPS


def style_pairs(p: Profile, group: int) -> list[dict[str, str]]:
    """The preference pairs of the study: rows of prompt, chosen, rejected, src, tgt."""
    return _rows(_pairs(one_share(p), group))


def _translated(p: Profile, folder: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    model, tokenizer = open_merged(folder, p.dtype)
    outputs = continued(p, model, tokenizer, rows)
    return [row | {"output": extract_translation(text)} for row, text in zip(rows, outputs, strict=True)]


def _inputs(p: Profile, group: int) -> dict[str, Any]:
    decides = (
        "corpus",
        "phrasebook_",
        "comparison_pairs",
        "prompt_style",
        "beams",
        "max_new_tokens",
        "threads",
    )
    previous = read_run(stage_folder(p, 4, group))["fingerprint"]
    return {
        "previous": previous,
        "recipe": recipe_hash(),
        "group": group,
        "seed": p.seed,
        "text": open_corpus(p).fingerprint(),
        **p.values(*decides),
    }


def _pairs(p: Profile, group: int) -> Path:
    """The folder with the style pairs: chosen is the reference, rejected what the SFT module writes."""

    def body(out: Path) -> dict[str, Any]:
        rows = _translated(p, stage_folder(p, 4, group), style_rows(p, group, "sft", p.comparison_pairs))
        pairs, report = build_pairs(rows)
        random.Random(p.seed).shuffle(pairs)  # the first are those that are probed
        write_json(out / "rows.json", pairs)
        return {"pairs": report}

    return finished(_comparisons(p) / "styles" / "pairs" / f"group{group}", _inputs(p, group), body)


def _train(p: Profile, group: int, method: str, rate: float, seed: int) -> Path:
    start = stage_folder(p, 4, group)
    pairs = _pairs(p, group)
    settings = {
        "learning_rate": rate,
        "batch_size": p.stage5_batch_size,
        "max_steps": n_steps(p),
        "seed": seed,
    }
    inputs = _inputs(p, group) | {"method": method, "settings": settings, **p.values("dtype")}

    def body(out: Path) -> dict[str, Any]:
        logging.getLogger("transformers.modeling_utils").addFilter(_but_token_estimate)
        model, tokenizer = open_for_training(p, group, start)
        model, log = train_preference(method, model, tokenizer, _rows(pairs), output_dir=out, **settings)
        save_adapter(model, group, out)
        write_json(out / "log.json", log)
        return {"group": group, "base": read_run(start)["base"], "method": method} | settings

    return finished(style_folder(p, group, method, rate, seed), inputs, body)


def style_folder(p: Profile, group: int, method: str, rate: float, seed: int) -> Path:
    """Where a method trained at a rate lies."""
    return _comparisons(p) / "styles" / name_of(method, rate) / f"seed{seed}" / f"group{group}"


def name_of(method: str, rate: float) -> str:
    """A system's name in records."""
    return f"{method}@{rate:g}" if method else SFT


def _score(p: Profile, group: int, method: str, rate: float, seed: int) -> list[Record]:
    folder = _train(p, group, method, rate, seed) if method else stage_folder(p, 4, group)
    return score_style(
        _translated(p, folder, style_rows(p, group, "test", p.test_pairs)), p, name_of(method, rate), seed
    )


def score_style(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """`score_rows`, the content score and the length in percent of the references' characters, per direction."""
    records = score_rows(rows, p, stage, seed) + content_records(rows, p, stage, seed)
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        outputs, references = ([row[key] for row in chosen] for key in ("output", "reference"))
        value, how = 100 * length_ratio(outputs, references), "characters, percent of the reference"
        records.append(Record(p.name, stage, direction, "length_ratio", value, len(chosen), how, seed))
    return records


def content_records(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """The content score (percent) of each direction: rows that state their source's facts, in any style."""
    records = []
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        value = 100 * content_rate(chosen)
        records.append(
            Record(p.name, stage, direction, "content", value, len(chosen), CONTENT_SIGNATURE, seed)
        )
    return records


def with_renderings(p: Profile, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test rows of `p` with their "renderings": all texts that state the source's facts in the target language.

    Raises ValueError for a corpus without styles, KeyError for a row that is none of the profile's test sentences.
    """
    if not has_styles(p):
        raise ValueError(
            f"corpus={p.corpus} has no styles, so no content score: it needs the phrasebook, corpus=cldr"
        )
    book, known = open_corpus(p).book, {}
    for code in dict.fromkeys(
        lang for row in rows for lang in row["direction"].split("-") if lang != ENGLISH
    ):
        for draw, texts in itertools.islice(book.drawn((ENGLISH, code), "test"), p.test_pairs):
            for i, (src, tgt) in enumerate(((ENGLISH, code), (code, ENGLISH))):
                known[f"{src}-{tgt}", texts[i]] = sorted(renderings(draw, tgt))
    return [row | {"renderings": known[row["direction"], row["source"]]} for row in rows]


def style_probes(p: Profile, group: int, records: Sequence[Record]) -> pd.DataFrame:
    """Average log-probabilities of fixed pairs in training, for the systems of `records`, one row per measurement.

    Columns: system, seed, step, chosen_avg_logp, rejected_avg_logp (nats per token).
    """
    rows = []
    for name, seed in dict.fromkeys((record.stage, record.seed) for record in records if record.stage != SFT):
        method, rate = split_name(name)
        for entry in read_log(style_folder(p, group, method, rate, seed)):
            if entry["kind"] == "probe":
                kept = ("step", "chosen_avg_logp", "rejected_avg_logp")
                rows.append({"system": name, "seed": seed} | {key: entry[key] for key in kept})
    return pd.DataFrame(rows)


def last_logps(probes: pd.DataFrame) -> pd.DataFrame:
    """`style_probes` before training (`SFT`) and after it, means over seeds: index system, columns chosen, rejected."""
    sides = {"chosen_avg_logp": "chosen", "rejected_avg_logp": "rejected"}
    ends = probes[probes["step"] == probes.groupby("system")["step"].transform("max")]
    start = probes[probes["step"] == 0].assign(system=SFT)
    return pd.concat([start, ends]).groupby("system")[list(sides)].mean().rename(columns=sides)


def style_table(records: Sequence[Record], probes: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per direction class, rate and method: BLEU with ± and against SFT and continued SFT, content, length.

    seeds: how many the row has. probes: `style_probes`; log-probabilities then stand in two columns more, means of both
    directions.
    """
    found = cells_of(records)
    values = by_seed(records).sort_index()
    rows = []
    cells = {}
    names = list(dict.fromkeys(record.stage for record in records))
    logps = pd.DataFrame() if probes is None or probes.empty else last_logps(probes)
    for direction, arrow in ARROWS.items():
        for name in sorted(names, key=_order):
            rate = split_name(name)[1]
            mean, half = found[name, direction]
            row = {
                "direction": arrow,
                "learning rate": f"{rate:g}" if rate else "",
                "method": label_of(name),
                "seeds": len(values[name, direction, "bleu"]),
                "BLEU": mean["bleu"],
                "±": half["bleu"],
            }
            for column, other in (("− SFT", SFT), ("− continued", name_of(CONTINUED, rate))):
                comparable = rate and other in names and other != name
                gap = paired(values, name, other, direction) if comparable else (float("nan"),) * 2
                row |= {column: gap[0], f"± {column}": gap[1]}
            row |= {"content %": mean["content"], "length %": mean["length_ratio"]}
            cells[len(rows), "BLEU"] = (name, "bleu")
            rows.append(row | {f"log p {side}": logps.loc[name, side] for side in logps})
    table = mark_unnoticed(pd.DataFrame(rows), {"− SFT": "bleu", "− continued": "bleu"})
    return mark_doubtful(table, records, cells)


def table5() -> pd.DataFrame:
    """BLEU of X-ALMA's Table 5 as printed, for the methods compared here: one row per method, one column per direction.

    "?" marks an unsure cell; continued SFT is not in that table.
    """
    names = [SFT, *(name for name in ASKED if name != CONTINUED)]
    return pd.DataFrame(
        [
            {"method": label_of(name)}
            | {
                f"paper BLEU {arrow}": printed_scores("g", direction, PAPER_METHODS[name], "BLEU")
                for direction, arrow in ARROWS.items()
            }
            for name in names
        ]
    )


def style_findings(records: Sequence[Record]) -> list[str]:
    """Sentences made from the records: which methods fall below half of SFT's BLEU, at which rate; ARPO's gains."""
    found = cells_of(records)
    values = by_seed(records).sort_index()
    sentences = []
    names = sorted({record.stage for record in records} - {SFT}, key=_order)
    for direction, arrow in ARROWS.items():
        start = found[SFT, direction][0]["bleu"]
        for rate in dict.fromkeys(split_name(name)[1] for name in names):
            bleu = {name: found[name, direction][0]["bleu"] for name in names if split_name(name)[1] == rate}
            listed = ", ".join(f"{label_of(name)} {value:.1f}" for name, value in bleu.items())
            fallen = [label_of(name) for name, value in bleu.items() if value < start / 2]
            verdict = f"below half of SFT's: {', '.join(fallen)}" if fallen else "none is below half of SFT's"
            sentences.append(f"{arrow}, learning rate {rate:g}: SFT {start:.1f} BLEU; {listed}; {verdict}.")
            mine = name_of("arpo", rate)
            for other in (SFT, name_of(CONTINUED, rate)):
                if mine in bleu and (other == SFT or other in bleu):
                    gap, half = paired(values, mine, other, direction)
                    sentences.append(
                        f"{arrow}, learning rate {rate:g}: ARPO − {label_of(other)}: {judged(gap, half)}."
                    )
    return sentences


def rates_frame(records: Sequence[Record]) -> pd.DataFrame:
    """`seeds.summary` of the methods, without their start: columns method (its label), rate, and the summary's."""
    frame = summary(records)
    named = frame["system"].map(split_name)
    frame = frame.assign(rate=[rate for _, rate in named], method=frame["system"].map(label_of))
    return frame[frame["rate"] > 0]


def split_name(name: str) -> tuple[str, float]:
    """(method, learning rate) of a system's name; ("", 0) for the SFT module."""
    method, at, rate = name.partition("@")
    return (method, float(rate)) if at else ("", 0.0)


def label_of(name: str) -> str:
    """A system's label, without its rate."""
    method, rate = split_name(name)
    return METHODS[method or name].label if rate or name in METHODS else "SFT, the start"


def _order(name: str) -> tuple[float, int]:
    method, rate = split_name(name)
    return rate, list(METHODS).index(method) if rate else 0


def styles_folder(p: Profile) -> Path:
    """Where the long form's files lie: scores.jsonl, probes.csv, run.json and tables/."""
    return results_folder(p) / "styles"


def file_styles(p: Profile, records: Sequence[Record], probes: pd.DataFrame, **facts: Any) -> pd.DataFrame:
    """Write records, probes, table and run.json, which names the cells that were not run; returns the table.

    facts: more for run.json.
    """
    folder = styles_folder(p)
    made = "make styles"
    records = read_records(write_records(folder / "scores.jsonl", records))
    write_csv(folder / "probes.csv", probes)
    table = style_table(records, probes)
    caption = f"Preference methods on the style set after {n_steps(p)} updates"
    write_table(table, folder / "tables" / "styles", caption, footnote(records, "bleu", made))
    there = {(record.stage, record.seed) for record in records}
    missing = [
        f"{name_of(method, rate)}, seed {seed}"
        for rate in ALL_RATES
        for method in ASKED
        for seed in seeds_of(p)
        if (name_of(method, rate), seed) not in there
    ]
    write_run(
        folder / "run.json",
        made,
        profile=p.name,
        seeds=list(seeds_of(p)),
        updates=n_steps(p),
        rates=list(ALL_RATES),
        methods=list(ASKED),
        not_run=missing,
        **facts,
        **p.values("comparison_groups", "comparison_pairs", "stage5_batch_size"),
    )
    return table


def read_styles(p: Profile) -> tuple[dict[str, Any], list[Record], pd.DataFrame] | None:
    """(run.json, records, probes) of the long form from its files alone; None where it was not run."""
    folder = styles_folder(p)
    if not (folder / "run.json").exists():
        return None
    run = read_json(folder / "run.json", "run `make styles` again", keys=("not_run", "seeds", "updates"))
    return run, read_records(folder / "scores.jsonl"), pd.read_csv(folder / "probes.csv")


def run_style_study(argv: Sequence[str] | None = None) -> None:
    """The study of a profile's first comparison group, from the main ladder's stage 4."""
    parser = argparse.ArgumentParser(prog="python -m xalma.paper.studies.style")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="values")
    asked = parser.parse_args(argv)
    p = load_profile(asked.profile, seeds=3).but(**dict(value.split("=", 1) for value in asked.values))
    group = p.comparison_group_numbers[0]
    records = style_study(p, group, rates=ALL_RATES)
    file_styles(p, records, style_probes(p, group, records))


if __name__ == "__main__":
    run_style_study()
