"""ALMA's two stages and their studies, on models of a second each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from xalma.evaluation.records import Record
from xalma.paper.studies import alma
from xalma.paper.studies import alma as almatables
from xalma.profiles import load_profile
from xalma.published import published
from xalma.training import stages

FILED = Path(__file__).parents[2] / "results" / "alma-tiny" / "tables"
SMALL = {
    "base": "", "block_tokens": 64, "seeds": 1, "vocab_size": 600, "hidden_size": 32, "layers": 1, "heads": 2,
    "workers": 1, "threads": 1, "lora_rank": 4, "mixed_precision": "off", "stage1_tokens": 10_240, "sft_pairs": 12,
    "dev_pairs": 2, "test_pairs": 2, "max_length": 300,
}  # fmt: skip


@pytest.fixture(scope="module")
def p(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alma")
    profile = load_profile(
        "alma-tiny", **SMALL, run_dir=str(folder / "runs"), results_dir=str(folder / "results")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "TOKENIZER_DOCUMENTS", 100)
        stages.stage0_backbone(profile)
    return profile


def test_stage_1_reads_the_given_shares(p):
    run = stages.read_run(alma.monolingual(p.but(stage1_tokens=40_960)))
    shares = pd.Series(run["tokens_by_language"]) / run["tokens_seen"]
    assert set(shares.index) == {"en", *p.languages}
    for code, share in {"da": 0.20, "hu": 0.14, "is": 0.08, "ko": 0.19, "uk": 0.22, "en": 0.17}.items():
        assert shares[code] == pytest.approx(share, abs=0.08)  # documents are drawn, their lengths differ


def test_no_share_is_the_backbone_and_half_is_half(p):
    assert alma.monolingual(p, 0.0) == stages.stage_folder(p, 0)
    whole, half = (stages.read_run(alma.monolingual(p, share)) for share in (1.0, 0.5))
    assert half["tokens_seen"] == whole["tokens_seen"] / 2


def test_filtered_bitext_has_fewer_misaligned_pairs_than_random(p):
    more = p.but(sft_pairs=300)
    truth = dict(stages.open_corpus(more.but(bitext_noise=0.0)).sft("da"))
    kinds = {kind: alma.bitext(more, kind, "da") for kind in alma.PARALLEL[1:]}
    assert {len(pairs) for pairs in kinds.values()} == {300}
    assert all(truth[english] == danish for english, danish in kinds[alma.HUMAN])
    # an independent sign of misalignment: sides whose digits differ
    wrong = {kind: sum(_digits(a) != _digits(b) for a, b in pairs) for kind, pairs in kinds.items()}
    assert wrong["random"] > 1.1 * wrong["filtered"] > wrong[alma.HUMAN]


def test_the_known_misaligned_share_is_counted(p):
    table = alma.bitext_table(p.but(sft_pairs=300)).set_index("language")
    assert set(table["pairs of each kind"]) == {300}
    assert table["random, misaligned %"].between(40, 60).all()  # half, asked for in every 500
    assert (table["filtered, misaligned %"] < table["random, misaligned %"] - 5).all()


class FewHumanPairs:
    """Endless web bitext, and two pairs by hand; in Icelandic none."""

    def bitext(self, lang):
        return ((f"word {i}", f"orð {i}") for i in range(10**9))

    def sft(self, lang):
        return [] if lang == "is" else [("good", "gut"), ("bad", "schlecht")]


def test_every_kind_has_as_many_pairs_as_the_poorest(p, monkeypatch):
    monkeypatch.setattr(alma, "guarded_corpus", lambda p, languages: FewHumanPairs())
    mine = p.but(seed=77)  # another profile: pairs are kept for each
    assert {kind: len(pairs) for kind, pairs in alma.bitext_kinds(mine, "de").items()} == dict.fromkeys(
        alma.PARALLEL[1:], 2
    )
    with pytest.raises(ValueError, match="no human-written pairs of is in corpus 'cldr': join a corpus"):
        alma.bitext(mine, "random", "is")


def _digits(text: str) -> list[str]:
    return sorted(c for c in text if c.isdigit())


def test_another_kind_is_named(p):
    with pytest.raises(ValueError, match=r"'web'.*random, filtered, human-written"):
        alma.bitext(p, "web", "de")


@pytest.mark.parametrize("lora", [False, True])
def test_stage_2_is_a_whole_model_made_once(p, lora):
    start = alma.monolingual(p)
    folder = alma.parallel(p, start, alma.HUMAN, lora)
    run, before = stages.read_run(folder), (folder / "run.json").stat().st_mtime_ns
    model, _ = stages.open_merged(folder)
    assert (run["parameters_trained"] < 0.1 * model.num_parameters()) == lora
    base, _ = stages.open_merged(start)
    same = {n: bool((x == dict(base.named_parameters())[n]).all()) for n, x in model.named_parameters()}
    moved = {n.split(".")[-2] for n, equal in same.items() if not equal}
    assert moved == {"down_proj"} if lora else {"down_proj", "q_proj", "embed_tokens"} <= moved
    assert alma.parallel(p, start, alma.HUMAN, lora) == folder
    assert (folder / "run.json").stat().st_mtime_ns == before
    assert alma.parallel(p, start, "none", lora) == start


def _records(scores: dict[str, tuple[float, float]]) -> list[Record]:
    """Records of systems with the BLEU and the bits per byte given, the same in both directions."""
    return [
        Record("alma-tiny", name, direction, metric, value, 2, "sig", 0)
        for name, values in scores.items()
        for direction in ("en-de", "de-en")
        for metric, value in zip(("bleu", "bits_per_byte"), values, strict=True)
    ]


NAMES = [alma.system_name(share, kind) for share in (0.0, 1.0) for kind in alma.PARALLEL]
NAMES.append(alma.system_name(None, alma.HUMAN))


def test_papers_numbers_and_ours_stand_in_columns_of_their_own():
    table = almatables.quality_table(_records({name: (float(i), 9 - i / 10) for i, name in enumerate(NAMES)}))
    assert list(table["our BLEU en→xx"]) == list(range(9))
    assert list(table["our bits/byte xx→en"]) == [9 - i / 10 for i in range(9)]
    cells = published("c").query("direction == 'en-xx' and metric == 'BLEU'")
    assert list(table["paper BLEU en→xx"]) == [*cells["shown"], "not measured"]
    assert list(table["monolingual"])[-1] == "no, random weights"
    bleu, bits, *_ = almatables.quality_sentences(table)
    assert bleu.endswith("human-written 7.0, filtered 6.0, random 5.0, none 4.0.")
    assert bits.endswith("none 8.600.")


def test_gains_are_taken_seed_by_seed_beside_the_papers():
    """Seed 0: human-written with monolingual text 7 and without 3; seed 1: 9 and 4; seed 2: 8 and 5."""
    seeds = {0: (3.0, 7.0), 1: (4.0, 9.0), 2: (5.0, 8.0)}
    records = [
        replace(record, seed=seed)
        for seed, (without, with_it) in seeds.items()
        for record in _records(
            {name: (with_it if name == "mono-1, human-written" else without, 1.0) for name in NAMES}
        )
    ]
    table = almatables.gains_table(records)
    row = table[table["gain of"] == "monolingual text, before human-written pairs"].iloc[0]
    assert row["our BLEU"] == pytest.approx(4) and row["± BLEU"] == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert row["paper BLEU"] == f"{29.89 - 22.17:+.2f}" and row["our bits/byte"] == 0


def test_all_seeds_are_asked_the_same_sentences(p, monkeypatch):
    """A seed's models are scored on the profile's test sentences, under the seed's number."""
    asked = []
    row = {"direction": "en-da", "output": "a", "reference": "a", "nats": 1.0}
    monkeypatch.setattr(alma, "translate_test", lambda p, folder, group: asked.append(p.seed) or [row])
    records = alma.evaluate(p.but(workers=1), {"mono-1, random": [Path("a"), Path("b")]})
    assert asked == [p.seed, p.seed] and {record.seed for record in records} == {p.seed, p.seed + 1}


