"""Gemma-3 as a base everywhere: windows shorter than texts, normed q and k, scaled and tied embeddings, bfloat16."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from test_bank import EXACT, batch, by_group, rows_of, write_modules
from transformers import AutoConfig, AutoModelForCausalLM

import xalma
from xalma import base_files
from xalma.data.collate import IsolatedDocuments
from xalma.models import cuda_graphs
from xalma.models.adapters import gate, parameter_hash
from xalma.models.adapters import load_adapters as load_with_peft
from xalma.models.backbone import load_base, save_base, train_tokenizer
from xalma.models.bases.vocabulary import restore_base, trim_base
from xalma.models.losses import labelled_loss
from xalma.training import stages
from xalma.training.export.export import export
from xalma.training.ladder import MODULE_STAGES

WINDOW = 6
LANGUAGES = ["zh", "de", "tr", "fi", "ka", "en-sv", "ru-en"]
GREEDY = {"do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}


def gemma(vocab_size: int, attention: str = "eager"):
    """A tiny random Gemma-3 of three layers, one of them without a window; sharp enough for a lost window to show."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma3_text",
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base/ and three modules on all seven projections."""
    folder = tmp_path_factory.mktemp("gemma")
    tokenizer = train_tokenizer(["Translate this from English to German: ein zwei drei"] * 20, 300)
    save_base(gemma(len(tokenizer)), tokenizer, folder / "base")
    return write_modules(folder, (1, 3, 6, 8))


def test_the_window_matters(folder):
    model, _ = load_base(folder / "base")
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        windowed = model(ids).logits
        model.config.sliding_window = 512
        whole = model(ids).logits
    torch.testing.assert_close(windowed[:, :WINDOW], whole[:, :WINDOW], **EXACT)
    assert (windowed[:, WINDOW:] - whole[:, WINDOW:]).abs().max() > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mixed_batch_of_the_bank(folder, side):
    """Forward and greedy decoding, each row as peft's own model of its group, prompts longer than the window."""
    bank = xalma.load_modules(folder)
    peft_model = load_with_peft(
        load_base(folder / "base")[0], {g: folder / f"group{g}" for g in (1, 3, 6, 8)}
    ).eval()
    inputs = batch(len(LANGUAGES), side)
    with torch.no_grad():
        mixed = bank(**inputs, languages=LANGUAGES).logits
        decoded = bank.generate(**batch(len(LANGUAGES)), languages=LANGUAGES, **GREEDY)
        for group, rows in by_group(LANGUAGES):
            seen = inputs["attention_mask"][rows].bool()
            gate(peft_model, group)
            for model in (peft_model, bank.merge(group)):
                torch.testing.assert_close(
                    mixed[rows][seen], model(**rows_of(inputs, rows)).logits[seen], **EXACT
                )
            alone = peft_model.generate(**rows_of(batch(len(LANGUAGES)), rows), **GREEDY)
            assert torch.equal(decoded[rows], alone)


def test_the_bank_replays_windows(folder, monkeypatch):
    """With the stand-in for a CUDA graph: decoding as without, and that it was one."""
    bank, inputs = xalma.load_modules(folder), batch(len(LANGUAGES))
    plain = bank.generate(**inputs, languages=LANGUAGES, **GREEDY)
    replays = []

    def record(run):
        def replay():
            replays.append(0)
            output.logits.copy_(run().logits)

        state = [
            (t, t.clone())
            for layer in cache_of(run).layers
            for t in vars(layer).values()
            if torch.is_tensor(t)
        ]
        output = run()
        for tensor, value in state:
            tensor.copy_(value)
        return replay, output

    def cache_of(run):
        return next(
            c.cell_contents.cache for c in run.__closure__ if isinstance(c.cell_contents, cuda_graphs.Steps)
        )

    monkeypatch.setattr(cuda_graphs, "has_graphs", lambda model: not model.training)
    monkeypatch.setattr(cuda_graphs, "record", record)
    assert torch.equal(bank.generate(**inputs, languages=LANGUAGES, **GREEDY), plain)
    assert len(replays) == 10


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_isolated_documents_are_documents_alone(attention):
    """A packed block with documents longer and shorter than the window: the loss of each in a row of its own."""
    model = gemma(60, attention)
    generator = torch.Generator().manual_seed(1)
    documents = [torch.tensor([1, *torch.randint(3, 60, (n,), generator=generator), 2]) for n in (14, 3, 9)]
    block = torch.cat(documents)
    together = IsolatedDocuments(1, 2)([{"input_ids": block, "labels": block}])
    with torch.no_grad():
        found = labelled_loss(model, together)
        alone = [model(input_ids=d[None], labels=d[None]).loss * (len(d) - 1) for d in documents]
    expected = sum(alone) / sum(len(d) - 1 for d in documents)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16 products"])
