"""Text made into batches: cleaned, guarded against test sentences, mixed, tokenised, packed."""
