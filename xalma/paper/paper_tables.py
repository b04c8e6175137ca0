"""The tables of both papers, regenerated from files: the printed numbers as data, and ours beside them, never mixed.

    ALMA    en→xx and xx→en (a, b); monolingual × parallel data (c)
    X-ALMA  language groups (d, d2); results by group, All and High, both ways (e, f); preference methods (g);
            stages and SFT data (h)

A printed table holds what the paper prints and nothing else: "?" is a digit we are not sure of, an empty cell could not
be read. Our own tables have the same shape, with our metrics, and each number leads to the run.json it comes from.
Missing: how much monolingual data helps (ALMA, figure): of it no number could be read, so none is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.evaluation.interference import DOUBT, MARK
from xalma.evaluation.records import Record, direction_class, doubtful
from xalma.evaluation.segment_statistics import segment_statistics
from xalma.evaluation.significance import ALPHA, N_RESAMPLES, compare, holm, paired_mean
from xalma.evaluation.thresholds import explained, marks
from xalma.files import read_json, write_json
from xalma.languages import ARROWS, GROUP_NAMES, GROUPS, LANGUAGES, adapter_name, other_side, parse_direction
from xalma.paper.tables import NOT_WORSE, Cell, Table, number, printed, write_csv, write_marked
from xalma.profiles import Profile
from xalma.published import TABLES, published
from xalma.runs import BASE, read_run, results_folder, stage_folder
from xalma.runtime import provenance
from xalma.training.ladder import outputs_file

RUN = "../run.json"  # from results/<profile>/tables
SUBSETS = ("All", "High")
LAST_STAGES = {"stage4": "post-training stage 1 (SFT)", "stage5": "post-training stage 2 (ARPO)"}


def printed_note(table: str) -> str:
    """Where a printed table's numbers are, and how sure we are of them."""
    cells = published(table)
    unsure = (cells["confidence"] == "unsure").sum()
    empty = (cells["shown"] == "").sum()
    sure = (
        f"{unsure} of {len(cells)} cells are unsure or not readable"
        if unsure
        else "every cell was read cleanly"
    )
    return (
        f"As printed: `xalma/published/{TABLES[table]}`; {sure}{f', {empty} of them empty' if empty else ''}."
    )


def alma_table(direction: str) -> Table:
    """ALMA's main table for "en-xx" or "xx-en": systems down; BLEU and COMET-22 of five languages and their mean."""
    table = {"en-xx": "a", "xx-en": "b"}[direction]
    columns = [
        (lang, metric) for lang in ("de", "cs", "is", "zh", "ru", "avg") for metric in ("BLEU", "COMET-22")
    ]
    heads = [f"{lang} {metric.removesuffix('-22')}" for lang, metric in columns]
    rows = _grid(published(table), "system", "group_or_lang", columns)
    return _printed(["system"], heads, rows, f"ALMA, {ARROWS[direction]}, WMT'22 (is: WMT'21)", table)


def mono_parallel_table() -> Table:
    """ALMA's monolingual × parallel data: LLaMA-2-7B fine-tuned, mean over five languages."""
    cells = published("c")
    cells["row"] = cells["subset"]
    columns = [(direction, metric) for direction in ("xx-en", "en-xx") for metric in ("BLEU", "COMET-22")]
    heads = [f"{ARROWS[direction]} {metric}" for direction, metric in columns]
    rows = []
    for row in _grid(cells, "row", "direction", columns):
        mono, parallel = (part.split("=")[1] for part in row[0].split(";"))
        rows.append([mono, parallel, *row[1:]])
    return _printed(["monolingual", "parallel"], heads, rows, "ALMA: monolingual × parallel data", "c")


def groups_table() -> Table:
    """X-ALMA's eight groups; languages we take for high-resource in the last column, which is inferred, not printed."""
    rows = []
    for group, codes in GROUPS.items():
        high = [code for code in codes if LANGUAGES[code].resource == "high"]
        names = ", ".join(f"{LANGUAGES[code].name} ({code})" for code in codes)
        rows.append([str(group), GROUP_NAMES[group], names, ", ".join(f"{code}?" for code in high)])
    note = "English is in every group. High: inferred (Joshi et al. 2020, classes 4 and 5); the list could not be read."
    heads = ["group", "name", "languages", "High, inferred"]
    return Table(heads, rows, "X-ALMA: language groups", [printed_note("d"), note])


