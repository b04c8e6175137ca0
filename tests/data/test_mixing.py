"""Mixing: closed forms, draws that follow them, tokens counted to the last, streams that go on where they were."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice

import pytest
import torch

from xalma.data.blocks import PackedBlocks
from xalma.data.mixing import (
    mixture,
    parse_shares,
    profile_shares,
    pseudo_monolingual,
    sampling_probabilities,
)
from xalma.profiles import load_profile

SIZES = {"fi": 8.0, "zh": 1.0, "ja": 1.0}


@pytest.mark.parametrize(
    ("method", "temperature", "expected"),
    [
        ("uniform", 5.0, {"fi": 1 / 3, "zh": 1 / 3, "ja": 1 / 3}),
        ("given", 5.0, {"fi": 0.8, "zh": 0.1, "ja": 0.1}),
        ("temperature", 1.0, {"fi": 0.8, "zh": 0.1, "ja": 0.1}),
        ("temperature", 3.0, {"fi": 0.5, "zh": 0.25, "ja": 0.25}),  # 8 ** (1/3) = 2
        ("temperature", 1e9, {"fi": 1 / 3, "zh": 1 / 3, "ja": 1 / 3}),
    ],
)
def test_probabilities_are_the_closed_form(method, temperature, expected):
    found = sampling_probabilities(SIZES, method, temperature=temperature)
    assert found == pytest.approx(expected, abs=1e-8)
    assert list(found) == list(SIZES)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


def test_huge_sizes_do_not_overflow():
    found = sampling_probabilities({"a": 1e300, "b": 1e290}, "temperature", temperature=0.01)
    assert found == pytest.approx({"a": 1.0, "b": 0.0})


@pytest.mark.parametrize(
    ("sizes", "method", "why"),
    [
        ({}, "uniform", "at least one"),
        ({"fi": 0}, "uniform", "positive"),
        ({"fi": 2, "zh": -1}, "given", "positive"),
        (SIZES, "random", "unknown mixing method 'random'"),
    ],
)
def test_bad_sizes_and_methods(sizes, method, why):
    with pytest.raises(ValueError, match=why):
        sampling_probabilities(sizes, method)


def numbered(code: str, n: int):
    return (f"{code} {i}" for i in range(n))


def documents(probabilities: dict[str, float], n: int, seed: int = 0):
    return mixture({code: partial(numbered, code, n) for code in probabilities}, probabilities, seed)


def test_draws_follow_the_probabilities():
    """10,000 draws: five standard deviations are 0.025 at most."""
    shares = {"fi": 0.6, "zh": 0.3, "ja": 0.1}
    drawn = Counter(row["lang"] for row in islice(documents(shares, 10_000), 10_000))
    for code, share in shares.items():
        assert drawn[code] / 10_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 10_000) ** 0.5)


def test_a_language_starts_again_when_it_ends():
    rows = [row["text"] for row in islice(documents({"fi": 0.99, "zh": 0.01}, 5), 30)]
    finnish = [text for text in rows if text.startswith("fi")]
    assert finnish[:12] == [f"fi {i % 5}" for i in range(12)]


def test_the_order_follows_the_seed():
    def first(seed):
        return [row["text"] for row in islice(documents({"fi": 0.5, "zh": 0.5}, 100, seed), 50)]

    assert first(1) == first(1)
    assert first(1) != first(2)


class Letters:
    """A tokenizer of one token a character, so that blocks can be read: 1 = BOS, 2 = EOS, else the code point."""

    bos_token_id, eos_token_id = 1, 2
    added_tokens_decoder, all_special_tokens, all_special_ids, unk_token_id = {}, (), (), None

    def __call__(self, texts, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [[ord(c) for c in text] for text in texts]}


def written(blocks) -> str:
    return "".join({1: "<", 2: ">"}.get(i, chr(i)) for block in blocks for i in block["input_ids"].tolist())


def test_blocks_are_the_documents_in_a_row():
    one = mixture({"fi": partial(numbered, "fi", 40)}, {"fi": 1.0}, 0)
    blocks = list(PackedBlocks(one, Letters(), 16, 9))
    whole = "".join(f"<fi {i}>" for i in range(40))
    assert written(blocks) == whole[: 16 * 9]
    assert [tuple(b["input_ids"].shape) for b in blocks] == [(16,)] * 9


def test_the_loss_has_every_token_that_has_a_token_before_it():
    """The first token of a block is predicted from nothing: it must not count in the mean either."""
    (block,) = PackedBlocks(documents({"fi": 1.0}, 40), Letters(), 16, 1)
    assert block["labels"].tolist() == [-100, *block["input_ids"].tolist()[1:]]


def test_tokens_are_counted_exactly():
    packed = PackedBlocks(documents({"fi": 0.7, "zh": 0.3}, 200), Letters(), 16, 50)
    text = written(packed)
    assert sum(packed.tokens.values()) == len(text) == 50 * 16
    # the same count another way: whole documents from the start, the last one as far as it got in
    found, room = Counter(), 50 * 16
    for row in documents({"fi": 0.7, "zh": 0.3}, 200):
        found[row["lang"]] += min(len(row["text"]) + 2, room)
        room -= min(len(row["text"]) + 2, room)
        if not room:
            break
    assert packed.tokens == found


@pytest.mark.parametrize("codes", [("fi",), ("fi", "zh")])
def test_a_text_that_runs_out_begins_again(codes):
    """Also when all have run out: a budget may ask for several epochs of every language."""
    chances = dict.fromkeys(codes, 1 / len(codes))
    text = written(PackedBlocks(documents(chances, 3), Letters(), 16, 20))
    found = {
        code: [d for d in text.strip("<").split("<") if d.startswith(code) and d.endswith(">")]
        for code in codes
    }
    assert all(found[code] == [f"{code} {i % 3}>" for i in range(len(found[code]))] for code in codes)
    assert min(map(len, found.values())) > 9


def test_a_stream_that_ends_too_early_is_an_error():
    packed = PackedBlocks(documents({"fi": 1.0}, 3).take(3), Letters(), 16, 5)
    with pytest.raises(ValueError, match="the text ended after 1 of 5 blocks of 16 tokens"):
        list(packed)


def test_a_language_without_text_is_named():
    sources = {"fi": partial(numbered, "fi", 3), "zh": partial(numbered, "zh", 0)}
    with pytest.raises(ValueError, match="no text for zh: join a corpus"):
        list(PackedBlocks(mixture(sources, {"fi": 0.5, "zh": 0.5}, 0), Letters(), 16, 20))


@pytest.mark.parametrize("stop", [3, 11])
def test_resuming_in_a_later_epoch_goes_on_bit_for_bit(stop):
    def fresh():
        return PackedBlocks(documents({"fi": 0.7, "zh": 0.3}, 4), Letters(), 16, 20)

    expected = [block["input_ids"] for block in fresh()]
    broken = fresh()
    list(islice(broken, stop))
    resumed = fresh()
    resumed.load_state_dict(broken.state_dict())
    rest = [block["input_ids"] for block in resumed]
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[stop:], strict=True))


def test_a_second_pass_is_the_first_again():
    packed = PackedBlocks(documents({"fi": 0.5, "zh": 0.5}, 300), Letters(), 16, 30)
    first = written(packed)
    tokens = Counter(packed.tokens)
    assert written(packed) == first
    assert packed.tokens == tokens


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_a_resumed_stream_goes_on_bit_for_bit(stop):
    def fresh():
        return PackedBlocks(documents({"fi": 0.5, "zh": 0.3, "ja": 0.2}, 300), Letters(), 64, 30)

    whole = fresh()
    expected = [block["input_ids"] for block in whole]
    broken = fresh()
    list(islice(broken, stop))
    state = broken.state_dict()
    resumed = fresh()
    resumed.load_state_dict(state)
    rest = [block["input_ids"] for block in resumed]
    assert len(rest) == 30 - stop
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[stop:], strict=True))
    assert resumed.tokens == whole.tokens


@pytest.mark.parametrize("stops", [(0, 0), (1, 1), (1, 2), (7, 8), (2, 20)])
def test_a_stream_resumed_twice_goes_on_bit_for_bit(stops):
    """Also where the first resume took no document before the second state was asked for."""

    def fresh():
        return PackedBlocks(documents({"fi": 0.5, "zh": 0.3, "ja": 0.2}, 300), Letters(), 64, 30)

    expected = [block["input_ids"] for block in fresh()]
    found, state = [], None
    for stop in (*stops, 30):
        stream = fresh()
        if state is not None:
            stream.load_state_dict(state)
        found += [block["input_ids"] for block in islice(stream, stop - len(found))]
        state = stream.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_pseudo_monolingual_order_is_a_fair_coin():
    """4,000 pairs: five standard deviations are 158."""
    pairs = [(f"en{i}", f"fi{i}") for i in range(4000)]
    texts = list(pseudo_monolingual(pairs, seed=0))
    assert all(text in (f"en{i} fi{i}", f"fi{i} en{i}") for i, text in enumerate(texts))
    assert abs(sum(text.startswith("en") for text in texts) - 2000) < 158
    assert texts == list(pseudo_monolingual(pairs, seed=0))
    assert texts != list(pseudo_monolingual(pairs, seed=1))
    documents = list(pseudo_monolingual(pairs, seed=0, per_document=3))
    assert "\n".join(documents) == "\n".join(texts), "the same lines, three of them a document"
    assert {document.count("\n") for document in documents[:-1]} == {2}


# --- rules that look at sizes, and the profile's choice ----------------------------------------------


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (3.0, {"fi": 1.0, "zh": 1.0, "ja": 1.0}),  # nobody's cap is near
        (12.0, {"fi": 8.0, "zh": 2.0, "ja": 2.0}),  # two repeat twice, the rest goes to the third
        (100.0, {"fi": 16.0, "zh": 2.0, "ja": 2.0}),  # all at their caps: the budget can't be spent
    ],
)
def test_unimax_caps_epochs(budget, expected):
    found = sampling_probabilities(SIZES, "unimax", budget=budget, cap=2.0)
    total = sum(expected.values())
    assert found == pytest.approx({code: tokens / total for code, tokens in expected.items()})
    assert list(found) == list(SIZES)


def test_unimax_needs_a_budget():
    with pytest.raises(ValueError, match="unimax needs a budget"):
        sampling_probabilities(SIZES, "unimax")


def test_groups_share_alike_and_temperature_rules_inside():
    """fi, zh and ja are group 6, de is group 1, English stands alone."""
    found = sampling_probabilities({**SIZES, "de": 5.0, "en": 900.0}, "groups", temperature=3.0)
    expected = {"fi": 0.5 / 3, "zh": 0.25 / 3, "ja": 0.25 / 3, "de": 1 / 3, "en": 1 / 3}  # 8 ** (1/3) = 2
    assert found == pytest.approx(expected)


ALMA = "de:20,cs:14,is:8,zh:19,ru:22,en:17"


def test_given_shares_are_read_and_restricted_to_the_languages_asked():
    assert parse_shares(ALMA) == {"de": 20, "cs": 14, "is": 8, "zh": 19, "ru": 22, "en": 17}
    p = load_profile("tiny", mixing="given", mixing_shares=ALMA)
    assert profile_shares(p, ("de", "en")) == pytest.approx({"de": 20 / 37, "en": 17 / 37})
    with pytest.raises(ValueError, match="has no share for fi, ja: add them"):
        profile_shares(p, ("de", "fi", "ja"))


@pytest.mark.parametrize("bad", ["de=20", "de:x", "qq:3", "de"])
def test_bad_shares_are_named(bad):
    with pytest.raises(ValueError, match=f"bad share '{bad}'"):
        parse_shares(f"cs:1,{bad}")


def test_the_profiles_rule_on_text_packed_while_training():
    assert profile_shares(load_profile("tiny"), ("fi", "zh")) == {"fi": 0.5, "zh": 0.5}
    with pytest.raises(ValueError, match="prepare the text, set mixing_blocks"):
        profile_shares(load_profile("tiny", mixing="unimax"), ("fi", "zh"))
    found = profile_shares(
        load_profile("tiny", mixing="temperature", mixing_temperature=1.0), tuple(SIZES), SIZES
    )
    assert found == pytest.approx({"fi": 0.8, "zh": 0.1, "ja": 0.1})
