"""OSCAR-2301: web text by language, X-ALMA's and ALMA's monolingual corpus (pre-training stages 1 and 2). Gated.

Layout: <lang>_meta/ holds checksum.sha256 and the text, <lang>_meta.jsonl.zst for a small language,
<lang>_meta_part_<n>.jsonl.zst for a large one; a line is an object with the text under "content", beside "warc_headers"
and "metadata". So the corpus' own loading script reads it (Oscar2301, `_split_generators`, copied in public code), so
public code addresses single files (br_meta/br_meta.jsonl.zst, vi_meta/vi_meta_part_1.jsonl.zst), and the row is the
project's documentation (oscar-project/documentation, docs/versions/oscar-2301.md). Nothing was downloaded here. A local
folder in that layout does as well as the hub id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec

from xalma.corpora.base import Corpus, Row, strict
from xalma.corpora.files import LOGIN, Unreadable, json_lines
from xalma.languages import language


class OscarCorpus(Corpus):
    NAME: ClassVar = "OSCAR-2301"

    def files(self, lang: str) -> list[str]:
        """The language's files, part 2 before part 10. Raises Unreadable, saying what to do, where there is none."""
        code, path = language(lang).oscar, self.p.monolingual_id
        try:
            if Path(path).is_dir():
                found = [str(file) for file in Path(path).glob(f"{code}_meta/*.jsonl.zst")]
            else:
                hub = fsspec.filesystem("hf")
                found = [f"hf://{file}" for file in hub.glob(f"datasets/{path}/{code}_meta/*.jsonl.zst")]
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise Unreadable(f"can't read {path} ({code}) from the hub: {reason}; {LOGIN}") from error
        if not found:
            raise Unreadable(f"can't read {path} ({code}): no {code}_meta/*.jsonl.zst is there; {LOGIN}")
        return sorted(found, key=_number)

    def rows(self, kind: str, lang: str) -> Iterator[Row]:
        for file in self.files(lang) if kind == "monolingual" else ():
            for number, row in json_lines(file):
                text = row.get("content") if row else None
                yield f"{file}:{number + 1}", text if isinstance(text, str) else None

    def monolingual(self, lang: str) -> Iterator[str]:
        return strict(self.rows("monolingual", lang))

    def fingerprint(self) -> str:
        return f"{self.p.monolingual_id}, as it was when read"


def _number(file: str) -> tuple[int, str]:
    found = re.search(r"_part_(\d+)\.", file)
    return (int(found[1]) if found else 0, file)
