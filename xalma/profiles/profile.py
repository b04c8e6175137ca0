"""One frozen dataclass with every number of a run, and what a stage takes of it.

The defaults of `Profile` are the `full` profile, the papers' scale. Each value stands beside its source:
`paper(...)` (X-ALMA or ALMA text), `code(...)` (released code or model card), `ours(...)` (with the reason).
X-ALMA's learning rates, batch sizes and schedules could not be read (docs/departures.md).
"""

from __future__ import annotations

import ast
import math
import shlex
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from xalma.corpus_names import parse_corpus
from xalma.languages import GROUPS, group_of, parse_groups, parse_module_languages
from xalma.prompts import CHAT, base_chat_style, is_style

if TYPE_CHECKING:
    import pandas as pd


def paper(value: Any, source: str) -> Any:
    return field(default=value, metadata={"source": f"paper: {source}"})


def code(value: Any, source: str) -> Any:
    return field(default=value, metadata={"source": f"released: {source}"})


def ours(value: Any, reason: str) -> Any:
    return field(default=value, metadata={"source": f"our choice: {reason}"})


PROFILES: dict[str, Profile] = {}  # by name; `xalma.profiles.named` fills it
_GUESS = "not readable in X-ALMA; ALMA's value"


@dataclass(frozen=True)
class StageSettings:
    """What a stage trains with: its own `stage<number>_…` fields of the profile, and those that all stages share.

    tokens: budget of stages 1 to 3. epochs, updates: of stages 4 and 5; updates, where they are given, come first.
    batch_size: sequences, in stage 4 sentence pairs, in stage 5 preference pairs.
    """

    number: int
    batch_size: int
    learning_rate: float
    schedule: str
    micro_batch: int
    warmup_ratio: float
    weight_decay: float
    clip_norm: float
    adam_beta2: float
    tokens: int = 0
    epochs: float = 0.0
    updates: int = 0


def stage_settings(p: Profile, number: int) -> StageSettings:
    """`Profile.stage`, apart from the other fields so that the recipe's hash holds it."""
    own: dict[str, Any] = {
        1: {
            "tokens": p.stage1_tokens,
            "batch_size": p.stage1_batch_size,
            "learning_rate": p.stage1_learning_rate,
            "schedule": p.stage1_schedule,
        },
        2: {
            "tokens": p.stage2_tokens,
            "batch_size": p.stage2_batch_size,
            "learning_rate": p.stage2_learning_rate,
            "schedule": p.stage2_schedule,
        },
        3: {
            "tokens": p.stage3_tokens,
            "batch_size": p.stage3_batch_size,
            "learning_rate": p.stage3_learning_rate,
            "schedule": p.stage3_schedule,
        },
        4: {
            "epochs": p.stage4_epochs,
            "updates": p.stage4_updates,
            "batch_size": p.stage4_batch_size,
            "learning_rate": p.stage4_learning_rate,
            "schedule": p.stage4_schedule,
        },
        5: {
            "epochs": p.stage5_epochs,
            "batch_size": p.stage5_batch_size,
            "learning_rate": p.stage5_learning_rate,
            "schedule": p.stage5_schedule,
        },
    }[number]
    shared = p.values("micro_batch", "warmup_ratio", "weight_decay", "clip_norm", "adam_beta2")
    return StageSettings(number, **own, **shared)


