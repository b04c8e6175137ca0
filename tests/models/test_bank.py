"""The bank: every row through its own module, exactly; whatever the layout, the order of rows, or the way to decode."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import xalma
from xalma.languages import GROUPS, PAPER_GROUPS, adapter_name, directions, gated_group, group_of
from xalma.models.adapters import gate, parameter_hash, save_adapter
from xalma.models.adapters import load_adapters as load_with_peft
from xalma.models.backbone import build_llama, load_base, save_base, train_tokenizer
from xalma.models.bank import ModuleBank
from xalma.models.convert import convert
from xalma.models.generation import translate
from xalma.models.grouped_lora import Gate, Packed
from xalma.models.layouts import PROJECTIONS, open_checkpoint

CODES = [code for group in PAPER_GROUPS for code in GROUPS[group]]
# Not sorted by group, with neighbours of one group, and groups 1, 6 and 8 among them; 2, 4, 5 and 7 have no row.
LANGUAGES = ["zh", "de", "tr", "fi", "ka", "en-sv", "ru-en"]
EXACT = {"atol": 1e-5, "rtol": 0}


def write_modules(folder: Path, groups, *, rank: int = 8, seed: int = 0) -> Path:
    """base/ and group1/ …, as peft saves them; A and B are far from zero, so that a wrong module shows."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    base, _ = load_base(folder / "base")
    model = get_peft_model(base, config, adapter_name=adapter_name(groups[0]))
    for group in groups[1:]:
        model.add_adapter(adapter_name(group), config)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(std=0.2)
    for group in groups:
        save_adapter(model, group, folder / f"group{group}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base of two layers with grouped-query attention, a tokenizer, and eight modules."""
    folder = tmp_path_factory.mktemp("bank")
    tokenizer = train_tokenizer(["Translate this from English to German: ein zwei drei"] * 20, 300)
    small = build_llama(tokenizer, hidden_size=32, layers=2, heads=4, max_positions=256, seed=1)
    small.config.num_key_value_heads = 2  # k and v narrower than q
    save_base(type(small)(small.config), tokenizer, folder / "base")
    return write_modules(folder, PAPER_GROUPS)


@pytest.fixture(scope="module")
def shared_bank(folder):
    """Not to be changed by a test."""
    return xalma.load_modules(folder)


@pytest.fixture(scope="module")
def peft_model(folder):
    """The independent truth: peft's model, gated to one group at a time."""
    return load_with_peft(
        load_base(folder / "base")[0], {g: folder / f"group{g}" for g in PAPER_GROUPS}
    ).eval()


@pytest.fixture
def bank(folder):
    return xalma.load_modules(folder, only=[1, 3, 6, 8])


def batch(n: int, side: str = "left", seed: int = 0) -> dict[str, torch.Tensor]:
    """n rows of 4 to 9 tokens, padded on one side."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 250, (n, 9), generator=generator)
    lengths = torch.randint(4, 10, (n, 1), generator=generator)
    at = torch.arange(9) if side == "right" else torch.arange(9).flip(0)
    mask = (at < lengths).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def by_group(languages):
    """(group, the rows of it) of each group in the batch."""
    groups = [gated_group(name) for name in languages]
    return [(g, [i for i, other in enumerate(groups) if other == g]) for g in dict.fromkeys(groups)]


def rows_of(inputs, rows):
    return {name: tensor[rows] for name, tensor in inputs.items()}


@pytest.mark.parametrize("side", ["left", "right"])
def test_all_98_directions_in_one_batch(shared_bank, peft_model, side):
    """Each row as in a batch of its own group, by peft and by the merged model."""
    requests = directions(CODES)
    assert len(requests) == 98
    inputs = batch(98, side)
    with torch.no_grad():
        mixed = shared_bank(**inputs, languages=requests).logits
        for group, rows in by_group(requests):
            seen = inputs["attention_mask"][rows].bool()
            gate(peft_model, group)
            for model in (peft_model, shared_bank.merge(group)):
                one = model(**rows_of(inputs, rows)).logits
                torch.testing.assert_close(mixed[rows][seen], one[seen], **EXACT)
        assert (mixed - shared_bank(**inputs, languages=["zh"] * 98).logits).abs().max() > 0.1, (
            "modules differ"
        )


@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
        {"num_return_sequences": 3, "do_sample": True, "top_k": 1},
    ],
    ids=["greedy", "beam", "beams returned", "samples"],
)
def test_generate_as_one_group_at_a_time(shared_bank, peft_model, decoding):
    inputs, new = batch(len(LANGUAGES)), {"max_new_tokens": 6, "min_new_tokens": 6}
    k = decoding.get("num_return_sequences", 1)
    mixed = shared_bank.generate(**inputs, languages=LANGUAGES, **new, **decoding).view(len(LANGUAGES), k, -1)
    for group, rows in by_group(LANGUAGES):
        gate(peft_model, group)
        one = peft_model.generate(**rows_of(inputs, rows), **new, **decoding)
        assert torch.equal(mixed[rows].flatten(0, 1), one)


def test_scores_of_beams_come_in_the_callers_order(shared_bank, peft_model):
    """sequences_scores, and transition scores, which follow beam_indices through the rows of the scores."""
    inputs = batch(len(LANGUAGES))
    more = {"num_beams": 3, "max_new_tokens": 5, "min_new_tokens": 5, "return_dict_in_generate": True,
            "output_scores": True}  # fmt: skip
    found = shared_bank.generate(**inputs, languages=LANGUAGES, **more)
    steps = peft_model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    for group, rows in by_group(LANGUAGES):
        gate(peft_model, group)
        one = peft_model.generate(**rows_of(inputs, rows), **more)
        torch.testing.assert_close(found.sequences_scores[rows], one.sequences_scores, **EXACT)
        expected = peft_model.compute_transition_scores(one.sequences, one.scores, one.beam_indices)
        torch.testing.assert_close(steps[rows], expected, **EXACT)


def test_samples_are_drawn_from_each_rows_own_module(shared_bank):
    inputs = batch(len(LANGUAGES))
    torch.manual_seed(3)
    found = shared_bank.generate(
        **inputs,
        languages=LANGUAGES,
        do_sample=True,
        num_return_sequences=2,
        max_new_tokens=4,
        min_new_tokens=4,
        return_dict_in_generate=True,
        output_logits=True,
    )
    mask = torch.cat(
        [inputs["attention_mask"].repeat_interleave(2, 0), torch.ones(14, 3, dtype=torch.long)], 1
    )
    languages = [name for name in LANGUAGES for _ in range(2)]
    with torch.no_grad():
        forced = shared_bank(
            input_ids=found.sequences[:, :-1], attention_mask=mask, languages=languages
        ).logits
    torch.testing.assert_close(torch.stack(found.logits, 1), forced[:, -4:], **EXACT)
    assert len(set(map(tuple, found.sequences[:, 9:].tolist()))) > 7, "two samples of a row differ"


def test_a_cache_of_the_callers_own(shared_bank):
    """Step by step through a cache gives what the whole row gives."""
    ids = batch(7, "right")["input_ids"].clamp(min=3)
    with torch.no_grad():
        whole = shared_bank(input_ids=ids, languages=LANGUAGES).logits
        first = shared_bank(input_ids=ids[:, :5], languages=LANGUAGES, use_cache=True)
        rest = shared_bank(
            input_ids=ids[:, 5:], past_key_values=first.past_key_values, languages=LANGUAGES
        ).logits
    torch.testing.assert_close(rest, whole[:, 5:], **EXACT)


@pytest.mark.parametrize("n", [1, 3, 5, 40])
@pytest.mark.parametrize("requests", [["zh"], ["de", "bg", "fi", "tr"], ["de", "fi", "fi", "tr", "tr", "tr"]])
def test_any_number_of_rows_and_tokens(bank, n, requests):
    """Few and many tokens, one group and several, equal counts and not: the same numbers by every way through."""
    ids = torch.randint(3, 250, (len(requests) * n, 1), generator=torch.Generator().manual_seed(n))
    languages = [name for name in requests for _ in range(n)]
    recorded = bank(
        input_ids=ids, languages=languages
    ).logits  # with autograd: one linear layer after another
    with torch.no_grad():
        torch.testing.assert_close(bank(input_ids=ids, languages=languages).logits, recorded, **EXACT)


@pytest.mark.parametrize(
    "languages",
    [
        ["tr", "zh", "de", "fi", "zh", "sv"],
        ["de", "sv", "de", "de", "ru", "ru"],
        ["tr", "tr", "zh", "zh", "tr", "ru"],
    ],
)
def test_padded_groups_give_the_same(bank, monkeypatch, languages):
    """What a GPU runs: neighbouring groups of unequal numbers of rows in one product."""
    inputs, plain, padded = batch(6), Gate.runs, []

    def runs(self, scales, each, device):
        padded.extend(plain(self, scales, each, torch.device("cpu")))
        return padded[:]

    with torch.no_grad():
        expected = bank(**inputs, languages=languages).logits
        monkeypatch.setattr(Gate, "runs", runs)
        torch.testing.assert_close(bank(**inputs, languages=languages).logits, expected, **EXACT)
    assert any(run.put is not None for run in padded)


def test_the_base_stays_as_it_is(bank, folder):
    plain, _ = load_base(folder / "base")
    before, inputs = parameter_hash(plain), batch(7)
    bank.trainable([6])
    bank(**inputs, languages=LANGUAGES).logits.sum().backward()
    bank.generate(**inputs, languages=LANGUAGES, max_new_tokens=2)
    merged = bank.merge(6)
    bank.unload(3)
    assert parameter_hash(bank.base) == before
    assert [name for name, _ in bank.base.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    with torch.no_grad():
        expected = plain(**inputs).logits
        assert torch.equal(bank.base(**inputs).logits, expected), "without languages it is the plain base"
        assert not torch.equal(merged(**inputs).logits, expected)
    assert type(merged) is type(plain) and not [m for m in merged.modules() if "forward" in vars(m)]


# -- training ---------------------------------------------------------------------------------------------------------


def labelled(n: int) -> dict[str, torch.Tensor]:
    inputs = batch(n, "right")
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}


def parameters_of(bank: ModuleBank, group: int) -> list[torch.nn.Parameter]:
    return [p for shared in bank.inputs for pair in shared.matrices(group) for p in pair]


def trained(bank: ModuleBank, batches) -> None:
    """One AdamW step on the sum over (inputs, languages) of the summed loss."""
    optimizer = torch.optim.AdamW([p for p in bank.parameters() if p.requires_grad], lr=1e-2)
    for inputs, languages in batches:
        tokens = (inputs["labels"][:, 1:] != -100).sum()
        (bank(**inputs, languages=languages).loss * tokens).backward()
    optimizer.step()


def test_a_mixed_step_is_the_steps_of_each_group(bank, folder):
    other = xalma.load_modules(folder, only=[1, 3, 6, 8])
    inputs, before = labelled(7), copy.deepcopy(parameters_of(bank, 6))
    for one in (bank, other):
        one.trainable([1, 3, 6, 8], dropout=0.0)
        one.train()
    trained(bank, [(inputs, LANGUAGES)])
    trained(other, [(rows_of(inputs, rows), [group] * len(rows)) for group, rows in by_group(LANGUAGES)])
    for group in (1, 3, 6, 8):
        for mine, theirs in zip(parameters_of(bank, group), parameters_of(other, group), strict=True):
            torch.testing.assert_close(mine, theirs, **EXACT)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(before, parameters_of(bank, 6), strict=True))


def test_gradients_equal_pefts(bank, folder):
    inputs, rows = labelled(7), [0, 3, 4]
    bank.trainable([6], dropout=0.0)
    bank(**rows_of(inputs, rows), languages=["zh", "fi", "ka"]).loss.backward()
    model = load_with_peft(load_base(folder / "base")[0], {6: folder / "group6"}, trainable=6)
    model(**rows_of(inputs, rows)).loss.backward()
    for shared in bank.inputs:
        for name, pair in zip(shared.names, shared.matrices(6), strict=True):
            layer = model.get_base_model().get_submodule(name)
            for mine, letter in zip(pair, (layer.lora_A, layer.lora_B), strict=True):
                torch.testing.assert_close(mine.grad, letter["group6"].weight.grad, **EXACT)


def test_modules_without_a_row_and_the_base_get_no_gradient(bank):
    bank.trainable([1, 3, 6])
    bank(**labelled(2), languages=["zh", "ru"]).loss.backward()
    has = {group: {p.grad is not None for p in parameters_of(bank, group)} for group in bank.groups}
    assert has == {1: {False}, 3: {True}, 6: {True}, 8: {False}}, "8 is frozen, 1 has no row"
    assert all(p.grad is None and not p.requires_grad for p in bank.base.parameters())


def test_dropout_acts_in_training_alone(bank):
    inputs = labelled(4)
    bank.trainable([6], dropout=0.5)
    call = lambda: bank(**inputs, languages=["zh"] * 4).logits  # noqa: E731
    bank.train()
    assert not torch.equal(call(), call())
    bank.eval()
    evaluated = call()
    assert torch.equal(call(), evaluated)
    with torch.no_grad():
        torch.testing.assert_close(call(), evaluated, **EXACT)


def test_gradient_checkpointing_runs_the_layers_gated_again(bank):
    """In backward, after forward has returned."""
    inputs, grads = labelled(7), []
    bank.trainable([1, 3, 6, 8], dropout=0.0)
    bank.train()
    for checkpointed in (False, True):
        if checkpointed:
            bank.base.gradient_checkpointing_enable({"use_reentrant": False})
        bank.zero_grad()
        bank(**inputs, languages=LANGUAGES, use_cache=False).loss.backward()
        grads.append([p.grad.clone() for g in bank.groups for p in parameters_of(bank, g)])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(again, plain, **EXACT)


# -- loading, adding, unloading ---------------------------------------------------------------------------------------


def test_every_layout_gives_the_same_bank(folder, shared_bank, tmp_path):
    inputs = batch(7)
    sources = {
        "all modules": (convert(open_checkpoint(folder), tmp_path / "all"), None),
        "mapping": ({group: folder / f"group{group}" for group in PAPER_GROUPS}, None),
        "pattern": (f"{folder}/group{{g}}", None),
    }
    with torch.no_grad():
        expected = shared_bank(**inputs, languages=LANGUAGES).logits
        for source, only in sources.values():
            bank = xalma.load_modules(source, only)
            assert bank.groups == PAPER_GROUPS
            assert torch.equal(bank(**inputs, languages=LANGUAGES).logits, expected)


def test_only_reads_what_is_asked_for(folder):
    assert xalma.load_modules(folder, only="zh").groups == (6,)
    assert xalma.load_modules(folder, only=["en-ru", "uk", 6]).groups == (3, 6)
    nowhere = {3: folder / "group3", 6: folder / "nothing here"}
    assert xalma.load_modules(nowhere, only="ru").groups == (3,)
    with pytest.raises(ValueError, match="no module of group 7"):
        xalma.load_modules(folder / "group6", only="hi")


def test_add_and_unload(folder, bank):
    inputs, languages = batch(3), ["zh", "ru", "de"]
    with torch.no_grad():
        before = bank(**inputs, languages=languages).logits
        kept = parameters_of(bank, 6)
        bank.unload(8)
        bank.add(2, folder / "group2")
        assert bank.groups == (1, 2, 3, 6)
        torch.testing.assert_close(bank(**inputs, languages=languages).logits, before, **EXACT)
        spanish = bank(**inputs, languages=["es"] * 3).logits
        torch.testing.assert_close(spanish, bank.merge(2)(**inputs).logits, **EXACT)
    assert all(a is b for a, b in zip(kept, parameters_of(bank, 6), strict=True)), (
        "an optimiser may hold them"
    )
    with pytest.raises(ValueError, match=r"group 8 is not loaded \(loaded: 1, 2, 3, 6\)"):
        bank(**inputs, languages=["tr"] * 3)
    with pytest.raises(ValueError, match="group 2 is loaded already"):
        bank.add(2, folder / "group2")
    for group in bank.groups:
        bank.unload(group)
    assert bank.groups == () and not list(bank.inputs.parameters())


def test_a_ninth_module_of_another_rank(folder, bank, swahili, tmp_path):
    """A language outside the 50; the others give what they gave before."""
    (tmp_path / "base").symlink_to(folder / "base")
    write_modules(tmp_path, [9], rank=12, seed=9)
    inputs = batch(4)
    with torch.no_grad():
        before = bank(**inputs, languages=["zh", "ru", "de", "tr"]).logits
        bank.add(9, tmp_path / "group9")
        after = bank(**inputs, languages=["zh", "ru", "de", "tr"]).logits
        torch.testing.assert_close(after, before, **EXACT)
        mixed = bank(**inputs, languages=["sw", "zh", "en-sw", "de"]).logits
        alone = load_with_peft(load_base(folder / "base")[0], {9: tmp_path / "group9"})(**inputs).logits
    torch.testing.assert_close(mixed[[0, 2]], alone[[0, 2]], **EXACT)
    torch.testing.assert_close(mixed[3], bank.merge(1)(**inputs).logits[3].detach(), **EXACT)


def test_a_module_of_another_base_changes_nothing(folder, bank, tmp_path):
    checkpoint = open_checkpoint(folder / "group2")
    odd = copy.copy(checkpoint)
    tensors = [(n, s, t[:, :-1] if s == "A" else t) for n, s, t in checkpoint.module_tensors(2)]
    object.__setattr__(odd, "module_tensors", lambda group: iter(tensors))
    with pytest.raises(ValueError, match="module of group 2 does not fit this base: A of "):
        bank.read(odd, [2])
    assert bank.groups == (1, 3, 6, 8)


def test_a_module_trained_in_a_mixed_batch_is_saved_for_peft(bank, folder, tmp_path):
    """Two groups trained at once, saved, read by peft and by a bank: the trained matrices, bit for bit."""
    bank.trainable([3, 6], dropout=0.0)
    trained(bank, [(labelled(4), ["zh", "ru", "fi", "bg"])])
    saved = {group: bank.save(group, tmp_path / f"group{group}") for group in (3, 6)}
    again = xalma.load_modules(saved)
    for group in (3, 6):
        for mine, theirs in zip(parameters_of(bank, group), parameters_of(again, group), strict=True):
            assert torch.equal(mine, theirs)
    inputs, model = batch(3), load_with_peft(load_base(folder / "base")[0], saved)
    gate(model, "zh")
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(bank(**inputs, languages=["zh", "fi", 6]).logits, expected, **EXACT)
    with pytest.raises(ValueError, match="group 2 is not loaded"):
        bank.save(2, tmp_path / "group2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["group3", "group6"]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_packed_weights_give_the_same(bank, folder, monkeypatch):
    """Outputs and gradients; a merged copy, a moved bank and the base's own tensors don't see the packing.

    load_modules packs where a second copy of the weights leaves half of the free memory.
    """
    inputs, pages = labelled(7), {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("xalma.models.bank.os.sysconf", pages.get)
    plain = xalma.load_modules(folder, only=[1, 3, 6, 8])
    assert all(shared.packed for shared in bank.inputs) and not any(shared.packed for shared in plain.inputs)
    assert parameter_hash(bank.base) == parameter_hash(plain.base)
    for one in (bank, plain):
        one.trainable([1, 3, 6, 8], dropout=0.0)
    mine, theirs = (one(**inputs, languages=LANGUAGES) for one in (bank, plain))
    torch.testing.assert_close(mine.logits, theirs.logits, **EXACT)
    mine.loss.backward(), theirs.loss.backward()
    for a, b in zip(parameters_of(bank, 6), parameters_of(plain, 6), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)
    with torch.no_grad():
        merged = bank.merge(6)(input_ids=inputs["input_ids"]).logits
        assert torch.equal(merged, plain.merge(6)(input_ids=inputs["input_ids"]).logits)
        expected = bank(**inputs, languages=LANGUAGES).logits
        torch.testing.assert_close(
            bank.double()(**inputs, languages=LANGUAGES).logits.float(), expected, **EXACT
        )
    with pytest.raises(ValueError, match="float32 on a CPU"):
        bank.pack()


def test_packed_layers_keep_their_own_biases():
    layers = [torch.nn.Linear(8, out, bias=out != 4) for out in (4, 6)]
    for layer in layers:
        layer.requires_grad_(False)
    x, other = torch.randn(2, 3, 8), torch.randn(2, 1, 8)
    expected = [[layer(inputs) for layer in layers] for inputs in (x, other)]
    packed = Packed(layers)
    for inputs, values in zip((x, other), expected, strict=True):
        assert packed.fits(inputs)
        assert not packed.fits(inputs.half()) and not packed.fits(inputs.clone().requires_grad_())
        for found, value in zip(packed(inputs), values, strict=True):
            torch.testing.assert_close(found, value, **EXACT)


def test_the_layers_are_left_as_they_were(folder):
    """A forward that an instance had of its own, as accelerate gives it, is called, and back afterwards."""
    base, _ = load_base(folder / "base")
    own, seen = base.model.layers[0].mlp.down_proj, []
    plain = own.forward
    own.forward = lambda x: seen.append(x.shape) or plain(x)
    mine = own.forward
    bank = ModuleBank(
        base, [name for name, _ in base.named_modules() if name.rsplit(".", 1)[-1] in PROJECTIONS]
    )
    with torch.no_grad():
        base(torch.tensor([[1, 5, 7]]))
    assert seen and own.forward is not mine
    for shared in bank.inputs:
        shared.detach()
    assert own.forward is mine and "forward" not in vars(base.model.layers[0].mlp.up_proj)


def test_moving_keeps_matrices_and_parameters_together(bank):
    inputs = batch(7, "right")
    with torch.no_grad():
        expected = bank(**inputs, languages=LANGUAGES).logits
        bank.double()
        found = bank(**inputs, languages=LANGUAGES).logits
        assert found.dtype is torch.float64
        torch.testing.assert_close(found.float(), expected, **EXACT)
        for parameter in parameters_of(bank, 6):
            parameter.zero_()
        plain = bank.base(**inputs).logits
        torch.testing.assert_close(bank(**inputs, languages=["zh"] * 7).logits, plain)


# -- the gate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_gate_of_every_language_and_direction(code):
    assert {gated_group(name) for name in (code, f"en-{code}", f"{code}-en", group_of(code))} == {
        group_of(code)
    }


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("en", "English belongs to every group"),
        ("xx", "unknown language code 'xx'"),
        ("de-fr", "de-fr is not English-centric"),
        ("en-en", "source and target are the same"),
        ("en-xx", "unknown language code 'xx'"),
        (0, "no language group 0"),
        (9, "no language group 9"),
    ],
)
def test_gate_errors(shared_bank, request_, why):
    with pytest.raises(ValueError, match=why):
        shared_bank(**batch(1), languages=[request_])


def test_a_language_for_each_row(shared_bank):
    with pytest.raises(ValueError, match="2 languages for 3 rows of"):
        shared_bank(**batch(3), languages=["zh", "de"])
    with pytest.raises(ValueError, match="2 languages for 3 rows of"):
        shared_bank.generate(**batch(3), languages=["zh", "de"])
    with pytest.raises(ValueError, match="a layer got 3 rows for 2 languages"):
        Gate.of([1, 2]).tokens(torch.zeros(3, 1, 8))


@pytest.mark.parametrize(
    ("groups", "runs"),
    [
        ([6], [(2, 3, 0, 1)]),
        ([1, 3, 6, 8], [(0, 4, 0, 4)]),
        ([1, 1, 3, 3, 8, 8], [(0, 2, 0, 4), (3, 4, 4, 6)]),  # 6 lies between and has no row
        ([1, 3, 3, 6, 6, 8], [(0, 1, 0, 1), (1, 3, 1, 5), (3, 4, 5, 6)]),
    ],
)
def test_runs_of_a_batch(groups, runs):
    found = Gate.of(groups).runs(dict.fromkeys((1, 3, 6, 8), 2.0))
    assert [(r.slots.start, r.slots.stop, r.tokens.start, r.tokens.stop) for r in found] == runs
    assert all(r.take is r.put is None for r in found)


def test_short_groups_share_a_padded_product_on_a_gpu():
    scales = {1: 2.0, 3: 2.0, 6: 2.0, 8: 4.0}
    one, other = Gate.of([1, 1, 1, 3, 6, 8]).runs(scales, 2, torch.device("cpu"))  # 8 has a scale of its own
    assert (one.slots, one.tokens, other.slots, other.tokens) == (
        slice(0, 3),
        slice(0, 10),
        slice(3, 4),
        slice(10, 12),
    )
    assert other.take is None and one.take[one.put].tolist() == list(
        range(10)
    )  # a token taken comes back to its place
    x = torch.arange(12.0)[:, None]
    assert one.rows(x)[1:, :2].flatten().tolist() == [6, 7, 8, 9]
    long = Gate.of([1, 1, 3]).runs(scales, 200, torch.device("cpu"))  # 400 tokens: a product of arithmetic
    assert [r.put for r in long] == [None, None]


# -- text -------------------------------------------------------------------------------------------------------------


def test_translate_mixes_directions_and_keeps_the_order(shared_bank, peft_model):
    texts = ["ein", "zwei drei", "ein zwei", "drei", "vier fünf sechs"]
    src, tgt = ["de", "en", "en", "zh", "en"], ["en", "de", "ru", "en", "fi"]
    decoding = {"max_new_tokens": 5, "batch_size": 2, "beams": 2}
    mixed = shared_bank.translate(texts, src, tgt, **decoding)
    one = [
        translate(peft_model, shared_bank.tokenizer, [text], *pair, **decoding)[0]
        for text, *pair in zip(texts, src, tgt, strict=True)
    ]
    assert mixed == one and any(one)
    assert shared_bank.translate([], "de", "en") == []


def test_batches_hold_a_group_where_it_fills_them_and_lengths_that_are_alike(shared_bank, monkeypatch):
    """Five texts of each of three groups, in batches of four: at the border of two groups those of like length meet."""
    batches, plain = [], shared_bank.generate
    monkeypatch.setattr(
        shared_bank,
        "generate",
        lambda input_ids, attention_mask, languages, **options: (
            batches.append((list(languages), attention_mask.sum(1).tolist()))
            or plain(input_ids, attention_mask=attention_mask, languages=languages, **options)
        ),
    )
    texts = ["ein " * (1 + 5 * n) for n in range(5)] * 3
    tgt = [code for code in ("de", "ru", "fi") for _ in range(5)]  # groups 1, 3, 6
    shared_bank.translate(texts, "en", tgt, max_new_tokens=1, batch_size=4)
    assert [sorted(set(groups)) for groups, _ in batches] == [[1], [1, 3], [3, 6], [6]]
    spread = [max(lengths) - min(lengths) for _, lengths in batches]
    longest = max(length for _, lengths in batches for length in lengths)
    assert batches[0][1] == sorted(batches[0][1], reverse=True), "longest first, so that memory fails early"
    assert max(spread[1:3]) < longest - min(length for _, lengths in batches for length in lengths)


def test_translate_checks_all_before_it_starts(shared_bank):
    with pytest.raises(ValueError, match="de-fr is not English-centric"):
        shared_bank.translate(["a", "b"], ["en", "de"], ["de", "fr"])
    with pytest.raises(ValueError, match="2 texts, 1 sources"):
        shared_bank.translate(["a", "b"], ["en"], "de")
    with pytest.raises(ValueError, match="no tokenizer"):
        ModuleBank(shared_bank.base, [], None)._tokenizer()
