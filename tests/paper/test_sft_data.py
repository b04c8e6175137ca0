"""The SFT sets grow as they say, hold nothing that is tested on, and are trained for the same number of updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from xalma.corpora.flores import FloresCorpus
from xalma.corpora.ntrex import NtrexCorpus
from xalma.corpora.registry import open_corpus
from xalma.corpora.wmt import WmtCorpus
from xalma.data.test_index import TestIndex
from xalma.paper.studies import sft_data
from xalma.paper.studies.sft_data import (
    DATA,
    FLORES,
    NTREX,
    TEST_LABELS,
    WMT,
    compare_sft_data,
    data_profile,
    sft_languages,
)
from xalma.profiles import load_profile
from xalma.runs import read_run, stage_folder
from xalma.runtime import data_root
from xalma.text_files import read_lines
from xalma.training import stages
from xalma.training.ladder import run_chain


def test_a_phrasebook_has_nothing_to_compare(micro):
    assert sft_languages(micro, 6) == () and compare_sft_data(micro, 6) == []


def test_without_the_other_texts_there_is_nothing_to_compare(tmp_path, monkeypatch):
    monkeypatch.setenv("XALMA_DATA", str(tmp_path))
    (tmp_path / "ntrex").mkdir()
    assert sft_languages(load_profile("tiny", corpus="ntrex"), 6) == ()


@pytest.mark.data
def test_languages_that_have_all_three():
    """Czech and Icelandic have no WMT'23 from or into English, Hebrew no earlier WMT."""
    p = load_profile("tiny", corpus="ntrex")
    assert {group: sft_languages(p, group) for group in (1, 3, 5, 6, 7)} == {
        1: ("de",),
        3: ("ru", "uk"),
        5: (),
        6: ("ja", "zh"),
        7: (),
    }
    assert sft_languages(p.but(corpus="ntrex+bibles+mozilla"), 6) == ("ja", "zh")


@pytest.mark.data
@pytest.mark.parametrize(("group", "lang"), [(6, "zh"), (3, "ru"), (1, "de")])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_set_holds_what_is_tested_on(group, lang, seed):
    """Every test sentence, whatever number of them is scored, by letters alone, on either side."""
    p = load_profile("tiny", corpus="ntrex", test_pairs=10**6)
    flores = read_lines(data_root() / "alma-human" / "is-en" / "train.en.txt")
    tested = {
        "NTREX": NtrexCorpus(p.but(seed=seed)).test(lang),
        "WMT'23": WmtCorpus(p).test(lang),
        "FLORES": FloresCorpus(p).test(lang),
    }
    assert [english for english, _ in tested["FLORES"]] == flores[-1012:]  # data README, warning 1
    index = TestIndex({name: [text for pair in pairs for text in pair] for name, pairs in tested.items()})
    sizes = {}
    for data in DATA:
        corpus = open_corpus(data_profile(p, group, data, seed))
        pairs = corpus.sft(lang)
        hits = [hit for hit in index.find([text for pair in pairs for text in pair])]
        assert not [place for hit in hits for place, _ in hit.places if place != "NTREX"]
        assert all(hit.kind != "exact" for hit in hits)  # of NTREX: the guard drops these, and counts them
        sizes[data] = len(pairs)
    dev = set(flores[:997])
    assert sizes[NTREX] < sizes[WMT] and sizes[FLORES] - sizes[WMT] == 997
    assert {english for english, _ in pairs[-997:]} == dev


@pytest.mark.data
def test_all_sets_get_the_same_updates():
    p = load_profile("tiny", corpus="ntrex", stage4_epochs=1.0, ablation_sft_share=0.5)
    profiles = [data_profile(p, 6, data, 3) for data in DATA]
    assert {q.stage4_updates for q in profiles} == {sft_data.shared_updates(p, 6)}
    rows = sum(2 * len(open_corpus(profiles[-1].but(seed=p.seed)).sft(code)) for code in ("ja", "zh"))
    assert profiles[0].stage4_updates == round(rows * 0.5 / p.stage4_batch_size)
    assert [(q.corpus, q.contamination, q.languages_of(6), q.seed) for q in profiles] == [
        (data, "drop", ("ja", "zh"), 3) for data in DATA
    ]


@pytest.mark.data
@pytest.mark.slow
def test_a_study_for_each_test_set(micro_values, tmp_path, monkeypatch):
    """Mini, on a CPU: it shows that real text goes through, not which data is better."""
    values = micro_values | {"run_dir": str(tmp_path / "runs"), "max_length": 300, "stage4_batch_size": 8}
    p = load_profile("tiny", corpus="ntrex", **values | {"block_tokens": 64, "ablation_share": 0.1})
    monkeypatch.setattr(stages, "TOKENIZER_DOCUMENTS", 20)
    monkeypatch.setattr(sft_data, "EVERY_PAIR", 1760)  # NTREX's 1,700, and some of WMT: FLORES is cut off
    monkeypatch.setattr(sft_data, "shared_updates", lambda *_: 3)
    base = stages.stage1_monolingual_base(p, 0, stages.stage0_backbone(p))
    with pytest.raises(FileNotFoundError):
        compare_sft_data(p, 6)
    start = run_chain(p, 6, base, (2, 3), "ladder")
    studies = compare_sft_data(p, 6)
    assert [study.name for study in studies] == [f"sft_{test}_group6" for test in TEST_LABELS]
    for study in studies:
        assert {record.direction for record in study.records} == {"en-ja", "ja-en", "en-zh", "zh-en"}
        assert {record.stage for record in study.records} == set(study.systems) == set(DATA)
        assert {facts["updates"] for facts in study.systems.values()} == {3}
    for data in DATA:
        folder = stage_folder(p, 4, 6, f"ablations/seed0/sft-{data}")
        assert Path(read_run(folder)["previous"]) == start and read_run(folder)["inputs"]["languages"] == [
            "ja",
            "zh",
        ]
    bits = {
        study.name: next(r.value for r in study.records if r.metric == "bits_per_byte") for study in studies
    }
    assert len(set(bits.values())) == 3, "three different test sets"
