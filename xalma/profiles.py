"""Sizes of experiment: one frozen dataclass, a few profiles, each a short delta of another.

The defaults of `Profile` are the `full` profile, the papers' scale. Each value stands beside its source:
`paper(...)` (X-ALMA or ALMA text), `code(...)` (released code or model card), `ours(...)` (with the reason).
X-ALMA's learning rates, batch sizes and schedules could not be read (docs/departures.md).
"""

from __future__ import annotations

import ast
import math
import shlex
from collections.abc import Mapping
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


_GUESS = "not readable in X-ALMA; ALMA's value"


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
    only_languages: str = ours("", "some of the groups' languages for the base, separated by commas; '' for all")
    module_languages: str = ours("", "languages of a module in place of its group's, as 6:et+fi,3:ru; '' for none")

    # corpora: "hub" reads the ids below, "cldr" the embedded phrasebook, "own" a folder, most others XALMA_DATA
    corpus: str = ours("hub", "hub | cldr | ntrex | real | … of xalma.corpora; several joined by +")
    corpus_path: str = ours("", "folder of your own text, for corpus=own")
    monolingual_id: str = paper("oscar-corpus/OSCAR-2301", "table of stages, pre-training 1 and 2")
    bitext_id: str = code("allenai/nllb", "run_llmmt.py, pseudo-monolingual stage")
    bitext_id_th: str = code("Helsinki-NLP/opus-100", "run_llmmt.py, Thai only")
    sft_id: str = code("haoranxu/X-ALMA-Parallel-Data", "model card, FLORES dev + NTREX + WMT'15-22")
    preference_id: str = code("haoranxu/X-ALMA-Preference", "model card")
    test_id: str = code("haoranxu/FLORES-200", "evaluation command of the README")
    sft_pairs: int = paper(4000, "average pairs a language")
    dev_pairs: int = ours(200, "held-out pairs a language for the loss curves")
    test_pairs: int = paper(1012, "FLORES-200 devtest rows a direction")
    phrasebook_countries: int = ours(40, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_languages: int = ours(30, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_currencies: int = ours(10, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_units: int = ours(12, "inventory of the CLDR phrasebook; unused by hub corpora")
    phrasebook_list: int = ours(3, "longest list in a phrase")
    bitext_noise: float = ours(0.0, "share of misaligned pairs added to stage 3's bitext")
    contamination: str = ours("stop", "a training row that is a test sentence: stop | drop | allow (train on it)")

    # backbone: an id or a folder; "" builds a small LLaMA and trains a byte-level BPE tokenizer
    base: str = paper("meta-llama/Llama-2-13b-hf", "§ backbone")
    vocab_size: int = paper(32_000, "LLaMA-2's vocabulary, unchanged")
    hidden_size: int = paper(5120, "LLaMA-2-13B")
    layers: int = paper(40, "LLaMA-2-13B")
    heads: int = paper(40, "LLaMA-2-13B")
    dtype: str = ours("bfloat16", "of the frozen base; what is trained is kept in float32")
    base_precision: str = ours("dtype", "products of the frozen base: dtype | fp8 (simulated where a device has none)")
    mixed_precision: str = ours("auto", "bfloat16 products: auto | on | off; fp16 overflowed (ALMA issue 33)")

    # language-specific modules
    lora_rank: int = code(512, "adapter_config of X-ALMA-13B-Group1")
    lora_alpha: int = code(1024, "adapter_config of X-ALMA-13B-Group1")
    lora_dropout: float = code(0.05, "adapter_config of X-ALMA-13B-Group1")

    # mixing and packing
    mixing: str = ours("uniform", "uniform | temperature | given | unimax | groups; the split in a group is not stated")
    mixing_temperature: float = ours(5.0, "used by mixing=temperature, and inside each group by mixing=groups")
    mixing_shares: str = ours("", "used by mixing=given: de:20,cs:14,… percent or any weights")
    mixing_cap: float = ours(4.0, "used by mixing=unimax: most times a language's text is repeated")
    mixing_exhausted: str = ours("repeat", "a prepared language that runs out: repeat | stop (the others go on)")
    mixing_blocks: str = ours("", "folder of prepared text (xalma prepare); '': tokenised and packed while training")
    block_tokens: int = code(512, "max_source_length + max_new_tokens")
    micro_batch: int = ours(16, "sequences or pairs on the device at once; more are accumulated")
    isolate_documents: bool = ours(False, "released packing lets attention cross documents in a block; True: none does")

    # how stages 1 to 5 run; none of these decides a weight but for rounding
    checkpoint_steps: int = ours(500, "updates between checkpoints inside a stage, 66 M tokens; 0: none")
    gradient_checkpointing: bool = ours(True, "activations are computed again in the backward pass: 13B needs it")
    selective_checkpointing: int = ours(0, "with it every n-th layer keeps its matrix products: 1 all, 0 none do")
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
    stage3_document_pairs: int = ours(1, "pairs of one running text; tiny packs several, so that a shot can be given")
    # stage 4: supervised fine-tuning
    prompt_style: str = code("xalma", "LLaMA-2 chat form; 'alma' is the raw prompt, 'chat' the base's own form")
    max_length: int = code(512, "CPO script, prompt and answer, tokens")
    stage4_epochs: float = ours(1.0, f"{_GUESS}")
    stage4_updates: int = ours(0, "updates of stage 4, for comparisons of data; 0: those of stage4_epochs")
    stage4_batch_size: int = ours(128, "sentence pairs; not readable, CPO paper's 128 from memory")
    stage4_learning_rate: float = ours(1e-4, "not readable; CPO's adapter rate")
    stage4_schedule: str = ours("inverse_sqrt", f"{_GUESS}")
    # stage 5: ARPO
    stage5_epochs: float = ours(1.0, "CPO script's value")
    stage5_pairs: int = ours(4000, "source sentences a direction; the released set has about 3,980 a language")
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
    methods: str = paper("all", "Table 5; 'all' or names separated by commas")
    seeds: int = ours(3, "repeats of each method or ablation, seed, seed+1, …")
    ablation_share: float = ours(1.0, "share of each stage's budget the ablations of notebook 09 get")
    ablation_sft_share: float = ours(1.0, "notebook 09: share of the updates that its largest set of SFT pairs needs")
    comparison_steps: int = ours(0, "updates of each preference method in notebook 08; 0: those of stage 5")
    comparison_pairs: int = ours(4000, "source sentences a direction for notebook 08's preference pairs")

    def but(self, **changes: Any) -> Profile:
        """A checked copy with some fields changed. Raises ValueError for an unknown key or a bad value."""
        if changes.get("prompt_style") == CHAT:
            changes["prompt_style"] = base_chat_style(changes.get("base") or self.base)
        return replace(self, **{key: _checked(key, value) for key, value in changes.items()})

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
            value, source = getattr(self, f.name), f.metadata["source"]
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
                "arpo_nll_weight", "stage2_tokens", "stage3_tokens", "stage4_updates", "checkpoint_steps",
                "selective_checkpointing")  # fmt: skip


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
        raise ValueError(f"bad value {value!r} for {key}: choose xalma, alma, chat, or a text with {{prompt}} in it")
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


FULL = Profile()

# A laptop: a small LLaMA, trained from nothing on the CLDR phrasebook, every budget cut to minutes.
# Two layers, 128 wide, small batches and few words, chosen by trial for what can be learned in a quarter of an hour.
# No profile of its own: what the CPU profiles have in common.
_LAPTOP = FULL.but(
    name="tiny", groups="3,6", corpus="cldr", base="", dtype="float32", threads=2, workers=2,
    contamination="drop",  # few words: "United States: 9 kilometers" and "United States (9 kilometers)" are both drawn
    checkpoint_steps=0, gradient_checkpointing=False,
    phrasebook_countries=12, phrasebook_languages=8, phrasebook_currencies=3, phrasebook_units=3, phrasebook_list=2,
    vocab_size=1500, hidden_size=128, layers=2, heads=4, block_tokens=64,
    lora_rank=64, lora_alpha=128, lora_dropout=0.0, adam_beta2=0.98, warmup_ratio=0.05,
    sft_pairs=3300, dev_pairs=40, test_pairs=60, bitext_noise=0.05, max_length=160,
    stage1_tokens=300_000, stage1_batch_size=8, stage1_learning_rate=3e-3,
    stage2_tokens=30_000, stage2_batch_size=8, stage2_learning_rate=3e-3,
    stage3_tokens=800_000, stage3_batch_size=8, stage3_learning_rate=3e-3,
    stage4_batch_size=16, stage4_learning_rate=2e-3, stage4_schedule="cosine",
    stage5_batch_size=16, stage5_pairs=60, stage5_learning_rate=2e-4,
    beams=1, max_new_tokens=48, generation_batch=128,
    seeds=1, ablation_share=0.05, ablation_sft_share=0.05, comparison_steps=12, comparison_pairs=60,
)  # fmt: skip

# The default run starts where the papers start, from a pretrained base: the one that the package ships. Budgets are in
# the papers' order, monolingual text above bitext above SFT; all by trial. A third of stage 1 is English and its rate
# low: at 2e-3, and with a twelfth of English, the base forgot more than it learned.
TINY = _LAPTOP.but(
    base="tiny-base", vocab_size=4000, hidden_size=192, layers=4, heads=6, block_tokens=128, mixing="groups",
    stage1_tokens=1_000_000, stage1_learning_rate=1e-3,
    stage2_tokens=60_000, stage2_learning_rate=1e-3,
    stage3_tokens=400_000, stage3_learning_rate=2e-3, stage3_document_pairs=3,
    sft_pairs=100, stage4_epochs=2.0, stage4_batch_size=8, stage4_learning_rate=1e-3,
)  # fmt: skip

# What the papers begin from, LLaMA-2, in tiny: a base of all 50 languages that has read much English, little of the
# others, and some text in two languages by accident. `make tiny-base` trains it; the package ships what came out.
_READ_MORE = "de,fr,es,it,pt,nl,pl,sv,cs,tr,ru,zh,ja,ar,id"
_SHARES = {code: "0.8" if code in _READ_MORE.split(",") else "0.05" for group in GROUPS.values() for code in group}
TINY_BASE = _LAPTOP.but(
    name="tiny-base", groups="all", corpus="cldr_web", notebooks="",
    vocab_size=4000, hidden_size=192, layers=4, heads=6, block_tokens=128, micro_batch=128,
    mixing="given", mixing_shares=",".join(f"{code}:{share}" for code, share in ({"en": "80"} | _SHARES).items()),
    stage1_tokens=30_000_000, stage1_batch_size=128, stage1_learning_rate=2e-3, warmup_ratio=0.02,
)  # fmt: skip

# The same model on real text: NTREX-128 split by document, read from XALMA_DATA. News sentences are far longer than
# phrases: more words in the vocabulary, fewer rows, so that it takes about as long.
NTREX = _LAPTOP.but(
    name="ntrex", corpus="ntrex", bitext_noise=0.0, vocab_size=4000, max_length=512,
    max_new_tokens=96, block_tokens=128,
    stage1_batch_size=4, stage2_batch_size=4, stage3_batch_size=4, stage4_batch_size=8,
    sft_pairs=200, dev_pairs=20, test_pairs=20, stage5_batch_size=8, stage5_pairs=10, comparison_pairs=10,
)  # fmt: skip

# One GPU, all the real text there is under XALMA_DATA, a base of 110 M parameters or any hub model as `base`; not
# measured. Budgets follow the text: no language's is read more than ten times in stages 1 and 2. Groups 7 and 8 have no
# bible here, so that stage 3 would read their web copy dozens of times; their modules are left out.
SMALL = FULL.but(
    name="small", corpus="ntrex+bibles+mozilla+udhr+alma", groups="1,2,3,4,5,6", base="", contamination="drop",
    vocab_size=32_000, hidden_size=768, layers=12, heads=12,
    mixing="temperature", mixing_temperature=2.0,
    checkpoint_steps=200, gradient_checkpointing=False,
    lora_rank=128, lora_alpha=256, adam_beta2=0.98,
    stage1_tokens=100_000_000, stage1_batch_size=64, stage1_learning_rate=6e-4,
    stage2_tokens=8_000_000, stage2_batch_size=64, stage2_learning_rate=5e-4,
    stage3_tokens=8_000_000, stage3_batch_size=64, stage3_learning_rate=5e-4,
    sft_pairs=4000, dev_pairs=60, test_pairs=60, stage4_batch_size=64,
    stage5_pairs=100, stage5_batch_size=64, beams=1, generation_batch=512,
    seeds=1, ablation_share=0.1, ablation_sft_share=0.2, comparison_steps=20, comparison_pairs=100,
)  # fmt: skip

# The same text on two CPU cores: two modules of two languages each, those with most parallel text in two scripts, and a
# base of their five languages, so that half an hour teaches something that held-out news can show.
SMALL_CPU = SMALL.but(
    name="small-cpu", groups="1,3", module_languages="1:de+nl,3:ru+sr", only_languages="de,nl,ru,sr",
    comparison_groups="1", dtype="float32", threads=2, workers=2, checkpoint_steps=0,
    vocab_size=4000, hidden_size=160, layers=3, heads=4, block_tokens=128, max_length=512,
    lora_rank=64, lora_alpha=128, lora_dropout=0.0, warmup_ratio=0.05,
    stage1_tokens=3_000_000, stage1_batch_size=8, stage1_learning_rate=3e-3,
    stage2_tokens=200_000, stage2_batch_size=8, stage2_learning_rate=2e-3,
    stage3_tokens=2_000_000, stage3_batch_size=8, stage3_learning_rate=2e-3,
    sft_pairs=8000, dev_pairs=40, test_pairs=60, stage4_batch_size=16, stage4_learning_rate=2e-3,
    stage4_schedule="cosine", stage5_pairs=60, stage5_batch_size=16, stage5_learning_rate=2e-4,
    max_new_tokens=96, generation_batch=128,
    ablation_share=0.03, ablation_sft_share=0.06, comparison_steps=12, comparison_pairs=40,
)  # fmt: skip

# ALMA (arXiv 2309.11674): five languages in given shares, its raw prompt, stage 2 by stage 4's loop (notebook 11).
_ALMA: dict[str, Any] = {
    "notebooks": "11", "groups": "1,3,5,6", "only_languages": "cs,de,is,ru,zh", "prompt_style": "alma",
    "mixing": "given", "mixing_shares": "de:20,cs:14,is:8,zh:19,ru:22,en:17",  # runs/mono_ft.sh
    "lora_rank": 16, "lora_alpha": 32,  # adapter_config of ALMA's LoRA, on down_proj alone
}  # fmt: skip
ALMA_7B = FULL.but(
    name="alma-7b", corpus="oscar+nllb+alma+wmt22", base="meta-llama/Llama-2-7b-hf",
    hidden_size=4096, layers=32, heads=32,
    stage4_learning_rate=2e-5, stage4_batch_size=256, sft_pairs=15_000, test_pairs=2037, **_ALMA,
)  # fmt: skip
# Half of its web bitext is misaligned, so that random and filtered bitext differ.
ALMA_TINY = _LAPTOP.but(
    name="alma-tiny", bitext_noise=0.5, stage1_tokens=1_000_000, sft_pairs=2400, alma_lora_learning_rate=8e-3, **_ALMA,
)  # fmt: skip

# The same studies on real text: web bitext is bibles and web copy with a share of misaligned pairs, human-written are
# ALMA's own pairs, WMT'17 to '20, before NTREX's; tested on held-out documents of NTREX. ALMA's Icelandic pairs are
# FLORES-200 and left out, so that it has NTREX's alone.
ALMA_SMALL_CPU = SMALL_CPU.but(
    name="alma-small-cpu", corpus="alma+ntrex+bibles+mozilla", module_languages="", bitext_noise=0.3,
    stage1_tokens=1_500_000, sft_pairs=1500, alma_lora_learning_rate=8e-3, **_ALMA,
)  # fmt: skip

# A pretrained base, small enough for a quarter of an hour on one GPU: Gemma-3-270M with X-ALMA's SFT and test sets.
# Its text is packed as token ids first (`xalma.paper.real_base.pack`). The module has 15 % of the decoder's weights, as
# X-ALMA's. Blocks of 256 keep every text inside the base's window of 512.
REAL = FULL.but(
    name="real", notebooks="12", corpus="papers", groups="all", base="gemma-3-270m", contamination="drop",
    vocab_size=262_144, hidden_size=640, layers=18, heads=4, prompt_style="alma",
    checkpoint_steps=0, gradient_checkpointing=False, block_tokens=256, micro_batch=32, max_length=256,
    lora_rank=64, lora_alpha=128, lora_dropout=0.0, adam_beta2=0.98, warmup_ratio=0.03,
    stage1_tokens=6_000_000, stage1_batch_size=64, stage1_learning_rate=5e-5,
    stage2_tokens=800_000, stage2_batch_size=32, stage2_learning_rate=2e-4,
    stage3_tokens=600_000, stage3_batch_size=32, stage3_learning_rate=2e-4,
    sft_pairs=1000, stage4_batch_size=128, stage4_learning_rate=3e-4, stage4_schedule="cosine",
    stage5_pairs=100, stage5_batch_size=32, stage5_learning_rate=1e-4,
    test_pairs=128, beams=1, max_new_tokens=192, generation_batch=1024,
    seeds=1, ablation_share=0.2, comparison_pairs=100,
)  # fmt: skip

# The same on two CPU cores in two hours: German and Japanese, a module each, a smaller sample of everything.
REAL_CPU = REAL.but(
    name="real-cpu", groups="1,6", only_languages="de,ja", module_languages="1:de,6:ja", dtype="float32",
    micro_batch=8, generation_batch=32, threads=1, workers=2,
    stage1_tokens=131_072, stage1_batch_size=8, stage2_tokens=65_536, stage2_batch_size=8,
    stage3_tokens=65_536, stage3_batch_size=8, sft_pairs=400, stage4_batch_size=16, stage5_pairs=32,
    stage5_batch_size=8, test_pairs=100,
)  # fmt: skip

PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (TINY, TINY_BASE, NTREX, SMALL, FULL, SMALL_CPU, ALMA_TINY, ALMA_SMALL_CPU, ALMA_7B, REAL, REAL_CPU)
}


def load_profile(profile: str = "tiny", **overrides: Any) -> Profile:
    """The named profile with overrides applied and checked.

    Raises ValueError, naming near names, for an unknown profile or key or a value of the wrong kind.
    """
    if profile not in PROFILES:
        near = get_close_matches(str(profile), PROFILES, n=1) or list(PROFILES)
        raise ValueError(f"unknown profile {profile!r}: choose {', '.join(PROFILES)} (near: {', '.join(near)})")
    if overrides.get("name", profile) != profile:
        raise ValueError(
            f"name={overrides['name']!r}: a profile keeps its name, by which its results can be made again; "
            f"for a folder of your own set results_dir"
        )
    return PROFILES[profile].but(**overrides)


def profile_from_parameters(namespace: Mapping[str, Any]) -> Profile:
    """The profile a notebook's parameters ask for: call it with `globals()` right after the parameters cell.

    Every plain value defined so far is a parameter: `profile` names the profile, the rest override its fields.
    papermill only warns of a parameter the notebook does not know; here a ValueError names the near ones.
    """
    plain = (str, int, float, bool, list, tuple)
    named = {k: v for k, v in namespace.items() if not k.startswith("_") and k not in ("In", "Out")}
    given = {
        k: v for k, v in named.items() if type(v) in plain and not k.isupper()
    }  # constants are imported, not given
    return load_profile(given.pop("profile", "tiny"), **given)
