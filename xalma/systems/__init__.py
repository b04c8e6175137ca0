"""Other translators behind one call."""