def test_where_bleu_is_nothing_bits_decide():
    table = almatables.quality_table(_records({name: (0.1, 3 + i / 10) for i, name in enumerate(NAMES)}))
    said = almatables.quality_sentences(table)
    assert said[0] == "en→xx: the highest BLEU is 0.1, too little to tell models by."
    assert "after monolingual text, from best to worst: none 3.400, random" in said[1]


def test_the_curve_counts_its_steps_for_the_better(tmp_path):
    folders, tokens = {}, (0, 10, 20, 40)
    for share, n in zip(alma.MONO_SHARES, tokens, strict=True):
        name = alma.system_name(share, alma.HUMAN)
        for place, run in (("base", {"tokens_seen": n}), ("tuned", {"previous": "../base"})):
            folder = tmp_path / name / place
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(json.dumps(run | {"fingerprint": place}))
        folders[name] = [tmp_path / name / "tuned"]
    bits = dict(zip(folders, (3.0, 2.5, 2.6, 2.4), strict=True))
    table = almatables.amount_table(_records({name: (0.2, value) for name, value in bits.items()}), folders)
    assert list(table["monolingual tokens"]) == list(tokens)
    said = almatables.amount_sentences(table)[0]
    assert said.startswith("en→xx, bits per byte (less is better): 3.000, 2.500, 2.600, 2.400; better than")
    assert said.endswith("at 2 of 3 steps.")


def test_the_weights_of_lora_are_a_share_of_all():
    columns = {f"our bits/byte {arrow}": [2.0, 2.5] for arrow in ("en→xx", "xx→en")}
    table = pd.DataFrame({"stage 2": ["full weights", "LoRA"], "parameters trained": [200, 5], **columns})
    assert "LoRA trains 2.5 % of the weights" in almatables.weights_sentence(table)
    assert "en→xx 2.000 to 2.500" in almatables.weights_sentence(table)


def test_what_notebook_11_says_of_the_filed_run():
    """Human-written over random pairs both ways; monolingual text en→xx alone, its bits with every kind of pairs."""
    gains = pd.read_csv(FILED / "11_gains.csv").set_index(["direction", "gain of"])
    for arrow in ("en→xx", "xx→en"):
        row = gains.loc[arrow, "human-written over random pairs"]
        assert row["our BLEU"] > row["± BLEU"]
    for kind in alma.PARALLEL[1:]:
        row = gains.loc["en→xx", f"monolingual text, before {kind} pairs"]
        assert row["our bits/byte"] < -row["± bits/byte"]
        assert (row["our BLEU"] > row["± BLEU"]) == (kind == alma.HUMAN)
        row = gains.loc["xx→en", f"monolingual text, before {kind} pairs"]
        assert abs(row["our BLEU"]) < row["± BLEU"] and abs(row["our bits/byte"]) < row["± bits/byte"]
    quality = pd.read_csv(FILED / "11_quality.csv").set_index(["monolingual", "bitext"])
    random = quality.loc["no, random weights", alma.HUMAN]
    assert max(random["our BLEU en→xx"], random["our BLEU xx→en"]) < 5
