"""The folder of a finished stage: where it lies, what its run.json says, and whether its files are
those it was left with.

A stage is filed with the SHA-256 of each of its files, and of run.json itself; a module also with the hash of the base
it was trained on. All are compared when the stage is opened, once per process. The hashes find damage and mix-ups; they
are no signature, for who can write the folder can write run.json too.
"""

from __future__ import annotations

import ast
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from xalma.files import file_hash, fingerprint, new_directory, read_json, write_json
from xalma.languages import adapter_name
from xalma.profiles import Profile
from xalma.runtime import all_finite, home, provenance

BASE = 0  # the group number under which stages 0 and 1 file the base
STAGE_NAMES = ("backbone", "monolingual_base", "monolingual_modules", "pseudo_monolingual", "sft", "arpo")
NOTEBOOK_OF = ("03_stage1_monolingual_base", "03_stage1_monolingual_base", "04_stage2_monolingual_modules",
               "05_stage3_pseudo_monolingual", "06_stage4_sft", "07_stage5_arpo")  # fmt: skip
ADDED_LATER = "outputs-*.json"  # translations kept beside a stage; no loader reads them
WEIGHTS = (".safetensors", ".json", ".jinja")  # files of a stage that decide what its model answers

# folder -> names, sizes and times of its files when their hashes were compared
_checked: dict[Path, tuple] = {}


def stage_folder(p: Profile, number: int, group: int = BASE, branch: str = "ladder") -> Path:
    """Where a stage's result lies; `branch` keeps the ablations' chains beside the main ladder."""
    part = "base" if group == BASE else adapter_name(group)
    return home() / p.run_dir / p.name / branch / f"stage{number}_{STAGE_NAMES[number]}" / part


def read_run(folder: str | Path) -> dict[str, Any]:
    """run.json of a finished stage, its `base` and `previous` as paths that work from here.

    They are filed relative to the stage's own folder, so that runs/ can be moved; older files hold absolute ones.
    Raises FileNotFoundError, saying what makes it, where there is none, ValueError, naming it, for a damaged one.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.exists():
        number = next((n for n, name in enumerate(STAGE_NAMES) if f"stage{n}_{name}" in folder.parts), None)
        maker = "its stage" if number is None else f"notebooks/{NOTEBOOK_OF[number]}.ipynb"
        raise FileNotFoundError(
            f"no finished stage in {folder}: run {maker} first, or `xalma run`, which runs all in order"
        )
    run = read_json(path, _remedy(folder))
    if not run:
        raise ValueError(f"{path} is empty: {_remedy(folder)}")
    if "run_sha256" in run and run["run_sha256"] != _own_hash(run):
        raise ValueError(f"{path} was changed after its stage was made: {_remedy(folder)}")
    links = {key: run[key] for key in ("base", "previous") if run.get(key)}
    if odd := [key for key, value in links.items() if not isinstance(value, str)]:
        raise ValueError(f"{path} holds no path as {odd[0]}: {_remedy(folder)}")
    return run | {key: os.path.normpath(folder / value) for key, value in links.items()}


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The training log of a finished stage, one dict a logged step."""
    read_run(folder)
    return read_json(Path(folder) / "log.json", _remedy(Path(folder)), list)


