"""Share of test sentences that the guard finds after copying changed them, and its false alarms on real text.

    XALMA_DATA=… python benchmarks/contamination_forms.py --out results/benchmarks/contamination_forms.json

The test set is NTREX in each of the 50 languages, its sentences of at least MIN_LETTERS letters. Each form is what a
copy may do to a sentence; it counts as found where the guard names it in the text it was put in and would stop a run,
else as near where it is reported as a near-duplicate, which stops nothing. False alarms are hits in Bible, mozilla.org,
UDHR and NTREX lines for the sentences of WMT'22, WMT'23 and FLORES-200: no known leak, though a verse quoted in a test
set is one. A Markdown table is written beside the JSON file.
"""

from __future__ import annotations

import argparse
import html
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from xalma.data import KINDS, MIN_LETTERS, TestIndex, key
from xalma.files import write_json
from xalma.languages import LANGUAGES
from xalma.paper import contamination_report, write_table
from xalma.runtime import data_root, provenance
from xalma.text_files import read_lines

FILLING = "4711 ... 4712"  # stands before and after: letters of no script
ARABIC = str.maketrans("یکيىكہ", "يكییکه")
NO_BLANKS = re.compile("[\u0e00-\u0e7f\u3041-\u30ff\u4e00-\u9fff]")
NOT_LEAKING = ("bible", "mozilla", "udhr", "ntrex")


def without_marks(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def halves(text: str) -> list[str]:
    middle = text.find(" ", len(text) // 2)
    middle = middle if middle > 0 else len(text) // 2
    return [text[:middle], text[middle:]]


def one_word_changed(text: str) -> list[str]:
    """The middle one of the words between blanks, or the middle four characters in Chinese, Japanese and Thai."""
    blank = "" if NO_BLANKS.search(text) else " "
    words = text.split(" ") if blank else [text[i : i + 4] for i in range(0, len(text), 4)]
    words[len(words) // 2] = "XALMA"
    return [blank.join(words)]


def forms(neighbour: Callable[[], str]) -> dict[str, Callable[[str], list[str]]]:
    """Name → the text or texts that a sentence becomes."""
    one = {
        "as it is": str,
        **{
            form: lambda text, form=form: unicodedata.normalize(form, text)
            for form in ("NFC", "NFD", "NFKC", "NFKD")
        },
        "capitals": str.upper,
        "without accents and vowel signs": without_marks,
        "Arabic letters for Persian ones, and back": lambda text: text.translate(ARABIC),
        "HTML entities": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
        "HTML tags": lambda text: (
            f'<p class="a"><b>{html.escape(text[:9])}</b>{html.escape(text[9:])}<br/></p>'
        ),
        "behind 1.": lambda text: f"1. {text}",
        "behind [1]": lambda text: f"[1] {text}",
        "between numbers": lambda text: f"{FILLING} {text} {FILLING}",
        "between two sentences": lambda text: f"{neighbour()} {text} {neighbour()}",
        "in two lines": lambda text: "\n".join(halves(text)),
    }
    return {name: lambda text, make=make: [make(text)] for name, make in one.items()} | {
        "in two rows": halves,
        "one word changed": one_word_changed,
    }


def found_share(index: TestIndex, lines: list[str], make: Callable[[str], list[str]]) -> tuple[int, int, int]:
    """(sentences found so that a run stops, further ones reported as near, sentences looked for)."""
    texts, owners = [], []
    for number, line in enumerate(lines, 1):
        if len(key(line)) >= MIN_LETTERS:
            made = make(line)
            texts += made
            owners += [number] * len(made)
    hits = [
        hit for hit in index.find(texts, near=True) if any(line == owners[hit.text] for _, line in hit.places)
    ]
    found = {owners[hit.text] for hit in hits if hit.kind != "near"}
    return len(found), len({owners[hit.text] for hit in hits} - found), len(set(owners))


def false_alarms(root: Path) -> dict[str, int]:
    texts = [text for text in contamination_report.training_texts(root) if text.name in NOT_LEAKING]
    names = ("wmt22", "wmt23", "flores200")
    index = TestIndex(contamination_report.test_sides(names))
    counts = Counter()
    for text in texts:
        for lines in text.sides.values():
            counts["lines"] += len(lines)
            counts.update(kind for _, kind in {(hit.text, hit.kind) for hit in index.find(lines, near=True)})
    return {"test_sentences": index.n_keys, **{name: counts[name] for name in ("lines", *KINDS)}}


def summary(name: str, part: pd.DataFrame) -> dict[str, object]:
    """One row of the table: shares in percent, and the language with the least found or reported."""
    shares = 100 * (part.found + part.near) / part.sentences
    total = part.sentences.sum()
    return {
        "form": name,
        "sentences": int(total),
        "found %": 100 * part.found.sum() / total,
        "reported as near %": 100 * part.near.sum() / total,
        "worst language": part.language[shares.idxmin()],
        "found or reported there %": shares.min(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    options = parser.parse_args()
    root = data_root()
    if root is None:
        parser.error("XALMA_DATA is not set: NTREX is read from there")
    table = []
    rng = random.Random(0)
    for code in options.languages.split(","):
        lines = read_lines(root / "ntrex" / f"{code}.txt")
        index = TestIndex({f"ntrex, {code}": lines})
        for name, make in forms(lambda lines=lines: rng.choice(lines)).items():
            found, near, of = found_share(index, lines, make)
            table.append({"form": name, "language": code, "found": found, "near": near, "sentences": of})
    frame = pd.DataFrame(table)
    rows = [summary(name, part) for name, part in frame.groupby("form", sort=False)]
    alarms = false_alarms(root)
    print(pd.DataFrame(rows).round(2).to_string(), alarms, sep="\n")
    if options.out:
        report = {
            "benchmark": "contamination_forms",
            "forms": rows,
            "by_language": frame.to_dict("records"),
            "false_alarms": alarms,
            "provenance": provenance(),
        }
        print(write_json(options.out, report))
        note = (
            f"NTREX in {len(frame.language.unique())} languages, made by `python benchmarks/contamination_forms.py`. "
            f"False alarms: {sum(alarms[kind] for kind in KINDS[:-1])} of {alarms['lines']:,} lines, and "
            f"{alarms['near']} near-duplicates, against {alarms['test_sentences']:,} test sentences."
        )
        write_table(
            pd.DataFrame(rows), options.out.with_suffix(""), "Test sentences found, by what copying did", note
        )


if __name__ == "__main__":
    main()
