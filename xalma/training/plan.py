"""What a run costs before it is started: tokens, FLOPs, memory of a GPU, days, disk; and whether it fits at all.

A trained token costs 6 operations a trained parameter and 4 a frozen one (forward 2, gradient of activations 2,
gradient of weights 2), and 12 a layer, hidden unit and position of its block for attention, without the causal half
off: full weights 6N, a module on a frozen base 4N + 6N_module. Days divide that by the GPU's data-sheet bfloat16 rate
times a utilisation: measured by benchmarks/training_throughput.py where results/ holds that GPU, else assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xalma.base_files import find_base
from xalma.files import read_json
from xalma.profiles import FULL, Profile
from xalma.runtime import home

GIB = 2**30
ASSUMED_UTILISATION = 0.40  # of the data sheet; usual for a 13B LLaMA on one node
# prompt and answer of stages 4 and 5; LLaMA-2 spells many of the 50 languages in bytes
ASSUMED_ROW_TOKENS = 128
USABLE = 0.92  # of the memory: the rest is the CUDA context, NCCL and fragments
BENCHMARK = "benchmarks/training_throughput.py"
_MEASURED = "results/benchmarks/training_throughput*.json"


@dataclass(frozen=True)
class Gpu:
    """Dense bfloat16 operations a second and memory in GiB, by the maker's data sheet."""

    flops: float
    memory: float


# Longer names first: a device's name is searched for these.
GPUS = {
    "h200": Gpu(989e12, 141e9 / GIB),
    "h100": Gpu(989e12, 80.0),
    "b200": Gpu(2250e12, 180e9 / GIB),
    "a100": Gpu(312e12, 80.0),
    "l40s": Gpu(362e12, 48.0),
}


@dataclass(frozen=True)
class Shape:
    """A LLaMA's sizes. inner: width of the MLP. tied: input and output embeddings are one.

    q, kv: widths of the queries and of keys and values, all heads of them; 0: as wide as the stream. Narrower keys and
    values are grouped-query attention.
    """

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    inner: int
    tied: bool
    q: int = 0
    kv: int = 0

    @property
    def projections(self) -> list[tuple[int, int]]:
        """(in, out) of a layer's seven matrices: q, k, v, o, gate, up, down."""
        d, q, kv = self.hidden, self.q or self.hidden, self.kv or self.hidden
        return [(d, q), (d, kv), (d, kv), (q, d), (d, self.inner), (d, self.inner), (self.inner, d)]

    @property
    def parameters(self) -> int:
        """All weights: embeddings, seven projections and two norms a layer, the last norm."""
        layer = sum(n_in * n_out for n_in, n_out in self.projections) + 2 * self.hidden
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + self.layers * layer + self.hidden

    def module(self, rank: int) -> int:
        """Weights of a LoRA of `rank` on all seven projections: rank × (in + out) each."""
        return self.layers * rank * sum(n_in + n_out for n_in, n_out in self.projections)


