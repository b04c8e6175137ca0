"""Learning from preferred and rejected translations: ARPO, the other methods, and the pairs."""