@dataclass(frozen=True)
class Profile:
    """Every number of a run. Field names are papermill parameters and `--set` keys."""

    name: str = ours("full", "the papers' scale")
    run_dir: str = ours("runs", "weights and logs; not in git")
    results_dir: str = ours("results", "tables, figures, executed notebooks")
    seed: int = ours(0, "every random draw comes from it")
    threads: int = ours(0, "CPU threads in all; 0 leaves torch's default")
    workers: int = ours(1, "processes that train groups side by side, each with its share of the threads")
    notebooks: str = ours("00-10", "what a run takes when --only names none; ALMA's profiles take 11")
    groups: str = paper("all", "eight groups; 'all' or numbers separated by commas")
    only_languages: str = ours(
        "", "some of the groups' languages for the base, separated by commas; '' for all"
    )
    module_languages: str = ours(
        "", "languages of a module in place of its group's, as 6:et+fi,3:ru; '' for none"
    )

    # corpora: "hub" reads the ids below, "cldr" the embedded phrasebook, "own" a folder, most others XALMA_DATA
    corpus: str = ours("hub", "hub | cldr | ntrex | real | … of xalma.corpora; several joined by +")
    corpus_path: str = ours("", "folder of your own text, for corpus=own")
    monolingual_id: str = paper("oscar-corpus/OSCAR-2301", "table of stages, pre-training 1 and 2")
    bitext_id: str = code("allenai/nllb", "run_llmmt.py, pseudo-monolingual stage")
    bitext_id_th: str = code("Helsinki-NLP/opus-100", "run_llmmt.py, Thai only")
    sft_id: str = code("haoranxu/X-ALMA-Parallel-Data", "model card, FLORES dev + NTREX + WMT'15-22")
    preference_id: str = ours("", "pairs that stage 5 trains on (id, file or folder); '' decodes its own")
    test_id: str = code("haoranxu/FLORES-200", "evaluation command of the README")
    sft_pairs: int = paper(4000, "average pairs per language")
    dev_pairs: int = ours(200, "held-out pairs per language for the loss curves")
    test_pairs: int = paper(1012, "FLORES-200 devtest rows per direction")
    phrasebook_countries: int = ours(40, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_languages: int = ours(30, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_currencies: int = ours(10, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_units: int = ours(12, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_list: int = ours(3, "longest list in a phrase")
    bitext_noise: float = ours(0.0, "share of misaligned pairs added to stage 3's bitext")
    contamination: str = ours(
        "stop", "a training row that is a test sentence: stop | drop | allow (train on it)"
    )

    # backbone: an id or a folder; "" builds a small LLaMA and trains a byte-level BPE tokenizer
    base: str = paper("meta-llama/Llama-2-13b-hf", "§ backbone")
    vocab_size: int = paper(32_000, "LLaMA-2's vocabulary, unchanged")
    hidden_size: int = paper(5120, "LLaMA-2-13B")
    layers: int = paper(40, "LLaMA-2-13B")
    heads: int = paper(40, "LLaMA-2-13B")
    dtype: str = ours("bfloat16", "of the frozen base; what is trained is kept in float32")
    base_precision: str = ours(
        "dtype", "products of the frozen base: dtype | fp8 (simulated where a device has none)"
    )
    mixed_precision: str = ours("auto", "bfloat16 products: auto | on | off; fp16 overflowed (ALMA issue 33)")

    # language-specific modules
    lora_rank: int = code(512, "adapter_config of X-ALMA-13B-Group1")
    lora_alpha: int = code(1024, "adapter_config of X-ALMA-13B-Group1")
    lora_dropout: float = code(0.05, "adapter_config of X-ALMA-13B-Group1")

    # mixing and packing
    mixing: str = ours(
        "uniform", "uniform | temperature | given | unimax | groups; the split in a group is not stated"
    )
    mixing_temperature: float = ours(
        5.0, "used by mixing=temperature, and inside each group by mixing=groups"
    )
    mixing_shares: str = ours("", "used by mixing=given: de:20,cs:14,… percent or any weights")
    mixing_cap: float = ours(4.0, "used by mixing=unimax: most times a language's text is repeated")
    mixing_exhausted: str = ours(
        "repeat", "a prepared language that runs out: repeat | stop (the others go on)"
    )
    mixing_blocks: str = ours(
        "", "folder of prepared text (xalma prepare); '': tokenised and packed while training"
    )
    block_tokens: int = code(512, "max_source_length + max_new_tokens")
    micro_batch: int = ours(16, "sequences or pairs on the device at once; more are accumulated")
    isolate_documents: bool = ours(
        False, "released packing lets attention cross documents in a block; True: none does"
    )

    # how stages 1 to 5 run; none of these decides a weight but for rounding
    checkpoint_steps: int = ours(500, "updates between checkpoints inside a stage, 66 M tokens; 0: none")
    gradient_checkpointing: bool = ours(
        True, "activations are computed again in the backward pass: 13B needs it"
    )
    torch_compile: bool = ours(False, "layer by layer; pays in long trainings; a CPU needs a C++ compiler")
    attention: str = ours("auto", "auto (eager on a CPU, sdpa on a GPU) | eager | sdpa | flash_attention_2")
    launch: str = ours(
        "", "accelerate configuration (1x, 8x, 2x8 or a file) for stages 1 to 5; '': this process"
    )
    sharding: str = ours("auto", "many devices: full (FSDP2) | none (DDP) | auto: full if all are trained")
    track: str = ours("", "tensorboard | wandb; '': the progress bar only")

    # optimisation common to all stages
    warmup_ratio: float = code(0.01, f"ALMA's scripts; {_GUESS}")
    weight_decay: float = code(0.01, f"ALMA's scripts; {_GUESS}")
    clip_norm: float = code(1.0, "ALMA's scripts")
    adam_beta2: float = ours(0.999, "the optimiser's default; not stated")

    # stage 1: monolingual fine-tuning of the base, full weights
    stage1_tokens: int = paper(20_000_000_000, "pre-training stage 1")
    stage1_batch_size: int = ours(256, f"sequences; {_GUESS}")
    stage1_learning_rate: float = ours(2e-5, f"{_GUESS}")
    stage1_schedule: str = ours("cosine", f"{_GUESS}")
    # stage 2: monolingual fine-tuning of one group's module
    stage2_tokens: int = paper(10_000_000_000, "pre-training stage 2, per group")
    stage2_batch_size: int = ours(256, f"sequences; {_GUESS}")
    stage2_learning_rate: float = ours(1e-4, "not readable; CPO's adapter rate")
    stage2_schedule: str = ours("cosine", f"{_GUESS}")
    # stage 3: pseudo-monolingual fine-tuning on concatenated bitext
    stage3_tokens: int = paper(1_250_000_000, "pre-training stage 3; per group is our reading")
    stage3_batch_size: int = ours(256, f"sequences; {_GUESS}")
    stage3_learning_rate: float = ours(1e-4, "not readable; CPO's adapter rate")
    stage3_schedule: str = ours("cosine", f"{_GUESS}")
    stage3_document_pairs: int = ours(
        1, "pairs of one running text; tiny packs several, so that a shot can be given"
    )
    # stage 4: supervised fine-tuning
    prompt_style: str = code(
        "xalma", "LLaMA-2 chat form; 'alma' is the raw prompt, 'chat' the base's own form"
    )
    max_length: int = code(512, "CPO script, prompt and answer, tokens")
    stage4_epochs: float = ours(1.0, f"{_GUESS}")
    stage4_updates: int = ours(0, "updates of stage 4, for comparisons of data; 0: those of stage4_epochs")
    stage4_batch_size: int = ours(128, "sentence pairs; not readable, CPO paper's 128 from memory")
    stage4_learning_rate: float = ours(1e-4, "not readable; CPO's adapter rate")
    stage4_schedule: str = ours("inverse_sqrt", f"{_GUESS}")
    # stage 5: ARPO
    stage5_epochs: float = ours(1.0, "CPO script's value")
    stage5_pairs: int = ours(
        4000, "source sentences per direction; the released set has about 3,980 per language"
    )
    stage5_batch_size: int = ours(128, "preference pairs; not readable, CPO paper's 128 from memory")
    stage5_learning_rate: float = ours(1e-4, "not readable; CPO script's value")
    stage5_schedule: str = ours("inverse_sqrt", "not readable; CPO script's value")
    arpo_eta: float = paper(1.5, "§5.3, quoted in ALMA issue 82")
    arpo_eta_scale: float = paper(1.0, "Eq. of tau; released code has 0.9 (and eta 0.4)")
    arpo_beta: float = code(0.1, "CPO script; the paper's value could not be read")
    arpo_detach_penalty: bool = ours(False, "released code lets the gradient through tau; paper silent")
    arpo_nll_weight: float = code(1.0, "cpo_alpha")

    # ALMA, notebook 11: its second stage is stage 4's loop
    alma_lora_learning_rate: float = code(2e-3, "ALMA's scripts, LoRA")

    # decoding
    beams: int = paper(5, "evaluation")
    max_new_tokens: int = code(256, "evaluation scripts")
    generation_batch: int = ours(32, "sentences decoded at once")

    # notebooks 08 and 09
    comparison_groups: str = paper("6", "preference methods and ablations use Group 6")
    methods: str = paper(
        "all", "Table 5; 'all' or names separated by commas; grpo, not in it, is named: all,grpo"
    )
    grpo_reward: str = ours(
        "chrf", "method grpo: chrf (against the reference) | a QE metric as cometkiwi=FOLDER"
    )
    grpo_samples: int = ours(8, "method grpo: answers sampled to each prompt, TRL's default")
    seeds: int = ours(3, "repeats of each method or ablation, seed, seed+1, …")
    ablation_share: float = ours(1.0, "share of each stage's budget the ablations of notebook 09 get")
    frozen_embeddings: bool = ours(
        False, "full weights after stage 1: embeddings stay as they are, as beside a module"
    )
    ablation_sft_share: float = ours(
        1.0, "notebook 09: share of the updates that its largest set of SFT pairs needs"
    )
    comparison_steps: int = ours(0, "updates of each preference method in notebook 08; 0: those of stage 5")
    comparison_pairs: int = ours(4000, "source sentences per direction for notebook 08's preference pairs")

    def but(self, **changes: Any) -> Profile:
        """A checked copy with some fields changed. Raises ValueError for an unknown key or a bad value."""
        if changes.get("prompt_style") == CHAT:
            changes["prompt_style"] = base_chat_style(changes.get("base", self.base))
        return replace(self, **{key: _checked(key, value) for key, value in changes.items()})

    def stage(self, number: int) -> StageSettings:
        """What one of the stages 1 to 5 trains with. Raises KeyError for another number."""
        return stage_settings(self, number)

    @property
    def group_numbers(self) -> tuple[int, ...]:
        """Groups whose modules are trained."""
        return parse_groups(self.groups)

    @property
    def languages(self) -> tuple[str, ...]:
        """Non-English languages of the trained groups, in table order; only some where `only_languages` names them."""
        named = self.only_languages.replace(" ", "").split(",") if self.only_languages else None
        return tuple(code for g in self.group_numbers for code in GROUPS[g] if named is None or code in named)

    def languages_of(self, group: int) -> tuple[str, ...]:
        """Languages a group's module is trained and tested on, `module_languages` or the group's; all of them for 0."""
        given = parse_module_languages(self.module_languages)
        return given.get(group) or (GROUPS[group] if group else self.languages)

    @property
    def comparison_group_numbers(self) -> tuple[int, ...]:
        """Groups on which notebooks 08 and 09 compare."""
        return parse_groups(self.comparison_groups)

    def values(self, *prefixes: str) -> dict[str, Any]:
        """Fields as a dict; with prefixes, only those whose name starts with one of them, in whole words."""
        starts = tuple(f"{prefix.removesuffix('_')}_" for prefix in prefixes)  # "seed" must not mean "seeds"
        names = [f.name for f in fields(self)]
        return {n: getattr(self, n) for n in names if not prefixes or f"{n}_".startswith(starts)}

    def changes(self) -> dict[str, Any]:
        """Values that are not those of the profile of this name, folders aside: they do not decide what results are."""
        plain = PROFILES[self.name]
        return {k: v for k, v in self.values().items() if v != getattr(plain, k) and not k.endswith("_dir")}

    def command(self, only: str = "", verb: str = "run") -> str:
        """The command line that makes results of this profile, each changed value in it, quoted for a shell."""
        words = ["xalma", verb, "--profile", self.name, *(["--only", only] if only else [])]
        for key, value in self.changes().items():
            words += ["--set", f"{key}={value}"]
        return shlex.join(words)

    def table(self) -> pd.DataFrame:
        """Every value with its source; a value that differs from `full` is our choice for this profile."""
        import pandas as pd  # here, so that the command line names the profiles at once

        rows = []
        for f in fields(self):
            value = getattr(self, f.name)
            source = f.metadata["source"]
            if value != f.default:
                source = f"our choice: profile {self.name} (full: {f.default!r}, {source})"
            rows.append({"name": f.name, "value": value, "source": source})
        return pd.DataFrame(rows).set_index("name")


_CHOICES = {
    "mixing": ("uniform", "temperature", "given", "unimax", "groups"),
    "mixing_exhausted": ("repeat", "stop"),
    "contamination": ("stop", "drop", "allow"),
    "dtype": ("float32", "bfloat16"),
    "base_precision": ("dtype", "fp8"),
    "mixed_precision": ("auto", "on", "off"),
    "attention": ("auto", "eager", "sdpa", "flash_attention_2"),
    "sharding": ("auto", "full", "none"),
    "track": ("", "tensorboard", "wandb"),
}
_MAY_BE_ZERO = ("seed", "threads", "bitext_noise", "lora_dropout", "warmup_ratio", "weight_decay", "comparison_steps",
                "arpo_nll_weight", "stage2_tokens", "stage3_tokens", "stage4_updates", "checkpoint_steps")  # fmt: skip


def _checked(key: str, value: Any) -> Any:
    """`value` in the field's type. Text is parsed, so that --set and papermill's YAML give the same."""
    names = [f.name for f in fields(Profile)]
    if key not in names:
        near = get_close_matches(key, names, n=3) or names[:5]
        raise ValueError(f"unknown profile key {key!r}: near keys are {', '.join(near)}")
    default = next(f.default for f in fields(Profile) if f.name == key)
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        try:
            value = ast.literal_eval(value.replace("true", "True").replace("false", "False"))
        except (ValueError, SyntaxError):
            raise ValueError(
                f"bad value {value!r} for {key}: it takes {kind.__name__}, for example {default}"
            ) from None
    if kind is str and isinstance(value, int | list | tuple):
        value = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"bad value {value!r} for {key}: it takes {kind.__name__}, for example {default}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise ValueError(f"bad value {value!r} for {key}: choose one of {', '.join(_CHOICES[key])}")
    if key == "prompt_style" and not is_style(value):
        raise ValueError(
            f"bad value {value!r} for {key}: choose xalma, alma, chat, or a text with {{prompt}} in it"
        )
    if kind in (int, float) and not (0 < value < math.inf or (value == 0 and key in _MAY_BE_ZERO)):
        raise ValueError(
            f"bad value {value!r} for {key}: it must be {'0 or more' if key in _MAY_BE_ZERO else 'above 0'}"
        )
    if key in ("groups", "comparison_groups"):
        parse_groups(value)
    if key == "module_languages":
        parse_module_languages(value)
    if key == "corpus":
        parse_corpus(value)
    if key == "only_languages" and value:
        for code in value.split(","):
            group_of(code.strip())
    return value
