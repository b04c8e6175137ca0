"""A trained module as something to hand on: a merged model, or the adapter, with a model card of measured results.

Nothing is written before merged and gated model were found equal in float32: the next-token logits of held-out prompts
within 1e-4 of their scale, and every greedy output the same, on 200 sentences. Weights are written in the dtype of the
base, so that a bfloat16 model is rounded once, after the merge.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from xalma.base_files import load_tokenizer
from xalma.data.collate import PadCollator
from xalma.data.literal import token_ids
from xalma.evaluation.records import Record, read_records
from xalma.files import TO, check_new, new_directory, read_json, write_json
from xalma.languages import ENGLISH, GROUP_NAMES, adapter_name
from xalma.models.adapters import load_adapters
from xalma.models.backbone import load_base
from xalma.models.generation import generate
from xalma.models.layouts import plain_config
from xalma.models.safetensors_io import read_headers, read_tensors
from xalma.profiles import Profile
from xalma.progress import progress
from xalma.prompts import translation_prompt
from xalma.runs import open_stage, read_run, results_folder, stage_folder
from xalma.runtime import device, provenance
from xalma.training.export.clients import save_generation_config, save_tokenizer
from xalma.training.export.model_card import model_card, stage_chain
from xalma.training.ladder import evaluate_folder, newest_stage, test_rows

_SENTENCES = 200
TOLERANCE = 1e-4  # of float32 logits, relative to their root mean square where that is above 1


def export(
    p: Profile,
    group: int,
    out: str | Path,
    *,
    what: str = "merged",
    folder: str | Path | None = None,
    base_id: str = "",
    licence: str = "other",
    sentences: int = _SENTENCES,
    with_base: bool = False,
    gguf: bool = False,
) -> Path:
    """Writes the module of `group` to the new folder `out`, checked and with a model card, and returns that.

    what: "merged", a plain model, or "adapter". folder: a stage's; default the newest one of the profile.
    base_id: hub id of the base, for the card and the adapter's configuration; without it an adapter names the folder of
    the base it was trained on, seen from `out`. with_base: that base goes along in out/base. licence: the hub's
    identifier. sentences: how many are compared. gguf: a merged model goes along as model.gguf, for llama.cpp.
    Raises ValueError, writing nothing, for fewer than one sentence, a model that no GGUF file can hold, where merged
    and gated model differ and where results/ has scores of other weights; FileExistsError if `out` is there.
    """
    out = check_new(out)
    _check_request(what, sentences, with_base, base_id, gguf)
    folder = Path(folder or newest_stage(p, group))
    run = _stage_of(folder, group)
    if gguf:  # found out before the model is compared, as the chain
        from xalma.models.bases.gguf_export import describable, write_gguf

        describable(
            AutoConfig.from_pretrained(run["base"], trust_remote_code=False), load_tokenizer(run["base"])
        )
    chain = stage_chain(folder)  # found out before the model is compared
    records = measured_scores(p, folder, group)
    model, tokenizer, check = check_merge(p, folder, group, sentences)
    details = _details(p, group, run, check, tokenizer.bos_token)
    details |= {"what": what, "base_id": base_id, "licence": licence, "gguf": gguf}
    details["command"] = f"{p.command(verb='export')} --group {group} --what {what}"
    with new_directory(out, TO) as target:
        if what == "merged":
            _write_merged(model, run, target)
            save_generation_config(tokenizer, p.beams, p.max_new_tokens, target)
        else:
            base = "base" if with_base else base_id or os.path.relpath(run["base"], out)
            _write_adapter(folder, base, target)
            if with_base:
                _write_base(Path(run["base"]), tokenizer, p, target / "base")
        save_tokenizer(tokenizer, p.prompt_style, target)
        if gguf:
            write_gguf(model, load_tokenizer(target), target / "model.gguf")
        (target / "README.md").write_text(model_card(details, chain, records), encoding="utf-8")
        write_json(
            target / "export.json", {**details, "check": check, "source": run["fingerprint"], **provenance()}
        )
    return out


def _details(p: Profile, group: int, run: dict, check: dict, bos: str) -> dict[str, Any]:
    """What the card and export.json say of the model itself."""
    lang = p.languages_of(group)[0]
    return {
        "name": f"xalma-{p.name}-{adapter_name(group)}-{run['stage']}",
        "profile": p.name,
        "check": check["sentence"],
        "prompt": translation_prompt("…", ENGLISH, lang, p.prompt_style),
        "beams": p.beams,
        "turn": translation_prompt("Good morning.", ENGLISH, lang, "alma"),
        "max_new_tokens": p.max_new_tokens,
        "bos": bos,
        "trained_by": p.command(),
    }


def _check_request(what: str, sentences: int, with_base: bool, base_id: str, gguf: bool) -> None:
    """Raises ValueError for options that do not go together, or say nothing."""
    if gguf and what != "merged":
        raise ValueError("a GGUF file holds a merged model: leave out --gguf or --what adapter")
    if what not in ("merged", "adapter"):
        raise ValueError(f"can't export {what!r}: choose merged or adapter")
    if sentences < 1:
        raise ValueError(f"can't compare {sentences} sentences: give 1 or more")
    if with_base and (what == "merged" or base_id):
        raise ValueError(
            "the base goes beside an adapter that names no other: leave out --base-id and --what merged"
        )


def _stage_of(folder: Path, group: int) -> dict[str, Any]:
    """run.json of the group's stage. Raises ValueError for a comparison's folder, or another group's."""
    run = open_stage(folder)
    if "number" not in run:
        raise ValueError(
            f"{folder} is no stage of the recipe, but a run of a comparison: name a stage's folder"
        )
    if run["group"] != group:
        raise ValueError(f"{folder} holds the module of group {run['group']}, not of group {group}")
    return run


