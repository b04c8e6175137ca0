"""xalma: the open, runnable recipe of X-ALMA (arXiv 2410.03115) and ALMA (arXiv 2309.11674).

The package's own front door is small; notebooks import the rooms they walk through.
"""

import os
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Must be set before torch loads OpenMP: threads that spin while they wait make a two-core machine with anything else
# running on it many times slower (a 512 x 192 x 192 product: 0.5 ms asleep, 16 ms spinning, beside one busy process).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# tqdm says so on import where ipywidgets is absent, with a machine path, in every executed notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from xalma.corpora.registry import open_corpus as open_corpus
    from xalma.evaluation.records import footnote as footnote
    from xalma.evaluation.records import write_records as write_records
    from xalma.languages import ENGLISH as ENGLISH
    from xalma.languages import GROUP_NAMES as GROUP_NAMES
    from xalma.languages import GROUPS as GROUPS
    from xalma.languages import LANGUAGES as LANGUAGES
    from xalma.languages import group_of as group_of
    from xalma.languages import language as language
    from xalma.models.backbone import load_base as load_base
    from xalma.models.bank import load_modules as load_modules
    from xalma.models.generation import generate as generate
    from xalma.models.generation import translate as translate
    from xalma.preference.arpo import arpo_loss as arpo_loss
    from xalma.preference.arpo_trainer import ARPOConfig as ARPOConfig
    from xalma.preference.arpo_trainer import ARPOTrainer as ARPOTrainer
    from xalma.profiles import load_profile as load_profile
    from xalma.profiles import profile_from_parameters as profile_from_parameters
    from xalma.prompts import translation_prompt as translation_prompt
    from xalma.published import published_table as published_table
    from xalma.runs import results_folder as results_folder
    from xalma.runtime import device as device
    from xalma.runtime import home as home
    from xalma.runtime import versions as versions


def face(room: str, **files: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """(names, __getattr__, __dir__) of a room's `__init__`: its names, fetched from their files when first asked for.

    files: file of the room -> the names it gives, separated by blanks. Importing a room loads nothing (PEP 562).
    """
    homes = {name: file for file, names in files.items() for name in names.split()}

    def fetch(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{room}.{homes[name]}"), name)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return sorted(homes), fetch, lambda: sorted(homes)


# The front door's names; torch, which takes seconds to load, waits until one of them is asked for.
NAMES, __getattr__, __dir__ = face(
    "xalma",
    **{
        "corpora.registry": "open_corpus",
        "evaluation.records": "footnote write_records",
        "languages": "ENGLISH GROUP_NAMES group_of GROUPS language LANGUAGES",
        "models.backbone": "load_base",
        "models.bank": "load_modules",
        "models.generation": "generate translate",
        "preference.arpo": "arpo_loss",
        "preference.arpo_trainer": "ARPOConfig ARPOTrainer",
        "profiles": "load_profile profile_from_parameters",
        "prompts": "translation_prompt",
        "published": "published_table",
        "runs": "results_folder",
        "runtime": "device home versions",
    },
)
