"""Scores against unbabel-comet's own `predict`, on random checkpoints that its own classes write and read."""

from __future__ import annotations

import logging
import random
import warnings

import numpy as np
import pytest

pytest.importorskip("comet", reason="unbabel-comet is not installed")

from random_comet import write_checkpoint, write_encoder

from xalma.evaluation import comet as neural
from xalma.evaluation.comet import NotAvailable, find_checkpoint, load_model, scorer_of, segment_scores
from xalma.evaluation.comet_encoder import Scorer, token_batches
from xalma.evaluation.metrics import NotScored

TEXT = "haus dog 猫 дом la casa el perro sleeps schläft спит 睡觉 un under unter über il gatto"
HEADS = {"hidden_sizes": [24, 12]}
MODELS = {
    "regression": ("regression_metric", {}),
    "regression, layers normed": (
        "regression_metric",
        {"layer_norm": True, "layer_transformation": "softmax"},
    ),
    "regression, first token": ("regression_metric", {"pool": "cls", "layer": 1}),
    "no reference": ("referenceless_regression_metric", {}),
    "kiwi": ("unified_metric", {"word_layer": 2}),
    "unite": ("unified_metric", {"input_segments": ["mt", "src", "ref"]} | {"word_level_training": False}),
    "xcomet": ("xcomet_metric", {"word_layer": 2}),
}


def texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(TEXT.split(), k=rng.choice((1, 3, 8, 25)))) for _ in range(n)]


@pytest.fixture(scope="module")
def samples() -> list[dict[str, str]]:
    """Two directions, each the other's turned round, an empty output, a copy, and one past the model's length."""
    english, german = texts(7, 1), texts(7, 2)
    there = [{"src": s, "mt": m, "ref": r} for s, m, r in zip(english, texts(7, 3), german, strict=True)]
    back = [{"src": s, "mt": m, "ref": r} for s, m, r in zip(german, texts(7, 4), english, strict=True)]
    odd = [
        {"src": english[0], "mt": "", "ref": german[0]},
        {"src": english[1], "mt": english[1], "ref": german[1]},
    ]
    return [*there, *back, *odd, there[2], {"src": english[2], "mt": "schläft " * 90, "ref": german[2]}]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[bool, str]:
    folder = tmp_path_factory.mktemp("encoders")
    options = {"vocab": 120, "hidden": 16, "positions": 68, "spread": 0.3}
    return {xl: str(write_encoder(folder / str(xl), texts(200, 0), xl=xl, **options)) for xl in (False, True)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, encoders):
    """Name of a row of MODELS -> its model.ckpt, written once."""
    folder, written = tmp_path_factory.mktemp("checkpoints"), {}

    def of(name: str):
        if name not in written:
            kind, values = MODELS[name]
            place = folder / str(len(written))
            written[name] = write_checkpoint(
                place, kind, encoders[kind == "xcomet_metric"], **HEADS, **values
            )
        return written[name]

    return of


