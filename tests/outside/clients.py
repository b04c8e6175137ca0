"""A trained module exported, and N sentences translated by ordinary programs, each in a process that does not know
xalma: how many are equal, to the letter, to what `xalma translate` answers.

Programs: transformers' pipeline with the prompt; the same with the shipped chat template; PEFT with the adapter and the
base beside it; CTranslate2, where it is installed (or its folder is named in XALMA_CTRANSLATE2); model.gguf by
transformers' reader; and, where it is installed (`llama_server`), model.gguf in llama.cpp's own server, asked for
completions of the prompt, and by xalma's endpoint for a chat's turn. The module is a short SFT of the shipped tiny
base, whose answers are of many kinds. Last, SmolLM2 behind llama.cpp's server: an endpoint's second start, with the
server gone, gives the first one's answers from its journal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from chain import GROUP, options
from llama_server import FOLDER, SMOLLM2, LlamaServer, is_installed
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
    "llama.cpp": ("merged", """
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = "model.gguf", 4096, 1, 1
params.cache_prompt = False
server = xllamacpp.Server(params)

def answer(row):
    asked = {"prompt": row["prompt"], "temperature": 0, "max_tokens": tokens}
    return server.handle_completions(asked)["choices"][0]["text"]
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
        there = {
            "CTranslate2": os.environ.get("XALMA_CTRANSLATE2") or find_spec("ctranslate2"),
            "llama.cpp": is_installed(),
        }
        if not there.get(name, True):
            missing.append(name)
            continue
        answers = answers_of(_ENCODE + code + _PRINT, work / what, rows, p.max_new_tokens)
        equal[name], odd = compared(name, answers, [row["expected"] for row in rows])
        failed += odd
    if is_installed():
        with LlamaServer(work / "merged" / "model.gguf") as url:
            answers = by_endpoint(rows, url, work / "exported.jsonl", p.max_new_tokens)
        expected = [row["expected"] for row in rows]
        equal["llama.cpp's server, by xalma's endpoint"], odd = compared("endpoint", answers, expected)
        failed += odd
    if SMOLLM2.is_file():
        equal["SmolLM2 in llama.cpp's server, resumed"], odd = resumed(rows, work / "smollm2.jsonl")
        failed += odd
    return {
        "tried": len(rows) * len(equal),
        "held": sum(equal.values()),
        "sentences": len(rows),
        "different answers": len({row["expected"] for row in rows} - {""}),
        "held of each kind": equal,
        "not installed": len(missing),
        "failed": failed,
    }


def compared(name: str, answers: list[str], expected: list[str]) -> tuple[int, list[str]]:
    """(how many are equal, a line on the first that is not)."""
    same = [a == b for a, b in zip(answers, expected, strict=True)] if answers else []
    if sum(same) == len(expected):
        return sum(same), []
    odd = next((i for i, one in enumerate(same) if not one), 0)
    found = (answers or ["no answer at all"] * len(expected))[odd]
    return sum(same), [f"{name}: {sum(same)} of {len(expected)}, as {found!r} for {expected[odd]!r}"[:600]]


def by_endpoint(rows: list[dict[str, str]], url: str, journal: Path, tokens: int = 64) -> list[str]:
    """The answers of the row `endpoint` of xalma's systems to the sources, one a row."""
    from xalma.systems.registry import open_system

    limit = {"max_tokens": tokens}
    system = open_system("endpoint", path="m", journal=journal, base_url=url, workers=1, body=limit)
    try:
        return [
            system.translate([row["source"]], *row["direction"].split("-"), progress=False)[0] for row in rows
        ]
    finally:
        system.close()


def resumed(rows: list[dict[str, str]], journal: Path) -> tuple[int, list[str]]:
    """SmolLM2 asked by an endpoint, and again when its server is gone: `compared` of both."""
    with LlamaServer(SMOLLM2) as url:
        first = by_endpoint(rows, url, journal)
    second = by_endpoint(rows, url, journal)
    return compared("SmolLM2", second if any(first) else [], first)


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
    environment |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.environ.get("XALMA_CTRANSLATE2", ""), FOLDER]),
    }
    command = [sys.executable, "-c", code, str(max_new_tokens)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, input=json.dumps(rows)
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