def xalma_table(direction: str) -> Table:
    """X-ALMA's COMET-22 by group, All and High, for "en-xx" or "xx-en"."""
    table = {"en-xx": "e", "xx-en": "f"}[direction]
    cells = published(table)
    columns = [(adapter_name(group), subset) for group in GROUPS for subset in SUBSETS]
    heads = [f"{group.removeprefix('group')} {subset}" for group, subset in columns]
    rows = _grid(cells.assign(metric=cells["subset"]), "system", "group_or_lang", columns)
    caption = f"X-ALMA: COMET-22 by group, {ARROWS[direction]}, FLORES-200"
    return _printed(["system"], heads, rows, caption, table)


def methods_table() -> Table:
    """X-ALMA's Table 5: preference methods on Group 6."""
    columns = [(direction, metric) for direction in ARROWS for metric in ("BLEU", "COMET-22", "XCOMET-XL")]
    heads = [f"{ARROWS[direction]} {metric}" for direction, metric in columns]
    rows = _grid(published("g"), "system", "direction", columns)
    return _printed(["method"], heads, rows, "X-ALMA: preference methods, Group 6", "g")


def printed_ablation(which: str) -> Table:
    """X-ALMA's ablation of "stages" or "sft_data" on Group 6, COMET-22."""
    cells = published("h")
    cells = cells[cells["table"] == f"h_ablation_{which}"]
    directions = list(dict.fromkeys(cells["direction"]))
    columns = [(direction, "COMET-22") for direction in directions]
    rows = _grid(cells, "system", "direction", columns)
    heads = [f"{ARROWS.get(direction, 'both')} COMET-22" for direction in directions]
    title = {"stages": "stages, one after another", "sft_data": "SFT data"}[which]
    notes = [] if which == "stages" else [_sentence(cells["note"].iloc[0])]
    first = "after" if which == "stages" else "trained on"
    return _printed([first], heads, rows, f"X-ALMA: {title}, Group 6", "h", notes)


def printed_tables() -> dict[str, Table]:
    """File name → table, for every table of the papers that we hold numbers of."""
    return {
        "paper_alma_en_xx": alma_table("en-xx"),
        "paper_alma_xx_en": alma_table("xx-en"),
        "paper_alma_mono_parallel": mono_parallel_table(),
        "paper_groups": groups_table(),
        "paper_xalma_en_xx": xalma_table("en-xx"),
        "paper_xalma_xx_en": xalma_table("xx-en"),
        "paper_methods": methods_table(),
        "paper_ablation_stages": printed_ablation("stages"),
        "paper_ablation_sft_data": printed_ablation("sft_data"),
    }


def _grid(
    cells: pd.DataFrame, rows: str, across: str, columns: Sequence[tuple[str, str]]
) -> list[list[Cell | str]]:
    """One row a value of `rows`: its name, then a printed cell for each (value of `across`, metric)."""
    found = {
        (r[rows], r[across], r["metric"]): printed(r["shown"], r["value"]) for r in cells.to_dict("records")
    }
    return [
        [name, *(found.get((name, *column), Cell("")) for column in columns)]
        for name in dict.fromkeys(cells[rows])
    ]


def _printed(
    names: list[str], heads: list[str], rows: list, caption: str, table: str, notes: Sequence[str] = ()
) -> Table:
    """A printed table: columns of names, then of numbers, whose best are marked; below, where they are from."""
    made = Table([*names, *heads], rows, caption, [printed_note(table), *notes])
    return made.with_best(range(len(names), len(names) + len(heads)))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


# --- ours -------------------------------------------------------------------------------------------


