"""A trained module handed on: files for ordinary programs, and a model card of measured results."""
