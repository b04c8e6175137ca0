"""A LLaMA-like base, its LoRA modules, and decoding with them."""
