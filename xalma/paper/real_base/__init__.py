"""The recipe on a pretrained base in minutes (notebook 12)."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    context="Run",
    decoding="decode_greedily",
    pack="open_pack_model",
    rows="blocks limit stream test_segments with_shots",
    tables="METRICS read_about read_table readable run_profile short_segments STAGES",
    tasks="base_model module_on",
)
