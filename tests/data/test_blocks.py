"""Mixed streams of prepared text: shares, epochs, exhausted languages, exact accounts and exact resumption."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from xalma.data.blocks import MixedBlocks, mixing_plan, mixing_text, prepared_files, prepared_fingerprint
from xalma.data.token_files import TokenFiles
from xalma.profiles import load_profile

SIZES = {"de": 50, "is": 7, "zh": 20}
SHARES = {"de": 0.5, "is": 0.2, "zh": 0.3}
T = 8


def token_files(folder, number: int, n_blocks: int) -> TokenFiles:
    """Blocks whose first tokens are (language number, block number)."""
    folder.mkdir(parents=True)
    blocks = np.zeros((n_blocks, T), np.uint16)
    blocks[:, 0], blocks[:, 1] = number, np.arange(n_blocks)
    half, files = n_blocks // 2, []
    for name, part in (("0.bin", blocks[:half]), ("1.bin", blocks[half:])):
        (folder / name).write_bytes(part.tobytes())
        files.append(
            {"name": name, "tokens": part.size, "sha256": hashlib.sha256(part.tobytes()).hexdigest()}
        )
    index = {"block_tokens": T, "dtype": "uint16", "files": files, "tokenizer": "x"}
    (folder / "index.json").write_text(json.dumps(index))
    return TokenFiles(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for number, (code, size) in enumerate(SIZES.items()):
        token_files(folder / "monolingual" / code, number, size)
    return folder


@pytest.fixture
def files(root):
    return prepared_files(load_profile("tiny", mixing_blocks=str(root)), "monolingual", tuple(SIZES))


def places(blocks) -> list[tuple[str, int]]:
    return [(list(SIZES)[int(block["input_ids"][0])], int(block["input_ids"][1])) for block in blocks]


def test_shares_are_followed_and_accounted_to_the_token(files):
    """3,000 draws: five standard deviations are 0.046 at most."""
    stream = MixedBlocks(files, SHARES, 3000, 0)
    drawn = Counter(code for code, _ in places(stream))
    for code, share in SHARES.items():
        assert drawn[code] / 3000 == pytest.approx(share, abs=0.046)
    assert stream.tokens == {code: n * T for code, n in drawn.items()}
    assert stream.tokens.total() == 3000 * T


def test_blocks_are_as_packed_blocks(files):
    (block,) = MixedBlocks(files, SHARES, 1, 0)
    assert block["input_ids"].dtype == torch.int64 and block["input_ids"].shape == (T,)
    assert block["labels"].tolist() == [-100, *block["input_ids"].tolist()[1:]]


def test_each_block_comes_once_an_epoch_in_new_orders(files):
    stream = MixedBlocks(files, SHARES, 1000, 0)
    icelandic = [place for code, place in places(stream) if code == "is"]
    epochs = [icelandic[i : i + 7] for i in range(0, len(icelandic) - 7, 7)]
    assert len(epochs) > 20
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_a_language_that_stops_leaves_the_rest_to_the_others(files):
    stream = MixedBlocks(files, SHARES, 70, 0, "stop")
    drawn = Counter(places(stream))
    assert set(drawn.values()) == {1}
    assert Counter(code for code, _ in drawn)["is"] == 7
    with pytest.raises(ValueError, match="ended after 77 of 80 blocks of 8 tokens"):
        list(MixedBlocks(files, SHARES, 80, 0, "stop"))


@pytest.mark.parametrize("exhausted", ["repeat", "stop"])
@pytest.mark.parametrize("stop", [0, 1, 33, 69])
def test_a_resumed_stream_is_the_unbroken_one(files, stop, exhausted):
    whole = MixedBlocks(files, SHARES, 70, 3, exhausted)
    expected = places(whole)
    broken = MixedBlocks(files, SHARES, 70, 3, exhausted)
    assert places(islice(broken, stop)) == expected[:stop]
    state = json.loads(json.dumps(broken.state_dict()))
    resumed = MixedBlocks(files, SHARES, 70, 3, exhausted)
    resumed.load_state_dict(state)
    assert places(resumed) == expected[stop:]
    assert resumed.tokens == whole.tokens


def test_order_follows_the_seed_and_a_second_pass_is_the_first_again(files):
    stream = MixedBlocks(files, SHARES, 60, 0)
    assert places(stream) == places(stream) == places(MixedBlocks(files, SHARES, 60, 0))
    assert places(stream) != places(MixedBlocks(files, SHARES, 60, 1))


def test_unequal_blocks_are_refused(files, tmp_path):
    other = token_files(tmp_path / "x", 0, 4)
    other.block_tokens = 16
    with pytest.raises(ValueError, match=r"unequal blocks: \{'de': 8, 'is': 16\}"):
        MixedBlocks({"de": files["de"], "is": other}, SHARES, 1, 0)


# --- the plan ----------------------------------------------------------------------------------------


def test_the_plan_is_the_closed_form():
    plan = mixing_plan({"de": 100e9, "is": 0.04e9}, {"de": 0.92, "is": 0.08}, 20e9)
    assert plan.loc["is", "epochs"] == pytest.approx(40)
    assert plan.loc["de", "epochs"] == pytest.approx(0.184)
    assert mixing_text(plan) == "20 B tokens; repeated: is 40×; read in part: de 18%"


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [
        (10.0, {"a": 5.0, "b": 3.0, "c": 2.0}),
        (20.0, {"a": 11.25, "b": 6.75, "c": 2.0}),  # c ends at 10, its 20 % go to a and b as 5 : 3
        (300.0, {"a": 100.0, "b": 10.0, "c": 2.0}),  # all there is
    ],
)
def test_stopped_languages_are_filled_by_the_others(budget, tokens):
    plan = mixing_plan({"a": 100.0, "b": 10.0, "c": 2.0}, {"a": 0.5, "b": 0.3, "c": 0.2}, budget, "stop")
    assert plan["tokens"].to_dict() == pytest.approx(tokens)
    assert plan["epochs"].max() <= 1 + 1e-9


def test_the_plan_is_what_the_stream_takes(files):
    """Stopping languages, 70 blocks: the expectation within five standard deviations of so few draws."""
    plan = mixing_plan({code: n * T for code, n in SIZES.items()}, SHARES, 70 * T, "stop")
    taken = MixedBlocks(files, SHARES, 70, 0, "stop")
    list(taken)
    assert taken.tokens["is"] == plan.loc["is", "tokens"] == 7 * T
    assert abs(taken.tokens["zh"] - plan.loc["zh", "tokens"]) <= 5 * T


def test_the_fingerprint_follows_the_prepared_text(root, tmp_path):
    p = load_profile("tiny")
    assert prepared_fingerprint(p) == ""
    before = prepared_fingerprint(p.but(mixing_blocks=str(root)))
    token_files(tmp_path / "monolingual" / "de", 0, 9)
    assert before and prepared_fingerprint(p.but(mixing_blocks=str(tmp_path))) not in ("", before)
