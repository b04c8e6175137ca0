"""A GGUF file of an export, read by other programs' readers: transformers' own gives the logits, ours the tokens."""

from __future__ import annotations

import pytest
import torch
from conftest import MICRO
from gguf import GGUFReader
from tiny_gguf import LINES, trained_sentencepiece
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from xalma.cli.main import main
from xalma.models.backbone import train_tokenizer
from xalma.models.bank import load_modules
from xalma.models.bases.gguf_export import PROBES, vocabulary_of, write_gguf
from xalma.models.bases.gguf_files import field, open_gguf, read_model, read_vocabulary
from xalma.models.bases.gguf_tokenizers import PIECE_SPLITS, Vocabulary, build_tokenizer
from xalma.prompts import extract_translation, translation_prompt
from xalma.training.export.export import export

IDS = torch.tensor([[1, 40, 200, 17, 5, 90, 33]])


def byte_level():
    """The tokenizer of the default run."""
    return train_tokenizer(LINES, 400)


def llama(vocab_size: int, **more) -> LlamaForCausalLM:
    """Grouped queries, norms that are not one, a rotary base of its own."""
    torch.manual_seed(0)
    options = {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 70_000.0} | more
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, **options
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def sentencepiece_tokenizer():
    """LLaMA-2's kind, as transformers holds it."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(
        trained_sentencepiece(add_dummy_prefix=True).serialized_model_proto()
    )
    types = [3 if piece.type == 2 and piece.piece == "<unk>" else piece.type for piece in proto.pieces]
    scores = [piece.score for piece in proto.pieces]
    special = {"bos": 1, "eos": 2, "unk": 0, "pad": 3}
    tokens = [piece.piece for piece in proto.pieces]
    return build_tokenizer(
        Vocabulary("llama", tokens, types, scores, add_bos=True, add_prefix=True, **special)
    )


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_logits_by_transformers_own_reader(tmp_path, dtype, tied):
    tokenizer = byte_level()
    model = llama(len(tokenizer), tie_word_embeddings=tied).to(getattr(torch, dtype))
    file = write_gguf(model, tokenizer, tmp_path / "model.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    ours = read_model(file, open_gguf(file), "float32")
    whole = llama(len(tokenizer), tie_word_embeddings=tied)  # its rotary tables are not rounded
    whole.load_state_dict(model.float().state_dict())
    expected = whole(IDS).logits
    for found in (theirs, ours):
        torch.testing.assert_close(found(IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [byte_level, sentencepiece_tokenizer])
def test_the_tokenizer_comes_back(tmp_path, make):
    tokenizer = make()
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    file = write_gguf(llama(len(tokenizer)), tokenizer, tmp_path / "model.gguf")
    found = build_tokenizer(read_vocabulary(open_gguf(file)))
    bos = [tokenizer.bos_token_id]
    for text in (*PROBES, "The book is on the table.", "Das Buch liegt auf dem Tisch; 2 Kinder"):
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert found(text)["input_ids"] == bos + plain
        assert found.decode(plain) == tokenizer.decode(plain)
    reader = GGUFReader(file)
    assert field(reader, "tokenizer.ggml.add_bos_token") is True
    assert field(reader, "tokenizer.chat_template") == tokenizer.chat_template


@pytest.mark.parametrize("split", PIECE_SPLITS)
def test_each_splitting_rule_is_told_from_the_others(split):
    plain = vocabulary_of(byte_level())
    assert plain.split == "smollm"
    same = {name: getattr(plain, name) for name in ("kind", "tokens", "types", "merges", "bos", "eos", "pad")}
    assert vocabulary_of(build_tokenizer(Vocabulary(**same, split=split, add_bos=True))).split == split


def test_the_command_writes_a_model_that_answers_as_the_bank(micro, finished, tmp_path):
    """Weights and tokenizer from model.gguf alone."""
    values = [
        part for name in ("run_dir", "results_dir") for part in ("--set", f"{name}={getattr(micro, name)}")
    ]
    values += [part for name, value in MICRO.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "out"
    assert main(["export", "--group", "6", "--gguf", "--sentences", "2", "--to", str(out), *values]) == 0
    file = out / "model.gguf"
    model = AutoModelForCausalLM.from_pretrained(out, gguf_file=file.name, dtype=torch.float32).eval()
    tokenizer = build_tokenizer(read_vocabulary(open_gguf(file)))
    prompt = translation_prompt("Good morning.", "en", "fi", micro.prompt_style)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    greedy = {
        "do_sample": False,
        "eos_token_id": tokenizer.eos_token_id,
        "max_new_tokens": micro.max_new_tokens,
    }
    answer = model.generate(ids, **greedy)
    text = tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
    bank = load_modules(finished[5])
    options = {"prompt_style": micro.prompt_style, "max_new_tokens": micro.max_new_tokens}
    assert [extract_translation(text)] == bank.translate(["Good morning."], "en", "fi", **options)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "llama-server --model model.gguf" in card and "convert_hf_to_gguf" not in card


def test_an_adapter_has_none(micro, finished, tmp_path):
    with pytest.raises(
        ValueError, match="a GGUF file holds a merged model: leave out --gguf or --what adapter"
    ):
        export(micro, 6, tmp_path / "out", what="adapter", gguf=True)


def test_what_a_file_could_not_say_is_refused(tmp_path):
    tokenizer, file = byte_level(), tmp_path / "model.gguf"
    n = len(tokenizer)
    qwen = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=n,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    scaled = {"rope_type": "linear", "factor": 2.0}
    for model in (
        qwen,
        llama(n, attention_bias=True),
        llama(n, mlp_bias=True),
        llama(n, rope_scaling=scaled),
    ):
        with pytest.raises(ValueError, match="only a LLaMA without bias and scaled positions is"):
            write_gguf(model, tokenizer, file)
    tokenizer.backend_tokenizer.pre_tokenizer = None
    with pytest.raises(ValueError, match="a GGUF file can't describe this tokenizer"):
        write_gguf(llama(n), tokenizer, file)
    assert not file.exists()
