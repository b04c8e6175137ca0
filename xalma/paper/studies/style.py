"""`make styles`: preference methods on pairs that are both right and differ in style (`styles`), over several seeds.

X-ALMA's over-rejection (§4): a rejected answer that is nearly as good as the chosen one should not be pushed down with
full force. Every method starts from the main ladder's SFT module, which writes full style; chosen answers, and the
references that it is tested against, are in another. BLEU against those references and the content score stand side by
side: which of the two falls says what was rejected, the style or the facts. Continued SFT on the same chosen answers is
the yardstick: a gain over SFT alone may be nothing but more training. Seeds change the order of the pairs.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.corpora.phrasebook.styles import content_rate, style_rows
from xalma.corpora.registry import open_corpus
from xalma.evaluation.metrics import length_ratio
from xalma.evaluation.records import Record, footnote, read_records, write_records, write_run
from xalma.files import read_json, write_json
from xalma.models.adapters import save_adapter
from xalma.models.generation import generate
from xalma.paper.studies.preference_methods import _but_token_estimate, _comparisons
from xalma.paper.studies.seeds import DIRECTIONS, SFT, by_seed, cells_of, paired, seeds_of
from xalma.paper.studies.study import one_share
from xalma.paper.tables import write_table
from xalma.preference.methods import METHODS, train_preference
from xalma.preference.pairs import build_pairs
from xalma.profiles import Profile, load_profile
from xalma.prompts import extract_translation
from xalma.runs import finished, read_run, recipe_hash, results_folder, stage_folder
from xalma.training.ladder import score_rows
from xalma.training.stages import open_for_training, open_merged
from xalma.training.workers import side_by_side

CONTINUED = "sft"
ASKED = (CONTINUED, "arpo", "dpo", "simpo")
STYLE_RATES = (2e-4, 1e-3)  # a gentle one, and one at which rejection without behaviour cloning collapses; by trial
STYLE_STEPS = 40  # updates of `stage5_batch_size` pairs
CONTENT_SIGNATURE = "percent of outputs that state the source's facts, in any CLDR style, letter for letter"


def style_study(
    p: Profile,
    group: int,
    methods: Sequence[str] = ASKED,
    rates: Sequence[float] = STYLE_RATES,
    steps: int = STYLE_STEPS,
) -> list[Record]:
    """Scores on the style set of the SFT module and of each method at each rate, for each seed.

    Metrics: those of `score_rows`, content and length_ratio. Finished trainings are not repeated.
    Raises FileNotFoundError where stage 4 of the group is missing, ValueError for a corpus without styles.
    """
    mine = one_share(p)
    read_run(stage_folder(p, 4, group))
    side_by_side(p, [(_pairs, (mine, group))])
    jobs = [(_score, (mine, group, "", 0.0, steps, p.seed))]
    jobs += [(_score, (mine, group, name, rate, steps, seed)) for rate in rates for name in methods
             for seed in seeds_of(p)]  # fmt: skip
    return [record for found in side_by_side(p, jobs) for record in found]


def _translated(p: Profile, folder: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    model, tokenizer = open_merged(folder, p.dtype)
    outputs = generate(
        model, tokenizer, [row["prompt"] for row in rows],
        beams=p.beams, max_new_tokens=p.max_new_tokens, batch_size=p.generation_batch,
    )  # fmt: skip
    return [row | {"output": extract_translation(text)} for row, text in zip(rows, outputs, strict=True)]


def _inputs(p: Profile, group: int) -> dict[str, Any]:
    decides = ("corpus", "phrasebook_", "comparison_pairs", "prompt_style", "beams", "max_new_tokens", "threads")
    previous = read_run(stage_folder(p, 4, group))["fingerprint"]
    return {"previous": previous, "recipe": recipe_hash(), "group": group, "seed": p.seed,
            "text": open_corpus(p).fingerprint(), **p.values(*decides)}  # fmt: skip


def _pairs(p: Profile, group: int) -> Path:
    """The folder with the style pairs: chosen is the reference, rejected what the SFT module writes."""

    def body(out: Path) -> dict[str, Any]:
        rows = _translated(p, stage_folder(p, 4, group), style_rows(p, group, "sft", p.comparison_pairs))
        prompts, references, outputs, directions = (
            [row[key] for row in rows] for key in ("prompt", "reference", "output", "direction")
        )
        pairs, report = build_pairs(prompts, references, outputs, directions)
        random.Random(p.seed).shuffle(pairs)  # the first are those that are probed
        write_json(out / "rows.json", pairs)
        return {"pairs": report}

    return finished(_comparisons(p) / "styles" / "pairs" / f"group{group}", _inputs(p, group), body)


def _train(p: Profile, group: int, method: str, rate: float, steps: int, seed: int) -> Path:
    start, pairs = stage_folder(p, 4, group), _pairs(p, group)
    settings = {"learning_rate": rate, "batch_size": p.stage5_batch_size, "max_steps": steps, "seed": seed}
    inputs = _inputs(p, group) | {"method": method, "settings": settings, **p.values("dtype")}

    def body(out: Path) -> dict[str, Any]:
        logging.getLogger("transformers.modeling_utils").addFilter(_but_token_estimate)
        model, tokenizer = open_for_training(p, group, start)
        rows = read_json(pairs / "rows.json", f"remove {pairs}, and its pairs are made again", list)
        model, log = train_preference(method, model, tokenizer, rows, output_dir=out, **settings)
        save_adapter(model, group, out)
        write_json(out / "log.json", log)
        return {"group": group, "base": read_run(start)["base"], "method": method} | settings

    return finished(_comparisons(p) / "styles" / name_of(method, rate) / f"seed{seed}" / f"group{group}", inputs, body)


def name_of(method: str, rate: float) -> str:
    """A system's name in records."""
    return f"{method}@{rate:g}" if method else SFT


