"""Speed and memory of four ways to serve X-ALMA's modules, for 1, 2, 4 and 8 groups in one batch.

    python benchmarks/module_serving.py --out results/benchmarks/module_serving.json

    merged         (a) one merged model, all rows in its languages: the plain base's speed, which nothing can beat
    in_turn            one merged model per group, one after another, each with its own rows
    gated          (b) xalma.models.bank: all rows in one batch, each through its own module
    adapter_names  (c) PEFT: all rows in one batch, one of `adapter_names` per row
    rebuilt        (d) the released loader's arithmetic, W + 2BA anew in every layer at every step; a language at a time
    replayed           on a GPU: (a) with its steps replayed as a CUDA graph, as the bank's are by itself
                       (xalma.models.cuda_graphs)

Random weights of the size that the options state, the same for all ways: their first logits are compared. Each way runs
in a process of its own; the fastest of its repeats counts, and the median of rounds. (d) is run for two steps.
Floor: bytes of the base and of the modules in the batch over the memory bandwidth, which is measured again after every
timed step, since a virtual machine's changes from one second to the next: the distance to the floor is the median over
steps of step × bandwidth / bytes. Measuring it empties the caches, so that an untimed step comes before each timed one.
On a CPU in float32 the bank packs its base's weights. The whole takes a few minutes on two cores.
On a GPU a step is that of `generate`, as the replays are there, and so is its distance to the floor; a step of the
model alone is one without replays. --prefill-rows and --prefill-prompt give prefill a batch of its own: 512 tokens are
too few for a GPU to be busy. There (c) and (d) are run for two steps, without `generate`, since they take so long.
X-ALMA's shape:

    python benchmarks/module_serving.py --layers 40 --hidden 5120 --heads 40 --intermediate 13824 --vocab 32000 \
        --steps 24 --repeats 2 --prefill-rows 32 --prefill-prompt 128 --out results/benchmarks/module_serving_h200.json
"""

from __future__ import annotations

import argparse
import copy
import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cost_tables import write_serving
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from xalma.files import write_json
from xalma.languages import adapter_name
from xalma.models import PROJECTIONS, WORTH_IT, ModuleBank, can_pack, replayed
from xalma.runtime import command_line, provenance

GROUP_COUNTS = (1, 2, 4, 8)
SCALE = 2.0
Batches = list[tuple[slice, dict[str, Any]]]  # which rows, and what tells the model their groups


