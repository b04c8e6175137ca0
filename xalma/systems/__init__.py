"""Other translators behind one call."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    registry="listing open_system supports",
    table="SYSTEMS",
)