def our_groups_table(
    records: Iterable[Record],
    direction: str,
    metric: str,
    stages: Mapping[str, str],
    tests: pd.DataFrame | None = None,
) -> Table:
    """Our scores in the shape of X-ALMA's tables: stages down, each trained group's All and High across.

    stages: stage → the name shown; tests: the second frame of `stage_tests`, for † where the best of a column is
    not significantly better. A group without a high-resource language has an empty High.
    """
    records = list(records)
    frame = pd.DataFrame([asdict(r) | direction_class(r.direction) | {"key": r.direction} for r in records])
    frame = frame[
        (frame["metric"] == metric) & (frame["direction"] == direction) & frame["stage"].isin(list(stages))
    ]
    columns = [(group, subset) for group in sorted(frame["group"].unique()) for subset in SUBSETS]
    values = {
        stage: [_group_mean(frame[frame["stage"] == stage], group, subset) for group, subset in columns]
        for stage in stages
    }
    top = [max((v[i] for v in values.values() if v[i] == v[i]), default=0.0) for i in range(len(columns))]
    close = set() if tests is None else _not_worse(tests, direction)
    unnoticed = [marks(metric, [values[stage][i] for stage in stages]) for i in range(len(columns))]
    doubt = {stage: MARK if (stage, metric) in doubtful(records) else "" for stage in stages}
    rows = [
        [
            name,
            *(
                number(
                    value,
                    run=RUN,
                    mark=(NOT_WORSE if column in close and value < best else "") + signs[n] + doubt[stage],
                )
                for value, column, best, signs in zip(values[stage], columns, top, unnoticed, strict=True)
            ),
        ]
        for n, (stage, name) in enumerate(stages.items())
    ]
    label = {"bleu": "BLEU", "chrf": "chrF"}.get(metric, metric)
    segments = ", ".join(map(str, sorted(frame["n"].unique())))
    notes = [f"n = {segments} segments per direction. High: as inferred, see the language groups."]
    if tests is not None:
        notes.append(
            f"Best in bold; {NOT_WORSE}: the best is not significantly better ({tests['how'].iloc[0]})."
        )
    if any(sign for signs in unnoticed for sign in signs):
        notes.append(f"{explained(metric)}.")
    notes += [f"{MARK}: {DOUBT}."] if any(doubt.values()) else []
    heads = ["after", *(f"{group} {subset}" for group, subset in columns)]
    made = Table(heads, rows, f"Ours: {label} by group, {ARROWS[direction]}", notes)
    return made.with_best(range(1, len(columns) + 1))


def _not_worse(tests: pd.DataFrame, direction: str) -> set[tuple[int, str]]:
    side = tests[(tests["direction"] == direction) & (tests["p_adjusted"] >= ALPHA)]
    return set(zip(side["group"], side["subset"], strict=True))


def _group_mean(rows: pd.DataFrame, group: int, subset: str) -> float:
    rows = rows[(rows["group"] == group) & rows["key"].map(lambda key: _is_in(key, subset)).astype(bool)]
    return float(rows.groupby("key")["value"].mean().mean()) if len(rows) else float("nan")


def _is_in(direction: str, subset: str) -> bool:
    return subset == "All" or LANGUAGES[other_side(*parse_direction(direction))].resource == "high"


