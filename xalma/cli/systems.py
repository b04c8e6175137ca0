"""`xalma systems`, `xalma outputs` and `xalma translate --system`: arguments to calls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xalma.files import read_json
from xalma.runtime import listed
from xalma.systems.chat.address import parse_address
from xalma.systems.registry import Translator, listing, open_system, supports, system_row

if TYPE_CHECKING:
    from xalma.systems.chat.endpoint import Endpoint

# for outputs
_NO_MATTER = "journal", "max_cost", "prices", "device", "key_variable", "timeout_s", "deadline_s"

_HOW_SURE = (
    "Sure is what stands with the place where it was read. Not sure: a prompt called unsure, and what is from "
    "memory, our choice, not known, or could not be read. Scores by a metric that chose training pairs, or by its "
    "family, get ‡; where no metric is named, none was read of."
)
ENDPOINT_OPTIONS = ["base_url", "key_variable", "prices", "max_cost", "journal", "timeout_s", "deadline_s"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a system, for any command that runs one."""
    parser.add_argument(
        "--path", help="folder or hub id in place of the table's; an endpoint's model; files' folder"
    )
    parser.add_argument("--adapter", help="folder or hub id of the LoRA module; {group} for X-ALMA")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, or auto for one model over all GPUs")
    parser.add_argument(
        "--dtype", help="float32, bfloat16 or float16; default: bfloat16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--force", action="store_true", help="run directions its authors do not name too")
    parser.add_argument(
        "--shots", metavar="FOLDER", help="examples of few-shot systems: shots.<src>-<tgt>.json"
    )
    add_endpoint_options(parser)


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """The options of a chat endpoint."""
    parser.add_argument("--base-url", help="an endpoint's address; default: OpenAI's")
    parser.add_argument("--key-variable", help="environment variable with the key; default: OPENAI_API_KEY")
    parser.add_argument(
        "--prices", nargs=2, type=float, metavar=("IN", "OUT"), help="per million tokens, to show the cost"
    )
    parser.add_argument(
        "--max-cost", type=float, help="stop before the journal's answers and new ones cost more"
    )
    parser.add_argument(
        "--timeout", type=float, dest="timeout_s", metavar="S", help="for one answer; default: 120"
    )
    parser.add_argument("--deadline", type=float, dest="deadline_s", metavar="S", help="for the whole run")
    parser.add_argument(
        "--journal", help="file of an endpoint's paid answers; default: in --out, else in this folder"
    )


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as `open_system` takes them."""
    row = system_row(arguments.system)
    names = ["path", "adapter", "device", "dtype", "force"]
    if row.family == "endpoint":
        names += ENDPOINT_OPTIONS
    values = {name: getattr(arguments, name) for name in names}
    options = {name: value for name, value in values.items() if value is not None and value is not False}
    if arguments.shots:
        options["shots"] = read_shots(arguments.shots)
    return options


def read_shots(folder: str | Path) -> dict[str, list[tuple[str, str]]]:
    """Direction -> examples, from files as ALMA's HR-5-shot/: shots.en-de.json = [{"source": …, "target": …}, …]."""
    files = sorted(Path(folder).glob("shots.*-*.json"))
    if not files:
        raise FileNotFoundError(f"no shots.<src>-<tgt>.json in {folder}")
    return {file.stem.removeprefix("shots."): _examples(file) for file in files}


def _examples(file: Path) -> list[tuple[str, str]]:
    remedy = "write a list of objects with source and target"
    try:
        return [(row["source"], row["target"]) for row in read_json(file, remedy, list)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} holds an example without source or target ({error!r}): {remedy}") from error


def print_systems(_: argparse.Namespace) -> None:
    """The table of systems on standard output."""
    frame = listing()
    for row in frame.itertuples():
        print(f"{row.name:20}{row.title}")
        lines = [
            f"{row.weights} ({row.id_source}); languages: {row.languages}",
            f"decoding {row.decoding}: {row.decoding_source}",
            f"prompt {row.prompt}: {row.prompt_source}",
            f"licence: {row.licence}",
            f"training pairs chosen by: {row.chosen_by}" if row.chosen_by else "",
            f"note: {row.note}" if row.note else "",
        ]
        print(*(f"{'':22}{line}" for line in lines if line), sep="\n")
    print(f"\n{_HOW_SURE}")


