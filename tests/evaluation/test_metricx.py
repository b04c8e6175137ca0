"""MetricX-24 on small random checkpoints, held against PyPI's lightyear where that is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MT5Config, MT5ForConditionalGeneration, PreTrainedTokenizerFast

from xalma.cli.main import main
from xalma.evaluation import metricx
from xalma.evaluation.comet import segment_scores
from xalma.evaluation.metrics import NotScored
from xalma.evaluation.metricx import LOGIT, MetricXScorer, metricx_input

SAMPLES = [
    {"src": "Das Haus ist klein.", "mt": "The house is small.", "ref": "The house is tiny."},
    {"src": "Es regnet.", "mt": "It is raining cats and dogs today, all day long.", "ref": "It is raining."},
    {"src": "Ja.", "mt": "", "ref": "Yes."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A random mT5 with the vocabulary's size of the real ones, and a tokenizer of bytes that ends with </s>."""
    place = tmp_path_factory.mktemp("metricx")
    letters = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = {letter: i for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 2, "vocab_size": 250_112}
    model = MT5ForConditionalGeneration(
        MT5Config(**sizes, tie_word_embeddings=False, decoder_start_token_id=0)
    )
    with torch.no_grad():
        model.lm_head.weight[LOGIT] *= 20 / model.lm_head.weight[LOGIT].norm()  # else all errors are near 0
    model.save_pretrained(place)
    return str(place)


def by_hand(folder: str, text: str) -> float:
    """The error of one text, alone and without the scorer's batches: encoder, one step of the decoder, the head."""
    scorer = MetricXScorer(metricx.find_metricx(folder))
    ids = torch.tensor([scorer.tokenizer(text)["input_ids"][:-1]])
    hidden = scorer.model.encoder(ids).last_hidden_state
    step = scorer.model.decoder(
        torch.zeros((1, 1), dtype=torch.long), encoder_hidden_states=hidden
    ).last_hidden_state
    return float((step[0, 0] @ scorer.model.lm_head.weight[LOGIT]).clamp(0, 25))


def test_errors_are_the_models_with_and_without_reference(folder):
    for qe in (False, True):
        samples = [{k: v for k, v in s.items() if k != "ref" or not qe} for s in SAMPLES]
        found = MetricXScorer(metricx.find_metricx(folder)).errors(samples)
        assert found == pytest.approx([by_hand(folder, metricx_input(s)) for s in samples], abs=1e-4)
        assert 0 < found.max() < 25
    assert metricx_input(SAMPLES[2]) == "source: Ja. candidate:  reference: Yes."
    assert metricx_input({"src": "Ja.", "mt": "Yes."}) == "source: Ja. candidate: Yes."


def test_the_copy_in_lightyear_says_the_same(folder):
    theirs = pytest.importorskip("lightyear.metrics.metricx").MetricXScore(
        model_name=folder, tokenizer_name=folder, cuda=False
    )
    theirs.model.config.use_cache = False  # with its cache it fails under transformers 4.57
    columns = [[s[side] for s in SAMPLES] for side in ("mt", "ref", "src")]
    expected = theirs.score_batch(*columns)["metricx_score"]
    ours = MetricXScorer(metricx.find_metricx(folder))
    assert ours.errors(SAMPLES) == pytest.approx(expected["raw_error"], abs=1e-4)
    ((_, scores),) = ours.score_in_parts(SAMPLES)
    assert 100 * scores == pytest.approx(expected["score"], abs=1e-3)


def test_batches_parts_and_the_cache_change_nothing(folder, tmp_path, monkeypatch):
    names, where = ("metricx24", "metricx24-qe"), {"metricx24": folder, "metricx24-qe": folder}
    whole = segment_scores(SAMPLES, names, where, tmp_path / "cache")
    monkeypatch.setattr(metricx, "METRICX_AT_ONCE", 1)
    monkeypatch.setitem(metricx.METRICX_TOKENS, "cpu", 60)
    again = segment_scores(SAMPLES, names, where)
    for name in names:
        np.testing.assert_allclose(whole[name].scores, again[name].scores, atol=1e-5)
    assert not np.allclose(whole["metricx24"].scores, whole["metricx24-qe"].scores)
    assert whole["metricx24-qe"].signature.startswith("MetricX-24 (no reference)|checkpoint:")

    monkeypatch.setattr(metricx.MetricXScorer, "errors", None)  # all of it is kept
    kept = segment_scores(SAMPLES, names, where, tmp_path / "cache")
    assert (kept["metricx24"].scores == whole["metricx24"].scores).all()


def test_the_command(folder, tmp_path, capsys):
    for side in ("src", "mt", "ref"):
        (tmp_path / side).write_text("".join(f"{s[side]}\n" for s in SAMPLES))
    files = (
        "--output",
        tmp_path / "mt",
        "--reference",
        tmp_path / "ref",
        "--source",
        tmp_path / "src",
        "--to",
        "en",
    )
    asked = ("--metrics", "metricx24-qe", "--checkpoint", f"metricx24-qe={folder}")
    assert main([*map(str, ("score", *files, *asked))]) == 0
    errors = [by_hand(folder, metricx_input({"src": s["src"], "mt": s["mt"]})) for s in SAMPLES]
    assert f"= {100 - 4 * np.mean(errors):.2f} (n = 3)" in capsys.readouterr().out


def test_what_is_not_there_is_said(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for where in (tmp_path / "empty", "nobody/metricx"):
        (found,) = segment_scores(SAMPLES, ["metricx24"], {"metricx24": str(where)}).values()
        assert isinstance(found, NotScored) and "not available" in found.reason
