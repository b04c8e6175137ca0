"""MetricX-24, with a reference or without one (Juraska et al., WMT 2024): an mT5 that predicts MQM's errors, 0 to 25.

The model is transformers' own mT5: the prediction is the logit of <extra_id_10> at the decoder's first step, clipped to
0 and 25, for "source: … candidate: … reference: …" without the end token (google-research/metricx, metricx24/predict.py
@ 0be34b4; its models.py could not be read, the logit is that of PyPI's lightyear 0.0.18, which holds a copy). lightyear
itself fails under transformers 4.57 unless its cache is off; a test compares the two where it is installed. Without a
tokenizer in the folder mT5's is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xalma.progress import progress

if TYPE_CHECKING:
    from xalma.evaluation.score_cache import ScoreCache

TOKENIZER = "google/mt5-xl"
LOGIT, WORST, LONGEST = (
    250_089,
    25.0,
    1536,
)  # token of the prediction; errors; tokens the models were trained on
METRICX_AT_ONCE = 1000
METRICX_TOKENS = {"cuda": 16_384, "cpu": 1024}
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def find_metricx(where: str) -> Path:
    """A local folder, or that of a hub id, fetched or found in its cache.

    Raises OSError or ValueError where it has no weights.
    """
    folder = Path(where).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(where))
    if not weights_of(folder) or not (folder / "config.json").is_file():
        raise OSError(f"no config.json and weights in {folder}")
    return folder


def weights_of(folder: Path) -> list[Path]:
    """The files of the weights: safetensors, else PyTorch's."""
    return next((found for kind in _WEIGHTS if (found := sorted(folder.glob(kind)))), [])


def metricx_hash(folder: Path, kept: ScoreCache) -> str:
    """SHA-256 over the hashes of the weights' files."""
    digest = hashlib.sha256()
    for path in weights_of(folder):
        digest.update(kept.file_hash(path).encode())
    return digest.hexdigest()


def metricx_input(sample: Mapping[str, str]) -> str:
    """What the model reads: without "ref" it judges without a reference."""
    parts = [f"source: {sample['src']}", f"candidate: {sample['mt']}"]
    return " ".join([*parts, f"reference: {sample['ref']}"] if "ref" in sample else parts)


class MetricXScorer:
    """Scores by the model in `folder`: 1 is no error, 0 the worst (1 - error / 25).

    Raises OSError where model or tokenizer can't be read, ValueError for another mT5.
    """

    def __init__(self, folder: Path, device: str = "cpu", bf16: bool = False) -> None:
        import torch
        from transformers import AutoTokenizer, MT5ForConditionalGeneration

        has_own = (folder / "tokenizer_config.json").is_file()
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder if has_own else TOKENIZER, trust_remote_code=False
        )
        dtype = torch.bfloat16 if bf16 else torch.float32
        # the published weights are PyTorch's own files: tensors alone are read from them
        model = MT5ForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, weights_only=True
        )
        if model.config.vocab_size <= LOGIT:
            raise ValueError(f"{folder} is no MetricX: its mT5 has {model.config.vocab_size} tokens")
        self.model = model.to(device).eval()
        self.device = device
        self.batch_tokens = METRICX_TOKENS.get(device.split(":")[0], METRICX_TOKENS["cpu"])

    def score_in_parts(self, samples: Sequence[Mapping[str, str]]) -> Iterator[tuple[slice, np.ndarray]]:
        """Scores of one part of `samples` after another, with the part's place."""
        with progress(len(samples), "MetricX") as bar:
            for start in range(0, len(samples), METRICX_AT_ONCE):
                part = slice(start, min(start + METRICX_AT_ONCE, len(samples)))
                yield part, 1 - self.errors(samples[part]) / WORST
                bar.update(part.stop - start)

    def errors(self, samples: Sequence[Mapping[str, str]]) -> np.ndarray:
        """(n_samples,): predicted MQM errors, 0 (none) to 25."""
        import torch

        texts = [metricx_input(sample) for sample in samples]
        ids = [row[:-1] for row in self.tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]]
        found = np.empty(len(ids))
        for places in token_batches([len(row) for row in ids], self.batch_tokens):
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in places]}, return_tensors="pt").to(
                self.device
            )
            first = torch.zeros((len(places), 1), dtype=torch.long, device=self.device)
            with torch.inference_mode():
                logits = self.model(**batch, decoder_input_ids=first, use_cache=False).logits
            found[places] = logits[:, 0, LOGIT].float().clamp(0, WORST).cpu().numpy()
        return found


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of `lengths`, longest first, in batches that padded to their longest hold at most `budget` tokens.

    A text longer than the budget is a batch of its own.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
