"""A trained module exported, and N sentences translated by ordinary programs, each in a process that does not know
xalma: how many are equal, to the letter, to what `xalma translate` answers.

Programs: transformers' pipeline with the prompt; the same with the shipped chat template; PEFT with the adapter and the
base beside it; CTranslate2, where it is installed (or its folder is named in XALMA_CTRANSLATE2); and model.gguf by
transformers' reader, which stands for llama.cpp: that has no wheel here. The module is a short SFT of the shipped tiny
base, whose answers are of many kinds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from chain import GROUP, options
from shell import Shell

TITLE = "Clients of an export"
COUNT = 64  # sentences
BASE = {
    "base": "tiny-base", "stage1_tokens": 512, "stage1_learning_rate": 1e-5, "stage3_tokens": 2048, "sft_pairs": 40,
}  # fmt: skip
_ENCODE = """
import json, sys
from transformers import AutoTokenizer
rows, tokens = json.load(sys.stdin), int(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(".")
"""
_GENERATE = """
def answer(row):
    prompt = tokenizer(row["prompt"], return_tensors="pt")
    ids = model.generate(**prompt, do_sample=False, max_new_tokens=tokens, eos_token_id=tokenizer.eos_token_id)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
"""
_PIPELINE = """
from transformers import pipeline
ask = pipeline("text-generation", ".")
"""
_PRINT = """
print("\\n" + json.dumps([answer(row).strip().split("\\n")[0].strip() for row in rows]))
"""
# Programs: what is exported, and the code that asks it.
CLIENTS = {
    "transformers pipeline": ("merged", _PIPELINE + """
def answer(row):
    return ask(row["prompt"], return_full_text=False, do_sample=False, max_new_tokens=tokens)[0]["generated_text"]
"""),
    "chat template": ("merged", _PIPELINE + """
def answer(row):
    turn = [{"role": "user", "content": row["turn"]}]
    return ask(turn, return_full_text=False, do_sample=False, max_new_tokens=tokens)[0]["generated_text"]
"""),
    "PEFT": ("adapter", _GENERATE + """
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(".")
"""),
    "CTranslate2": ("merged", """
import ctranslate2
ctranslate2.converters.TransformersConverter(".").convert("ct2", force=True)
generator = ctranslate2.Generator("ct2")

def answer(row):
    prompt = tokenizer.convert_ids_to_tokens(tokenizer(row["prompt"])["input_ids"])
    found = generator.generate_batch([prompt], beam_size=1, max_length=tokens, include_prompt_in_result=False)
    return tokenizer.decode(found[0].sequences_ids[0], skip_special_tokens=True)
"""),
    "model.gguf": ("merged", _GENERATE + """
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(".", gguf_file="model.gguf")
"""),
}  # fmt: skip


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, object]:
    """n sentences, in all directions of the group in turn."""
    from conftest import MICRO

    from xalma.profiles import load_profile

    work.mkdir(parents=True, exist_ok=True)
    values = options(work / "runs", **BASE)
    p = load_profile("tiny", **MICRO | BASE)
    rows = asked(p, n)
    with Shell(work) as shell:
        for number in range(5):
            carried_out(shell, "stage", number, "--group", GROUP if number > 1 else 0, *values)
        for direction in {row["direction"] for row in rows}:
            src, tgt = direction.split("-")
            mine = [row for row in rows if row["direction"] == direction]
            text = "".join(f"{row['source']}\n" for row in mine)
            done = carried_out(shell, "translate", "--from", src, "--to", tgt, *values, stdin=text)
            for row, line in zip(mine, done.split("\n")[:-1], strict=True):
                row["expected"] = line
        for what, more in (("merged", ["--gguf"]), ("adapter", ["--what", "adapter", "--with-base"])):
            options_of = ("--group", GROUP, "--to", work / what, "--sentences", 4, *more)
            carried_out(shell, "export", *options_of, *values)
    equal, failed, missing = {}, [], []
    for name, (what, code) in CLIENTS.items():
        if name == "CTranslate2" and not (os.environ.get("XALMA_CTRANSLATE2") or find_spec("ctranslate2")):
            missing.append(name)
            continue
        answers = answers_of(_ENCODE + code + _PRINT, work / what, rows, p.max_new_tokens)
        same = [a == row["expected"] for a, row in zip(answers, rows, strict=True)] if answers else []
        equal[name] = sum(same)
        if sum(same) < len(rows):
            odd = next((i for i, one in enumerate(same) if not one), 0)
            found = (answers or ["no answer at all"] * len(rows))[odd]
            failed.append(
                f"{name}: {sum(same)} of {len(rows)}, as {found!r} for {rows[odd]['expected']!r}"[:600]
            )
    return {
        "tried": len(rows) * len(equal), "held": sum(equal.values()), "sentences": len(rows),
        "different answers": len({row["expected"] for row in rows} - {""}), "held of each kind": equal,
        "not installed": len(missing), "failed": failed,
    }  # fmt: skip


def carried_out(shell: Shell, *command: object, stdin: str = "") -> str:
    """What a command prints; RuntimeError if it fails."""
    done = shell.run(*command, stdin=stdin)
    if done.code:
        raise RuntimeError(done.err)
    return done.out


def asked(p, n: int) -> list[dict[str, str]]:
    """n sentences with direction, source, prompt of the training form, and the bare prompt of a chat's turn."""
    from xalma.prompts import translation_prompt
    from xalma.training.export.export import held_out_rows

    rows = []
    for row in held_out_rows(p, GROUP, n):
        src, tgt = row["direction"].split("-")
        text = row["source"]
        styles = {"prompt": p.prompt_style, "turn": "alma"}
        prompts = {key: translation_prompt(text, src, tgt, style) for key, style in styles.items()}
        rows.append({"direction": row["direction"], "source": text, **prompts})
    return rows


def answers_of(code: str, folder: Path, rows: list[dict[str, str]], max_new_tokens: int) -> list[str]:
    """What a fresh Python in that folder answers, one a row; nothing where it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("XALMA_CTRANSLATE2", "")}
    command = [sys.executable, "-c", code, str(max_new_tokens)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, input=json.dumps(rows)
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