def lineage(folder: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, run.json) of a stage and of all before it, the newest first.

    Raises ValueError where the stages' `previous` lead round in a circle.
    """
    seen: set[Path] = set()
    current: str | Path | None = folder
    while current:
        current = Path(os.path.normpath(Path.cwd() / current))
        if current in seen:
            raise ValueError(
                f"{current / 'run.json'}: the stages before it lead back to it; {_remedy(current)}"
            )
        seen.add(current)
        run = read_run(current)
        yield current, run
        current = run.get("previous")


def is_finished(folder: Path, key: str) -> bool:
    """Whether `folder` was made from the inputs of fingerprint `key`.

    Raises ValueError, naming the file, where it was and is damaged.
    """
    if not (folder / "run.json").exists() or read_run(folder).get("fingerprint") != key:
        return False
    open_stage(folder)
    return True


def finished(folder: Path, inputs: Mapping[str, Any], make: Callable[[Path], dict[str, Any]]) -> Path:
    """`folder`, made by `make` unless it was made from the same inputs; it is made aside and renamed when it is whole.

    make: empty folder -> what run.json says of what it put there. "log" goes into log.json. "base", where it has
    trained a model, is the folder of its base, or `folder` itself.
    """
    key = fingerprint(inputs)
    if is_finished(folder, key):
        return folder
    started = time.perf_counter()
    with new_directory(folder) as aside:
        record = make(aside)
        if "log" in record:
            write_json(aside / "log.json", record.pop("log"))
        record |= {
            "fingerprint": key,
            "seconds": round(time.perf_counter() - started, 1),
            "inputs": dict(inputs),
        }
        file_run(aside, record, folder, weights="base" in record)
    return folder


def file_run(folder: Path, record: dict[str, Any], final: Path, weights: bool = True) -> None:
    """Write run.json of what lies in `folder` and will be `final`: the record, provenance, and the hash of every file.

    record: `base` and `previous`, if given, as paths from here. weights: whether there must be some.
    Raises ValueError where they are missing, can't be read or are not finite.
    """
    if weights:
        check_weights(folder)
    base = record.get("base")
    apart = base and Path(base).resolve() != final.resolve()
    record = record | {
        "base_sha256": weights_hash(read_run(base)) if apart else None,
        **{key: os.path.relpath(record[key], final) for key in ("base", "previous") if record.get(key)},
        **provenance(),
        "sha256": {name: file_hash(folder / name) for name in _names(folder) if name != "run.json"},
    }
    write_json(folder / "run.json", record | {"run_sha256": _own_hash(record)})


def check_weights(folder: Path) -> None:
    """Raises ValueError, naming file and tensor, unless the folder has safetensors, all of them finite numbers."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} holds no weights (*.safetensors): they were removed while the stage was made"
        )
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    tensor = tensors.get_tensor(name)
                    if tensor.is_floating_point() and not all_finite(tensor):
                        raise ValueError(f"{file}: {name} is not finite: lower the learning rate")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} can't be read ({error}): see to the disk, and run the stage again"
            ) from None


def open_stage(folder: str | Path) -> dict[str, Any]:
    """`read_run` of a stage whose files, and those of its base, are found to be what it was filed with.

    Hashes are compared once per process; not at all, with a warning, for a stage of a version that filed none.
    Raises ValueError naming the first file that is missing, changed or added, or the base that is another one.
    """
    folder = Path(folder)
    run = read_run(folder)
    if "sha256" not in run:
        warnings.warn(
            f"{folder} was made by a version that filed no hashes of its files, so damage would not be found: "
            f"run its stage again to have them",
            stacklevel=2,
        )
        return run
    names = _names(folder)
    state = tuple((name, (info := (folder / name).stat()).st_size, info.st_mtime_ns) for name in names)
    if _checked.get(folder.absolute()) != state:
        _compare(folder, names, run["sha256"])
        _checked[folder.absolute()] = state
    if run.get("base_sha256") and weights_hash(open_stage(run["base"])) != run["base_sha256"]:
        raise ValueError(
            f"{folder} was trained on another base than the one that now lies in {run['base']}: {_remedy(folder)}"
        )
    return run


def weights_hash(run: dict[str, Any]) -> str:
    """16 hex digits for the model a stage left: weights, configuration and tokenizer, and the base of a module."""
    files = run.get("sha256") or {"fingerprint": run.get("fingerprint")}  # of a version that filed no hashes
    own = {name: value for name, value in files.items() if name.endswith(WEIGHTS) and name != "log.json"}
    return fingerprint([own or files, run.get("base_sha256")])


def _compare(folder: Path, names: list[str], filed: Any) -> None:
    if not isinstance(filed, dict):
        raise ValueError(f"{folder / 'run.json'} lists no hashes of its files: {_remedy(folder)}")
    if missing := sorted(filed.keys() - set(names)):
        raise ValueError(f"{folder / missing[0]} is missing: {_remedy(folder)}")
    for name in names:
        path = folder / name
        if name not in filed and name != "run.json" and not path.match(ADDED_LATER):
            raise ValueError(f"{path} is none of the files this stage was left with: move it elsewhere")
        if path.is_symlink():
            raise ValueError(f"{path} is a link, and a stage's files are its own: {_remedy(folder)}")
        if name in filed and file_hash(path) != filed[name]:
            raise ValueError(
                f"{path} was changed after its stage was made (another SHA-256): {_remedy(folder)}"
            )