class InTurn:
    """(a) Group 1 folded into the weights of a random LLaMA, which stands for every group; parent of the other ways.

    The vocabulary is small, so that the head has a small share of the weights, as it has in LLaMA-2-13B.
    """

    slow = False  # one that takes seconds per step is run for two steps, and without `generate` around it
    replays = False  # see `xalma.models.cuda_graphs`; the bank's `generate` replays by itself

    def __init__(self, o: argparse.Namespace) -> None:
        torch.manual_seed(o.seed)
        config = LlamaConfig(
            vocab_size=o.vocab,
            hidden_size=o.hidden,
            intermediate_size=o.intermediate,
            num_hidden_layers=o.layers,
            num_attention_heads=o.heads,
            max_position_embeddings=max(o.prompt, o.prefill_prompt) + 2 * o.steps + 16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.device(o.device):
            self.base = LlamaForCausalLM(config).to(getattr(torch, o.dtype)).eval().requires_grad_(False)
        self.layers = {n: m for n, m in self.base.named_modules() if n.rsplit(".", 1)[-1] in PROJECTIONS}
        self.o, self.model = o, self.base
        self.prepare()

    def prepare(self) -> None:
        for name, a, b in self.matrices(1):
            self.layers[name].weight += SCALE * (b @ a)

    def matrices(self, group: int) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(layer, A, B) of a group's random module, the same in every process."""
        generator = torch.Generator(self.o.device).manual_seed(self.o.seed + group)
        for name, linear in self.layers.items():
            a, b = (
                linear.weight.new_empty(size)
                for size in ((self.o.rank, linear.in_features), (linear.out_features, self.o.rank))
            )
            yield name, a.normal_(std=0.02, generator=generator), b.normal_(std=0.02, generator=generator)

    def load(self, group: int) -> None:
        """Another group would be another whole model, as fast as this one."""

    def batches(self, groups: list[int]) -> Batches:
        return [
            (slice(groups.index(g), groups.index(g) + groups.count(g)), {}) for g in dict.fromkeys(groups)
        ]

    def generate(self, **options: Any) -> Tensor:
        with replayed(self.model, options) if self.replays else nullcontext(options) as options:
            return self.model.generate(**options)


class Gated(InTurn):
    """(b) xalma's bank."""

    def prepare(self) -> None:
        self.model = ModuleBank(self.base, list(self.layers))
        if can_pack(next(iter(self.layers.values())).weight):
            self.model.pack()

    def load(self, group: int) -> None:
        for shared in self.model.inputs:
            shared.add({group: self.o.rank}, SCALE)
        places = {
            name: pair
            for s in self.model.inputs
            for name, pair in zip(s.names, s.matrices(group), strict=True)
        }
        for name, *tensors in self.matrices(group):
            for place, tensor in zip(places[name], tensors, strict=True):
                place.data.copy_(tensor)

    def batches(self, groups: list[int]) -> Batches:
        return [(slice(None), {"languages": groups})]


class AdapterNames(InTurn):
    """(c) PEFT's mixed batch."""

    slow = torch.cuda.is_available()

    def prepare(self) -> None:
        from peft import LoraConfig, get_peft_model

        self.config = LoraConfig(
            r=self.o.rank, lora_alpha=int(SCALE * self.o.rank), target_modules=list(PROJECTIONS)
        )
        with torch.device(self.o.device):  # PEFT makes its random matrices there, and not slowly on the CPU
            self.model = get_peft_model(
                self.base, self.config, adapter_name(1), autocast_adapter_dtype=False
            ).eval()

    def load(self, group: int) -> None:
        name = adapter_name(group)
        if group > 1:
            with torch.device(self.o.device):
                self.model.add_adapter(name, copy.deepcopy(self.config), autocast_adapter_dtype=False)
        for layer, a, b in self.matrices(group):
            wrapped = self.base.get_submodule(layer)
            wrapped.lora_A[name].weight.data.copy_(a)
            wrapped.lora_B[name].weight.data.copy_(b)
        self.model.eval().requires_grad_(False)

    def batches(self, groups: list[int]) -> Batches:
        return [(slice(None), {"adapter_names": [adapter_name(group) for group in groups]})]


class RebuiltLinear(nn.Module):
    """A linear layer that makes W + 2BA anew at each call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.modules_of, self.group = linear, {}, 1

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.modules_of[self.group]
        return F.linear(x, self.linear.weight + b @ a * SCALE)


class Rebuilt(InTurn):
    """(d) One language a call."""

    slow = True

    def prepare(self) -> None:
        self.rebuilt = {name: RebuiltLinear(linear) for name, linear in self.layers.items()}
        for name, layer in self.rebuilt.items():
            self.base.set_submodule(name, layer)

    def load(self, group: int) -> None:
        for name, *pair in self.matrices(group):
            self.rebuilt[name].modules_of[group] = pair

    def batches(self, groups: list[int]) -> Batches:
        slices = [rows for rows, _ in super().batches(groups)]
        return [(rows, {"switch": group}) for rows, group in zip(slices, dict.fromkeys(groups), strict=True)]

    def switch(self, group: int) -> None:
        for layer in self.rebuilt.values():
            layer.group = group


WHOLE = ("merged", "replayed")  # a merged model, on a GPU
WAYS: dict[str, type[InTurn]] = {
    "in_turn": InTurn, "gated": Gated, "adapter_names": AdapterNames, "rebuilt": Rebuilt
}  # fmt: skip


def measure(kind: str, o: argparse.Namespace) -> dict[str, dict[int, dict[str, Any]]]:
    """For each count of groups: seconds of prefill, first token and decode step of the whole batch, and memory.

    On a GPU a merged model, which with more groups takes so many times as long, is measured with one, and with replays.
    """
    torch.set_num_threads(o.threads)
    logging.set_verbosity_error()
    probe = torch.ones(o.bandwidth_mib * 2**18, device=o.device)
    before = _memory_mib(peak=False)
    way = WAYS[kind](o)
    found = {}
    loaded = 0
    gpu = torch.cuda.is_available() and kind == "in_turn"
    cases = [("merged", 1), ("replayed", 1)] if gpu else [(kind, n_groups) for n_groups in GROUP_COUNTS]
    for name, n_groups in cases:
        way.replays = name == "replayed"
        while loaded < n_groups:
            loaded += 1
            way.load(loaded)
        batches, prompts = (
            way.batches([1 + i * n_groups // rows for i in range(rows)]) for rows in (o.batch, o.prefill_rows)
        )
        _reset_peak()
        with torch.no_grad():
            one = measure_batches(way, batches, prompts, probe)
        found.setdefault(name, {})[n_groups] = one | {"peak_mib": _memory_mib(peak=True) - before}
    return found


def measure_batches(way: InTurn, batches: Batches, prompts: Batches, probe: Tensor) -> dict[str, Any]:
    """Seconds for all rows, in one batch or in several, bytes that a step of one batch could have read in its time, and
    the first logits of each row. prompts: the batches of prefill.
    """
    o = way.o
    ids, long = (
        torch.randint(3, o.vocab, size, generator=torch.Generator().manual_seed(o.seed)).to(o.device)
        for size in ((o.batch, o.prompt), (o.prefill_rows, o.prefill_prompt))
    )
    for_each = lambda run, *more: [run(way, ids[rows], told, *more) for rows, told in batches]  # noqa: E731
    prefill = lambda: [run_prefill(way, long[rows], told) for rows, told in prompts]  # noqa: E731
    logits = torch.cat([out.logits[:, -1] for out in for_each(run_prefill)]).float().cpu().tolist()
    seconds = {"prefill": fastest(prefill, o.repeats)}
    timed = for_each(decode_steps, 2 if way.slow else o.steps, probe)
    seconds["forward_step"] = sum(min(step for step, _ in steps) for steps in timed)
    if way.slow:
        seconds |= {
            "first_token": fastest(lambda: for_each(run_prefill), 0),
            "decode_step": seconds["forward_step"],
        }
    else:
        seconds["first_token"] = fastest(lambda: for_each(generate, 1), o.repeats)
        few = 1 + (WORTH_IT if torch.cuda.is_available() else 0)  # both are replayed, or neither
        short = fastest(lambda: for_each(generate, few), o.repeats)
        seconds["decode_step"] = (
            fastest(lambda: for_each(generate, few + o.steps), o.repeats) - short
        ) / o.steps
        seconds["recording"] = short - seconds["first_token"] - (few - 1) * seconds["decode_step"]
    rates = [rate for steps in timed for _, rate in steps]
    if torch.cuda.is_available():
        readable = seconds["decode_step"] * statistics.median(rates)
    else:
        readable = statistics.median(step * rate for step, rate in timed[0])
    readable = readable if len(timed) == 1 else None
    return {
        "seconds": seconds,
        "readable_bytes": readable,
        "rate": statistics.median(rates),
        "logits": logits,
    }


def run_prefill(way: InTurn, ids: Tensor, more: dict[str, Any]) -> Any:
    return way.model(input_ids=ids, use_cache=True, logits_to_keep=1, **_switched(way, more))


def decode_steps(
    way: InTurn, ids: Tensor, more: dict[str, Any], steps: int, probe: Tensor
) -> list[tuple[float, float]]:
    """(seconds of a step of the model alone, greedy, without `generate` around it; bytes per second read after it)."""
    more = _switched(way, more)
    out = way.model(input_ids=ids, use_cache=True, logits_to_keep=1, **more)
    timed = []
    for n in range(2 * steps):
        started = time.perf_counter()
        ids = out.logits[:, -1:].argmax(-1)
        out = way.model(input_ids=ids, past_key_values=out.past_key_values, use_cache=True, **more)
        _wait()
        seconds = time.perf_counter() - started
        if n % 2:
            timed.append((seconds, probe.nbytes / fastest(probe.sum, 0)))
    return timed


def generate(way: InTurn, ids: Tensor, more: dict[str, Any], n: int) -> Tensor:
    """n greedy tokens by transformers' own generate; the ends of sentences do not stop it."""
    more = _switched(way, more)
    mask = torch.ones_like(ids)
    return way.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, min_new_tokens=n, max_new_tokens=n, **more
    )


