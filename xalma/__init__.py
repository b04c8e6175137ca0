"""xalma: the open, runnable recipe of X-ALMA (arXiv 2410.03115) and ALMA (arXiv 2309.11674).

The package's own front door is small; notebooks import the rooms they walk through.
"""

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Must be set before torch loads OpenMP: threads that spin while they wait make a two-core machine with anything else
# running on it many times slower (a 512 x 192 x 192 product: 0.5 ms asleep, 16 ms spinning, beside one busy process).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# tqdm says so on import where ipywidgets is absent, with a machine path, in every executed notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from xalma.languages import group_of as group_of
    from xalma.models.bank import load_modules as load_modules
    from xalma.models.generation import translate as translate
    from xalma.preference.arpo import arpo_loss as arpo_loss
    from xalma.preference.arpo_trainer import ARPOConfig as ARPOConfig
    from xalma.preference.arpo_trainer import ARPOTrainer as ARPOTrainer
    from xalma.profiles import load_profile as load_profile

_HOMES = {
    "ARPOConfig": "preference.arpo_trainer",
    "ARPOTrainer": "preference.arpo_trainer",
    "arpo_loss": "preference.arpo",
    "group_of": "languages",
    "load_modules": "models.bank",
    "load_profile": "profiles",
    "translate": "models.generation",
}


def __getattr__(name: str) -> Any:
    """Import the few names of the front door when they are first asked for; torch takes seconds to load."""
    if name in _HOMES:
        return getattr(import_module(f"xalma.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xalma' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The names of the front door, imported or not."""
    return sorted({*globals(), *_HOMES})
