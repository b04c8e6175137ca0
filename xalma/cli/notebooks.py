"""Running the notebooks in order: which are due, with what parameters, and how a person sees that it goes on.

papermill executes; this room skips what is done, shows progress from the kernels, and files the executed copies.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import time
from ast import literal_eval
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import nbformat

from xalma.files import fingerprint, make_writable, read_json, write_atomically, write_json
from xalma.profiles import Profile, load_profile
from xalma.progress import STATUS_VARIABLE
from xalma.runs import recipe_hash, results_folder
from xalma.runtime import home, provenance

# glibc hands big tensors back to the system after every step and asks for them again; kept, a small model's step on
# a CPU takes a sixth less time. Read when a process starts, so set here for the kernels.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


# Values that decide how a run runs, not what it finds.
UNDECISIVE = {"launch", "workers", "threads", "track", "notebooks", "checkpoint_steps"}


@dataclass(frozen=True)
class Task:
    """A notebook to run: its source, where its executed copy goes, and the hash of all that decides its outputs."""

    source: Path
    executed: Path
    done: Path
    key: str

    @property
    def is_done(self) -> bool:
        """Whether it ran with these inputs, and all that it left in results/ is there."""
        if not (self.executed.exists() and self.done.exists()):
            return False
        key, *outputs = self.done.read_text(encoding="utf-8").splitlines()
        return key == self.key and all((home() / path).exists() for path in outputs)


def notebook_sources() -> list[Path]:
    """The numbered notebooks in order. Raises FileNotFoundError outside a checkout of the repository."""
    found = sorted((home() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FileNotFoundError(
            f"no notebooks under {home() / 'notebooks'}: run from a checkout of the repository"
        )
    return found


def select(only: str | None) -> list[Path]:
    """The notebooks that `only` names: None for all, else numbers, names or ranges, as in "00,03-07"."""
    sources = notebook_sources()
    if only is None:
        return sources
    chosen: list[Path] = []
    for word in only.split(","):
        first, _, last = word.strip().removesuffix(".ipynb").partition("-")
        picked = (
            [s for s in sources if first <= s.stem[:2] <= last]
            if last
            else [s for s in sources if s.stem.startswith(first)]
        )
        if not first or not picked:
            names = [s.stem for s in sources]
            near = get_close_matches(word, names, n=2) or names
            raise ValueError(f"no notebook {word!r}: choose a number or name, for example {', '.join(near)}")
        chosen += picked
    return sorted(set(chosen))


def code_hash() -> str:
    """Hash of the whole package: a notebook's outputs depend on any of it."""
    package = Path(__file__).parents[1]
    files = sorted(f for kind in ("*.py", "*.csv") for f in package.rglob(kind))
    return fingerprint({str(f.relative_to(package)): f.read_text(encoding="utf-8") for f in files})


def tasks(profile: str, overrides: dict[str, Any], only: str | None) -> tuple[Profile, list[Task]]:
    """The checked profile and its tasks, done or not."""
    p = load_profile(profile, **overrides)
    code = code_hash()
    found = []
    for source in select(only or p.notebooks):
        cells = [(cell.cell_type, cell.source) for cell in nbformat.read(source, as_version=4).cells]
        done = home() / p.run_dir / p.name / "notebooks" / f"{source.stem}.done"
        executed = results_folder(p) / "notebooks" / source.name
        found.append(Task(source, executed, done, fingerprint([cells, p.values(), code])))
    return p, found


