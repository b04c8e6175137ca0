"""The systems of the papers' tables behind one interface (ALMA tables 1 and 2, X-ALMA's main tables, in `published`).

    system = open_system("nllb-3.3b")                     # hub id of the table, or path=FOLDER
    system.translate(["Good morning."], "en", "is")       # -> ["Góðan daginn."]

`SYSTEMS` has a row for each: weights and where their id was read, prompt, languages, decoding, licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from xalma.languages import known_languages
from xalma.systems.table import SYSTEMS, System
from xalma.systems.templates import TEMPLATES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SYSTEMS", "System", "Translator", "listing", "open_system", "supports", "system_row"]


class Translator(Protocol):
    """What every system is: its row, and `translate`."""

    row: System

    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]: ...


def system_row(name: str) -> System:
    """The table's row. Raises ValueError, naming all, for an unknown system."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}: choose {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def supports(system: str | Translator, direction: str) -> bool:
    """Whether a system translates a direction; for existing files, whether the file is there.

    Raises ValueError for an unknown system or a bad direction.
    """
    row = system_row(system) if isinstance(system, str) else system.row
    if row.supports(direction) and row.family == "files" and not isinstance(system, str):
        return system.file(*direction.split("-")).is_file()
    return row.supports(direction)


def open_system(
    name: str,
    path: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    *,
    adapter: str | None = None,
    force: bool = False,
    **options: Any,
) -> Translator:
    """The system `name` of SYSTEMS, ready to translate.

    path: a folder or hub id in place of the table's; for an endpoint its model, for files their folder. adapter: the
    same for the LoRA module. Both take {group} for X-ALMA. device: None for the GPU where there is one, "auto" for all.
    dtype: None for bfloat16 on a GPU, float32 on a CPU. force: directions its authors do not name are run too.
    options: `shots` of few-shot systems; `journal`, `base_url`, `prices`, `max_cost`, … of an endpoint.
    Raises ValueError for an unknown system or what it lacks, OSError for weights that are not there.
    """
    row = system_row(name)
    path = str(path or row.hub)
    adapter = str(adapter or row.adapter) or None
    if row.family == "swie":
        raise ValueError(
            f"{name}: its weights were never released, and its layers are not written here: give outputs of yours as "
            f"--system files --path FOLDER"
        )
    if not path and row.family == "causal":
        raise ValueError(
            f"{name} has no weights on the hub that we know of: give path=FOLDER ({row.note or row.id_source})"
        )
    if row.family == "endpoint":
        from xalma.systems.chat.endpoint import Endpoint

        system: Translator = Endpoint(row, path, options.pop("journal", f"{name}.journal.jsonl"), **options)
    elif row.family == "files":
        from xalma.systems.files import Files

        system = Files(row, path, **options)
    elif row.family == "apertium":
        from xalma.systems.apertium import Apertium

        system = Apertium(row)
    elif row.family == "seq2seq":
        from xalma.systems.seq2seq import open_seq2seq

        system = open_seq2seq(row, path, device, dtype, **options)
    elif row.family == "xalma":
        from xalma.systems.xalma_ways import open_grouped

        system = open_grouped(row, path, adapter, device, dtype, **options)
    else:
        from xalma.systems.causal import open_causal

        system = open_causal(row, path, adapter, device, dtype, **options)
    if force:
        system.row = replace(row, languages=tuple(known_languages()), english_only=row.family == "xalma")
    return system


def listing() -> pd.DataFrame:
    """A row per system: name, title, weights, id_source, languages, prompt_source, prompt, decoding, licence,
    chosen_by, note.
    """
    import pandas as pd

    rows = []
    for row in SYSTEMS.values():
        template, d = TEMPLATES[row.template], row.decoding
        beams = "greedy" if d.num_beams == 1 else f"beam {d.num_beams}"
        is_model = row.family not in ("files", "apertium")
        rows.append(
            {
                "name": row.name,
                "title": row.title,
                "weights": " + ".join(filter(None, (row.hub, row.adapter))) or "yours",
                "id_source": row.id_source,
                "languages": f"{len(row.languages)}{', with English only' if row.english_only else ''}",
                "prompt": template.confidence if is_model else "none",
                "prompt_source": template.source if is_model else "no prompt",
                "decoding": f"{beams}, {d.max_new_tokens} new tokens" if is_model else "none",
                "decoding_source": row.decoding_source,
                "licence": row.licence,
                "chosen_by": "+".join(row.chosen_by),
                "note": row.note,
            }
        )
    return pd.DataFrame(rows)
