"""The named profiles, each a short delta of another, and how a command or a notebook asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from xalma.languages import ALMA_LANGUAGES, GROUPS
from xalma.profiles.profile import PROFILES, Profile

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
    sft_pairs=100, stage4_epochs=2.0, stage4_batch_size=8, stage4_learning_rate=1e-3, comparison_steps=40,
)  # fmt: skip

# What the papers begin from, LLaMA-2, in tiny: a base of all 50 languages that has read much English, little of the
# others, and some text in two languages by accident. `make tiny-base` trains it; the package ships what came out.
_READ_MORE = "de,fr,es,it,pt,nl,pl,sv,cs,tr,ru,zh,ja,ar,id"
_SHARES = {
    code: "0.8" if code in _READ_MORE.split(",") else "0.05" for group in GROUPS.values() for code in group
}
TINY_BASE = _LAPTOP.but(
    name="tiny-base", groups="all", corpus="cldr_web", notebooks="",
    vocab_size=4000, hidden_size=192, layers=4, heads=6, block_tokens=128, micro_batch=128,
    mixing="given", mixing_shares=",".join(f"{code}:{share}" for code, share in ({"en": "80"} | _SHARES).items()),
    stage1_tokens=30_000_000, stage1_batch_size=128, stage1_learning_rate=2e-3, warmup_ratio=0.02,
)  # fmt: skip

# ALMA (arXiv 2309.11674): five languages in given shares, its raw prompt, stage 2 by stage 4's loop (notebook 11).
_ALMA: dict[str, Any] = {
    "notebooks": "11", "groups": "1,3,5,6", "only_languages": ",".join(ALMA_LANGUAGES), "prompt_style": "alma",
    "mixing": "given", "mixing_shares": "de:20,cs:14,is:8,zh:19,ru:22,en:17",  # runs/mono_ft.sh
    "lora_rank": 16, "lora_alpha": 32,  # adapter_config of ALMA's LoRA, on down_proj alone
}  # fmt: skip
ALMA_7B = FULL.but(
    name="alma-7b", corpus="oscar+nllb+alma+wmt22", base="meta-llama/Llama-2-7b-hf",
    hidden_size=4096, layers=32, heads=32,
    stage4_learning_rate=2e-5, stage4_batch_size=256, sft_pairs=15_000, test_pairs=2037, seeds=1, **_ALMA,
)  # fmt: skip
# Five languages that the shipped base has hardly read, as LLaMA-2 had ALMA's. ALMA's own would not do: this base has
# read so much of four of them that more text adds nothing (results/alma-tiny/starts_search.md).
# Half of the web bitext is misaligned, so that random and filtered bitext differ.
ALMA_TINY = TINY.but(**_ALMA).but(
    name="alma-tiny", bitext_noise=0.5, sft_pairs=100, alma_lora_learning_rate=8e-3, seeds=3,
    only_languages="da,hu,is,ko,uk", mixing_shares="da:20,hu:14,is:8,ko:19,uk:22,en:17",
)  # fmt: skip

# A pretrained base, small enough for a quarter of an hour on one GPU: Gemma-3-270M with X-ALMA's SFT and test sets.
# Its text is packed as token ids first (benchmarks/real_base/pack.py). The module has 15 % of the decoder's weights, as
# X-ALMA's. Blocks of 256 keep every text inside the base's window of 512.
REAL = FULL.but(
    name="real", notebooks="12", corpus="papers", groups="all", base="gemma-3-270m", contamination="drop",
    vocab_size=262_144, hidden_size=640, layers=18, heads=4, prompt_style="alma",
    checkpoint_steps=0, gradient_checkpointing=False, block_tokens=256, micro_batch=32, max_length=256,
    lora_rank=64, lora_alpha=128, lora_dropout=0.0, adam_beta2=0.98, warmup_ratio=0.03,
    stage1_tokens=2_400_000, stage1_batch_size=64, stage1_learning_rate=5e-6,
    stage2_tokens=320_000, stage2_batch_size=32, stage2_learning_rate=2e-4,
    stage3_tokens=240_000, stage3_batch_size=32, stage3_learning_rate=2e-4,
    sft_pairs=1200, stage4_batch_size=64, stage4_learning_rate=3e-4, stage4_schedule="cosine",
    stage5_pairs=100, stage5_batch_size=32, stage5_learning_rate=1e-4,
    test_pairs=128, beams=1, max_new_tokens=192, generation_batch=2048,
    seeds=1, ablation_share=0.2, comparison_pairs=100,
)  # fmt: skip

# The same on two CPU cores in two hours: German and Japanese, a module each, a smaller sample of everything.
REAL_CPU = REAL.but(
    name="real-cpu", groups="1,6", only_languages="de,ja", module_languages="1:de,6:ja",
    micro_batch=8, generation_batch=32, threads=1, workers=2,
    stage1_tokens=131_072, stage1_batch_size=8, stage2_tokens=65_536, stage2_batch_size=8,
    stage3_tokens=65_536, stage3_batch_size=8, sft_pairs=1500, stage4_batch_size=16, stage5_pairs=64,
    stage5_batch_size=8, test_pairs=150,
)  # fmt: skip

for _profile in (TINY, TINY_BASE, REAL, REAL_CPU, FULL, ALMA_TINY, ALMA_7B):
    PROFILES[_profile.name] = _profile


def load_profile(profile: str = "tiny", **overrides: Any) -> Profile:
    """The named profile with overrides applied and checked.

    Raises ValueError, naming near names, for an unknown profile or key or a value of the wrong kind.
    """
    if profile not in PROFILES:
        near = get_close_matches(str(profile), PROFILES, n=1) or list(PROFILES)
        raise ValueError(
            f"unknown profile {profile!r}: choose {', '.join(PROFILES)} (near: {', '.join(near)})"
        )
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
    # constants are imported, not given
    given = {k: v for k, v in named.items() if type(v) in plain and not k.isupper()}
    return load_profile(given.pop("profile", "tiny"), **given)
