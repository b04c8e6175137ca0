"""The tasks of `run`: rows from a pack's token ids, stages by the loop of all stages, outputs and prices written.

Stages 0 to 3 are asked with four examples before the sentence, stage 5 with the prompt it was trained on, stage 4 both
ways; an answer ends at a line break. The comparisons take the same rows in the same updates:

    sft+      continued SFT: the chosen answers of ARPO's pairs, in as many updates at the same rate
    wide      one module for all languages, of as many times the rank as there are groups, on all groups' rows
    shared    one module of a single group's rank; dense: all weights, no module; own: a module per group
    french    group 2 with French, against group 4, which has it in the papers
    without   a group's module after SFT without stage 1, 2 or 3
"""

from __future__ import annotations

import copy
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from sacrebleu import CHRF
from safetensors.torch import load_file, save_file

from real_base.context import WMT_FIRST, Run
from real_base.decoding import decode, price
from real_base.pack import WMT_SETS, open_pack_model
from real_base.preference_objectives import REFERENCE, Preference, Within
from real_base.rows import (
    Rows,
    blocks,
    both_ways,
    limit,
    prompt,
    prompted_rows,
    sft_pairs,
    test_segments,
    with_shots,
)
from xalma.data.collate import IGNORE
from xalma.files import read_json
from xalma.languages import ENGLISH
from xalma.models.adapters import attach_adapter
from xalma.preference.packed_pairs import sequence_logps
from xalma.preference.pairs import best_and_worst
from xalma.profiles import Profile
from xalma.runtime import device, mixed_precision, seed_everything
from xalma.training.objectives import Objective
from xalma.training.trainer import train

FEW_SHOT, PROMPTED = "few-shot", "prompted"
SAMPLES, TEMPERATURE = 5, 0.8  # pairs of samples, as SimPO makes them (arXiv 2405.14734, section 4)


# models


def base_model(run: Run, stage: int, dtype: torch.dtype | None = None):
    """The base before or after stage 1, on the device."""
    if stage not in run.bases:
        model = open_pack_model(run.pack.folder)
        if stage:
            model.load_state_dict(load_file(run.work / "stage1.safetensors"), strict=False)
        run.bases[stage] = model
    return copy.deepcopy(run.bases[stage]).to(device(), dtype or run.dtype)


def save(tensors: dict[str, torch.Tensor], path) -> None:
    partial = path.with_name(f".partial-{path.name}")
    save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, partial)
    partial.rename(path)


def module_on(run: Run, base, rank: int = 0, saved: str = ""):
    """A module on `base`, fresh or with the saved weights."""
    rank = rank or run.p.lora_rank
    scale = run.p.lora_alpha / run.p.lora_rank
    model = attach_adapter(base, 1, rank=rank, alpha=round(scale * rank), dropout=0.0, seed=run.p.seed)
    if saved:
        model.load_state_dict(load_file(run.work / f"{saved}.safetensors"), strict=False)
    return model.to(device())


def save_module(run: Run, model, name: str) -> None:
    save({n: x for n, x in model.named_parameters() if x.requires_grad}, run.work / f"{name}.safetensors")


def plain_copy(model):
    """A model without modules: `model` itself, or its base with the module added to the weights, in float32 first."""
    if not hasattr(model, "get_base_model"):
        return model
    inner = model.get_base_model()
    layers = {name: layer for name, layer in inner.named_modules() if hasattr(layer, "lora_A")}
    with torch.no_grad():
        added = {}
        for name, layer in layers.items():
            key = next(iter(layer.lora_A))
            product = layer.lora_B[key].weight.float() @ layer.lora_A[key].weight.float()
            weight = layer.base_layer.weight
            added[name] = (weight.float() + layer.scaling[key] * product).to(weight.dtype)
        plain = copy.deepcopy(model).unload()
        for name, weight in added.items():
            plain.get_submodule(name).weight.copy_(weight)
    return plain.eval()


# training and measuring