def shape_of(p: Profile) -> Shape:
    """The backbone's shape: LLaMA-2-13B's for the paper's base, the configuration of another one, or the one built."""
    if p.base == FULL.base:
        return Shape(5120, 40, 40, 32_000, 13_824, tied=False)
    if p.base:
        from transformers import AutoConfig

        c = AutoConfig.from_pretrained(find_base(p.base), trust_remote_code=False)
        heads = c.num_attention_heads
        width = getattr(c, "head_dim", None) or c.hidden_size // heads
        kv = (getattr(c, "num_key_value_heads", None) or heads) * width
        return Shape(
            c.hidden_size,
            c.num_hidden_layers,
            heads,
            c.vocab_size,
            c.intermediate_size,
            c.tie_word_embeddings,
            heads * width,
            kv,
        )
    inner = -(-p.hidden_size * 8 // 3 // 32) * 32  # as backbone.build_llama
    return Shape(p.hidden_size, p.layers, p.heads, p.vocab_size, inner, tied=True)


def flops_per_token(n_frozen: int, n_trained: int, layers: int, hidden: int, block_tokens: int) -> float:
    """Operations one trained token costs: 6 a trained, 4 a frozen parameter, and attention over its block."""
    return 6 * n_trained + 4 * n_frozen + 12 * layers * hidden * block_tokens


def stage_tokens(p: Profile, number: int, group: int) -> int:
    """Tokens a stage trains on. Stages 4 and 5: sentences × an assumed length; two sequences a preference pair."""
    if number <= 3:
        return p.stage(number).tokens
    directions = 2 * len(p.languages_of(group))
    if number == 4:
        rows = p.stage4_updates * p.stage4_batch_size or round(directions * p.sft_pairs * p.stage4_epochs)
        return rows * ASSUMED_ROW_TOKENS
    return round(directions * p.stage5_pairs * p.stage5_epochs) * 2 * ASSUMED_ROW_TOKENS


def stage_cost(p: Profile, number: int, group: int, gpus: int, gpu: str) -> dict[str, Any]:
    """Tokens, steps, FLOPs, hours and GPU-hours of one stage; of stage 5 without its decoding."""
    shape = shape_of(p)
    tokens = stage_tokens(p, number, group)
    module = 0 if number == 1 else shape.module(p.lora_rank)
    frozen, trained = (0, shape.parameters) if number == 1 else (shape.parameters, module)
    length = p.block_tokens if number <= 3 else ASSUMED_ROW_TOKENS
    flops = tokens * flops_per_token(frozen, trained, shape.layers, shape.hidden, length)
    batch_tokens = p.stage(number).batch_size * length * (2 if number == 5 else 1)
    seconds = flops / (gpus * GPUS[gpu].flops * utilisation(gpu, full=number == 1)[0])
    return {
        "stage": number,
        "group": group,
        "tokens": tokens,
        "steps": max(1, tokens // batch_tokens),
        "FLOPs": flops,
        "days": seconds / 86_400,
        "GPU-hours": gpus * seconds / 3600,
    }


def utilisation(gpu: str, *, full: bool) -> tuple[float, str]:
    """(share of the data-sheet rate, where it comes from): the best measured on this GPU, else assumed."""
    kind, best, source = "full" if full else "adapter", 0.0, ""
    for path in sorted(home().glob(_MEASURED)):
        found = read_json(path, f"remove it, or make it with {BENCHMARK}", keys=("rows",))
        if gpu in str(found.get("hardware", {}).get("gpu")).lower():
            for row in found["rows"]:
                if row["kind"] == kind and row["system"] == "xalma" and row["model_flops"] > best:
                    best, source = row["model_flops"], f"measured ({path.relative_to(home())})"
    if best:
        return best / GPUS[gpu].flops, source
    return ASSUMED_UTILISATION, "assumed"


def memory(p: Profile, number: int, gpus: int) -> dict[str, float]:
    """GiB per GPU needs in a stage, by part. Activations are an estimate: bfloat16 products, fused attention. For a
    module of rank 512 at 13B's shape it is within 2 % of what an H200 took (training_throughput_h200.json).

    Trained weights are float32 with gradient and two moments; the frozen base is in the profile's dtype.
    """
    shape = shape_of(p)
    full = number == 1
    n, wide = shape.parameters, 2 if p.dtype == "bfloat16" else 4
    module = 0 if full else shape.module(p.lora_rank)
    shards = gpus if p.sharding == "full" or (p.sharding == "auto" and full) else 1
    trained = n if full else module
    parts = {
        "frozen base": 0 if full else _frozen_bytes(shape, p, wide) / shards,
        "trained weights": 4 * trained / shards,
        "gradients": 4 * trained / shards,
        "Adam's moments": 8 * trained / shards,
    }
    if shards > 1:  # FSDP2 holds the root and two layers whole, in the dtype of the products
        layer = (n - 2 * shape.vocabulary * shape.hidden) / shape.layers + module / shape.layers
        parts["gathered shards"] = 2 * (2 * shape.vocabulary * shape.hidden + 2 * layer)
    micro = min(p.micro_batch, p.stage(number).batch_size) * (2 if number == 5 else 1)  # pairs
    tokens = micro * (p.block_tokens if number <= 3 else p.max_length if number == 4 else ASSUMED_ROW_TOKENS)
    parts["activations"] = tokens * _activation_bytes(shape, p, module > 0)
    # models.losses.LOGITS at once: logits, their float32 copy, softmax and gradient
    parts["logits"] = 4 * 4 * min(2**27, tokens * shape.vocabulary)
    return {name: size / GIB for name, size in parts.items()}


def _frozen_bytes(shape: Shape, p: Profile, wide: int) -> float:
    """A byte per weight of the projections in FP8, whose own weights wait on the CPU; all others in the dtype."""
    projections = shape.layers * sum(n_in * n_out for n_in, n_out in shape.projections)
    in_fp8 = projections if p.base_precision == "fp8" else 0
    return wide * (shape.parameters - in_fp8) + in_fp8


def _activation_bytes(shape: Shape, p: Profile, module: bool) -> float:
    """Bytes kept for the backward pass, a token: stream and norms, projections, and a LoRA's dropped inputs."""
    d, inner = shape.hidden, shape.inner
    layer = 24 * d + 8 * inner
    # peft: a float32 copy of the input, its dropout and mask for each projection, and rank outputs
    if module:
        layer += 9 * (6 * d + inner) + 7 * 4 * p.lora_rank
    if p.gradient_checkpointing:  # the stream at each layer's entry, and one layer being redone
        return shape.layers * 4 * d + layer
    return shape.layers * layer


def decoding_memory(p: Profile) -> dict[str, float]:
    """GiB one GPU needs to decode `generation_batch` sentences, for stage 5's pairs and after each stage, by part.

    All of them at an assumed prompt and the full `max_new_tokens`. Every GPU decodes sentences of its own, with the
    whole base and a float32 module.
    """
    shape = shape_of(p)
    wide = 2 if p.dtype == "bfloat16" else 4
    sequences, tokens = p.generation_batch * p.beams, ASSUMED_ROW_TOKENS + p.max_new_tokens
    layer = 2 * wide * (shape.kv or shape.hidden) * sequences * tokens  # keys and values
    parts = {
        "base": wide * shape.parameters,
        "module": 4 * shape.module(p.lora_rank),
        "keys and values": layer * (shape.layers + 1),  # one layer's are copied when a token is appended
        # and their logarithms, and with the beams' scores, in float32
        "logits": 3 * 4 * sequences * shape.vocabulary,
    }
    return {name: size / GIB for name, size in parts.items()}


def disk(p: Profile, n_running: int = 1) -> dict[str, float]:
    """GiB on disk by part; checkpoints of `n_running` chains at once, two kept and one being written."""
    shape = shape_of(p)
    wide = 2 if p.dtype == "bfloat16" else 4
    n = shape.parameters
    module = shape.module(p.lora_rank)
    saved = 3 * 12 if p.checkpoint_steps else 0
    parts = {
        "backbone (stage 0)": wide * n,
        "base (stage 1, float32)": 4 * n,
        "modules (stages 2 to 5, float32)": 4 * 4 * module * len(p.group_numbers),
        "checkpoints, the most at a time": saved * max(n, module * n_running),
    }
    return {name: size / GIB for name, size in parts.items()}


def changes_that_help(p: Profile) -> Iterator[tuple[str, Profile]]:
    """(what to set, the profile with it), one after another, what costs least speed first."""
    values = []
    if not p.gradient_checkpointing:
        p = p.but(gradient_checkpointing=True)
        values.append("gradient_checkpointing=true")
        yield " ".join(values), p
    while p.micro_batch > 1:
        p = p.but(micro_batch=p.micro_batch // 2)
        yield " ".join([*values, f"micro_batch={p.micro_batch}"]), p
    if p.sharding != "full":
        yield " ".join([*values, f"micro_batch={p.micro_batch}", "sharding=full"]), p.but(sharding="full")


def check_fits(p: Profile, gpus: int, gpu: str) -> None:
    """Raises ValueError, saying what would fit, if a stage needs more memory than a GPU has or can't be shared out, or
    if decoding does.
    """
    room = GPUS[gpu].memory * USABLE
    needs = lambda q, n: max((sum(memory(q, s, n).values()), s) for s in range(1, 6))  # noqa: E731
    need, stage = needs(p, gpus)
    if need <= room:
        _check_decoding(p, gpu)
        return _check_shares(p, gpus)
    found = next((values for values, q in changes_that_help(p) if needs(q, gpus)[0] <= room), None)
    if found is None:
        *_, (values, smallest) = [("", p), *changes_that_help(p)]
        more = next((n for n in (2**i * gpus for i in range(1, 9)) if needs(smallest, n)[0] <= room), None)
        found = f"{values} on {more} GPUs".strip() if more else None
    advice = (
        f"it fits with {found}"
        if found
        else "no number of these GPUs helps: take larger ones or a smaller base"
    )
    raise ValueError(
        f"stage {stage} needs {need:.0f} GiB on each of {gpus} × {gpu}, of which {room:.0f} of {GPUS[gpu].memory:.0f} "
        f"GiB can be used: {advice}"
    )


def _check_decoding(p: Profile, gpu: str) -> None:
    room = GPUS[gpu].memory * USABLE
    need = sum(decoding_memory(p).values())
    if need > room:
        smaller = (
            2**i for i in range(p.generation_batch.bit_length() - 1, -1, -1) if 2**i < p.generation_batch
        )
        fits = next(
            (n for n in smaller if sum(decoding_memory(p.but(generation_batch=n)).values()) <= room), None
        )
        advice = (
            f"it fits with generation_batch={fits}"
            if fits
            else "take larger GPUs, fewer beams or a smaller base"
        )
        raise ValueError(
            f"decoding {p.generation_batch} sentences with {p.beams} beams needs {need:.0f} GiB on a {gpu}, of which "
            f"{room:.0f} of {GPUS[gpu].memory:.0f} GiB can be used: {advice}"
        )


def shareable(p: Profile) -> int:
    """The largest number of GPUs, a power of two up to 8, that can share every stage's batch evenly."""
    for gpus in (8, 4, 2):
        try:
            _check_shares(p, gpus)
        except ValueError:
            continue
        return gpus
    return 1


def _check_shares(p: Profile, gpus: int) -> None:
    for number in range(1, 6):
        batch = p.stage(number).batch_size
        if batch // min(batch, p.micro_batch) % gpus:
            best = next((m for m in range(min(p.micro_batch, batch), 0, -1) if batch % (m * gpus) == 0), None)
            advice = f"set micro_batch={best}" if best else f"take a number of GPUs that divides {batch}"
            raise ValueError(f"stage {number}: {gpus} GPUs can't share a batch of {batch} evenly: {advice}")


def cost_table(p: Profile, gpus: int, gpu: str) -> pd.DataFrame:
    """One row per stage and group: tokens, steps, FLOPs, days on `gpus` GPUs, GPU-hours, GiB of a GPU."""
    jobs = [(1, 0), *((number, group) for group in p.group_numbers for number in range(2, 6))]
    rows = [
        stage_cost(p, *job, gpus, gpu) | {"GiB per GPU": sum(memory(p, job[0], gpus).values())}
        for job in jobs
    ]
    return pd.DataFrame(rows)


def graph(p: Profile) -> str:
    """The run as a graph: one base, then a chain for each group, independent of the others."""
    lines = ["stage 0 backbone -> stage 1 base"]
    lines += [f"    -> group {group}: stage 2 -> stage 3 -> stage 4 -> stage 5" for group in p.group_numbers]
    return "\n".join(lines)


def plan_text(p: Profile, gpus: int, gpu: str) -> str:
    """The whole plan as text. Raises ValueError for an unknown GPU or a plan that can't fit."""
    if gpu not in GPUS:
        raise ValueError(f"unknown GPU {gpu!r}: choose one of {', '.join(GPUS)}")
    if gpus < 1:
        raise ValueError(f"gpus={gpus}: at least one")
    check_fits(p, gpus, gpu)
    table = cost_table(p, gpus, gpu)
    shape = shape_of(p)
    full, source = utilisation(gpu, full=True)
    module, other = utilisation(gpu, full=False)
    shown = table.assign(
        tokens=table.tokens.map("{:,}".format), FLOPs=table.FLOPs.map("{:.2e}".format)
    ).round(2)
    parts = pd.DataFrame({f"stage {n}": memory(p, n, gpus) for n in range(1, 6)}).fillna(0)
    parts.loc["in all"] = parts.sum()
    chain = table[table.group == p.group_numbers[0]].days.sum()
    base = table[table.stage == 1].days.sum()
    sizes = disk(p, len(p.group_numbers))
    decoding = decoding_memory(p)
    lines = [
        f"profile {p.name} on {gpus} × {gpu}: base {shape.parameters / 1e9:.3f} B parameters, "
        f"a module {shape.module(p.lora_rank) / 1e9:.3f} B",
        f"utilisation of {GPUS[gpu].flops / 1e12:.0f} TFLOP/s: full weights {full:.0%} {source}, modules {module:.0%} "
        f"{other}; stages 4 and 5 at an assumed {ASSUMED_ROW_TOKENS} tokens a sequence; stage 5's decoding not counted",
        "",
        graph(p),
        "",
        shown.to_string(index=False),
        "",
        f"one after another: {table.days.sum():.1f} days, {table['GPU-hours'].sum():,.0f} GPU-hours; "
        f"chains side by side, each on {gpus} GPUs: {base + chain:.1f} days",
        "",
        f"GiB per GPU (of {GPUS[gpu].memory:.0f}; activations are an estimate):",
        parts.round(1).to_string(),
        "",
        f"GiB on a GPU that decodes {p.generation_batch} sentences with {p.beams} beams: {sum(decoding.values()):.0f}: "
        + ", ".join(f"{name} {size:.1f}" for name, size in decoding.items()),
        "",
        f"GiB on disk: {sum(sizes.values()):,.0f}: "
        + ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items()),
    ]
    return "\n".join(lines)


def slurm_lines(p: Profile, gpus: int, script: Path, arguments: str) -> str:
    """sbatch commands that hand the graph to the cluster: the base, then each chain, each job after the one it needs.

    arguments: profile and overrides for `xalma stage`. Stage 0 takes one GPU, the others `gpus` (8 a node).
    """
    nodes = math.ceil(gpus / 8)

    def job(name: str, number: int, group: int, after: str = "") -> str:
        wide = f"--nodes={nodes} --gpus-per-node={min(gpus, 8)}" if number else "--nodes=1 --gpus-per-node=1"
        needs = f" --dependency=afterok:${after}" if after else ""
        return (
            f"{name}=$(sbatch --parsable --job-name=xalma-{name}{needs} {wide} {script} "
            f"{number} --group {group} {arguments})"
        )

    lines = [job("s0", 0, 0), job("s1", 1, 0, "s0")]
    for group in p.group_numbers:
        names = [f"g{group}s{number}" for number in range(2, 6)]
        for number, name, after in zip(range(2, 6), names, ["s1", *names], strict=False):
            lines.append(job(name, number, group, after))
    return "\n".join(lines)
