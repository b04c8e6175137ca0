"""Croissant metadata out of the data cards: `make cards` writes data_cards/croissant/<card>.json.

Croissant (mlcommons.org/croissant/1.0) is JSON-LD over schema.org that data set searches read. It says here what the
card's head and its first lines say: name, purpose, licence, languages, source. No text of a corpus is in it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

CARDS = Path(__file__).resolve().parents[1] / "data_cards"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs",
    "isLiveDataset": "cr:isLiveDataset",
}
SPDX = {  # what the heads of the cards call a licence, and its page
    "apache-2.0": "Apache-2.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "mpl-2.0": "MPL-2.0",
    "odc-by": "ODC-By-1.0",
    "unicode-3.0": "Unicode-3.0",
}


def described(card: Path) -> dict[str, Any] | None:
    """The metadata of a card; None for a card that describes no corpus with a source."""
    text = card.read_text(encoding="utf-8")
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    source = re.search(
        r"(?:https://)?((?:huggingface\.co/datasets|github\.com)/[\w.-]+/[\w.-]+?)[),;\s]", text
    )
    if not head or not (source or card.stem == "cldr"):
        return None
    facts = yaml.safe_load(head[1])
    licence = facts["license"] if facts["license"] != "other" else facts["license_name"]
    stated = re.search(r"^\| licence \| (.+) \|$", text, re.MULTILINE)
    page = [f"https://spdx.org/licenses/{SPDX[licence]}"] if licence in SPDX else []
    lines = re.search(r"^# .+\n\n((?:.+\n)+)", text, re.MULTILINE)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts["pretty_name"],
        "description": plain(lines[1]),
        "license": [*page, *([plain(stated[1])] if stated else [])],
        "url": f"https://{source[1]}" if source else "https://cldr.unicode.org",
        "inLanguage": facts["language"],
        "keywords": ["machine translation", *facts.get("tags", [])],
        "isLiveDataset": False,
    }


def plain(text: str) -> str:
    """Markdown on one line, without its marks."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)|[*`]", lambda match: match[1] or "", " ".join(text.split()))


def build(folder: Path) -> list[Path]:
    """Writes a file per card that names a source; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {card.stem: described(card) for card in sorted(CARDS.glob("*.md"))}
    files = [folder / f"{stem}.json" for stem, metadata in found.items() if metadata]
    for file in files:
        file.write_text(json.dumps(found[file.stem], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else CARDS / "croissant"
    print(f"{len(build(target))} files in {target}")
