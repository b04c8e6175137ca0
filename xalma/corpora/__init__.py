"""What text there is: monolingual text, sentence pairs and test sets, each row with its file and line."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    aligned="BibleCorpus",
    base="Corpus has_data Pair",
    files="json_lines",
    registry="mixing_sizes open_corpus tokenizer_sample",
    test_sets="directions_of load TestSet",
)
