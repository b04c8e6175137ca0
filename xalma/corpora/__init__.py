"""The corpora of the two papers and those at hand: one small file a family, all behind one interface (`base.Corpus`).

A corpus is named in a profile: `corpus="ntrex"`, or several joined, `corpus="ntrex+bibles+mozilla"`: then the training
text of all is used, and the first that has held-out pairs gives them. `corpus="papers"` is X-ALMA's own SFT and test
sets with stand-ins for web text. Each family reads what is on disk (XALMA_DATA)
before it asks the hub; nothing is loaded whole but the small sets of sentences.
"""

from __future__ import annotations

from importlib import import_module

from xalma.corpus_names import FAMILIES


def family(name: str) -> type:
    """The class of a family."""
    module, cls = FAMILIES[name]
    return getattr(import_module(f"xalma.corpora.{module}"), cls)
