"""How fast text becomes token files, and in how much memory: results/benchmarks/packing_throughput.json.

    python benchmarks/packing_throughput.py            # every core of this machine, some minutes

Text: 3,000 bible verses in each of 23 languages under XALMA_DATA, 25 verses a document, written out 1, 4 and 16 times
as gzipped JSON lines; each copy puts the verses together anew, so that no document is a near duplicate of another.
Tokenizer: a byte-level BPE of 32,000 trained here on a sample of it, as LLaMA-2's own is not at hand; another tokenizer
has another rate. All of `xalma.data.prepare` is timed, imports included: reading, hygiene, tokenising, writing,
hashing; "full" hygiene identifies languages and looks for near duplicates, "exact" does neither.

The alternative, in the same run: `datasets`, the same documents, tokenizer and number of processes, `map` for
tokenising and the usual concatenate-and-cut; no hygiene. Memory is the proportional set size (shared pages counted
once) of the process and all it started, sampled ten times a second.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from xalma.files import write_json
from xalma.runtime import home, provenance

OUT = home() / "results" / "benchmarks" / "packing_throughput.json"
SIZES, BLOCK, VOCABULARY = (1, 4, 16), 512, 32_000
VERSES, VERSES_A_DOCUMENT = 3_000, 25


def verses() -> dict[str, list[str]]:
    """Some verses of each language."""
    from xalma.corpora import BibleCorpus
    from xalma.languages import LANGUAGES
    from xalma.profiles import load_profile

    corpus = BibleCorpus(load_profile("full"))
    return {lang: list(texts.values())[:VERSES] for lang in LANGUAGES if (texts := corpus.texts(lang))}


def documents(texts: dict[str, list[str]], copy: int) -> Iterator[str]:
    """The verses as documents, put together anew in each copy."""
    for lang, lines in texts.items():
        order = np.random.default_rng([copy, len(lang), *lang.encode()]).permutation(len(lines))
        for i in range(0, len(lines), VERSES_A_DOCUMENT):
            yield "\n".join(lines[j] for j in order[i : i + VERSES_A_DOCUMENT])


def write_corpus(path: Path, texts: dict[str, list[str]], times: int) -> int:
    """Characters written."""
    size = 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        for copy in range(times):
            for text in documents(texts, copy):
                size += len(text)
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return size


def run_xalma(path: Path, tokenizer_folder: Path, out: Path, processes_: int, hygiene: str) -> dict:
    from transformers import AutoTokenizer

    from xalma.corpora import json_lines
    from xalma.data import Rules, make_job, processes, write_tokens

    rules = {"full": Rules(), "exact": Rules(language=None, near=False)}[hygiene]
    job = make_job(AutoTokenizer.from_pretrained(tokenizer_folder), "de", rules)
    if rules.language:  # the text is of 23 languages: asked, and not believed, so that none of it is dropped
        job = make_job(AutoTokenizer.from_pretrained(tokenizer_folder), "de", Rules(language=asked))
    rows = ((f"{path.name}:{n}", row["text"]) for n, row in json_lines(str(path)))
    index = write_tokens(rows, out / "xalma", job, BLOCK, partial(processes, processes_))
    return {"tokens": index["tokens"], "rows": index["rows"]}


def asked(text: str, lang: str) -> bool:
    """`wrong_language`'s work without its verdict."""
    from xalma.language_id import wrong_language

    return wrong_language(text, lang) and False


def run_datasets(path: Path, tokenizer_folder: Path, out: Path, processes_: int, hygiene: str) -> dict:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def tokenise(rows):
        ids = tokenizer(rows["text"], add_special_tokens=False)["input_ids"]
        return {"input_ids": [[bos, *one, eos] for one in ids]}

    def cut(rows):
        joined = [i for ids in rows["input_ids"] for i in ids]
        return {"input_ids": [joined[i : i + BLOCK] for i in range(0, len(joined) - BLOCK + 1, BLOCK)]}

    data = load_dataset("json", data_files=str(path), split="train", cache_dir=str(out / "cache"))
    data = data.map(tokenise, batched=True, num_proc=processes_, remove_columns=data.column_names)
    data = data.map(cut, batched=True, num_proc=processes_, remove_columns=data.column_names)
    return {"tokens": len(data) * BLOCK}


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    todo, total = [pid], 0
    while todo:
        one = todo.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration):  # it ended while we looked
            continue
    return total / 1024


def measured(way: str, path: Path, tokenizer_folder: Path, processes_: int, hygiene: str) -> dict:
    """One run in a process of its own: seconds (start-up included and apart), tokens a second, peak memory."""
    out = Path(tempfile.mkdtemp(dir=path.parent))
    command = [
        sys.executable,
        __file__,
        way,
        str(path),
        str(tokenizer_folder),
        str(out),
        str(processes_),
        hygiene,
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    started = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        while child.poll() is None:
            peak = max(peak, memory_mib(child.pid))
            time.sleep(0.1)
        found = json.loads(child.stdout.read().splitlines()[-1])
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    shutil.rmtree(out)
    return found | {
        "way": way,
        "hygiene": hygiene,
        "processes": processes_,
        "seconds_with_start": time.perf_counter() - started,
        "tokens_per_second": found["tokens"] / found["seconds"],
        "peak_memory_mib": round(peak),
    }


def main() -> None:
    """Writes the results file."""
    from xalma.models import train_tokenizer

    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        texts = verses()
        tokenizer_folder, places = Path(folder) / "tokenizer", {}
        train_tokenizer(list(documents(texts, 99))[::3], VOCABULARY).save_pretrained(tokenizer_folder)
        for times in SIZES:
            places[times] = Path(folder) / f"{times}.jsonl.gz"
            characters = write_corpus(places[times], texts, times)
            print(f"size {times}: {characters:,} characters", flush=True)
        runs = [("xalma", times, cores, "full") for times in SIZES]
        runs += [("xalma", 4, 1, "full"), ("xalma", 4, cores, "exact"), ("datasets", 4, cores, "none")]
        for way, times, processes_, hygiene in runs:
            row = measured(way, places[times], tokenizer_folder, processes_, hygiene) | {"size": times}
            print(row, flush=True)
            rows.append(row)
    by = {
        (row["way"], row["hygiene"], row["size"], row["processes"]): row["tokens_per_second"] for row in rows
    }
    ratio = by["xalma", "exact", 4, cores] / by["datasets", "none", 4, cores]
    facts = {
        "cores": cores,
        "block_tokens": BLOCK,
        "vocabulary": VOCABULARY,
        "xalma_exact_over_datasets": ratio,
    }
    write_json(OUT, facts | {"runs": rows} | provenance())


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        way, path, tokenizer_folder, out, processes_, hygiene = sys.argv[1:]
        begun = time.perf_counter()
        do = run_xalma if way == "xalma" else run_datasets
        found = do(Path(path), Path(tokenizer_folder), Path(out), int(processes_), hygiene)
        print(json.dumps(found | {"seconds": time.perf_counter() - begun}))