def stage_tests(p: Profile, before: str, after: str, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Stage `after` against `before` by paired bootstrap on the outputs kept beside the stages: by direction, by group.

    Columns as `significance.compare`, and how; of the second group, subset, direction, delta, p_value, p_adjusted, how.
    Filed as results/<profile>/tables/tests_<before>_<after>_<metric>*.csv, which are read where the outputs are not
    here (a fresh clone). Raises FileNotFoundError where there is neither.
    """
    stem = f"tests_{before}_{after}_{metric}"
    paths = [results_folder(p) / "tables" / f"{stem}{kind}.csv" for kind in ("", "_groups")]
    sides = [_kept_statistics(p, stage, metric) for stage in (before, after)]
    if all(sides):
        for path, frame in zip(
            paths, (_by_direction(*sides, metric), _by_group(*sides, metric)), strict=True
        ):
            write_csv(path, frame)
    if not all(path.exists() for path in paths):
        raise FileNotFoundError(
            f"no outputs of {before} and {after} in profile {p.name}: run notebooks 06 and 07 first"
        )
    first, second = map(pd.read_csv, paths)
    return first, second


def _by_direction(before: dict[str, Any], after: dict[str, Any], metric: str) -> pd.DataFrame:
    frame = compare(after, before, metric)
    how = frame.attrs
    return frame.assign(
        how=f"{metric}, {how['test']}, {how['n_samples']:,} samples, Holm, alpha {how['alpha']}"
    )


def _by_group(before: dict[str, Any], after: dict[str, Any], metric: str) -> pd.DataFrame:
    rows = []
    for direction in ARROWS:
        for group, subset in ((group, subset) for group in GROUPS for subset in SUBSETS):
            kind = {"group": group, "direction": direction}
            members = [d for d in after if direction_class(d) == kind and _is_in(d, subset)]
            if members:
                test = paired_mean(*({d: side[d] for d in members} for side in (after, before)), metric)
                rows.append((group, subset, direction, test.delta, test.p_value))
    frame = pd.DataFrame(rows, columns=["group", "subset", "direction", "delta", "p_value"])
    frame["p_adjusted"] = holm(frame["p_value"])
    samples = N_RESAMPLES["bootstrap"]
    how = f"paired bootstrap of the means, {samples:,} samples, Holm over {len(frame)} tests, alpha {ALPHA}"
    return frame.assign(how=how)


def _kept_statistics(p: Profile, stage: str, metric: str) -> dict[str, Any]:
    """Direction → segment statistics of the outputs that `translate_test` keeps; empty where one group has none."""
    statistics: dict[str, Any] = {}
    for group in p.group_numbers:
        folder = stage_folder(p, int(stage.removeprefix("stage")), group)
        if not (folder / "run.json").exists() or not (kept := outputs_file(p, folder, group)).exists():
            return {}
        rows = read_json(kept, "remove it, and run notebooks 06 and 07 again", list)
        for direction in dict.fromkeys(row["direction"] for row in rows):
            own = [row for row in rows if row["direction"] == direction]
            outputs, references = ([row[side] for row in own] for side in ("output", "reference"))
            statistics[direction] = segment_statistics(outputs, references, direction.split("-")[1], metric)
    return statistics


def tests_sentence(tests: pd.DataFrame, before: str, after: str) -> str:
    """How many directions rose and fell significantly from one stage to the other, out of how many."""
    counts = tests["verdict"].value_counts()
    won = int(counts.get("win", 0))
    lost = int(counts.get("loss", 0))
    return (
        f"{after} against {before}: significantly better in {won}, worse in {lost} of {len(tests)} directions "
        f"({tests['how'].iloc[0]})."
    )


def groups_sentence(tests: pd.DataFrame, before: str, after: str, metric: str = "BLEU") -> str:
    """In which groups' means one stage is significantly better or worse than the other, with differences and p.

    tests: the second frame of `stage_tests`; its rows of all languages count, not those of the high-resource ones.
    """
    rows = tests[tests["subset"] == "All"].sort_values(["group", "direction"])
    significant = rows[rows["p_adjusted"] < ALPHA]
    parts = [
        f"{verdict} in {', '.join(map(difference_text, side.to_dict('records')))}"
        for verdict, side in (
            ("better", significant[significant["delta"] > 0]),
            ("worse", significant[significant["delta"] < 0]),
        )
        if len(side)
    ]
    others = len(rows) - len(significant)
    sentences = [f"significantly {' and '.join(parts)}"] if parts else []
    sentences += [f"no significant difference in {others} of {len(rows)} means"] if others else []
    what = f"{after} against {before}, mean {metric} of a group's directions"
    return f"{what}: {'; '.join(sentences)} ({tests['how'].iloc[0]})."


def difference_text(row: Mapping[str, Any]) -> str:
    """A group's mean difference with its p adjusted for the other tests, as in "group 6 xx→en (+2.61, p 0.024)"."""
    where = f"group {row['group']} {ARROWS[row['direction']]}"
    return f"{where} ({row['delta']:+.2f}, p {row['p_adjusted']:.3f})".replace("p 0.000", "p < 0.001")


def write_run_file(p: Profile, command: str) -> Path:
    """results/<profile>/run.json, which the tables' numbers lead to: command, profile, stages, versions; its path.

    No durations and no paths, so that equal runs write equal files. Where the stages' folders are not here (a fresh
    clone), the file that is there is left alone.
    """
    path, stages = results_folder(p) / "run.json", {}
    for stage in range(6):
        for group in (BASE,) if stage <= 1 else p.group_numbers:
            file = stage_folder(p, stage, group) / "run.json"
            if file.exists():
                run = read_run(file.parent)
                kept = {key: run.get(key) for key in ("fingerprint", "commit", "steps", "contamination")}
                stages[f"stage{stage}/{file.parent.name}"] = kept
    if stages or not path.exists():
        values = {k: v for k, v in p.values().items() if k not in ("run_dir", "results_dir")}
        write_json(
            path, {"command": command, "seed": p.seed, "profile": values, "stages": stages, **provenance()}
        )
    return path


def write_tables(p: Profile, records: Sequence[Record], tests: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write every printed table, and ours in their shape, into results/<profile>/tables; returns the paths.

    tests: metric → the second frame of `stage_tests`; a metric without tests has no marks.
    """
    folder = results_folder(p) / "tables"
    found = printed_tables()
    for metric in ("bleu", "chrf"):
        for direction in ARROWS:
            name = f"our_groups_{direction.replace('-', '_')}_{metric}"
            found[name] = our_groups_table(records, direction, metric, LAST_STAGES, tests.get(metric))
    return [path for name, table in found.items() for path in write_marked(table, folder / name)]
