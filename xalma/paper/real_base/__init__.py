"""The recipe on a pretrained base in minutes (notebook 12)."""