def translate_with(arguments: argparse.Namespace, texts: Sequence[str]) -> list[str]:
    """`xalma translate --system`: the translations, one line each."""
    from xalma.systems.outputs import single_lines

    if not arguments.force:
        system_row(arguments.system).check(arguments.src, arguments.tgt)  # before weights are loaded
    system = open_system(arguments.system, **given(arguments))
    try:
        outputs, broken = single_lines(system.translate(texts, arguments.src, arguments.tgt))
    finally:
        _say_spending(system)
    counts = getattr(system, "counts", {})
    if broken := broken + counts.get("separators", 0):
        print(f"line breaks in {broken} outputs became blanks", file=sys.stderr)
    if cut := counts.get("cut"):
        print(f"{cut} answers reached the limit of new tokens and may be cut", file=sys.stderr)
    return outputs


def write(arguments: argparse.Namespace) -> None:
    """`xalma outputs`: a system's outputs for a test set, resumable; says what came of each direction."""
    row = system_row(arguments.system)
    options = given(arguments)
    if row.family == "endpoint":
        options.setdefault("journal", str(Path(arguments.out) / "journal.jsonl"))
        with closing(open_system(row.name, **options)) as system:
            try:
                _write(arguments, options, system)
            finally:
                _say_spending(system)
    else:
        _write(arguments, options, open_system(row.name, **options) if row.family == "files" else None)


def _write(arguments: argparse.Namespace, options: dict[str, Any], system: Translator | None) -> None:
    """With a system that is open already, or one to be opened when the first direction needs its weights."""
    from xalma.corpora import test_sets
    from xalma.systems.outputs import output_settings, write_outputs

    def sources(direction: str) -> list[str]:
        return test_sets.load(arguments.testset, direction, arguments.origin).sources

    def is_supported(direction: str) -> bool:
        return arguments.force or supports(system or arguments.system, direction)

    row = system_row(arguments.system)
    wanted = listed(arguments.directions) or test_sets.directions_of(arguments.testset, arguments.origin)
    if row.family == "endpoint":
        _say_cost(system, {direction: sources(direction) for direction in wanted if is_supported(direction)})
    made = {name: value for name, value in options.items() if name not in _NO_MATTER}
    if "base_url" in made:
        made["base_url"] = parse_address(made["base_url"]).url  # without the keys that may stand in it
    made |= {"testset": arguments.testset, "origin": arguments.origin}
    records = write_outputs(
        lambda: system or open_system(row.name, **options),
        output_settings(row, made),
        sources,
        wanted,
        arguments.out,
        is_supported,
    )
    for direction in wanted:
        print(f"{direction}  {records[direction]['status']}{_counts(records[direction])}")
    print(f"outputs in {arguments.out}")


def _say_cost(system: Endpoint, texts: dict[str, list[str]]) -> None:
    """What all directions will take, before the first is begun. Raises ValueError where that is above the limit."""
    from xalma.systems.chat.costs import Estimate

    parts = (system.estimate(lines, *direction.split("-")) for direction, lines in texts.items())
    whole = sum(parts, start=Estimate(0, 0, 0, 0, system.price(0, 0)))
    print(f"{system.row.name}, {len(texts)} directions: {whole}", file=sys.stderr)
    system.check_cost(whole)


def _say_spending(system: Translator) -> None:
    """What an endpoint's answers cost, from its journal; nothing of other systems, or where nothing was asked."""
    if system.row.family == "endpoint" and system.spent_tokens != (0, 0):
        print(f"{system.row.name} {system.spending()}", file=sys.stderr)


def _counts(record: dict[str, Any]) -> str:
    names = ("segments", "empty", "line_breaks_replaced") if record["status"] == "done" else ()
    return "".join(f", {record[name]} {name.replace('_', ' ')}" for name in names)