def _score(p: Profile, group: int, method: str, rate: float, steps: int, seed: int) -> list[Record]:
    folder = _train(p, group, method, rate, steps, seed) if method else stage_folder(p, 4, group)
    return score_style(
        _translated(p, folder, style_rows(p, group, "test", p.test_pairs)), p, name_of(method, rate), seed
    )


def score_style(rows: Sequence[dict[str, Any]], p: Profile, stage: str, seed: int) -> list[Record]:
    """`score_rows`, the content score and the length in percent of the references' characters, per direction."""
    records = score_rows(rows, p, stage, seed)
    for direction in dict.fromkeys(row["direction"] for row in rows):
        chosen = [row for row in rows if row["direction"] == direction]
        outputs, references = ([row[key] for row in chosen] for key in ("output", "reference"))
        for metric, value, how in (
            ("content", 100 * content_rate(chosen), CONTENT_SIGNATURE),
            ("length_ratio", 100 * length_ratio(outputs, references), "characters, percent of the reference"),
        ):
            records.append(Record(p.name, stage, direction, metric, value, len(chosen), how, seed))
    return records


def style_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row per direction class, rate and method: BLEU with ± and against SFT and continued SFT, content, length."""
    found, values, rows = cells_of(records), by_seed(records).sort_index(), []
    names = list(dict.fromkeys(record.stage for record in records))
    for direction, arrow in DIRECTIONS.items():
        for name in sorted(names, key=_order):
            method, _, rate = name.partition("@")
            mean, half = found[name, direction]
            label = METHODS[method].label if rate else "SFT, the start"
            row = {"direction": arrow, "rate": rate, "method": label, "BLEU": mean["bleu"], "±": half["bleu"]}
            for column, other in (("− SFT", SFT), ("− continued", f"{CONTINUED}@{rate}")):
                asked = rate and other in names
                gap = paired(values, name, other, direction) if asked else (float("nan"),) * 2
                row |= {column: gap[0], f"± {column}": gap[1]}
            rows.append(row | {"content %": mean["content"], "length %": mean["length_ratio"]})
    return pd.DataFrame(rows)


def _order(name: str) -> tuple[float, int]:
    method, _, rate = name.partition("@")
    return float(rate or 0), list(METHODS).index(method) if rate else 0


def styles_folder(p: Profile) -> Path:
    """Where the study's files lie: scores.jsonl, run.json and tables/."""
    return results_folder(p) / "styles"


def file_styles(p: Profile, records: Sequence[Record], steps: int = STYLE_STEPS) -> pd.DataFrame:
    """Write records, table and run.json; returns the table."""
    folder, made = styles_folder(p), "make styles"
    records = read_records(write_records(folder / "scores.jsonl", records))
    table = style_table(records)
    caption = f"Preference methods on the style set after {steps} updates"
    write_table(table, folder / "tables" / "styles", caption, footnote(records, "bleu", made))
    write_run(folder / "run.json", made, profile=p.name, seeds=list(seeds_of(p)), updates=steps,
              **p.values("comparison_groups", "comparison_pairs", "stage5_batch_size"))  # fmt: skip
    return table


def run_style_study(argv: Sequence[str] | None = None) -> None:
    """The study of a profile's first comparison group, from the main ladder's stage 4."""
    parser = argparse.ArgumentParser(prog="python -m xalma.paper.studies.style")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", dest="values")
    asked = parser.parse_args(argv)
    p = load_profile(asked.profile, seeds=3).but(**dict(value.split("=", 1) for value in asked.values))
    file_styles(p, style_study(p, p.comparison_group_numbers[0]))


if __name__ == "__main__":
    run_style_study()
