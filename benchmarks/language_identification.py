"""How often `wrong_language` errs: false alarms on human translations, and other languages passed as the target.

    XALMA_DATA=… python benchmarks/language_identification.py --out results/benchmarks/language_identification.json

NTREX-128, lines that the margin was not chosen on. For each of the 50 languages as target: the share of
its own reference taken for another language (all are on target), the share of the English side found out,
and of each language of the same script the share found out, of which the lowest is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xalma.evaluation import wrong_language_rate
from xalma.files import write_json
from xalma.language_id import identifier_decides, signature
from xalma.languages import ENGLISH, LANGUAGES
from xalma.progress import progress
from xalma.runtime import data_root, provenance
from xalma.text_files import read_lines


def row(tgt: str, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Rates of one target language."""
    same_script = [c for c in LANGUAGES if c != tgt and LANGUAGES[c].script == LANGUAGES[tgt].script]
    found = {code: wrong_language_rate(texts[code], tgt) for code in dict.fromkeys([ENGLISH, *same_script])}
    return {
        "decided_by": "identifier" if identifier_decides(tgt) else "script",
        "false_alarms": wrong_language_rate(texts[tgt], tgt),
        "english_found": found[ENGLISH] if tgt != ENGLISH else None,
        "found": {code: rate for code, rate in found.items() if code != tgt},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    parser.add_argument("--lines", type=int, default=200, help="of each language (default 200)")
    options = parser.parse_args()
    root = data_root()
    if root is None:
        raise SystemExit("XALMA_DATA is not set: the texts are NTREX's")
    # The margin was chosen on lines 1, 3, 5, … of the first 600: these are the others.
    texts = {c: read_lines(root / "ntrex" / f"{c}.txt")[1::2][: options.lines] for c in LANGUAGES}
    rows = {}
    with progress(len(LANGUAGES), "languages") as bar:
        for code in LANGUAGES:
            rows[code] = row(code, texts)
            bar.update()
    for code, found in rows.items():
        others = {c: rate for c, rate in found["found"].items() if c != ENGLISH}
        lowest = min(others, key=others.get, default=None)
        english = "" if found["english_found"] is None else f"English found {found['english_found']:7.2%}  "
        worst = "" if lowest is None else f"lowest: {lowest} {others[lowest]:.2%}"
        print(
            f"{code}  {found['decided_by']:10s}  false alarms {found['false_alarms']:6.2%}  {english}{worst}"
        )
    decided = [r for r in rows.values() if r["decided_by"] == "identifier"]
    summary = {
        "false_alarms_mean": sum(r["false_alarms"] for r in rows.values()) / len(rows),
        "english_found_mean_where_the_identifier_decides": sum(r["english_found"] or 0 for r in decided)
        / sum(r["english_found"] is not None for r in decided),
    }
    print(summary)
    if options.out:
        record = {"what": __doc__.splitlines()[0], "lines": options.lines, "signature": signature("de")}
        write_json(options.out, record | {"summary": summary, "languages": rows, **provenance()})
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