def _names(folder: Path) -> list[str]:
    """Paths of all files below the folder; hidden ones at its top, which no loader reads, aside."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [path.as_posix() for path in paths if not path.name.startswith(".")]


def _own_hash(run: dict[str, Any]) -> str:
    return fingerprint({key: value for key, value in run.items() if key != "run_sha256"})


def _remedy(folder: Path) -> str:
    return f"restore the file, or remove {folder} and run its stage again"


def results_folder(p: Profile) -> Path:
    """results/<profile>, where tables, figures and scores of a profile go."""
    return home() / p.results_dir / p.name


# "corpora.*" is every module of the folder: corpora are opened by name. The modules of `preference` that TRL runs
# decide the weights of notebook 08, which files this hash too.
DECISIVE = (
    "base_files",
    "corpora.*",
    "corpora.phrasebook.*",
    "corpus_names",
    "data.batches",
    "data.blocks",
    "data.collate",
    "data.contamination",
    "data.folding",
    "data.literal",
    "data.mixing",
    "data.test_index",
    "data.token_files",
    "language_id",
    "languages",
    "models.adapters",
    "models.architectures",
    "models.backbone",
    "models.cuda_graphs",
    "models.fp8",
    "models.generation",
    "models.losses",
    "preference.*",
    "prompts",
    "text_files",
    "training.distributed",
    "training.objectives",
    "training.stage_models",
    "training.stage_pairs",
    "training.stage_runner",
    "training.stages",
    "training.trainer",
)
# Their values are inputs themselves (profiles; the bases), or they show, count and keep what others decide.
NOT_DECISIVE = (
    "__init__",
    "evaluation.interference",
    "evaluation.records",
    "files",
    "models.bases.*",
    "models.layouts",
    "models.safetensors_io",
    "profiles.*",
    "profiles.__init__",
    "progress",
    "runs",
    "runtime",
    "training.checkpoints",
    "training.monitor",
    "training.plan",
    "training.workers",
)
DECISIVE_PARTS = {  # of modules that decide nothing else
    "runtime": ("mixed_precision", "seed_everything"),
    "profiles.profile": ("StageSettings", "stage_settings"),
}
PLACES = ("FAMILIES", "__all__")  # names of modules and of what they show: they change when files move


@cache
def recipe_hash(root: Path = Path(__file__).parent) -> str:
    """16 hex digits for the code in the package folder `root`. Raises ValueError where a part is gone."""
    texts = [
        text
        for path in module_files(DECISIVE, root)
        for name, text in definitions(path)
        if name not in PLACES
    ]
    for module, names in DECISIVE_PARTS.items():
        parts = dict(definitions(*module_files((module,), root)))
        if missing := set(names) - parts.keys():
            raise ValueError(
                f"{module}.py no longer defines {', '.join(sorted(missing))}: mend DECISIVE_PARTS"
            )
        texts += [parts[name] for name in names]
    return fingerprint(sorted(texts))


def module_files(modules: tuple[str, ...], root: Path) -> list[Path]:
    """The files of a list of modules. Raises FileNotFoundError for a module that is not there."""
    found = []
    for module in modules:
        paths = [
            path
            for path in sorted(root.glob(module.replace(".", "/") + ".py"))
            if path.stem != "__init__" or module.endswith("__init__")
        ]
        if not paths:
            raise FileNotFoundError(
                f"the recipe's hash names {module}, which is not in {root}: mend DECISIVE in runs.py"
            )
        found += paths
    return found


def definitions(path: Path) -> Iterator[tuple[str, str]]:
    """(name, code without docstrings, comments and imports) of each top-level statement; "" for one without a name."""
    tree = _Plain().visit(ast.parse(path.read_text(encoding="utf-8")))
    for node in tree.body:
        if not isinstance(node, ast.Pass) and not _only_for_types(node):
            yield _name(node), ast.unparse(node)


class _Plain(ast.NodeTransformer):
    """Takes docstrings and imports away, at every depth."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node, clean=False) is not None :]
        node = super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]
        return node


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _name(node: ast.stmt) -> str:
    targets = getattr(node, "targets", [getattr(node, "target", node)])
    return getattr(targets[0], "id", getattr(node, "name", ""))
