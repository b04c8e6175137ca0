"""The report of `xalma score`: lexical and neural metrics side by side, and what stands where one is absent."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from huggingface_hub.errors import LocalEntryNotFoundError

from xalma.evaluation import comet
from xalma.evaluation.comet import SegmentScores
from xalma.evaluation.metrics import NotScored
from xalma.evaluation.score_file import FILE_METRICS, score_files, score_texts

HYPS = ["the cat sat on the mat", "a dog barks at night", "it rains today in the north"]
REFS = ["the cat sat on a mat", "the dog barks at night", "it rains in the north today"]


@pytest.fixture
def files(tmp_path):
    for name, lines in (("sys", HYPS), ("ref", REFS), ("src", [HYPS[0], "b", "c"])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return [tmp_path / name for name in ("sys", "ref", "src")]


def test_score_files_prints_what_sacrebleu_prints(files):
    sys, ref, src = files
    report = score_files(sys, ref, src, "en").split("\n")
    bleu = sacrebleu.corpus_bleu(HYPS, [REFS])
    assert report[0].startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert report[0].endswith(f" = {bleu.score:.2f} (n = 3)")
    assert report[1].startswith("chrF2|nrefs:1|")
    assert "off-target (script of letters|py3langid:" in report[2]
    assert "over-long 0.00%, copies of the source 33.33%" in report[2]
    assert "copies" not in score_files(sys, ref, None, "en")


def test_every_column_is_there_where_no_checkpoint_is(files, monkeypatch):
    def offline(name):
        raise LocalEntryNotFoundError(f"{name} is not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    report = score_files(*files, "de", FILE_METRICS).split("\n")
    assert len(report) == len(FILE_METRICS) + 1
    for name, metric in comet.NEURAL_METRICS.items():
        assert any(line.startswith(f"{name}: not scored: ") and metric.checkpoint in line for line in report)
    assert sum("not scored" in line for line in report) >= len(comet.NEURAL_METRICS)


def test_neural_scores_are_means_times_100(monkeypatch):
    def fake(samples, metrics, checkpoints, cache):
        assert samples[0] == {"src": "die katze", "mt": HYPS[0], "ref": REFS[0]}
        assert (checkpoints, cache) == ({"comet22": "here"}, "kept")
        return {
            "comet22": SegmentScores("comet22", np.array([0.5, 0.7, 0.9]), "COMET-22|x"),
            "cometkiwi": NotScored("cometkiwi", "not scored: gone", 3),
        }

    monkeypatch.setattr(comet, "segment_scores", fake)
    metrics = ["cometkiwi", "bleu", "comet22"]
    found = score_texts(HYPS, REFS, ["die katze", "b", "c"], "en", metrics, {"comet22": "here"}, "kept")
    assert [score.metric for score in found] == metrics
    assert found[2].value == pytest.approx(70)
    assert (found[2].signature, found[2].n) == ("COMET-22|x", 3)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["blue"], "unknown metric 'blue': use one or more of bleu, chrf"),
        (["comet22"], "comet22 reads the source: give the source file too"),
    ],
)
def test_bad_metrics_fail_before_the_files_are_read(metrics, message):
    with pytest.raises(ValueError, match=message):
        score_files("absent", "absent", None, "en", metrics)
