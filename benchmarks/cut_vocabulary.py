"""What cutting a base's vocabulary to its most used tokens costs before any training: a pack against the whole base.

    python benchmarks/cut_vocabulary.py --pack PACK --base runs/bases/gemma-3-270m --languages de,hi,ja,ru \
        --out results/benchmarks/cut_vocabulary.json   (needs XALMA_DATA)

Both translate the same first sentences of FLORES-200 devtest (English side of 40 to 100 characters) after the same four
examples, greedily. A row per direction: BLEU of both, and how many times as many tokens the pack's prompts have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_base.context import Run
from real_base.decoding import decode
from real_base.pack import open_pack_model
from real_base.rows import limit, test_segments, with_shots
from real_base.tables import short_segments
from transformers import AutoModelForCausalLM, AutoTokenizer

from xalma.corpora import load
from xalma.evaluation import score
from xalma.files import write_json
from xalma.profiles import load_profile
from xalma.runtime import provenance


def compared(
    direction: str, run: Run, cut: Any, whole: Any, tokenizer: Any, kept: np.ndarray
) -> dict[str, Any]:
    """A direction's row."""
    test = load("flores200", direction)
    index = short_segments(direction, test.sources, test.references)
    segments = test_segments(run, "flores", direction, 0, index[-1] + 1)
    prompts = [with_shots(run, direction, segments[i][0]) for i in index]
    limits = [limit(run, direction, segments[i][0]) for i in index]
    texts = [tokenizer.decode(kept[row].tolist(), skip_special_tokens=True) for row in prompts]
    again = [[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids] for text in texts]
    lines = [i for token, i in tokenizer.get_vocab().items() if "\n" in token or token == "<0x0A>"]
    pack = run.pack.index
    outputs = {
        "cut": decode(cut, prompts, limits, {pack["eos"], *pack["line_ends"]}, pack["pad"], len(index)),
        "whole": decode(
            whole, again, limits, {tokenizer.eos_token_id, *lines}, tokenizer.pad_token_id, len(index)
        ),
    }
    outputs["cut"] = [kept[row].tolist() for row in outputs["cut"]]
    references = [test.references[i] for i in index]
    row: dict[str, Any] = {"direction": direction, "n": len(index)}
    for name, ids in outputs.items():
        said = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        found = score(said, references, direction.split("-")[1], ["bleu"])[0]
        row |= {f"bleu {name}": round(found.value, 2), "signature": found.signature}
    row["times as many tokens"] = round(sum(map(len, prompts)) / sum(map(len, again)), 3)
    return row


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--languages", default="de,hi,ja,ru")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    run = Run(load_profile("real"), options.pack, Path(), Path())
    tokenizer = AutoTokenizer.from_pretrained(options.base, trust_remote_code=False)
    whole = AutoModelForCausalLM.from_pretrained(
        options.base, dtype=run.dtype, attn_implementation="eager", use_safetensors=True
    ).eval()
    cut = open_pack_model(options.pack, run.dtype).eval()
    kept = np.load(options.pack / "kept.npy", allow_pickle=False)
    record: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "vocabulary": len(kept),
        "of": run.pack.index["of"],
        "dtype": str(run.dtype),
        "rows": [],
        **provenance(),
    }
    for code in options.languages.split(","):
        for direction in (f"{code}-en", f"en-{code}"):
            record["rows"].append(compared(direction, run, cut, whole, tokenizer, kept))
            print(record["rows"][-1], flush=True)
            if options.out:
                write_json(options.out, record)


if __name__ == "__main__":
    main()