def test_full_weights_train(attention, bf16):
    model = gemma(60, attention).train()
    ids = torch.randint(3, 60, (4, 20), generator=torch.Generator().manual_seed(2))
    batch = {"input_ids": ids, "labels": ids}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = labelled_loss(model, batch, bf16=bf16)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.fixture(scope="module")
def recipe(micro, ladder, tmp_path_factory):
    """(profile, folders of the five stages) on a Gemma base, by name, with a trimmed vocabulary, kept in bfloat16."""
    home = tmp_path_factory.mktemp("recipe")
    tokenizer = load_base(ladder[0])[1]
    model = gemma(len(tokenizer)).to(torch.bfloat16)
    save_base(model, tokenizer, home / "runs" / "bases" / "tiny-gemma")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_files, "home", lambda: home)
        corpus = stages.open_corpus(micro)
        texts = [text for code in micro.languages for text in islice(corpus.monolingual(code), 50)]
        trim_base("tiny-gemma", texts, home / "runs" / "bases" / "tiny-gemma-trimmed")
        p = micro.but(
            base="tiny-gemma-trimmed",
            dtype="bfloat16",
            run_dir=str(home / "runs"),
            results_dir=str(home / "results"),
            max_new_tokens=8,
            stage1_tokens=8192,
            stage3_tokens=8192,
            sft_pairs=40,
        )
        folders = {0: stages.stage0_backbone(p), 1: stages.stage1_monolingual_base(p)}
        for number in (2, 3, 4, 5):
            folders[number] = {2: stages.stage2_monolingual_modules, **MODULE_STAGES}[number](p, 6)
        yield p, folders, home


@pytest.mark.slow
def test_the_five_stages_run_on_it(recipe):
    _, folders, _ = recipe
    for number, folder in folders.items():
        log = json.loads((folder / "log.json").read_text())
        assert all(torch.isfinite(torch.tensor(row.get("loss", 0.0))) for row in log), number
    model, _ = load_base(folders[1], "float32")
    assert model.config.model_type == "gemma3_text" and model.config.sliding_window == WINDOW
    assert parameter_hash(model) != parameter_hash(load_base(folders[0], "float32")[0])  # stage 1 trained it


@pytest.mark.slow
@pytest.mark.parametrize("what", ["merged", "adapter"])
def test_it_is_exported(recipe, what, tmp_path):
    """Compared with the gated model before it is written; the merged one gets its whole vocabulary back."""
    p, _, home = recipe
    out = export(p, 6, tmp_path / what, what=what, sentences=8, base_id="me/gemma")
    assert (out / "export.json").exists()
    if what == "merged":
        whole = home / "runs" / "bases" / "tiny-gemma"
        back, tokenizer = load_base(restore_base(out, whole, tmp_path / "back"))
        small, own = load_base(out)
        ids = own("2 kilometers", return_tensors="pt")["input_ids"]
        rows = torch.tensor(
            [tokenizer.convert_tokens_to_ids(t) for t in own.convert_ids_to_tokens(range(len(own)))]
        )
        with torch.no_grad():
            torch.testing.assert_close(
                back(rows[ids]).logits[..., rows], small(ids).logits, atol=1e-4, rtol=1e-4
            )
