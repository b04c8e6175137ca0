"""The experiments of notebooks 08, 09 and 11."""
