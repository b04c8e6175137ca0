"""The figures of the notebooks: tidy rows in, a matplotlib Figure out."""