def fit(
    run: Run,
    model,
    rows: Rows,
    number: int,
    label: str,
    *,
    rate: float = 0.0,
    steps: int = 0,
    objective: Objective | None = None,
) -> None:
    """One pass over the rows, or `steps` updates, by the settings of a stage; the log is written."""
    p = run.p
    stage = run.p.stage(number)
    started = time.perf_counter()
    batch = min(stage.batch_size, len(rows))
    # prompted rows are half as long as blocks
    micro = min(stage.micro_batch * (2 if number == 4 else 1), batch)
    batch -= batch % micro
    stage = replace(stage, batch_size=batch, micro_batch=micro, learning_rate=rate or stage.learning_rate)
    steps = steps or max(1, len(rows) // batch)
    kept = run.work / f"{label}-steps" if p.checkpoint_steps else None
    log = train(
        model,
        rows,
        p,
        stage,
        steps=steps,
        seed=p.seed,
        pad_token_id=run.pack.index["pad"],
        label=label,
        objective=objective,
        checkpoints=kept,
    )
    seconds = time.perf_counter() - started
    tokens = sum(len(row.get("input_ids", row.get("chosen_input_ids", ()))) for row in rows)
    tokens = round(tokens * steps * batch / len(rows))
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    run.log(
        "trained",
        label=label,
        rows=len(rows),
        steps=steps,
        batch=batch,
        tokens=tokens,
        seconds=round(seconds, 2),
        tokens_per_second=round(tokens / seconds),
        memory_gib=memory,
        log=log,
    )
    model.eval()
    give_back()


def measure(
    run: Run,
    model,
    system: str,
    codes: Sequence[str],
    form: str,
    file: str,
    *,
    name: str = "flores",
    start: int = 0,
    n: int = 0,
) -> None:
    """Outputs for `n` segments of each direction and what the references cost, one line per direction."""
    if run.form not in ("", form):
        return
    began = time.perf_counter()
    model = plain_copy(model)
    ask = with_shots if form == FEW_SHOT else prompt
    here = both_ways(codes)
    if name == WMT_SETS:
        here = [one for one in here if one in run.pack.index["wmt"]]
    asked, prompts, limits, priced = [], [], [], []
    for direction in here:
        for source, reference in test_segments(run, name, direction, start, n or run.p.test_pairs):
            ids = ask(run, direction, source)
            asked.append(direction)
            prompts.append(ids)
            limits.append(limit(run, direction, source))
            priced.append((ids, reference.tolist()))
    if not prompts:
        return
    # none over 16 MiB
    place = {"ladder": f"ladder-{form}", "whole": f"whole-{system}"}.get(file, file) + ".jsonl.gz"
    stops = {run.pack.index["eos"], *run.pack.index["line_ends"]}
    gc.collect()
    gc.freeze()  # recording a graph collects garbage, which looks at every object there is
    outputs = decode(model, prompts, limits, stops, run.pack.index["pad"], run.p.generation_batch)
    gc.unfreeze()
    between = time.perf_counter()
    nats = price(model, priced, run.pack.index["pad"])
    for direction in here:
        index = [i for i, one in enumerate(asked) if one == direction]
        run.write(
            place,
            {
                "system": system,
                "set": name,
                "direction": direction,
                "form": form,
                "start": start,
                "ids": [outputs[i] for i in index],
                "nats": [round(nats[i], 4) for i in index],
            },
        )
    run.log(
        "measured",
        system=system,
        set=name,
        form=form,
        segments=len(prompts),
        start=start,
        decode_seconds=round(between - began, 2),
        price_seconds=round(time.perf_counter() - between, 2),
        new_tokens=sum(map(len, outputs)),
        prompt_tokens=sum(map(len, prompts)),
    )
    give_back()


def give_back() -> None:
    """Memory that is free here, to the processes beside this one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def both_sets(run: Run, model, system: str, codes: Sequence[str], form: str) -> None:
    """FLORES-200 and WMT'23: of the base, SFT and ARPO. Stages between them are measured on FLORES-200 alone."""
    measure(run, model, system, codes, form, "ladder")
    measure(run, model, system, codes, form, "ladder", name=WMT_SETS, n=min(WMT_FIRST, run.p.test_pairs))


# the ladder


def base(run: Run, group: int) -> None:
    both_sets(run, base_model(run, 0), "base", run.p.languages_of(group), FEW_SHOT)


def n_first(run: Run) -> int:
    """Blocks of a language that stage 1 reads; stage 2 goes on from there."""
    return max(1, round(run.p.stage1_tokens / run.p.block_tokens / (1 + len(run.p.languages))))


def stage1(run: Run) -> None:
    if (run.work / "stage1.safetensors").exists():
        return
    model = base_model(run, 0, torch.float32)
    fit(run, model, blocks(run, "mono", (ENGLISH, *run.p.languages), run.p.stage1_tokens), 1, "stage1")
    state = {name: x.to(torch.bfloat16) for name, x in model.named_parameters()}  # tied weights once
    save(state, run.work / "stage1.safetensors")


def stage1_scores(run: Run, group: int) -> None:
    measure(run, base_model(run, 1), "stage1", run.p.languages_of(group), FEW_SHOT, "ladder")


def rows_of(run: Run, number: int, codes: Sequence[str], share: float = 1.0) -> Rows:
    """The rows of stage 2, 3 or 4 for the languages of a group."""
    if number == 4:
        return prompted_rows(run, codes, max(1, round(run.p.sft_pairs * share)))
    tokens = round(run.p.stage(number).tokens * share)
    if number == 3:
        return blocks(run, "bitext", codes, tokens)
    return blocks(run, "mono", (ENGLISH, *codes), tokens, n_first(run))


def ladder(run: Run, group: int) -> None:
    """Stages 2, 3 and 4 of a group's module, measured after each."""
    codes = run.p.languages_of(group)
    model = module_on(run, base_model(run, 1))
    for number in (2, 3, 4):
        name = f"g{group}.stage{number}"
        if (run.work / f"{name}.safetensors").exists():
            model.load_state_dict(load_file(run.work / f"{name}.safetensors"), strict=False)
        else:
            fit(run, model, rows_of(run, number, codes), number, name)
            save_module(run, model, name)
        if number == 4:
            both_sets(run, model, "stage4", codes, PROMPTED)
        measure(run, model, f"stage{number}", codes, FEW_SHOT, "ladder")


def without(run: Run, group: int, left_out: int) -> None:
    """A group's module after SFT as in `ladder`, but for one of stages 1 to 3."""
    codes = run.p.languages_of(group)
    model = module_on(run, base_model(run, 0 if left_out == 1 else 1))
    for number in (n for n in (2, 3, 4) if n != left_out):
        fit(run, model, rows_of(run, number, codes), number, f"g{group}.without{left_out}.{number}")
    measure(run, model, f"without stage {left_out}", codes, PROMPTED, "studies")


def preference(run: Run, group: int) -> None:
    """ARPO, and stage 4 going on with the same chosen answers."""
    codes = run.p.languages_of(group)
    name = f"g{group}.stage4"
    rows = pairs_of(run, group)
    train_method(run, group, rows, "arpo", 1.0, save_as=f"g{group}.stage5", system="stage5", file="ladder")
    model = module_on(run, base_model(run, 1), saved=name)
    batch = min(run.p.stage5_batch_size, len(rows))
    fit(run, model, chosen_answers(rows), 5, f"g{group}.sft+", steps=max(1, len(rows) // batch))
    measure(run, model, "sft+", codes, PROMPTED, "ladder")


def pairs_of(run: Run, group: int) -> Rows:
    """Preference pairs of a group, from SFT sources, others for each seed; kept for all methods.

    "references": references as chosen, stage 4's own outputs as rejected, as in the paper. "samples": of SAMPLES draws
    from stage 4 those with the best and the worst chrF against the reference, so that both are what the model says.
    """
    kept = run.work / f"g{group}.pairs.json"
    if kept.exists():
        return read_json(kept, "remove it, and the pairs are decoded again", list)
    prompts, references, limits, eos = [], [], [], run.pack.index["eos"]
    for code in run.p.languages_of(group):
        pairs = sft_pairs(run, code, run.p.sft_pairs)
        n = run.p.stage5_pairs
        for i in range(run.p.seed * n, (run.p.seed + 1) * n):
            a, b = pairs[i % len(pairs)]
            for direction, source, target in ((f"en-{code}", a, b), (f"{code}-en", b, a)):
                prompts.append(prompt(run, direction, source))
                references.append(target.tolist())
                limits.append(limit(run, direction, source))
    model = plain_copy(module_on(run, base_model(run, 1), saved=f"g{group}.stage4"))
    stops, pad = {eos, *run.pack.index["line_ends"]}, run.pack.index["pad"]
    if run.pairs == "references":
        chosen = references
        outputs = decode(model, prompts, limits, stops, pad, run.p.generation_batch)
    else:
        seed_everything(run.p.seed)
        repeated = [[one for one in many for _ in range(SAMPLES)] for many in (prompts, limits)]
        drawn = decode(model, *repeated, stops, pad, run.p.generation_batch, temperature=TEMPERATURE)
        chosen, outputs = [], []
        for i, reference in enumerate(references):
            samples = drawn[i * SAMPLES : (i + 1) * SAMPLES]
            found = best_and_worst([(chrf_of_ids(ids, reference), ids) for ids in samples])
            best, worst = (samples[0],) * 2 if found == "tied" else found  # dropped as identical
            chosen.append(best)
            outputs.append(worst)
    rows, dropped = [], {"identical": 0, "empty": 0, "length": 0, "long": 0}
    for asked, better, worse in zip(prompts, chosen, outputs, strict=True):
        why = unfit(asked, better, worse, run.p.max_length)
        if why:
            dropped[why] += 1
            continue
        row = {}
        for side, answer in (("chosen", better), ("rejected", worse)):
            row[f"{side}_input_ids"] = [*asked, *answer, eos]
            row[f"{side}_labels"] = [*[IGNORE] * len(asked), *answer, eos]
        rows.append(row)
    run.log("pairs", group=group, kind=run.pairs, considered=len(prompts), kept=len(rows), dropped=dropped)
    kept.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def chrf_of_ids(ids: Sequence[int], reference: Sequence[int]) -> float:
    """chrF with tokens for characters, n-grams of up to four: there is no text where a pack is run. 0 to 100."""
    output, target = ("".join(chr(0x10000 + one) for one in some) for some in (ids, reference))
    return CHRF(char_order=4).sentence_score(output, [target]).score


def unfit(asked: list[int], reference: list[int], output: list[int], longest: int) -> str:
    """Why a pair is dropped: "" if it is not. Lengths are in tokens."""
    if not output or not reference:
        return "empty"
    if output == reference:
        return "identical"
    if max(len(output), len(reference)) > 3 * min(len(output), len(reference)):
        return "length"
    return "long" if len(asked) + max(len(output), len(reference)) + 1 > longest else ""


def chosen_answers(rows: Rows) -> Rows:
    return [{"input_ids": row["chosen_input_ids"], "labels": row["chosen_labels"]} for row in rows]


# what it is compared with


def train_method(
    run: Run, group: int, rows: Rows, name: str, factor: float, *, system: str, file: str, save_as: str = ""
) -> None:
    """One preference method from stage 4's module, at `factor` times the rate of stage 5."""
    model = module_on(run, base_model(run, 1), saved=f"g{group}.stage4")
    rate = run.p.stage5_learning_rate * factor
    objective = objective_of(run.p, name)
    if name in REFERENCE:
        rows = with_reference(run, model, rows)
    fit(
        run,
        model,
        chosen_answers(rows) if name == "sft" else rows,
        5,
        f"g{group}.{name}.{factor:g}",
        rate=rate,
        steps=max(1, len(rows) // min(run.p.stage5_batch_size, len(rows))),
        objective=objective,
    )
    if save_as:
        save_module(run, model, save_as)
    codes = run.p.languages_of(group)
    if system == "stage5":
        both_sets(run, model, system, codes, PROMPTED)
    else:
        measure(run, model, system, codes, PROMPTED, file)


def objective_of(p: Profile, name: str) -> Objective | None:
    """The loss of a method; None for continued SFT."""
    if name == "sft":
        return None
    if not name.startswith("arpo"):
        return Preference(name)
    released = name == "arpo-released"
    eta, scale = (0.4, 0.9) if released else (p.arpo_eta, p.arpo_eta_scale)
    return Within(
        p.arpo_nll_weight, beta=p.arpo_beta, eta=eta, eta_scale=scale, detach_penalty=name == "arpo-detach"
    )


@torch.no_grad()
def with_reference(run: Run, model, rows: Rows) -> Rows:
    """The rows with what the model, as it is now, gives their answers."""
    collate = Preference("cpo").collator(model, run.pack.index["pad"])
    found = []
    for start in range(0, len(rows), run.p.micro_batch):
        part = rows[start : start + run.p.micro_batch]
        batch = {key: value.to(device()) for key, value in collate(part).items()}
        with torch.autocast(device(), dtype=torch.bfloat16, enabled=mixed_precision(run.p.mixed_precision)):
            chosen, rejected = (x.tolist() for x in sequence_logps(model, batch))
        found += [
            row | {"chosen_reference": a, "rejected_reference": b}
            for row, a, b in zip(part, chosen, rejected, strict=True)
        ]
    return found


def method(run: Run, group: int, name: str, factor: float) -> None:
    train_method(run, group, pairs_of(run, group), name, factor, system=f"{name}@{factor:g}", file="studies")


def own(run: Run, group: int) -> None:
    """A group's module on a share of each stage."""
    codes = run.p.languages_of(group)
    model = module_on(run, base_model(run, 1))
    for number in (2, 3, 4):
        fit(
            run,
            model,
            rows_of(run, number, codes, run.p.ablation_share),
            number,
            f"own.g{group}.{number}",
        )
    measure(run, model, "own", codes, PROMPTED, "studies", n=run.p.test_pairs)


def shared(run: Run, name: str) -> None:
    """One model for all languages on all groups' rows of a share of each stage: wide, shared or dense."""
    n = len(run.p.group_numbers)
    if name == "dense":
        model = base_model(run, 1, torch.float32)
    else:
        model = module_on(run, base_model(run, 1), rank=run.p.lora_rank * (n if name == "wide" else 1))
    for number in (2, 3, 4):
        rows = [
            row
            for g in run.p.group_numbers
            for row in rows_of(run, number, run.p.languages_of(g), run.p.ablation_share)
        ]
        rate = min(run.p.stage(number).learning_rate, run.p.stage1_learning_rate)
        fit(run, model, rows, number, f"{name}.{number}", rate=rate if name == "dense" else 0.0)
    if name == "dense":
        model = model.to(run.dtype)
    for group in run.p.group_numbers:  # a cut-off leaves the groups that were measured
        measure(run, model, name, run.p.languages_of(group), PROMPTED, "studies")


def french(run: Run) -> None:
    """Group 2 with French through stages 2 to 4: as much text of each language as group 4's module has of French."""
    codes = (*run.p.languages_of(2), "fr")
    n_fourth = len(run.p.languages_of(4))
    model = module_on(run, base_model(run, 1))
    for number in (2, 3, 4):
        # stage 2 has English beside them, stage 4 a number of pairs per language
        share = {2: (len(codes) + 1) / (n_fourth + 1), 3: len(codes) / n_fourth, 4: 1.0}[number]
        fit(run, model, rows_of(run, number, codes, share), number, f"french.{number}")
    measure(run, model, "group2+fr", codes, PROMPTED, "studies", n=run.p.test_pairs)


def whole(run: Run, group: int, system: str) -> None:
    """The rest of FLORES-200 devtest, in the form the system is asked in."""
    codes = run.p.languages_of(group)
    start = run.p.test_pairs
    if system == "base":
        model = base_model(run, 0)
        form = FEW_SHOT
    else:
        model = module_on(run, base_model(run, 1), saved=f"g{group}.{system}")
        form = PROMPTED
    measure(run, model, system, codes, form, "whole", start=start, n=1012 - start)
