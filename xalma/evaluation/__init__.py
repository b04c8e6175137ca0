"""Scores of translations, their uncertainty, and the records they are kept in."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    comet="load_model segment_scores",
    comet_encoder="Scorer",
    metrics="bits_per_byte NotScored score Score wrong_language_rate",
    records="footnote group_means read_records Record write_records",
    score_file="score_texts",
    scoring="score_all",
    significance="benjamini_hochberg bootstrap compare holm paired_bootstrap paired_mean",
)
