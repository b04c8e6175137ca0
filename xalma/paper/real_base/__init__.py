"""The recipe on a pretrained base in minutes (notebook 12)."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    context="Run",
    rows="blocks stream",
    tables="METRICS read_about read_table readable run_profile STAGES",
    tasks="base_model module_on",
)
