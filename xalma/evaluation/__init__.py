"""Scores of translations, their uncertainty, and the records they are kept in."""
