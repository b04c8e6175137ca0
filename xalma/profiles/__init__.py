"""Sizes of experiment: one frozen dataclass, and a few profiles of it."""

from xalma.profiles.named import (  # noqa: F401
    ALMA_7B,
    ALMA_TINY,
    FULL,
    REAL,
    REAL_CPU,
    TINY,
    TINY_BASE,
    load_profile,
    profile_from_parameters,
)
from xalma.profiles.profile import PROFILES, Profile, StageSettings  # noqa: F401
