"""COMET, XCOMET and CometKiwi: the library's models, with each unique text encoded once; all neural metrics by name.

X-ALMA is judged by COMET-22 and by XCOMET-XL without a reference (arXiv 2410.03115). unbabel-comet encodes
source, output and reference of every segment anew, though over 98 directions and several systems
most texts are the same; its embedding cache has the identity of a tensor as key, so it never hits
in use, and where it falls back on what a tensor prints as, it can hit wrongly. Here a text (or, in
models that read all sides as one sequence, a joint sequence) goes through the encoder once, in
batches of like length; the library's own code makes the score of the result. `tests/evaluation/test_comet.py`
holds the scores against the library's `predict`, to 1e-5 in float32.

MetricX (`metricx`) goes the same way, but for the encoder: its model reads all sides as one text.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xalma.evaluation.metrics import NotScored
from xalma.evaluation.metricx import MetricXScorer, find_metricx, metricx_hash
from xalma.evaluation.score_cache import ScoreCache, text_key
from xalma.runtime import device as any_device
from xalma.runtime import mixed_precision

if TYPE_CHECKING:
    from xalma.evaluation.comet_encoder import Sample


@dataclass(frozen=True)
class NeuralMetric:
    """A checkpoint on the hub and the sides it is given."""

    display: str
    checkpoint: str
    sides: tuple[str, ...]
    library: str = "comet"  # or "transformers", for MetricX


WITH_REFERENCE, WITHOUT_REFERENCE = ("src", "mt", "ref"), ("src", "mt")
METRICX = "google/metricx-24-hybrid-xl-v2p6"
NEURAL_METRICS = {
    "comet22": NeuralMetric("COMET-22", "Unbabel/wmt22-comet-da", WITH_REFERENCE),
    "xcomet-xl": NeuralMetric("XCOMET-XL", "Unbabel/XCOMET-XL", WITH_REFERENCE),
    "xcomet-xl-qe": NeuralMetric("XCOMET-XL (no reference)", "Unbabel/XCOMET-XL", WITHOUT_REFERENCE),
    "xcomet-xxl": NeuralMetric("XCOMET-XXL", "Unbabel/XCOMET-XXL", WITH_REFERENCE),
    "xcomet-xxl-qe": NeuralMetric("XCOMET-XXL (no reference)", "Unbabel/XCOMET-XXL", WITHOUT_REFERENCE),
    "cometkiwi": NeuralMetric("CometKiwi-22", "Unbabel/wmt22-cometkiwi-da", WITHOUT_REFERENCE),
    "cometkiwi-xl": NeuralMetric("CometKiwi-23-XL", "Unbabel/wmt23-cometkiwi-da-xl", WITHOUT_REFERENCE),
    "cometkiwi-xxl": NeuralMetric("CometKiwi-23-XXL", "Unbabel/wmt23-cometkiwi-da-xxl", WITHOUT_REFERENCE),
    "metricx24": NeuralMetric("MetricX-24", METRICX, WITH_REFERENCE, "transformers"),
    "metricx24-qe": NeuralMetric("MetricX-24 (no reference)", METRICX, WITHOUT_REFERENCE, "transformers"),
}


@dataclass(frozen=True)
class SegmentScores:
    """One metric's scores (n_segments,) as the library gives them, about 0 to 1; tables print 100 times the mean."""

    metric: str
    scores: np.ndarray
    signature: str


class NotAvailable(OSError):
    """A checkpoint, its encoder's tokenizer or the library is not at hand."""


# (samples, the direction of each) -> scores, of metrics that stand in rooms above, as a chat model that judges
Judge = Callable[[Sequence["Sample"], Sequence[str]], SegmentScores | NotScored]
JUDGES = ("gemba-esa",)


