"""The numbers the papers printed, with the confidence of our reading of them: data, and never ours.

Tables, as CSV files in the folder `published`: a, b ALMA en→xx and xx→en; c monolingual × parallel
quality; d, d2 X-ALMA's groups and the inferred "High" subset; e, f X-ALMA's groups en→xx and xx→en;
g preference methods (X-ALMA, Table 5); h ablations. They were read from slides by OCR: `confidence`
is "seed" (read cleanly), "corrected" (a glyph repaired, `note` says why) or "unsure" (shown as
"79.2?"); an empty value was not readable. Table d lists languages in `shown`, so its `value` is
empty.

`oscar_sizes` is no table of the papers: it is what the OSCAR project says its release 23.01 holds.
"""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

TABLES = {
    "a": "a_alma_en_xx.csv",
    "b": "b_alma_xx_en.csv",
    "c": "c_alma_mono_parallel_quality.csv",
    "d": "d_xalma_language_groups.csv",
    "d2": "d2_high_resource_inferred.csv",
    "e": "e_xalma_groups_en_xx.csv",
    "f": "f_xalma_groups_xx_en.csv",
    "g": "g_preference_optimization_table5.csv",
    "h": "h_ablation.csv",
}


def published(table: str) -> pd.DataFrame:
    """One row per printed cell: what it measures, `value`, `shown`, `confidence` and `note`.

    `value` is a float, NaN where the cell could not be read; `shown` is the cell as a reader should
    see it. Raises ValueError for a table other than a-h and d2.
    """
    if table not in TABLES:
        raise ValueError(f"no published table {table!r}: use one of {', '.join(TABLES)}")
    with files("xalma").joinpath("published", TABLES[table]).open(encoding="utf-8") as file:
        cells = pd.read_csv(file, dtype=str, keep_default_na=False)
    shown = [
        format_cell(text, confidence)
        for text, confidence in zip(cells["value"], cells["confidence"], strict=True)
    ]
    cells.insert(cells.columns.get_loc("value") + 1, "shown", shown)
    numbers = cells["value"].mask(cells["value"] == "")
    cells["value"] = numbers.astype(float) if table != "d" else float("nan")
    return cells


def oscar_sizes() -> pd.DataFrame:
    """OSCAR-2301's sizes as its documentation has them, a row per language of ours (50): code, name, documents, words
    (between spaces), content_length as printed, and `bytes` of text, which that says in decimal units.

    Source: github.com/oscar-project/documentation, docs/versions/oscar-2301.md, "Language table", commit 076844bf.
    Unsure: whether a kB there is 1,000 or 1,024 bytes (2 to 10 %); and every number of documents is even, for all
    languages, as if each had been counted twice, so we show them and compute with none.
    """
    with files("xalma").joinpath("published", "oscar_2301_sizes.csv").open(encoding="utf-8") as file:
        sizes = pd.read_csv(file, keep_default_na=False)  # "no" and "na" are text
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    printed = sizes["content_length"].str.split(" ", expand=True)
    return sizes.assign(bytes=printed[0].astype(float) * printed[1].map(units))


def format_cell(value: str | float, confidence: str) -> str:
    """ "79.2" as "79.2?" if our reading of it is unsure; "" for a cell that could not be read."""
    text = "" if pd.isna(value) else str(value)
    return f"{text}?" if text and confidence == "unsure" else text


def published_table(table: str, rows: str = "system") -> pd.DataFrame:
    """A published table as printed: a row for each `rows`, a column for each thing measured.

    The cells are the text of `shown`; parts of a column's name that are the same all over are left
    out.
    """
    cells = published(table)
    parts = ["system", "direction", "group_or_lang", "subset", "metric"]
    parts = [part for part in parts if part != rows and cells[part].nunique() > 1] or ["metric"]
    if cells.duplicated([rows, *parts]).any():
        raise ValueError(f"table {table!r} is a list, not a grid of {rows}: use published({table!r})")
    cells["column"] = cells[parts].agg(" ".join, axis=1)
    columns = list(dict.fromkeys(cells["column"]))
    names = list(dict.fromkeys(cells[rows]))
    wide = (
        cells.pivot(index=rows, columns="column", values="shown")
        .reindex(index=names, columns=columns)
        .fillna("")
    )
    return wide.rename_axis(columns=None).reset_index()


def side_by_side(ours: pd.DataFrame, paper: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """The columns `on`, then 'paper' and 'ours' as text, which are never computed with.

    `ours` has the columns `on` and `value` (and perhaps others, such as `why`, which follow);
    `paper` is a selection of `published(...)`. Rows of the paper come first, in its order; a side
    without a number is empty. Raises ValueError for a missing column or for two rows with the same
    key on one side.
    """
    for name, frame, needed in (("ours", ours, [*on, "value"]), ("paper", paper, [*on, "shown"])):
        missing = [column for column in needed if column not in frame]
        if missing:
            raise ValueError(
                f"{name} has no column {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}"
            )
        if frame.duplicated(on).any():
            twice = tuple(frame.loc[frame.duplicated(on), on].iloc[0])
            raise ValueError(f"{name} has two rows for {twice}: select one, or name more columns in `on`")
    text = ours["value"].map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    measured = ours.drop(columns="value").assign(ours=text)
    printed = paper[[*on, "shown"]].rename(columns={"shown": "paper"})
    merged = printed.merge(measured, on=on, how="left")
    extra = measured.merge(printed[on], on=on, how="left", indicator=True).query("_merge == 'left_only'")
    merged = pd.concat([merged, extra.drop(columns="_merge")], ignore_index=True).fillna("")
    others = [column for column in measured.columns if column not in (*on, "ours")]
    return merged[[*on, "paper", "ours", *others]]