def execute(task: Task, profile: str, overrides: dict[str, Any], status: str) -> float:
    """Run one notebook and file its executed copy; returns seconds.

    Raises RuntimeError, naming the cell's error and the notebook kept beside it, when a cell fails.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    own = papermill.inspect_notebook(task.source).get("profile", {}).get("default")
    # the profile that a notebook has by itself is not passed, so that its source stays as it is
    parameters = ({} if own and literal_eval(own) == profile else {"profile": profile}) | overrides
    failed = make_writable(task.done.parent) / f"{task.source.stem}.failed.ipynb"
    make_writable(task.executed.parent)  # found out before the notebook runs, not after
    logging.getLogger("papermill").setLevel(logging.ERROR)  # warns of unknown parameters; profiles check them
    started = time.perf_counter()
    before = _files(task.executed.parent.parent)
    for_kernels = {STATUS_VARIABLE: status} | {
        name: os.environ.get(name, value) for name, value in ALLOCATOR.items()
    }
    try:
        papermill.execute_notebook(
            task.source,
            failed,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(home()),
            extra_arguments=["--log-level=ERROR"],
            kernel_manager_class=_kernels_with(for_kernels),
        )
    except PapermillExecutionError as error:
        message = re.sub(r"\x1b\[[0-9;]*m", "", error.evalue).strip()
        raise RuntimeError(
            f"{task.source.name}, cell {error.exec_count}: {error.ename}: {message} (the notebook: {failed})"
        ) from error
    notebook = nbformat.read(failed, as_version=4)
    write_atomically(task.executed, nbformat.writes(_without_timings(notebook)))
    failed.unlink()
    made = sorted(
        path for path, time in _files(task.executed.parent.parent).items() if before.get(path) != time
    )
    write_atomically(task.done, "\n".join([task.key, *(os.path.relpath(path, home()) for path in made)]))
    return time.perf_counter() - started


def _kernels_with(environment: dict[str, str]) -> type:
    """A kernel manager whose kernels have these variables beside those of this process."""
    from jupyter_client import AsyncKernelManager

    return type("KernelManager", (_WithEnvironment, AsyncKernelManager), {"environment": environment})


class _WithEnvironment:
    def start_kernel(self, **options: Any) -> Any:
        return super().start_kernel(**options, env=os.environ | self.environment)


def _files(results: Path) -> dict[Path, int]:
    """Time of every table, figure and score of a profile, executed notebooks and what they cost aside."""
    paths = (
        path for path in results.glob("[!.]*/**/*") if path.parent.name != "notebooks" and path.is_file()
    )
    return {path: path.stat().st_mtime_ns for path in paths if not path.name.startswith(".")}


def _without_timings(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without papermill's clock readings and paths, so that equal runs give equal files."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def run(
    profile: str,
    overrides: dict[str, Any],
    only: str | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> Path:
    """Run the notebooks that are due, in order, with progress on the terminal; returns the results folder.

    Raises ValueError where changed values would write over results of others and nobody agrees (`overwrite`, or yes).
    """
    p, found = tasks(profile, overrides, only)
    if not overwrite:
        _ask_before_overwriting(p)
    due = [task for task in found if force or not task.is_done]
    due.sort(key=lambda task: task.source.stem.startswith("00_start"))  # it translates with what they train
    print(
        f"profile {p.name}: {len(found)} notebooks, {len(found) - len(due)} already done, {len(due)} to run"
    )
    cost = _measured_seconds(p)
    if due and cost:
        known = sum(cost.get(task.source.stem, 0) for task in due)
        print(f"the committed run took {known / 60:.0f} minutes for these ({cost['hardware']})")
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, task in enumerate(due, 1):
            label = f"[{index}/{len(due)}] {task.source.stem}"
            with _ticker(label, folder):
                seconds[task.source.stem] = execute(task, profile, overrides, f"{folder}/status")
            _write_cost(p, seconds)  # at once: a run may be killed
            print(f"{label}: done in {seconds[task.source.stem]:.0f} s", flush=True)
    _say_where(p, sum(seconds.values()))
    return results_folder(p)


def _ask_before_overwriting(p: Profile) -> None:
    """One question on a terminal, an error elsewhere, where the folder's results are of other values than `p`'s."""
    folder = results_folder(p)
    made = _read_cost(p).get("command")
    if not made or made == p.command() or not p.changes().keys() - UNDECISIVE:
        return
    if (
        os.isatty(0)
        and os.isatty(1)
        and input(f"{folder} holds results of `{made}`: write over them? [y/N] ") == "y"
    ):
        return
    raise ValueError(
        f"{folder} holds results of `{made}`, and this is `{p.command()}`: add --set results_dir=DIR for another "
        f"folder, or --overwrite"
    )


class _ticker:
    """While open, shows on one line what the kernels report (on a terminal), or a line a minute (in a log)."""

    def __init__(self, label: str, folder: str) -> None:
        self.label = label
        self.folder = Path(folder)
        self.stop = threading.Event()
        self.live = os.isatty(1)

    def __enter__(self) -> _ticker:
        print(self.label, flush=True)
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()
        if self.live:
            print("\r\x1b[K", end="", flush=True)

    def _watch(self) -> None:
        started = time.perf_counter()
        last = 0.0
        while not self.stop.wait(1.0):
            lines = [
                f.read_text(encoding="utf-8") for f in sorted(self.folder.glob("status.*")) if f.exists()
            ]
            elapsed = time.perf_counter() - started
            text = f"    {elapsed:4.0f} s  {'  |  '.join(lines)}"
            if self.live:
                print(f"\r\x1b[K{text[:150]}", end="", flush=True)
            elif lines and elapsed - last >= 20:
                last = elapsed
                print(text, flush=True)


def cost_file(p: Profile) -> Path:
    """Where the measured seconds of each notebook and the hardware lie; the one result that differs between runs."""
    return results_folder(p) / "cost.json"


def _measured_seconds(p: Profile) -> dict[str, Any]:
    cost = _read_cost(p)
    if not cost:
        return {}
    hardware = cost["provenance"]["hardware"]
    return cost["seconds"] | {
        "hardware": hardware.get("gpu") or f"{hardware['cores']} cores, {hardware['cpu']}"
    }


def _read_cost(p: Profile) -> dict[str, Any]:
    """cost.json, {} where there is none. Raises ValueError, naming it, where it is damaged."""
    path = cost_file(p)
    remedy = "remove it, or take it from the repository: git checkout"
    if not path.exists():
        return {}
    cost = read_json(path, remedy)
    try:
        hardware = cost["provenance"]["hardware"]
        whole = {"cores", "cpu"} <= hardware.keys() and isinstance(cost["command"], str)
        whole &= all(isinstance(value, int | float) for value in cost["seconds"].values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} lacks seconds of notebooks, their command or their hardware: {remedy}")
    return cost


def _write_cost(p: Profile, seconds: dict[str, float]) -> None:
    """File what notebooks cost, but not where the file knows better: the profile as it is, before a run with values
    set; and, on the same machine and by the same recipe, more than twice as long, since the rerun then found its
    models made. Times of another recipe or machine are those of another run.
    """
    path = cost_file(p)
    now = provenance()
    found = {stem: round(value) for stem, value in seconds.items()}
    before = _read_cost(p)
    if before and p.changes() and "--set" not in before["command"]:
        return
    recipe = fingerprint([recipe_hash(), p.values()])
    known = before.get("seconds", {}) if before.get("recipe") == recipe else {}
    if before and before["provenance"]["hardware"] == now["hardware"]:
        found = {stem: value for stem, value in found.items() if value >= known.get(stem, 0) / 2}
    if found:
        write_json(
            path,
            {
                "command": p.command(),
                "seconds": dict(sorted((known | found).items())),
                "seed": p.seed,
                "recipe": recipe,
                "provenance": now,
            },
        )


def _say_where(p: Profile, total: float) -> None:
    folder = results_folder(p)
    print(f"\nfinished in {total / 60:.1f} minutes; see")
    for part, what in (
        ("figures", "figures (PNG)"),
        ("tables", "tables (CSV, Markdown)"),
        ("notebooks", "executed notebooks"),
    ):
        if (folder / part).is_dir():
            print(f"  {folder / part}  {what}")
