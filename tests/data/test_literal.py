"""Names of special tokens in text are text, for the tokenizers of every family: against the tokens of its parts."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from xalma.data.cleaning import Rules
from xalma.data.collate import tokenize_rows
from xalma.data.literal import special_names_in, token_ids
from xalma.data.prepare_workers import make_job, prepare_chunk
from xalma.preference.packed_pairs import tokenize_pair
from xalma.prompts import translation_prompt

SAMPLE = [
    "Translate this from English to German:\nEnglish: Use <s>old</s> tags\nGerman: <pad> | [INST] x"
] * 3
# family: (kind of model, special tokens, a prompt style)
FAMILIES = {
    "llama": ("pieces", ["<unk>", "<s>", "</s>", "<pad>"], "xalma"),
    "mistral": ("pieces", ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], "xalma"),
    "qwen": ("bytes", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
             "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"),
    "phi3": ("pieces", ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>", "<|end|>", "<|assistant|>"],
             "<|user|>\n{prompt}<|end|>\n<|assistant|>\n"),
    "gemma": ("pieces", ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
              "<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n"),
    "t5": ("unigram", ["<pad>", "</s>", "<unk>"], "alma"),
}  # fmt: skip


def make(kind: str, names: list[str]) -> PreTrainedTokenizerFast:
    """A small tokenizer of the family's kind: byte-level BPE, BPE over pieces with ▁, or unigram pieces."""
    special = [AddedToken(name, special=True, normalized=False) for name in names]
    unknown = "<unk>" if "<unk>" in names else None
    if kind == "unigram":
        letters = sorted({*"".join(SAMPLE), *map(chr, range(32, 127))} - {" "})
        vocab = [(name, 0.0) for name in names] + [("▁", -2.0)] + [(letter, -5.0) for letter in letters]
        tokenizer = Tokenizer(models.Unigram(vocab, unk_id=names.index("<unk>")))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.add_special_tokens(special)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=unknown, byte_fallback=False))
        if kind == "bytes":
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
        else:
            tokenizer.normalizer, alphabet = normalizers.Replace(" ", "▁"), [chr(c) for c in range(32, 127)]
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(SAMPLE, trainer)
    bos = next((name for name in names if name in ("<s>", "<bos>", "<|im_start|>")), names[0])
    eos = next((name for name in names if name in ("</s>", "<eos>", "<|im_end|>")), names[-1])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, unk_token=unknown
    )
    fast.add_special_tokens(
        {"additional_special_tokens": [name for name in names if name not in (bos, eos, unknown)]}
    )
    fast.pad_token = fast.pad_token or names[0]
    return fast


@pytest.fixture(params=FAMILIES)
def family(request):
    kind, names, style = FAMILIES[request.param]
    tokenizer = make(kind, names)
    special = {tokenizer.convert_tokens_to_ids(name) for name in names} - {tokenizer.unk_token_id}
    return tokenizer, [name for name in names if name != "<unk>"], special, style


def spelled(tokenizer, ids) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False).replace("▁", " ").strip()


def test_names_in_text_are_text(family):
    tokenizer, names, special, _ = family
    for text in [*names, *(f"Use {name}old{name} tags" for name in names)]:
        (ids,) = token_ids(tokenizer, [text])
        assert not special.intersection(ids)
        assert "".join(spelled(tokenizer, ids).split()) == "".join(text.split())
    plain = ["Use old tags", "", "a | b"]
    assert token_ids(tokenizer, plain) == tokenizer(plain, add_special_tokens=False)["input_ids"]  # as ever


def test_a_forms_own_tokens_stay_tokens(family):
    tokenizer, names, special, style = family
    count = lambda ids: [i for i in ids if i in special]  # noqa: E731
    texts = ("Use old tags", f"Use {names[-1]}old tags")
    clean, named = (translation_prompt(text, "en", "de", style) for text in texts)
    (before,), (after,) = token_ids(tokenizer, [clean]), token_ids(tokenizer, [named])
    assert before == tokenizer(clean, add_special_tokens=False)["input_ids"]
    assert count(after) == count(before) and len(after) > len(before)
    assert special_names_in(tokenizer, named, f" b{names[0]}") == [names[-1], names[0]]
    assert special_names_in(tokenizer, clean, " b") == []


def test_labels_pairs_and_prepared_text_have_no_special_token_of_a_texts_own(family):
    tokenizer, names, special, style = family
    end, name = tokenizer.eos_token_id, names[-1]
    prompt = translation_prompt("Use old tags", "en", "de", style)
    (row,), _ = tokenize_rows([{"prompt": prompt, "completion": f" Use {name}old tags"}], tokenizer, 999)
    labels = [i for i in row["labels"] if i >= 0]
    assert labels[-1] == end and not special.intersection(labels[:-1]) and len(labels) > 3
    eos = tokenizer.eos_token
    pair = tokenize_pair(tokenizer, {"prompt": prompt, "chosen": " b", "rejected": f" b{eos}"}, 999)
    assert pair["chosen_input_ids"] != pair["rejected_input_ids"] and pair["rejected_input_ids"].count(
        end
    ) <= (1 + pair["chosen_input_ids"][:-1].count(end))
    job = make_job(tokenizer, "de", Rules(language=None, near=False), 0)
    done = prepare_chunk(job, [(0, ("f:1", f"Use {name}old tags"))])
    if "Unigram" not in type(tokenizer.backend_tokenizer.model).__name__:  # no base of the recipe has one
        assert not special.intersection(done.ids[1:-1].tolist())


def test_a_users_own_form_is_left_to_the_tokenizer():
    """TRL's conversational data has the template's tokens in its strings."""
    kind, names, _ = FAMILIES["qwen"]
    tokenizer = make(kind, names)
    row = {"prompt": "<|im_start|>user\nHi<|im_end|>\n", "chosen": "a<|im_end|>", "rejected": "b<|im_end|>"}
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenize_pair(tokenizer, row, 99)["chosen_input_ids"].count(end) == 2
