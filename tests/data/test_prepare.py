"""Token files: what is in them, whatever made them; counts, hashes, whole folders, and memory that stays."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xalma.cli.main import main
from xalma.corpora.base import Corpus
from xalma.data import prepare as packing
from xalma.data.blocks import MixedBlocks, guard_records
from xalma.data.cleaning import Rules
from xalma.data.prepare import dropped, prepare, write_tokens
from xalma.data.prepare_workers import _in_order, make_job, prepare_chunk, processes, ray_cluster
from xalma.data.token_files import TokenFiles
from xalma.profiles import load_profile
from xalma.training.stages import packed

PLAIN = Rules(language=None, near=False)


@pytest.fixture(scope="module")
def tokenizer():
    """A token a word out of w0 … w999; 1 and 2 are BOS and EOS, 0 any other word."""
    vocabulary = {"?": 0, "<s>": 1, "</s>": 2} | {f"w{i}": 3 + i for i in range(1000)}
    backend = Tokenizer(models.WordLevel(vocabulary, "?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="?")


def documents(n: int, seed: int = 0) -> list[tuple[str, str | None]]:
    """n documents of 1 to 30 words; each seventh repeats one before, each eleventh is no row."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        text = " ".join(f"w{w}" for w in rng.integers(0, 1000, rng.integers(1, 31)))
        rows.append((f"f:{i}", None if i % 11 == 5 else rows[i // 2][1] if i % 7 == 3 else text))
    return rows


def expected(rows, tokenizer, block: int) -> tuple[np.ndarray, int]:
    """The slow path: (blocks, tokens left over) of the distinct rows."""
    ids, said = [], set()
    for _, text in rows:
        if text is not None and text not in said:
            said.add(text)
            ids += [1, *tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    whole = len(ids) // block * block
    return np.array(ids[:whole]).reshape(-1, block), len(ids) - whole


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(packing, "FILE_TOKENS", 1000)
    monkeypatch.setattr(packing, "CHUNK_ROWS", 50)


def write(folder, rows, tokenizer, n=1, **options):
    return write_tokens(rows, folder, make_job(tokenizer, "de", PLAIN), 16, partial(processes, n), **options)


def test_blocks_are_the_documents_in_a_row(tmp_path, tokenizer, small_files):
    rows = documents(400)
    index = write(tmp_path / "de", rows, tokenizer, source="made here")
    files, (blocks, left) = TokenFiles(tmp_path / "de"), expected(rows, tokenizer, 16)
    assert len(index["files"]) > 3
    assert np.array_equal([files[i] for i in range(len(files))], blocks)
    assert (index["blocks"], index["tokens"], index["left_over"]) == (len(blocks), blocks.size, left)
    assert index["dtype"] == "uint16" and isinstance(files._mapped(0), np.memmap)
    files.verify()


def test_every_row_is_kept_or_listed(tmp_path, tokenizer, small_files):
    rows = documents(400)
    index = write(tmp_path / "de", rows, tokenizer)
    listed = [line.split("\t") for line in (tmp_path / "de" / "rejected.tsv").read_text().splitlines()]
    counts = index["rows"]
    assert counts["read"] == 400 == counts["kept"] + sum(counts["dropped"].values())
    assert {reason: sum(r == reason for _, r in listed) for reason in counts["dropped"]} == counts["dropped"]
    assert {place for place, reason in listed if reason == "unreadable"} == {
        place for place, text in rows if text is None
    }
    assert dropped({"de": index, "is": index})["unreadable"] == 2 * counts["dropped"]["unreadable"] > 70


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mixed(n: int) -> list:
    """Documents, each second one as a pair."""
    rows = documents(n)
    return [(place, (text, text[::-1]) if text and i % 2 else text) for i, (place, text) in enumerate(rows)]


def test_the_same_files_from_any_number_of_processes(tmp_path, tokenizer, small_files):
    write(tmp_path / "one", mixed(400), tokenizer)
    write(tmp_path / "two", mixed(400), tokenizer, 2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


@pytest.mark.slow
def test_the_same_files_from_a_ray_cluster(tmp_path, tokenizer, small_files, monkeypatch):
    """A cluster of this machine: raylet, object store and workers of their own processes. `.ci/run` installs Ray."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'xalma[cluster]')")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
    write(tmp_path / "one", mixed(400), tokenizer)
    write_tokens(mixed(400), tmp_path / "ray", make_job(tokenizer, "de", PLAIN), 16, ray_cluster)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "ray")
    assert not ray.is_initialized()  # what was started is shut down


def test_without_ray_one_sentence(tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(ImportError, match=r"pip install 'xalma\[cluster\]'"),
        ray_cluster(make_job(tokenizer, "de")),
    ):
        pass


def test_a_pair_is_one_text_in_either_order(tokenizer):
    """2,000 pairs: five standard deviations are 112. The order is the row's own, whatever chunk it is in."""
    rows = [(i, (f"f:{i}", ("w1 " + "w3 " * (i % 30), "w2"))) for i in range(2000)]
    job = make_job(tokenizer, "de", Rules(language=None, max_ratio=None, near=False))
    whole = prepare_chunk(job, rows).ids
    parts = [prepare_chunk(job, rows[i : i + 300]).ids for i in range(0, 2000, 300)]
    assert np.array_equal(whole, np.concatenate(parts))
    first = whole[np.flatnonzero(whole == 1) + 1]
    assert abs((first == 4).sum() - 1000) < 112 and set(first.tolist()) == {4, 5}


def test_results_come_in_order_with_few_chunks_under_way():
    taken, most = [], 0

    def chunks():
        for i in range(20):
            taken.append(i)
            yield i

    for done, result in enumerate(_in_order(lambda i: i, lambda i: i, chunks(), 4)):
        assert result == done
        most = max(most, len(taken) - done)
    assert most == 5


def test_a_limit_stops_early(tmp_path, tokenizer, small_files):
    whole = write(tmp_path / "all", documents(400), tokenizer)
    cut = write(tmp_path / "cut", documents(400), tokenizer, limit=1000)
    assert 1000 <= cut["tokens"] < whole["tokens"]
    assert np.array_equal(TokenFiles(tmp_path / "cut")[3], TokenFiles(tmp_path / "all")[3])


def test_a_failed_run_leaves_the_old_files(tmp_path, tokenizer, small_files):
    write(tmp_path / "de", documents(100), tokenizer)
    before = bytes_of(tmp_path / "de")

    def failing():
        yield from documents(100, seed=1)
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        write(tmp_path / "de", failing(), tokenizer)
    assert bytes_of(tmp_path / "de") == before


def test_too_little_text_is_an_error(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="one line fills not one block of 16 tokens in de"):
        write(tmp_path / "de", [("f:1", "w1 w2")], tokenizer, source="one line")
    assert not (tmp_path / "de").exists()


@pytest.mark.parametrize(
    ("harm", "why"), [("cut", "is not the .* bytes"), ("change", "has changed since it was written")]
)
def test_harmed_files_are_named(tmp_path, tokenizer, harm, why):
    write(tmp_path / "de", documents(100), tokenizer)
    path = tmp_path / "de" / "00000.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-2] if harm == "cut" else data[:-2] + b"\xff\xff")
    with pytest.raises(ValueError, match=rf"00000.bin {why}"):
        TokenFiles(tmp_path / "de").verify()


def test_what_is_not_prepared_or_for_another_base_is_said(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="make it with `xalma prepare`"):
        TokenFiles(tmp_path)
    write(tmp_path / "de", documents(100), tokenizer)
    files = TokenFiles(tmp_path / "de")
    files.check(tokenizer, 16)
    with pytest.raises(ValueError, match="blocks of 16, not 32"):
        files.check(tokenizer, 32)
    tokenizer.add_tokens("w1000")
    with pytest.raises(ValueError, match="another tokenizer"):
        files.check(tokenizer, 16)


class Words(Corpus):
    NAME = "words"

    def monolingual(self, lang):
        return (text for _, text in documents(200) if text)

    def test(self, lang):
        return [("held out sentence of words", max(islice(self.monolingual(lang), 50), key=len))]

    def fingerprint(self):
        return "words"


def test_prepare_keeps_what_is_done_and_leaves_held_out_text_out(tmp_path, tokenizer, monkeypatch):
    corpus = Words(load_profile("tiny"))
    make = partial(
        prepare,
        corpus,
        tmp_path,
        tokenizer,
        ("de", "fi"),
        "monolingual",
        16,
        partial(processes, 1),
        rules=PLAIN,
    )
    first = make()
    assert first["de"]["rows"]["dropped"]["test_sentence"] == 1
    monkeypatch.setattr(packing, "write_tokens", None)
    assert make() == first
    monkeypatch.undo()
    assert make(seed=1)["de"]["seed"] == 1
    assert json.loads((tmp_path / "monolingual" / "fi" / "index.json").read_text())["lang"] == "fi"


def test_text_prepared_under_an_old_name_of_the_language_check_is_kept(tmp_path, tokenizer, monkeypatch):
    """The label in an index is fixed; before, it was the path of the function's module."""
    make = partial(
        prepare,
        Words(load_profile("tiny")),
        tmp_path,
        tokenizer,
        ("de",),
        "monolingual",
        16,
        partial(processes, 1),
    )
    rules = replace(Rules(), short=10_000, near=False)  # text of this length is judged by its script alone
    index = make(rules=rules)["de"]
    assert index["rules"]["language"] == "language: wrong_language"
    path = tmp_path / "monolingual" / "de" / "index.json"
    path.write_text(path.read_text().replace("language: wrong_language", "xalma.identify.wrong_language"))
    monkeypatch.setattr(packing, "write_tokens", None)
    assert make(rules=rules)["de"]["files"] == index["files"]
    with pytest.raises(TypeError, match="not callable"):
        make(rules=replace(rules, language=starts_with_w))


def starts_with_w(text: str, code: str) -> bool:
    return text.startswith("w")


def test_the_command_prepares_what_a_stage_then_trains_on(tmp_path, tokenizer, capsys):
    """From a folder of one's own text to the blocks of stage 1, with a plan before each."""
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "own" / "monolingual").mkdir(parents=True)
    for seed, code in enumerate(("de", "fi")):
        lines = [text for _, text in documents(400 if code == "de" else 100, seed) if text]
        (tmp_path / "own" / "monolingual" / f"{code}.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / "own" / "test").mkdir(exist_ok=True)
        (tmp_path / "own" / "test" / f"{code}-en.tsv").write_text(
            f"en\t{code}\n{'one sentence ' * 4}\t{lines[3]}\n"
        )
    values = {"base": tmp_path / "base", "corpus": "own", "corpus_path": tmp_path / "own", "block_tokens": 16}
    options = [option for key, value in values.items() for option in ("--set", f"{key}={value}")]
    command = [
        "prepare",
        "--profile",
        "tiny",
        "--languages",
        "de,fi",
        "--to",
        str(tmp_path / "out"),
        "--processes=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xalma.data.cleaning.JUDGED_CHARACTERS", 0)  # words of w and digits are no language
        assert main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert "monolingual text of own in 2 languages" in said and "time and disk are not known before" in said
    assert f"train on it with --set mixing_blocks={tmp_path / 'out'}" in said

    budget = {
        "stage1_tokens": 16 * 8 * 100,
        "mixing": "unimax",
        "mixing_cap": 2.0,
        "mixing_blocks": tmp_path / "out",
    }
    p = load_profile(
        "tiny",
        **{key: str(value) if isinstance(value, Path) else value for key, value in (values | budget).items()},
    )
    blocks = packed({"de": None, "fi": None}, tokenizer, p, 1)
    seen = guard_records(blocks.files)
    files = (tmp_path / "own" / "monolingual").glob("*.txt")
    assert seen["rows"] == sum(len(file.read_text().splitlines()) for file in files)
    assert seen["left_out"] == 2, "one test sentence in each language"
    (tmp_path / "own" / "test" / "fi-en.tsv").write_text(
        "en\tfi\nanother sentence of the test set\tjotain muuta\n"
    )
    with pytest.raises(
        ValueError, match="fi was prepared without leaving out the held-out sentences of corpus=own"
    ):
        packed({"de": None, "fi": None}, tokenizer, p, 1)
    assert packed({"de": None, "fi": None}, tokenizer, p.but(contamination="allow"), 1).files
    assert isinstance(blocks, MixedBlocks) and len(blocks) == 800
    assert "stage 1: 1.28e-05 B tokens; repeated: " in capsys.readouterr().out
    sizes = {code: len(TokenFiles(tmp_path / "out" / "monolingual" / code)) for code in ("de", "fi")}
    assert blocks.probabilities["fi"] == pytest.approx(2 * sizes["fi"] / 800)  # at its cap
    assert blocks.probabilities["de"] == pytest.approx(1 - 2 * sizes["fi"] / 800)
    assert {tuple(block["input_ids"].shape) for block in islice(blocks, 3)} == {(16,)}
    assert main(["prepare", "--to", str(tmp_path / "x"), "--profile", "tiny", "--set", "corpus=own"]) == 2
