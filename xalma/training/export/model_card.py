"""The README.md of an exported model in the hub's model-card form, filled from what was measured and nothing else.

Facts come from the run.json of every stage the weights went through, scores from records with their signatures. What
nobody measured is said to be not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from xalma.corpora.registry import family
from xalma.corpus_names import parse_corpus
from xalma.evaluation.records import Record, footnote, off_target_label
from xalma.languages import ENGLISH, GROUP_NAMES, language
from xalma.runs import BASE, lineage

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# What a stage reads of the hub's corpora; other corpora are named as they name themselves.
_HUB_DATA = {1: "monolingual_id", 2: "monolingual_id", 3: "bitext_id", 4: "sft_id", 5: "sft_id"}
_METRICS = {"bleu": "BLEU", "chrf": "chrF", "empty": "empty %"}


def stage_chain(folder: str | Path) -> list[dict[str, Any]]:
    """run.json of every stage that `folder` was made by, the first one first."""
    return [run for _, run in lineage(folder)][::-1]


def model_card(
    details: Mapping[str, Any], chain: Sequence[Mapping[str, Any]], records: Sequence[Record]
) -> str:
    """The text of README.md.

    details: name, what ("merged" or "adapter"), profile, base_id, licence, command, trained_by (the run's command),
    prompt (with the text left out), and check, the sentence on how merged and gated model were compared. chain: from
    `stage_chain`. records: of this group and stage.
    """
    run = chain[-1]
    group = run["group"]
    names = ", ".join(language(code).name for code in run["inputs"]["languages"])
    kind = "module merged into the base" if details["what"] == "merged" else "LoRA module, for its base only"
    parts = [
        f"---\n{_header(details, run, records)}\n---",
        f"# {details['name']}",
        f"Translates between English and {names}: X-ALMA's language group {group}, {GROUP_NAMES[group]}. "
        f"{kind[0].upper() + kind[1:]}, as of stage {run['number']} ({run['stage']}) of profile "
        f"{details['profile']}. Method: X-ALMA, arXiv 2410.03115; made by xalma, an open run of its recipe; these are "
        f"not the authors' weights.",
        "## Training",
        _training(chain),
        "## Scores",
        _scores(records, details["trained_by"]),
        "## Check",
        details["check"],
        "## Use",
        _use(details),
        "## Limits and licence",
        _limits(details, run),
        "## Provenance",
        _provenance(run, details),
    ]
    return "\n\n".join(parts) + "\n"


def _header(details: Mapping[str, Any], run: Mapping[str, Any], records: Sequence[Record]) -> str:
    from huggingface_hub import ModelCardData

    used = [
        run["inputs"][key]
        for key in dict.fromkeys(_HUB_DATA.values())
        if run["inputs"].get("corpus") == "hub"
    ]
    card = ModelCardData(
        language=[ENGLISH, *run["inputs"]["languages"]],
        license=details["licence"],
        base_model=details["base_id"] or None,
        library_name="transformers" if details["what"] == "merged" else "peft",
        pipeline_tag="translation",
        tags=["xalma", "x-alma", "translation"],
        datasets=used or None,
        model_name=details["name"] if records else None,
        eval_results=[_result(record, run) for record in records] or None,
    )
    return card.to_yaml().strip()


def _result(record: Record, run: Mapping[str, Any]) -> EvalResult:
    from huggingface_hub import EvalResult

    corpus = run["inputs"]["corpus"]
    return EvalResult(
        task_type="translation",
        task_name=f"Translation {record.direction}",
        dataset_name=f"{corpus}, held out",
        dataset_type=run["inputs"].get("test_id") if corpus == "hub" else corpus,
        dataset_config=record.direction,
        metric_type=record.metric,
        metric_name=_METRICS.get(record.metric, record.metric),
        metric_value=record.value,
        metric_args={"signature": record.signature, "n": record.n, "seed": record.seed},
    )


def _training(chain: Sequence[Mapping[str, Any]]) -> str:
    """A row per stage: data, updates, tokens and rows it saw, minutes it took."""
    rows = []
    for run in chain:
        rows.append(
            {
                "stage": f"{run['number']} {run['stage']}",
                "what": "base" if run["group"] == BASE else f"module of group {run['group']}",
                "data": _data(run),
                "updates": f"{run.get('steps', 0):,}",
                "tokens": f"{run['tokens_seen']:,}" if "tokens_seen" in run else "–",
                "rows": f"{run['rows']:,}" if "rows" in run else "–",
                "minutes": f"{run['seconds'] / 60:.1f}",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def _data(run: Mapping[str, Any]) -> str:
    inputs = run["inputs"]
    if run["number"] == 0:
        return inputs.get("base") or "built here; the tokenizer was trained on the corpus"
    if inputs["corpus"] == "hub":
        return inputs[_HUB_DATA[run["number"]]]
    return ", ".join(family(name).NAME for name in parse_corpus(inputs["corpus"]))


def _scores(records: Sequence[Record], command: str) -> str:
    if not records:
        return "Not measured."
    frame = pd.DataFrame(
        [{"direction": r.direction, "n": r.n, "metric": r.metric, "value": r.value} for r in records]
    )
    metrics = list(dict.fromkeys(frame["metric"]))
    names = _METRICS | {"off_target": off_target_label(records)}
    wide = frame.pivot_table(index=["direction", "n"], columns="metric", values="value", sort=False)[metrics]
    wide = wide.sort_index().reset_index().rename(columns=names)
    notes = [f"- {names.get(m, m)}: {footnote(records, m, command)}" for m in metrics]
    return wide.to_markdown(index=False, floatfmt=".2f") + "\n\n" + "\n".join(notes)


_MERGED = """from transformers import pipeline

translate = pipeline("text-generation", ".")
turn = [{{"role": "user", "content": {turn!r}}}]
options = {{"do_sample": False, "num_beams": {beams}, "max_new_tokens": {max_new_tokens}}}
answer = translate(turn, return_full_text=False, **options)[0]["generated_text"]
print(answer.strip().split("\\n")[0])"""
_ADAPTER = """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model, tokenizer = AutoPeftModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
prompt = tokenizer({prompt!r}, return_tensors="pt")  # begins with {bos}
ids = model.generate(**prompt, do_sample=False, num_beams={beams}, max_new_tokens={max_new_tokens})
answer = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
print(answer.strip().split("\\n")[0])"""
_CTRANSLATE2 = """import ctranslate2
from transformers import AutoTokenizer

ctranslate2.converters.TransformersConverter(".").convert("ct2")
tokenizer, generator = AutoTokenizer.from_pretrained("."), ctranslate2.Generator("ct2")
prompt = tokenizer.convert_ids_to_tokens(tokenizer({prompt!r})["input_ids"])
found = generator.generate_batch(
    [prompt], beam_size={beams}, max_length={max_new_tokens}, include_prompt_in_result=False
)
answer = tokenizer.decode(found[0].sequences_ids[0], skip_special_tokens=True)
print(answer.strip().split("\\n")[0])"""
_LLAMA_CPP = """python llama.cpp/convert_hf_to_gguf.py . --outfile model.gguf
llama-server --model model.gguf --jinja --temp 0"""

_GGUF = """With llama.cpp and what is built on it, such as Ollama (`FROM ./model.gguf` in a Modelfile), which \
xalma's tests do not run; they read model.gguf with the readers of transformers and of the package gguf:

```bash
llama-server --model model.gguf --jinja --temp 0
```"""


def _use(details: Mapping[str, Any]) -> str:
    """How ordinary programs ask the model, run where the card lies; the tests run the Python of it as printed."""
    text = details["prompt"].replace("…", "Good morning.")
    fill = {
        "prompt": text,
        "turn": details["turn"],
        **{key: details[key] for key in ("beams", "max_new_tokens", "bos")},
    }
    parts = [
        "Run in this folder. Tokenizer and chat template give the form of the training prompts, begin-of-text token "
        "and all; the answer ends at the first line break."
    ]
    if details["what"] == "adapter":
        parts.append(f"```python\n{_ADAPTER.format(**fill)}\n```")
    else:
        parts += [
            f"```python\n{_MERGED.format(**fill)}\n```",
            f"With CTranslate2:\n\n```python\n{_CTRANSLATE2.format(**fill)}\n```",
            _GGUF
            if details.get("gguf")
            else "With llama.cpp and what is built on it, where its converter knows this tokenizer (these two "
            "commands are not run by xalma's tests; `xalma export --gguf` writes the file without it):\n\n"
            f"```bash\n{_LLAMA_CPP}\n```",
        ]
    parts.append(f"What the model reads, after the begin-of-text token:\n\n```text\n{details['prompt']}\n```")
    return "\n\n".join(parts)


def _limits(details: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    base = f" of the base, {details['base_id']}, and" if details["base_id"] else ""
    codes = ", ".join(run["inputs"]["languages"])
    return (
        f"Only these directions were trained: English with {codes}, one way or the other. "
        f"Scores say what the model does on text like its test set ({run['inputs']['corpus']}) and not more. "
        f"Besides the licence above the terms{base} of the training data hold; xalma's data_cards/ describe the data."
    )


def _provenance(run: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    hardware = run["hardware"]
    machine = hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}"
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items() if number != "absent")
    return (
        f"Trained at commit `{run['commit']}` on {machine}, seed {run['inputs']['seed']}; {versions}. Stage "
        f"fingerprint `{run['fingerprint']}`. Exported with `{details['command']}`."
    )