def segment_scores(
    samples: Sequence[Sample],
    metrics: Sequence[str],
    checkpoints: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    bf16: bool | None = None,
) -> dict[str, SegmentScores | NotScored]:
    """Scores of all `samples` by each metric; `NotScored` where a checkpoint is not at hand.

    Give the samples of all systems and directions at once: what they share is encoded once.
    checkpoints: metric -> hub id or local path, in place of those of `NEURAL_METRICS`. cache: file of kept
    scores. bf16: None is on where a GPU has it. Raises ValueError for an unknown metric, no samples,
    or a sample without a side the metric reads.
    """
    _check(samples, metrics)
    wanted: dict[str, list[str]] = {}
    for name in metrics:  # metrics of one checkpoint share its passes
        wanted.setdefault((checkpoints or {}).get(name, NEURAL_METRICS[name].checkpoint), []).append(name)
    found: dict[str, SegmentScores | NotScored] = {}
    for checkpoint, names in wanted.items():
        try:
            found |= _by_checkpoint(samples, names, checkpoint, cache, device, bf16)
        except NotAvailable as error:
            found |= {name: NotScored(name, f"not scored: {error}", len(samples)) for name in names}
    return {name: found[name] for name in metrics}


def find_checkpoint(where: str) -> Path:
    """model.ckpt of a local folder laid out as on the hub, of a local .ckpt file, or of a hub id.

    A hub id is fetched, or found in the hub's cache. Raises NotAvailable where there is none.
    """
    path = Path(where).expanduser()
    if not path.exists():
        path = _from_hub(where)
    if path.is_dir():
        path = path / "checkpoints" / "model.ckpt"
    if not path.is_file() or not (path.parents[1] / "hparams.yaml").is_file():
        raise NotAvailable(
            f"checkpoint {where} not available: no checkpoints/model.ckpt beside a hparams.yaml"
        )
    return path