def check_merge(
    p: Profile, folder: Path, group: int, sentences: int = _SENTENCES
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """(merged float32 model, tokenizer, what was compared) of a stage's module.

    One model is in memory at a time. Raises ValueError, saying where, if merged and gated model differ.
    """
    rows = held_out_rows(p, group, sentences)
    base, tokenizer = load_base(open_stage(folder)["base"], "float32")
    gated = load_adapters(base, {group: folder}).to(device()).eval()
    expected = _answers(gated, tokenizer, [row["prompt"] for row in rows], p)
    merged = gated.merge_and_unload()
    found = _answers(merged, tokenizer, [row["prompt"] for row in rows], p)
    return merged, tokenizer, check_export(rows, expected, found)


def check_export(
    rows: Sequence[dict[str, str]],
    expected: tuple[torch.Tensor, list[str]],
    found: tuple[torch.Tensor, list[str]],
) -> dict[str, Any]:
    """What the comparison gave: sentences, largest logit difference, the sentence for the card.

    expected, found: (next-token logits (N, V), greedy outputs) of the gated and of the merged model on `rows`.
    Raises ValueError if they differ by more than TOLERANCE, or in any output.
    """
    difference = (expected[0] - found[0]).abs().amax(-1)  # (N,)
    largest = float(difference.max())
    allowed = TOLERANCE * max(1.0, float(expected[0].square().mean().sqrt()))
    if not largest <= allowed:  # also when it is no number
        worst = int(difference.nan_to_num(math.inf).argmax())
        raise ValueError(
            f"nothing was exported: merged and gated logits differ by {largest:.2g} in float32, {allowed:.2g} is "
            f"allowed; the worst of {len(rows)} sentences is number {worst + 1}, {rows[worst]['direction']}"
        )
    other = [i for i, (a, b) in enumerate(zip(expected[1], found[1], strict=True)) if a != b]
    if other:
        raise ValueError(
            f"nothing was exported: {len(other)} of {len(rows)} greedy outputs of merged and gated model differ, the "
            f"first is number {other[0] + 1}, {rows[other[0]]['direction']}: {found[1][other[0]]!r} for "
            f"{expected[1][other[0]]!r}"
        )
    directions = len({row["direction"] for row in rows})
    sentence = (
        f"Before it was written, the merged model was compared with the gated one (base and module apart) in float32 "
        f"on {len(rows)} held-out sentences of {directions} directions: the next-token logits differ by at most "
        f"{largest:.1e} ({allowed:.2g} allowed), and all {len(rows)} greedy outputs are the same."
    )
    return {
        "sentences": len(rows),
        "largest_logit_difference": largest,
        "allowed_logit_difference": allowed,
        "outputs_equal": len(rows),
        "sentence": sentence,
    }


def held_out_rows(p: Profile, group: int, n: int) -> list[dict[str, str]]:
    """n test rows, evenly from all directions of the group; fewer where the corpus has no more."""
    pairs = max(p.test_pairs, -(-n // (2 * len(p.languages_of(group)))))
    rows = test_rows(p.but(test_pairs=pairs), group)
    n = min(n, len(rows))
    return [rows[i * len(rows) // n] for i in range(n)]


@torch.inference_mode()
def _answers(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], p: Profile
) -> tuple[torch.Tensor, list[str]]:
    """(next-token logits (N, V) on the CPU, greedy outputs) of each prompt."""
    collate = PadCollator(tokenizer.pad_token_id, left=True)
    logits = []
    with progress(len(prompts), "logits of held-out sentences") as bar:
        for start in range(0, len(prompts), p.generation_batch):
            encoded = token_ids(tokenizer, prompts[start : start + p.generation_batch])
            batch = collate([{"input_ids": [tokenizer.bos_token_id, *ids]} for ids in encoded])
            batch = {key: value.to(model.device) for key, value in batch.items()}
            logits.append(model(**batch).logits[:, -1].float().cpu())  # padding is on the left
            bar.update(len(encoded))
    texts = generate(
        model, tokenizer, prompts, max_new_tokens=p.max_new_tokens, batch_size=p.generation_batch
    )
    return torch.cat(logits), texts


def measured_scores(p: Profile, folder: Path, group: int) -> list[Record]:
    """Scores of these weights on the group's directions: results/<profile>/scores/<stage>.jsonl, if they are theirs.

    The outputs kept beside the weights are scored again (made, where there are none) and must give the same numbers.
    Raises ValueError where they do not. Metrics that are only in the file, as COMET, then go along.
    """
    number = read_run(folder)["number"]
    ours = evaluate_folder(p, folder, group, f"stage{number}")
    path = results_folder(p) / "scores" / f"stage{number}.jsonl"
    # the file says nothing of other branches
    in_ladder = folder.resolve() == stage_folder(p, number, group).resolve()
    theirs = {record.key: record for record in read_records(path)} if in_ladder and path.exists() else {}
    for record in ours:
        filed = theirs.get(record.key)
        if filed and (filed.value, filed.n, filed.signature) != (record.value, record.n, record.signature):
            raise ValueError(
                f"{path} has {filed.metric} {filed.value} for {filed.direction}, these weights score {record.value}: "
                f"it was measured on other weights, run `{p.command()}` again"
            )
    mine = {record.direction for record in ours}
    keys = {record.key for record in ours}
    extra = [r for key, r in theirs.items() if r.direction in mine and key not in keys and r.seed == p.seed]
    return ours + extra


def _write_merged(model: PreTrainedModel, run: dict[str, Any], target: Path) -> None:
    """The plain model in the dtype of its base's files, read back before it counts."""
    entries = read_headers(Path(run["base"]))
    name = next(name for name in entries if name.endswith("embed_tokens.weight"))
    dtype = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[entries[name].dtype]
    model.to(dtype)
    model.save_pretrained(target, safe_serialization=True)
    state = model.state_dict()
    for name, tensor in read_tensors(read_headers(target)):
        if not torch.equal(tensor, state[name].cpu()):
            raise OSError(
                f"nothing was exported: {name} reads back differently from {target}, check the disk"
            )


def _write_adapter(folder: Path, base: str, target: Path) -> None:
    """The adapter's two files, byte for byte but for the name of the base, a folder seen from `target` or a hub id."""
    shutil.copyfile(folder / "adapter_model.safetensors", target / "adapter_model.safetensors")
    config = read_json(folder / "adapter_config.json", "train the stage again")
    write_json(target / "adapter_config.json", config | {"base_model_name_or_path": base})


def _write_base(base: Path, tokenizer: PreTrainedTokenizerBase, p: Profile, target: Path) -> None:
    """The weights of the base an adapter was trained on, byte for byte, and what other programs read beside them."""
    target.mkdir()
    for file in {entry.file for entry in read_headers(base).values()}:
        shutil.copyfile(file, target / file.name)
    for file in base.glob("*.safetensors.index.json"):
        shutil.copyfile(file, target / file.name)
    write_json(target / "config.json", plain_config(base))
    save_tokenizer(tokenizer, p.prompt_style, target)
    save_generation_config(tokenizer, p.beams, p.max_new_tokens, target)


def describe(p: Profile, group: int, sentences: int = _SENTENCES) -> str:
    """What an export is about to do, for the terminal."""
    return (
        f"group {group} ({GROUP_NAMES[group]}): compares gated and merged model on {sentences} sentences, greedy, up "
        f"to {p.max_new_tokens} tokens each, twice; needs the base once in float32"
    )
