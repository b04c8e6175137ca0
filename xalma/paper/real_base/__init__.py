"""The recipe on a pretrained base in minutes (notebook 12), as it was filed; benchmarks/real.py runs it."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    tables="METRICS method_seeds read_about read_methods read_table readable run_profile STAGES",
)
