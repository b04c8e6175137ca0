"""Whether a converted model and its tokenizer belong together: 50 languages there and back, bits per byte."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xalma.corpora.phrasebook.phrasebook import Phrasebook
from xalma.evaluation.metrics import bits_per_byte
from xalma.languages import known_languages

PHRASES = 20  # of each language
# Plain sentences of our own, on which a model with a wrong tokenizer pays several times as much.
CHECK_SENTENCES = {
    "en": (
        "The book is on the table, and the two children are reading the newspaper in the kitchen.",
        "When the train arrived at the station, most of the passengers had already gone home.",
        "Scientists at the university have found a new way to measure the temperature of the ocean.",
        "He said that the government would publish the results of the election on Monday morning.",
    ),
    "de": (
        "Das Buch liegt auf dem Tisch, und die beiden Kinder lesen in der Küche die Zeitung.",
        "Als der Zug am Bahnhof ankam, waren die meisten Fahrgäste schon nach Hause gegangen.",
        "Forscher der Universität haben einen neuen Weg gefunden, die Temperatur des Meeres zu messen.",
        "Er sagte, die Regierung werde die Ergebnisse der Wahl am Montagmorgen veröffentlichen.",
    ),
}
# bits per byte: what any pretrained model stays below; a wrong tokenizer costs 4 or more
BOUNDS = {"en": 2.0}


def check_base(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bounds: Mapping[str, float] = BOUNDS,
    sentencepiece: bytes | None = None,
) -> dict[str, Any]:
    """{"round_trips": phrases, "bits_per_byte": {language: bits}, "bounds": bounds}.

    bounds: language of `SENTENCES` -> most bits per byte. sentencepiece: a model that must give the same ids.
    Raises ValueError for a phrase that does not come back, up to Unicode's normal form, or that SentencePiece cuts
    otherwise, and for a bound that is not kept.
    """
    book = Phrasebook()
    checked = 0
    second = SentencePieceProcessor(model_proto=sentencepiece) if sentencepiece else None
    for code in known_languages():
        for text in book.sentences(code, "dev", PHRASES):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if _normal(tokenizer.decode(ids)) != _normal(text):
                raise ValueError(
                    f"the tokenizer turns {text!r} ({code}) into {tokenizer.decode(ids)!r}: it is not right"
                )
            if second and second.encode(text) != ids:
                raise ValueError(
                    f"the tokenizer cuts {text!r} ({code}) otherwise than SentencePiece: it is not right"
                )
            checked += 1
    bits = {code: round(sentence_bits(model, tokenizer, CHECK_SENTENCES[code]), 3) for code in bounds}
    for code, bound in bounds.items():
        if not bits[code] <= bound:
            raise ValueError(
                f"plain {code} sentences have {bits[code]} bits per byte, more than {bound}: "
                "weights and tokenizer do not belong together, or it is no pretrained model of that language"
            )
    return {"round_trips": checked, "bits_per_byte": bits, "bounds": dict(bounds)}


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@torch.inference_mode()
def sentence_bits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: tuple[str, ...]
) -> float:
    """Bits per byte of `texts`, each after a BOS."""
    nats = []
    for text in texts:
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids = torch.tensor([[start, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        logits = model(input_ids=ids).logits[0, :-1].float()
        nats.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item())
    return bits_per_byte(nats, texts)
