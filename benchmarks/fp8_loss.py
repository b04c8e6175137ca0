"""What a base in FP8 does to the loss: a module trained on a real base in float32, FP8 and bfloat16, on the same rows.

    python benchmarks/fp8_loss.py --pack PACK --out results/benchmarks/fp8_loss.json   # a CPU: FP8 simulated
    python benchmarks/fp8_loss.py --pack PACK --rows 32 --block 256 --rate 2e-4 --out FILE       # a GPU

PACK is a folder of `benchmarks/real.py pack`: the base and token ids of its texts. Updates are stage 3's of the
profile, on blocks of bitext, each read once, at a rate for so small a batch. Losses are means of the updates between
two logged ones; "held out" are blocks that no update saw, before and after training, by the base in the precision of
the training and (what a merged model would be) by the base as it is.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from real_base.context import Run
from real_base.rows import blocks, stream
from real_base.tasks import base_model, module_on

from xalma.files import write_json
from xalma.models import evaluate_loss, fp8_base, has_products
from xalma.profiles import load_profile
from xalma.runtime import device, provenance
from xalma.training import train

PRECISIONS = {  # dtype of the base, mixed precision, base's products
    "float32": ("float32", "off", "dtype"),
    "fp8": ("float32", "off", "fp8"),
    "bfloat16": ("bfloat16", "on", "dtype"),
    "fp8 and bfloat16": ("bfloat16", "on", "fp8"),
}


def train_in(
    precision: str, run: Run, rows: list, held_out: list, options: argparse.Namespace
) -> dict[str, Any]:
    """Losses of a training from the same fresh module, and of held-out rows."""
    dtype, mixed, products = PRECISIONS[precision]
    run.p = run.p.but(dtype=dtype, mixed_precision=mixed, base_precision=products)
    model = module_on(run, base_model(run, 0))
    pad, found = run.pack.index["pad"], {}

    def measure(when: str) -> None:
        with fp8_base(model, products == "fp8"):
            found[f"held_out_{when}"] = evaluate_loss(model, held_out, pad, 8)

    measure("before")
    started = time.perf_counter()
    p = run.p
    log = train(
        model, rows, p, p.stage(3), steps=options.steps, seed=p.seed, pad_token_id=pad, label=precision
    )
    found |= {"seconds": time.perf_counter() - started, "losses": [row["loss"] for row in log]}
    measure("after")
    return found | {"held_out_after_unrounded": evaluate_loss(model, held_out, pad, 8)}


def difference(losses: list[float], reference: list[float]) -> dict[str, float]:
    """Relative differences of one training's losses to another's: of their means, and the largest of any."""
    relative = [(a - b) / b for a, b in zip(losses, reference, strict=True)]
    return {"of_means": sum(losses) / sum(reference) - 1, "largest": max(map(abs, relative))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, help="JSON file to write, after each training; without it, print only"
    )
    parser.add_argument("--profile", default="real-cpu")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS)[:3])
    parser.add_argument("--rate", type=float, default=5e-5)
    for name, value in {
        "steps": 200,
        "rows": 2,
        "block": 32,
        "rank": 64,
        "threads": 1,
        "held_out": 64,
    }.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    codes = json.loads((options.pack / "index.json").read_text(encoding="utf-8"))["languages"]
    p = load_profile(
        options.profile,
        stage3_batch_size=options.rows,
        micro_batch=options.rows,
        block_tokens=options.block,
        stage3_learning_rate=options.rate,
        lora_rank=options.rank,
        lora_alpha=2 * options.rank,
        threads=options.threads,
    )
    torch.set_num_threads(options.threads)
    run = Run(p, options.pack, Path(), Path())
    rows = []
    for code in codes:
        rows += blocks(run, "bitext", [code], stream(run, "bitext", code).size)
    random.Random(p.seed).shuffle(rows)
    held_out, rows = rows[: options.held_out], rows[options.held_out :][: options.steps * options.rows]
    record: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        **{key: run.pack.index.get(key) for key in ("base", "vocabulary")},
        "options": {k: v for k, v in vars(options).items() if k not in ("out", "pack")},
        "languages": codes,
        "blocks": len(rows),
        "tokens": len(rows) * options.block,
        "fp8_simulated": not has_products(torch.device(device())),
        **provenance(),
        "precisions": {},
        "relative_difference": {},
    }
    for precision in options.precisions:
        record["precisions"][precision] = one = train_in(precision, run, rows, held_out, options)
        first = record["precisions"][options.precisions[0]]
        record["relative_difference"][precision] = apart = difference(one["losses"], first["losses"])
        shown = {key: round(value, 4) for key, value in (one | apart).items() if key != "losses"}
        print(precision, shown, flush=True)
        if options.out:
            write_json(options.out, record)


if __name__ == "__main__":
    main()
