"""Passes of a COMET model's encoder: each unique text, or joint sequence, once.

Two kinds of model. Regression (COMET-22) pools every side into a vector of its own and compares the
vectors: here a text is unique whatever side it is on, so that a reference of en-de is the source of
de-en. Unified (XCOMET, CometKiwi) reads output and source, output and reference, or all three as
one sequence: there a sequence is unique, and scoring with and without reference shares the first.
Padding changes nothing (it is masked in attention, layer mix and pooling), so texts of like length
share a batch of at most so many tokens. What the library makes of a pass (pooling, estimator, error
spans, their weights) is left to its own `predict_step`, which is handed the passes instead of
running them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from comet.models import ReferencelessRegression, RegressionMetric, UnifiedMetric
from comet.models.utils import Prediction
from torch.nn.utils.rnn import pad_sequence

from xalma.evaluation.metricx import token_batches
from xalma.progress import progress

Sample = Mapping[str, str]  # "src", "mt" and, for metrics that read it, "ref"
# Tokens of a padded batch. On a GPU XLM-R XL holds its 37 layers of them (12 GB at 32-bit); on a CPU
# larger batches are slower, as they leave its cache.
ENCODER_TOKENS = {"cuda": 32_768, "cpu": 1024}
SAMPLES_AT_ONCE = 8192  # scored and kept before the next; lengths are sorted within
COMBINED_AT_ONCE = 256


class Scorer:
    """A COMET model on a device; `bf16` runs its encoder in bfloat16, the rest stays float32."""

    def __init__(
        self, model: Any, device: str = "cpu", bf16: bool = False, batch_tokens: int | None = None
    ) -> None:
        if not isinstance(model, (RegressionMetric, UnifiedMetric)):
            raise ValueError(
                f"{type(model).__name__} is no model that scores segments: take a regression or unified one"
            )
        self.model = model.eval().to(device)
        self.device = device
        self.bf16 = bf16
        self.batch_tokens = batch_tokens or ENCODER_TOKENS.get(device.split(":")[0], ENCODER_TOKENS["cpu"])
        self.unified = isinstance(model, UnifiedMetric)
        self.combiner = handed_passes(self.model)

    def score(self, samples: Sequence[Sample]) -> np.ndarray:
        """Scores (n,) of `samples`, each with "src", "mt" and perhaps "ref", as `model.predict` gives them."""
        return np.concatenate([scores for _, scores in self.score_in_parts(samples)])

    @torch.inference_mode()
    def score_in_parts(self, samples: Sequence[Sample]) -> Iterator[tuple[slice, np.ndarray]]:
        """Scores of one part of `samples` after another, with the part's place."""
        wanted = [self._sequences(sample) for sample in samples]
        left = Counter(key for keys in wanted for key in keys)
        passes: dict[Any, Any] = {}
        with progress(len(left), type(self.model).__name__) as bar:
            for start in range(0, len(samples), SAMPLES_AT_ONCE):
                part = slice(start, min(start + SAMPLES_AT_ONCE, len(samples)))
                keys = list(dict.fromkeys(key for keys in wanted[part] for key in keys if key not in passes))
                for kind in {_n_texts(key) for key in keys}:
                    for new in self._encode([key for key in keys if _n_texts(key) == kind]):
                        passes |= new
                        bar.update(len(new))
                yield part, self._combine(samples[part], wanted[part], passes)
                left.subtract(key for keys in wanted[part] for key in keys)
                passes = {key: value for key, value in passes.items() if left[key]}  # what a later part needs

    def _sequences(self, sample: Sample) -> list[Any]:
        """What must be encoded for a sample: texts, or tuples of texts that are read as one."""
        if not self.unified:
            return [sample[side] for side in self._sides()]
        others = [sample[side] for side in ("src", "ref") if side in sample and side in self._sides()]
        pairs = [(sample["mt"], other) for other in others]
        return [*pairs, (sample["mt"], *others)] if len(others) == 2 else pairs

    def _sides(self) -> Sequence[str]:
        if self.unified:
            return self.model.hparams.input_segments
        return ("src", "mt") if isinstance(self.model, ReferencelessRegression) else ("src", "mt", "ref")

    def _encode(self, keys: Sequence[Any]) -> Iterator[dict[Any, Any]]:
        """The encoder's passes over `keys`, of one number of texts each, longest first, a batch at a time."""
        tokens = self._tokens({text for key in keys for text in ((key,) if isinstance(key, str) else key)})
        lengths = [
            len(tokens[key]) if isinstance(key, str) else sum(len(tokens[t]) for t in key) for key in keys
        ]
        for batch in token_batches(lengths, self.batch_tokens):
            chosen = [keys[i] for i in batch]
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.bf16):
                found = (
                    self._joint(chosen) if self.unified else self._separate([tokens[key] for key in chosen])
                )
            yield dict(zip(chosen, found, strict=True))

    def _tokens(self, texts: set[str]) -> dict[str, list[int]]:
        """Token ids by text, cut where the library cuts them."""
        encoder = self.model.encoder
        ordered = list(texts)
        ids = encoder.tokenizer(ordered, truncation=True, max_length=encoder.max_positions - 2)["input_ids"]
        return dict(zip(ordered, ids, strict=True))

    def _separate(self, ids: Sequence[list[int]]) -> list[torch.Tensor]:
        """A vector (D,) for each text."""
        lengths = torch.tensor([len(text) for text in ids])
        padding = self.model.encoder.tokenizer.pad_token_id
        # (B, T)
        padded = pad_sequence([torch.tensor(text) for text in ids], batch_first=True, padding_value=padding)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        vectors = self.model.compute_sentence_embedding(padded.to(self.device), mask.to(self.device))
        return [vector.clone() for vector in vectors.float().cpu()]  # a view would keep its whole batch alive

    def _joint(self, keys: Sequence[tuple[str, ...]]) -> list[Prediction]:
        """Score, and in a model of error spans logits (T, classes) of the output's T tokens, for each sequence."""
        encoder, word_level = self.model.encoder, self.model.word_level
        first, *others = ([key[i] for key in keys] for i in range(len(keys[0])))
        sides = [encoder.prepare_sample(first, word_level, None), *map(encoder.prepare_sample, others)]
        batch, _, _ = encoder.concat_sequences(sides, return_label_ids=word_level)
        inputs = {name: value.to(self.device) for name, value in batch.items() if torch.is_tensor(value)}
        found = self.model(**inputs)
        scores = found.score.float().cpu()
        if not word_level:
            return [Prediction(score=score) for score in scores]
        logits = found.logits.float().cpu()
        counts = [len(offsets) for offsets in batch["mt_offsets"]]
        return [
            Prediction(score=s, logits=x[:n].clone()) for s, x, n in zip(scores, logits, counts, strict=True)
        ]

    def _combine(
        self, samples: Sequence[Sample], wanted: Sequence[list[Any]], passes: Mapping[Any, Any]
    ) -> np.ndarray:
        """Scores (n,) that the library's `predict_step` makes of the passes."""
        step = self._combine_joint if self.unified else self._combine_separate
        scores = np.empty(len(samples))
        for width in {len(keys) for keys in wanted}:  # with and without a reference go apart
            chosen = [i for i, keys in enumerate(wanted) if len(keys) == width]
            for start in range(0, len(chosen), COMBINED_AT_ONCE):
                rows = chosen[start : start + COMBINED_AT_ONCE]
                scores[rows] = step(
                    [samples[i] for i in rows], [[passes[key] for key in wanted[i]] for i in rows]
                )
        return scores

    def _combine_separate(
        self, _samples: Sequence[Sample], vectors: Sequence[list[torch.Tensor]]
    ) -> np.ndarray:
        sides = zip(self._sides(), zip(*vectors, strict=True), strict=True)
        batch = {}
        for side, column in sides:
            batch |= {
                f"{side}_input_ids": torch.stack(column).to(self.device),
                f"{side}_attention_mask": None,
            }
        return self.combiner.predict_step(batch).scores.cpu().numpy()

    def _combine_joint(self, samples: Sequence[Sample], found: Sequence[list[Prediction]]) -> np.ndarray:
        columns = list(zip(*found, strict=True))
        batch = [{"made": _stacked(column)} for column in columns]
        if self.model.word_level:  # the library reads the output's tokens off the first sequence
            outputs = self.model.encoder.prepare_sample([sample["mt"] for sample in samples], True, None)
            batch[0] |= {name: outputs[name] for name in ("input_ids", "label_ids")}
            batch[0]["mt_offsets"] = outputs["offsets"]
        return self.combiner.predict_step(batch).scores.cpu().numpy()


def handed_passes(model: Any) -> Any:
    """The model, its weights shared, as a subclass whose `predict_step` takes passes instead of running them."""

    class Handed(type(model)):
        def get_sentence_embedding(self, vector: torch.Tensor, _mask: None) -> torch.Tensor:
            return vector

        def forward(self, made: Prediction | None = None, **inputs: Any) -> Prediction:
            return super().forward(**inputs) if made is None else made

    combiner = Handed.__new__(Handed)
    vars(combiner).update(vars(model))
    return combiner


def _n_texts(key: str | tuple[str, ...]) -> int:
    return 1 if isinstance(key, str) else len(key)


def _stacked(column: Sequence[Prediction]) -> Prediction:
    """Passes of one kind of sequence as the library's `forward` returns them: padded to the longest output."""
    score = torch.stack([found.score for found in column])
    if "logits" not in column[0]:
        return Prediction(score=score)
    return Prediction(score=score, logits=pad_sequence([found.logits for found in column], batch_first=True))
