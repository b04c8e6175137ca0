"""Pretrained bases without a hub: GGUF files fetched, converted, checked, and cut to a smaller vocabulary."""
