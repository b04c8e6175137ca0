"""The tokenizer a GGUF file holds, rebuilt from its own tokens, scores, types and merges.

transformers 4.57 builds a wrong one for Gemma: German costs four times the bits. Two kinds are read. `llama` is a
SentencePiece BPE model: adjacent pieces merge, best score first, and a character without a piece becomes bytes. `gpt2`
is byte-level BPE with the file's merges, behind one of the splitting rules of llama.cpp (`SPLITS`).
Source: docs/gguf.md and src/llama-vocab.cpp of ggml-org/llama.cpp; src/bpe_model.cc of google/sentencepiece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # gguf.TokenType
BLANK = "▁"  # how SentencePiece writes a blank
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# tokenizer.ggml.pre -> how text is split before it is merged; None: GPT-2's own rule
PIECE_SPLITS = {
    "gpt-2": (None, False),
    "smollm": (None, True),  # with each digit alone
    "llama-bpe": (_LLAMA3.format(digits="{1,3}"), False),
    "qwen2": (_LLAMA3.format(digits=""), False),
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of its tokenizer. tokens, scores and types: one per token id."""

    kind: str  # llama or gpt2
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] = ()
    merges: Sequence[str] = ()
    split: str = ""  # of gpt2: a key of SPLITS
    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    pad: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_prefix: bool = False  # of llama: a blank before every text
    chat_template: str | None = None

    @property
    def pieces(self) -> list[str]:
        """Tokens as the tokenizer's own vocabulary writes them: llama.cpp turns blanks of user-defined ones back."""
        if self.kind != "llama":
            return list(self.tokens)
        return [
            token.replace(" ", BLANK) if kind == USER_DEFINED else token
            for token, kind in zip(self.tokens, self.types, strict=True)
        ]


def build_tokenizer(vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a GGUF file, with its special tokens. Raises ValueError for a kind that is not read."""
    if vocabulary.kind == "llama":
        tokenizer = _sentencepiece_bpe(vocabulary)
    elif vocabulary.kind == "gpt2":
        tokenizer = _byte_level_bpe(vocabulary)
    else:
        raise ValueError(f"a tokenizer of kind {vocabulary.kind!r} is not read: llama and gpt2 are")
    pieces = vocabulary.pieces
    for kind, special in ((CONTROL, True), (UNKNOWN, True), (USER_DEFINED, False)):
        found = [piece for piece, own in zip(pieces, vocabulary.types, strict=True) if own == kind]
        tokenizer.add_tokens([AddedToken(piece, normalized=not special, special=special) for piece in found])
    tokenizer.post_processor = _frame(vocabulary)
    names = {f"{name}_token": getattr(vocabulary, name) for name in ("bos", "eos", "unk", "pad")}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **{name: pieces[number] for name, number in names.items() if number is not None},
    )
    if vocabulary.chat_template:
        fast.chat_template = vocabulary.chat_template
    return fast


def _sentencepiece_bpe(v: Vocabulary) -> Tokenizer:
    pieces = v.pieces
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=score_merges(pieces, v.scores, v.types),
            unk_token=pieces[v.unk] if v.unk is not None else None,
            fuse_unk=True,
            byte_fallback=BYTE in v.types,
        )
    )
    prefix = [normalizers.Prepend(BLANK)] if v.add_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", BLANK)])
    strip = [decoders.Strip(" ", 1, 0)] if v.add_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def score_merges(
    pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """All pairs of normal pieces that make a normal piece, best score of the result first: SentencePiece's rule."""
    normal = {
        piece: score for piece, score, kind in zip(pieces, scores, types, strict=True) if kind == NORMAL
    }
    merges = []
    for piece, score in normal.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in normal and right in normal:
                merges.append((-score, len(left), left, right))
    return [(left, right) for *_, left, right in sorted(merges, key=lambda merge: merge[:2])]


def _byte_level_bpe(v: Vocabulary) -> Tokenizer:
    if v.split not in PIECE_SPLITS:
        raise ValueError(f"a tokenizer that splits by {v.split!r} is not read: {', '.join(PIECE_SPLITS)} are")
    pattern, digits = PIECE_SPLITS[v.split]
    merges = [tuple(merge.split(" ")) for merge in v.merges]
    vocab = {piece: number for number, piece in enumerate(v.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=v.split == "llama-bpe"))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if v.split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _frame(v: Vocabulary) -> processors.PostProcessor:
    """BOS before and EOS after a text, as the file asks."""
    bos = [v.pieces[v.bos]] if v.add_bos and v.bos is not None else []
    eos = [v.pieces[v.eos]] if v.add_eos and v.eos is not None else []
    special = {piece: number for piece, number in ((v.pieces[i], i) for i in (v.bos, v.eos) if i is not None)}
    return processors.TemplateProcessing(
        single=[*bos, "$A", *eos],
        pair=[*bos, "$A", *eos, *bos, "$B:1", *eos],
        special_tokens=[(piece, special[piece]) for piece in dict.fromkeys([*bos, *eos])],
    )


def sentencepiece_model(v: Vocabulary) -> bytes:
    """The same `llama` vocabulary as a SentencePiece model, which a converted tokenizer is compared with."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    spec = proto.trainer_spec
    spec.model_type, spec.byte_fallback = spec.BPE, BYTE in v.types
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(v, name)
        setattr(spec, f"{name}_id", -1 if number is None else number)
        if number is not None:
            setattr(spec, f"{name}_piece", v.pieces[number])
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = v.add_prefix
    proto.normalizer_spec.remove_extra_whitespaces = False
    for number, (piece, score, kind) in enumerate(zip(v.pieces, v.scores, v.types, strict=True)):
        proto.pieces.add(piece=piece, score=score, type=UNKNOWN if number == v.unk else kind)
    return proto.SerializeToString()