def _switched(way: InTurn, more: dict[str, Any]) -> dict[str, Any]:
    if "switch" in more:
        way.switch(more["switch"])
    return {name: value for name, value in more.items() if name != "switch"}


def fastest(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run: the first, and `repeats` more."""
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        run()
        _wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def bandwidth(o: argparse.Namespace) -> float:
    """Bytes per second that this machine reads of a tensor far larger than its caches: the best of a sum's repeats."""
    values = torch.ones(o.bandwidth_mib * 2**18, device=o.device)
    return 4 * values.numel() / fastest(values.sum, 8)


def sizes(o: argparse.Namespace) -> dict[str, int]:
    """Bytes read at each decoded token: the base without its embedding table, and one module."""
    item = getattr(torch, o.dtype).itemsize
    shapes = 4 * [(o.hidden, o.hidden)] + 3 * [(o.hidden, o.intermediate)]
    base = o.layers * (sum(d * h for d, h in shapes) + 2 * o.hidden) + o.hidden * (o.vocab + 1)
    return {
        "base_bytes": item * base,
        "module_bytes": item * o.layers * o.rank * sum(d + h for d, h in shapes),
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark of resident memory to now


def _memory_mib(*, peak: bool) -> float:
    """This process's memory: the allocator's on a GPU, resident otherwise."""
    if torch.cuda.is_available():
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 2**10


def alone(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The function's value from a fresh process, whose memory is its own; and the share of the machine's processor
    time that went to anybody else meanwhile, which should be near 0.
    """
    machine, own = _busy_seconds()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        value = pool.submit(function, *arguments).result()
    machine, own = (after - before for after, before in zip(_busy_seconds(), (machine, own), strict=True))
    return value, max(0.0, 1 - own / machine)


def _busy_seconds() -> tuple[float, float]:
    """Processor seconds, since they started, of the machine and of this process with its ended children."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system = ticks[:3]
    times = os.times()
    mine = times.user + times.system + times.children_user + times.children_system
    return (user + nice + system) / os.sysconf("SC_CLK_TCK"), mine


def by_way(measured: Iterable[dict[str, dict[int, dict[str, Any]]]]) -> dict[str, dict[int, dict[str, Any]]]:
    """What was measured, by way; first (a): a merged model serves one group, and its numbers stand for all counts."""
    found = {name: counts for one in measured for name, counts in one.items()}
    merged = (
        {"merged": found["in_turn"]} if "in_turn" in found else {k: found[k] for k in WHOLE if k in found}
    )
    return {name: dict.fromkeys(GROUP_COUNTS, counts[1]) for name, counts in merged.items()} | {
        name: counts for name, counts in found.items() if name not in ("in_turn", *WHOLE)
    }


def summary(rounds: list[dict[str, dict[int, dict[str, Any]]]], o: argparse.Namespace) -> dict[str, Any]:
    """Tidy rows, one per way and number of groups, medians over rounds; and how far the ways' logits are apart."""
    size = sizes(o)
    rows = []
    cuda = torch.cuda.is_available()
    for kind in rounds[0]:
        for n in GROUP_COUNTS:
            runs = [found[kind][n] for found in rounds]
            seconds = {k: statistics.median(run["seconds"][k] for run in runs) for k in runs[0]["seconds"]}
            read = size["base_bytes"] + (kind in ("gated", "adapter_names")) * n * size["module_bytes"]
            ratios = [run["readable_bytes"] / read for run in runs if run["readable_bytes"]]
            rate = statistics.median(run["rate"] for run in runs)
            rows.append(
                {
                    "way": kind,
                    "groups": n,
                    "prefill_tokens_per_s": o.prefill_rows * o.prefill_prompt / seconds["prefill"],
                    "decode_tokens_per_s": o.batch / seconds["decode_step"],
                    "first_token_ms": 1e3 * seconds["first_token"],
                    "step_ms": 1e3 * seconds["decode_step"],
                    "forward_step_ms": 1e3 * seconds["forward_step"],
                    **(
                        {"recording_ms": 1e3 * seconds["recording"]}
                        if kind in ("replayed", "gated") and cuda
                        else {}
                    ),
                    "floor_ms": 1e3 * read / rate if ratios else None,
                    "times_floor": statistics.median(ratios) if ratios else None,
                    "peak_mib": statistics.median(run["peak_mib"] for run in runs),
                }
            )
    logits = {
        kind: {n: torch.tensor(counts[n]["logits"]) for n in (1, 8)} for kind, counts in rounds[0].items()
    }
    ours = logits.get("gated")
    gap = {}
    for kind, n in (("adapter_names", 8), ("rebuilt", 8), ("merged", 1)):
        if ours and kind in logits:
            gap[kind] = (logits[kind][n] - ours[n]).abs().max().item()
    largest = ours[8].abs().max().item() if ours else None
    return {"rows": rows, "largest_logit_difference": gap, "largest_logit": largest, **size}


def make_record(
    runs: list[dict[str, tuple[Any, float]]], rates: list[float], o: argparse.Namespace
) -> dict[str, Any]:
    """The file's content: of whole rounds, or of the first one's ways so far."""
    runs = [one for one in runs if len(one) == len(o.ways)] or runs[:1]
    rounds = [by_way(found for found, _ in one.values()) for one in runs]
    return {
        "what": __doc__.splitlines()[0],
        "command": command_line(["python", *sys.argv]),
        "options": {name: value for name, value in vars(o).items() if name != "out"},
        "bandwidth_gb_per_s": [rate / 1e9 for rate in rates],
        "others_share_of_busy_time": [
            {kind: round(share, 3) for kind, (_, share) in one.items()} for one in runs
        ],
        **summary(rounds, o),
        "runs": [
            {
                kind: {n: {k: v for k, v in run.items() if k != "logits"} for n, run in counts.items()}
                for found, _ in one.values()
                for kind, counts in found.items()
            }
            for one in runs
        ],
        **provenance(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it, print only")
    defaults = {
        "batch": 8,
        "prompt": 64,
        "steps": 8,
        "repeats": 1,
        "rounds": 1,
        "layers": 6,
        "hidden": 768,
        "heads": 12,
        "intermediate": 2048,
        "vocab": 4096,
        "rank": 512,
        "seed": 0,
        "threads": torch.get_num_threads(),
        "bandwidth_mib": 8192 if torch.cuda.is_available() else 1024,
        "prefill_rows": 0,
        "prefill_prompt": 0,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    o = parser.parse_args()
    started = time.perf_counter()
    o.prefill_rows, o.prefill_prompt = o.prefill_rows or o.batch, o.prefill_prompt or o.prompt
    torch.set_num_threads(o.threads)
    rates, runs = [bandwidth(o)], []
    for _ in range(o.rounds):
        runs.append({})
        for kind in o.ways:
            runs[-1][kind] = alone(measure, kind, o)
            print(f"{kind} measured after {time.perf_counter() - started:.0f} s", flush=True)
            if o.out:  # what there is, should this be stopped
                write_json(o.out, make_record(runs, rates, o))
    rates.append(bandwidth(o))
    record = make_record(runs, rates, o)
    for row in record["rows"]:
        floor = (
            "" if row["floor_ms"] is None else f"  floor {row['floor_ms']:6.1f} (x {row['times_floor']:.2f})"
        )
        print(
            f"{row['way']:14s} {row['groups']} groups  prefill {row['prefill_tokens_per_s']:7.0f} t/s  decode "
            f"{row['decode_tokens_per_s']:6.1f} t/s  step {row['step_ms']:6.1f} ms (model alone "
            f"{row['forward_step_ms']:6.1f}){floor}  first {row['first_token_ms']:6.0f} ms  {row['peak_mib']:5.0f} MiB"
        )
    print(
        f"bandwidth {record['bandwidth_gb_per_s']} GB/s; logits differ by {record['largest_logit_difference']}"
    )
    print(f"others' share of busy processor time: {record['others_share_of_busy_time']}")
    if o.out:
        write_json(o.out, record)
        if set(o.ways) == set(WAYS):
            write_serving(record, o.out.with_suffix(""))
        print(f"written to {o.out}")


if __name__ == "__main__":
    main()
