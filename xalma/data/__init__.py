"""Text made into batches: cleaned, guarded against test sentences, mixed, tokenised, packed."""

from xalma import face

__all__, __getattr__, __dir__ = face(
    __name__,
    batches="like_lengths RowBatches",
    blocks="MixedBlocks mixing_plan PackedBlocks",
    cleaning="alike_in_meaning clean Rules",
    collate="IGNORE PadCollator sft_rows tokenize_rows",
    contamination="Guard guarded_corpus",
    folding="key",
    mixing="mixture profile_shares pseudo_monolingual sampling_probabilities",
    prepare="write_tokens",
    prepare_workers="make_job processes",
    test_index="KINDS MIN_LETTERS TestIndex",
    token_files="TokenFiles",
)
