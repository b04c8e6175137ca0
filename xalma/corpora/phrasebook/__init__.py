"""The offline corpus from the Unicode CLDR: phrases drawn once, said in each of the 50 languages."""
