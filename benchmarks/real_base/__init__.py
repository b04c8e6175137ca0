"""The recipe on a pretrained base in minutes: what benchmarks/real.py runs and notebook 12 shows."""