def _from_hub(where: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    try:
        return Path(snapshot_download(where))
    except (OSError, ValueError) as error:  # offline, gated, no such id, no such folder
        gated = " (accept its licence on the hub and log in)" if isinstance(error, GatedRepoError) else ""
        raise NotAvailable(f"checkpoint {where} not available{gated}") from error


def _by_checkpoint(
    samples: Sequence[Sample],
    names: Sequence[str],
    checkpoint: str,
    cache: str | Path | None,
    device: str | None,
    bf16: bool | None,
) -> dict[str, SegmentScores]:
    """Scores by the metrics of one checkpoint, which is loaded only if the cache lacks any."""
    library = NEURAL_METRICS[names[0]].library
    path = (find_checkpoint if library == "comet" else _find_metricx)(checkpoint)
    device = device or any_device()
    if bf16 is None:
        bf16 = device != "cpu" and mixed_precision()
    with ScoreCache(cache) as kept:
        digest = metricx_hash(path, kept) if path.is_dir() else kept.file_hash(path)
        made_by = (
            f"comet:{_comet_version()}" if library == "comet" else f"transformers:{version('transformers')}"
        )
        origin = f"sha256:{digest[:16]}|{made_by}|precision:{'bf16' if bf16 else 'fp32'}"
        asked = [{side: s[side] for side in NEURAL_METRICS[name].sides} for s in samples for name in names]
        keys = [text_key(origin, *sorted(s.items())) for s in asked]
        known = kept.get(keys)
        missing = {key: s for key, s in zip(keys, asked, strict=True) if key not in known}
        if missing:
            known |= _score_missing(missing, path, checkpoint, device, bf16, kept)
    values = np.array([known[key] for key in keys]).reshape(len(samples), len(names))
    return {
        name: SegmentScores(name, values[:, i], _signature(name, checkpoint, origin))
        for i, name in enumerate(names)
    }


def _score_missing(
    missing: Mapping[bytes, Sample], path: Path, checkpoint: str, device: str, bf16: bool, kept: ScoreCache
) -> dict[bytes, float]:
    scorer = _open_scorer(path, checkpoint, device, bf16)
    keys = list(missing)
    found = {}
    for part, scores in scorer.score_in_parts(list(missing.values())):
        new = dict(zip(keys[part], scores.tolist(), strict=True))
        kept.put(new)  # a run that is cut off loses one part
        found |= new
    return found


def _open_scorer(path: Path, checkpoint: str, device: str, bf16: bool) -> Any:
    if path.is_dir():
        return _open_metricx(path, checkpoint, device, bf16)
    model = load_model(path, checkpoint)  # says where COMET is not installed

    from xalma.evaluation.comet_encoder import Scorer

    return Scorer(model, device, bf16)


def scorer_of(metric: str, checkpoint: str = "") -> Callable[[Sequence[Sample]], np.ndarray]:
    """A metric as a function from samples to scores (n_samples,), about 0 to 1, its model loaded once.

    checkpoint: "" is that of `NEURAL_METRICS`. Raises NotAvailable where it is not at hand.
    """
    spec = NEURAL_METRICS[metric]
    device = any_device()
    checkpoint = checkpoint or spec.checkpoint
    path = (find_checkpoint if spec.library == "comet" else _find_metricx)(checkpoint)
    scorer = _open_scorer(path, checkpoint, device, device != "cpu" and mixed_precision())

    def scores(samples: Sequence[Sample]) -> np.ndarray:
        asked = [{side: sample[side] for side in spec.sides} for sample in samples]
        return np.concatenate([found for _, found in scorer.score_in_parts(asked)])

    return scores


def load_model(path: Path, checkpoint: str | None = None):
    """The COMET model in a checkpoint, by the library.

    Raises NotAvailable without the library or the encoder's tokenizer, ValueError for a file torch won't read.
    """
    name = checkpoint or str(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what its torchmetrics imports
            from comet import load_from_checkpoint
    except ImportError as error:
        raise NotAvailable(
            f"checkpoint {name} not available: unbabel-comet is not installed (pip install 'xalma[comet]')"
        ) from error
    logging.getLogger("comet").setLevel(logging.WARNING)  # it says of every model that it is frozen
    try:
        return load_from_checkpoint(str(path))
    except pickle.UnpicklingError as error:  # torch >= 2.6 reads nothing but tensors unless told to
        raise ValueError(
            f"checkpoint {name} is damaged, or holds more than weights; if you trust who made it, set "
            f"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
        ) from error
    except OSError as error:  # transformers: the encoder's configuration or tokenizer is not on this machine
        reason = str(error).split("\n")[0]
        raise NotAvailable(
            f"checkpoint {name} not available: its encoder can't be loaded ({reason})"
        ) from error


def _find_metricx(where: str) -> Path:
    try:
        return find_metricx(where)
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise NotAvailable(f"checkpoint {where} not available ({reason})") from error


def _open_metricx(path: Path, checkpoint: str, device: str, bf16: bool) -> MetricXScorer:
    try:
        return MetricXScorer(path, device, bf16)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise NotAvailable(
            f"checkpoint {checkpoint} not available: its model or mT5's tokenizer can't be loaded ({reason})"
        ) from error


def _signature(name: str, checkpoint: str, origin: str) -> str:
    sides = "+".join(NEURAL_METRICS[name].sides)
    return f"{NEURAL_METRICS[name].display}|checkpoint:{checkpoint}|{origin}|reads:{sides}|mean of segments x 100"


def _comet_version() -> str:
    try:
        return version("unbabel-comet")
    except PackageNotFoundError:
        raise NotAvailable("unbabel-comet is not installed (pip install 'xalma[comet]')") from None


def _check(samples: Sequence[Sample], metrics: Sequence[str]) -> None:
    if not samples:
        raise ValueError("no segments to score: the list of samples is empty")
    for name in metrics:
        if name not in NEURAL_METRICS:
            raise ValueError(f"unknown metric {name!r}: use one of {', '.join(NEURAL_METRICS)}")
        for number, sample in enumerate(samples):
            if lacking := [
                side for side in NEURAL_METRICS[name].sides if not isinstance(sample.get(side), str)
            ]:
                raise ValueError(f"{name} reads {', '.join(lacking)}, which sample {number} does not have")
