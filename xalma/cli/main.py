"""The `xalma` command: run the notebooks, translate, score, list the languages."""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script: 0, or 2 with one sentence on stderr for bad input, 1 for a failed run."""
    for stream in (sys.stdout, sys.stderr):
        _print_any_letter(stream)
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()  # here, where a reader that is gone is no error
    except (ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 141  # as a shell says of a program that SIGPIPE ended
        # libraries' messages may have many lines
        print(f"xalma: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError | FloatingPointError) else 2
    except KeyboardInterrupt as stop:  # who has more to say of what is kept says it
        kept = "stopped; finished notebooks and stages are kept, the same command goes on from there"
        print(f"\nxalma: {stop if stop.args else kept}", file=sys.stderr)
        return 130
    return 0


def _print_any_letter(stream: Any) -> None:
    """Translations are UTF-8 in a file or a pipe whatever the locale is; a terminal shows `?` for what it lacks."""
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8")


def _reader_is_gone() -> bool:
    """Whether standard output is what broke, as under `| head`; then nothing more is written to it at exit either."""
    out = sys.stdout.fileno()
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    gone = any(events & select.POLLERR for _, events in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return gone


def _parser() -> argparse.ArgumentParser:
    from xalma.cli import evaluation, models, training

    parser = argparse.ArgumentParser(prog="xalma", description="The open, runnable recipe of X-ALMA.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (
        training.add_run,
        training.add_stage,
        training.add_plan,
        training.add_status,
        training.add_prepare,
        models.add_translate,
        evaluation.add_score,
        evaluation.add_compare,
        evaluation.add_contamination,
        evaluation.add_probe,
        models.add_convert,
        models.add_trim,
        models.add_export,
        evaluation.add_systems,
        evaluation.add_outputs,
        evaluation.add_languages,
    ):
        add(commands)
    return parser