def predict(path, samples):
    """The library's slow way."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(path).predict(samples, batch_size=4, gpus=0, progress_bar=False)


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_librarys(name, checkpoint, samples):
    expected = predict(checkpoint(name), samples)
    scorer = Scorer(load_model(checkpoint(name)))
    found = scorer.score(samples)
    assert found == pytest.approx(np.array(expected.scores), abs=1e-5)
    assert len(set(np.round(found, 4))) > 10  # the samples do differ
    if name == "xcomet":  # error spans of more than one severity are in the scores
        assert len(set(expected.metadata.mqm_scores)) > 2


def test_a_metric_as_a_function_scores_as_the_library_does(checkpoint, samples):
    """What a reward calls again and again; a quality estimate is not given the reference."""
    path = checkpoint("kiwi")
    without = [{side: sample[side] for side in ("src", "mt")} for sample in samples]
    scores = scorer_of("cometkiwi", str(path))
    assert scores(samples) == pytest.approx(np.array(predict(path, without).scores), abs=1e-5)
    assert scores(samples[:1]) == pytest.approx(scores(samples)[:1], abs=1e-5)
    with pytest.raises(NotAvailable, match="checkpoint nowhere/at-all not available"):
        scorer_of("cometkiwi", "nowhere/at-all")


@pytest.mark.parametrize("name", ["xcomet", "unite"])
def test_with_and_without_reference_at_once(name, checkpoint, samples):
    without = [{side: sample[side] for side in ("src", "mt")} for sample in samples]
    mixed = [sample for pair in zip(samples, without, strict=True) for sample in pair]
    found = Scorer(load_model(checkpoint(name))).score(mixed)
    assert found[0::2] == pytest.approx(np.array(predict(checkpoint(name), samples).scores), abs=1e-5)
    assert found[1::2] == pytest.approx(np.array(predict(checkpoint(name), without).scores), abs=1e-5)


@pytest.mark.parametrize("name", ["regression", "xcomet"])
def test_batches_and_parts_change_nothing(name, checkpoint, samples, monkeypatch):
    model = load_model(checkpoint(name))
    one = Scorer(model, batch_tokens=1).score(samples)  # each text on its own, unpadded
    monkeypatch.setattr("xalma.evaluation.comet_encoder.SAMPLES_AT_ONCE", 3)
    monkeypatch.setattr("xalma.evaluation.comet_encoder.COMBINED_AT_ONCE", 2)
    assert Scorer(model, batch_tokens=10_000).score(samples) == pytest.approx(one, abs=1e-5)


def test_bfloat16_is_near_and_does_something(checkpoint, samples):
    exact, rough = (
        Scorer(load_model(checkpoint("regression")), bf16=bf16).score(samples) for bf16 in (False, True)
    )
    assert 0 < np.abs(exact - rough).max() < 0.1 * exact.std()


@pytest.mark.parametrize(("name", "per_sample"), [("regression", 3), ("kiwi", 1), ("xcomet", 3)])
def test_each_text_is_encoded_once(name, per_sample, checkpoint, samples, monkeypatch):
    monkeypatch.setattr("xalma.evaluation.comet_encoder.SAMPLES_AT_ONCE", 4)
    scorer, seen = Scorer(load_model(checkpoint(name))), []
    plain = scorer._joint if scorer.unified else scorer._separate
    monkeypatch.setattr(scorer, plain.__name__, lambda keys: seen.extend(map(str, keys)) or plain(keys))
    scorer.score(samples)
    unique = {str(key) for sample in samples for key in scorer._sequences(sample)}
    assert len(seen) == len(set(seen)) == len(unique) < per_sample * len(samples)


@pytest.mark.parametrize(
    ("lengths", "budget", "batches"),
    [
        ([3, 9, 2, 4], 9, [[1], [3, 0], [2]]),
        ([5, 5, 5], 10, [[0, 1], [2]]),
        ([50], 10, [[0]]),
        ([], 10, []),
    ],
)
def test_token_batches(lengths, budget, batches):
    assert list(token_batches(lengths, budget)) == batches


def test_segment_scores_of_two_metrics_of_one_checkpoint(checkpoint, samples, tmp_path):
    folder = str(checkpoint("xcomet").parents[1])
    places = {"xcomet-xl": folder, "xcomet-xl-qe": folder}
    found = segment_scores(samples, ["xcomet-xl-qe", "xcomet-xl"], places, tmp_path / "scores.sqlite")
    assert list(found) == ["xcomet-xl-qe", "xcomet-xl"]
    assert found["xcomet-xl"].scores == pytest.approx(
        np.array(predict(checkpoint("xcomet"), samples).scores), abs=1e-5
    )
    signature = found["xcomet-xl-qe"].signature
    assert signature.startswith(f"XCOMET-XL (no reference)|checkpoint:{folder}|sha256:")
    assert "|comet:2." in signature and "|precision:fp32|reads:src+mt|" in signature


def test_kept_scores_are_not_computed_again(checkpoint, samples, tmp_path, monkeypatch):
    places = {"comet22": str(checkpoint("regression"))}  # a .ckpt file, as well as a folder
    kept = tmp_path / "scores.sqlite"
    first = segment_scores(samples[:6], ["comet22"], places, kept)["comet22"]
    asked = []
    plain = Scorer.score_in_parts
    monkeypatch.setattr(Scorer, "score_in_parts", lambda self, new: asked.extend(new) or plain(self, new))
    more = segment_scores(samples[3:9], ["comet22"], places, kept)["comet22"]
    assert asked == samples[6:9]
    assert more.scores[:3].tolist() == first.scores[3:].tolist()
    monkeypatch.setattr(neural, "load_model", None)  # all is kept: no model is opened
    assert segment_scores(samples[:9], ["comet22"], places, kept)["comet22"].scores.tolist() == [
        *first.scores,
        *more.scores[3:],
    ]


def test_a_run_cut_off_keeps_its_finished_parts(checkpoint, samples, tmp_path, monkeypatch):
    monkeypatch.setattr("xalma.evaluation.comet_encoder.SAMPLES_AT_ONCE", 5)
    places, kept = {"comet22": str(checkpoint("regression"))}, tmp_path / "scores.sqlite"
    plain = Scorer._combine

    def second_fails(self, part, *rest):
        if part[0] == samples[5]:
            raise KeyboardInterrupt
        return plain(self, part, *rest)

    monkeypatch.setattr(Scorer, "_combine", second_fails)
    with pytest.raises(KeyboardInterrupt):
        segment_scores(samples, ["comet22"], places, kept)
    monkeypatch.setattr(Scorer, "_combine", plain)
    monkeypatch.setattr(Scorer, "score_in_parts", lambda self, new: pytest.fail(f"{len(new)} scored again"))
    assert len(segment_scores(samples[:5], ["comet22"], places, kept)["comet22"].scores) == 5


def test_an_absent_checkpoint_fails_nothing_else(checkpoint, samples):
    places = {"comet22": str(checkpoint("regression")), "cometkiwi": "no/such-model"}
    found = segment_scores(samples, ["cometkiwi", "comet22"], places)
    assert found["cometkiwi"] == NotScored(
        "cometkiwi", "not scored: checkpoint no/such-model not available", len(samples)
    )
    assert len(found["comet22"].scores) == len(samples)


def test_an_absent_encoder_is_said(tmp_path, encoders, samples):
    import shutil

    moved = shutil.copytree(encoders[False], tmp_path / "encoder")
    path = write_checkpoint(tmp_path / "model", "regression_metric", moved, **HEADS)
    shutil.rmtree(moved)
    with pytest.raises(NotAvailable, match="its encoder can't be loaded"):
        load_model(path)


def test_a_file_torch_will_not_read_is_said(tmp_path, checkpoint):
    import shutil

    import torch

    folder = shutil.copytree(checkpoint("regression").parents[1], tmp_path / "copy")
    path = folder / "checkpoints" / "model.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"place": tmp_path}}, path)
    with pytest.raises(ValueError, match="holds more than weights; if you trust who made it"):
        load_model(path)


def test_find_checkpoint(tmp_path, checkpoint):
    path = checkpoint("regression")
    assert find_checkpoint(str(path)) == find_checkpoint(str(path.parents[1])) == path
    with pytest.raises(NotAvailable, match=r"no checkpoints/model\.ckpt beside a hparams.yaml"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("samples", "metrics", "message"),
    [
        ([], ["comet22"], "the list of samples is empty"),
        ([{"src": "a", "mt": "b"}], ["comet22"], "comet22 reads ref, which sample 0 does not have"),
        ([{"src": "a", "mt": "b"}], ["comet"], "unknown metric 'comet': use one of comet22, xcomet-xl"),
    ],
)
def test_bad_input(samples, metrics, message):
    with pytest.raises(ValueError, match=message):
        segment_scores(samples, metrics)


def test_the_librarys_cache_does_not_hit(checkpoint, samples):
    """The reason for `encoding`: the same batch twice, as other tensors, is encoded twice."""
    model = load_model(checkpoint("regression"))
    model.set_embedding_cache()
    type(model).retrieve_sentence_embedding.cache_clear()
    for _ in range(2):
        model(**model.prepare_sample(samples[:3], stage="predict"))
    assert type(model).retrieve_sentence_embedding.cache_info().hits == 0
    type(model).retrieve_sentence_embedding.cache_clear()
