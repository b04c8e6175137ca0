"""The systems of the papers' tables, one row each: weights, prompt, languages, decoding, licence, and where we read it.

`id_source` says how we know the hub id: "read" in the repository or card named, "FACTS" for the notes on the X-ALMA
repository, "from memory" where nobody checked. Decoding is the systems' own where it was read (`decoding_source`);
the papers' evaluation decodes with beam 5 and at most 256 new tokens (fe1ixxu/ALMA evals/*.sh).
Nothing here was run at full size on this project's machines: scores of these systems are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xalma.languages import ADDED, ALMA_LANGUAGES, ENGLISH, LANGUAGES, other_side, parse_direction

ALL = tuple(LANGUAGES)
AYA_23 = ("ar", "zh", "cs", "nl", "en", "fr", "de", "el", "he", "hi", "id", "it", "ja", "ko", "fa", "pl", "pt", "ro",
          "ru", "es", "tr", "uk", "vi")  # fmt: skip
WMT22_LANGUAGES = ("en", "cs", "de", "fr", "ja", "ru", "uk", "zh")
SWIE_LANGUAGES = ("de", "en", "ja", "zh", "fr", "cs", "ko", "id", "es", "ar", "uk", "ru")


@dataclass(frozen=True)
class Decoding:
    """How a system decodes; `no_repeat_ngram_size` 0 means no such rule."""

    num_beams: int = 5
    max_new_tokens: int = 256
    no_repeat_ngram_size: int = 0


@dataclass(frozen=True)
class System:
    """One row. `hub`: weights; `adapter`: a LoRA module on them; "{group}" in either stands for X-ALMA's group 1 to 8.

    family: which class runs it ("causal", "swie", "xalma", "seq2seq", "endpoint", "files").
    chosen_by: names of `evaluation.interference`.
    languages: those its authors name; a pair outside needs `force=True`. english_only: en-xx and xx-en, no xx-yy.
    """

    name: str
    title: str  # as in `published`, where the papers' tables have it
    family: str
    hub: str
    id_source: str
    template: str
    licence: str
    adapter: str = ""
    languages: tuple[str, ...] = ALL
    english_only: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    decoding_source: str = "fe1ixxu/ALMA evals/*.sh: beam 5, 256 new tokens"
    tokenizer: str = "auto"  # "llama": LlamaTokenizer, whatever the repository's old configuration names
    note: str = ""
    chosen_by: tuple[str, ...] = ()  # metrics that chose or filtered its training data, as its authors say

    def supports(self, direction: str) -> bool:
        """Whether the system's authors name both languages. Raises ValueError for a bad direction."""
        src, tgt = parse_direction(direction)
        if self.english_only and "en" not in (src, tgt):
            return False
        # whoever adds a language knows who speaks it
        added = ADDED if self.family in ("endpoint", "files") else ()
        return {src, tgt} <= {*self.languages, *added}

    def check(self, src: str, tgt: str) -> None:
        """Raises ValueError, saying what is supported, for a direction this system does not translate."""
        if not self.supports(f"{src}-{tgt}"):
            if self.english_only:
                other_side(src, tgt)  # its sentence says what to do about a pair without English
            known = " ".join(self.languages)
            raise ValueError(
                f"{self.name} does not support {src}-{tgt}: its languages are {known}; --force runs it anyway"
            )


_META = "Llama 2 Community License, gated (from memory)"
_LLAMA1 = "LLaMA-1 weights: non-commercial research (from memory)"
_XALMA = {"family": "xalma", "template": "xalma", "id_source": "FACTS §2, fe1ixxu/ALMA README", "english_only": True,
          "licence": "MIT (from memory)", "title": "X-ALMA"}  # fmt: skip
_ALMA = {"family": "causal", "template": "alma", "languages": (ENGLISH, *ALMA_LANGUAGES), "english_only": True,
         "licence": "MIT (repository README); base LLaMA-2"}  # fmt: skip
_ALMA_R = {
    "chosen_by": ("cometkiwi-xxl", "xcomet-xxl")
}  # CPO's best and worst by their mean (arXiv 2401.08417)
_ALMA_ID = "read: fe1ixxu/ALMA README"
_TIM = {"family": "causal", "template": "tim", "id_source": "read: lemon0830/TIM README", "languages": WMT22_LANGUAGES,
        "decoding": Decoding(4, 256, 15), "decoding_source": "read: lemon0830/TIM inference/*.py"}  # fmt: skip
_SWIE = {"family": "swie", "template": "swie", "hub": "", "id_source": "none released (its README)",
         "languages": SWIE_LANGUAGES, "decoding": Decoding(4, 256, 15),
         "decoding_source": "read: pppa2019/swie_overmiss_llm4mt src/inference.py"}  # fmt: skip
_UNSURE_BEAM = (
    "X-ALMA's evaluation is beam 5, 256 new tokens; that it holds for this baseline could not be read"
)
_ANY = "a general model: any pair is tried, no claim that it can"


def _rows() -> list[System]:
    return [
        System("xalma-merged", hub="haoranxu/X-ALMA-13B-Group{group}",
               note="way 1: one merged model per group, loaded when a direction needs it", **_XALMA),
        System("xalma-modules", hub="haoranxu/X-ALMA-13B-Pretrain", adapter="haoranxu/X-ALMA-13B-Group{group}",
               note="way 2: one base, a module per group beside it, gated by language", **_XALMA),
        System("xalma-all", hub="haoranxu/X-ALMA",
               note="way 3: one checkpoint with all modules, read without its remote code", **_XALMA),
        System("alma-7b", "ALMA-7B", hub="haoranxu/ALMA-7B", id_source=_ALMA_ID, **_ALMA),
        System("alma-7b-lora", "ALMA-7B-LoRA", hub="haoranxu/ALMA-7B-Pretrain",
               adapter="haoranxu/ALMA-7B-Pretrain-LoRA", id_source=_ALMA_ID, **_ALMA),
        System("alma-7b-r", "ALMA-7B-R", hub="haoranxu/ALMA-7B-R", id_source="from memory", **_ALMA_R, **_ALMA),
        System("alma-13b", "ALMA-13B", hub="haoranxu/ALMA-13B", id_source=_ALMA_ID, **_ALMA),
        System("alma-13b-lora", "ALMA-13B-LoRA", hub="haoranxu/ALMA-13B-Pretrain",
               adapter="haoranxu/ALMA-13B-Pretrain-LoRA", id_source=_ALMA_ID, **_ALMA),
        System("alma-13b-r", "ALMA-13B-R", hub="haoranxu/ALMA-13B-R", id_source="from memory", **_ALMA_R, **_ALMA),
        *(System(f"llama-2-{size}", f"LLaMA-2-{size.upper()} zero-shot", "causal", f"meta-llama/Llama-2-{size}-hf",
                 "read: fe1ixxu/ALMA evals/eval_other_models.sh", "alma", _META, note=_ANY) for size in ("7b", "13b")),
        *(System(f"llama-2-{size}-5shot", f"LLaMA-2-{size.upper()} 5-shot", "causal", f"meta-llama/Llama-2-{size}-hf",
                 "read: fe1ixxu/ALMA evals/llama-2-13b-5-shot.sh", "alma", _META, decoding=Decoding(1),
                 decoding_source="read: evals/llama-2-13b-5-shot.sh: greedy, 256 new tokens",
                 note="needs shots: {direction: [(source, translation), …]}, any number") for size in ("7b", "13b")),
        System("nllb-3.3b", "NLLB-3.3B", "seq2seq", "facebook/nllb-200-3.3B",
               "read: ictnlp/BayLing README; FACTS §7", "source", "CC BY-NC 4.0 (from memory)",
               decoding_source=_UNSURE_BEAM),
        System("nllb-54b", "NLLB-54B", "seq2seq", "facebook/nllb-moe-54b", "read: its hub page",
               "source", "CC BY-NC 4.0 (from memory)", decoding_source=_UNSURE_BEAM, note="128 experts: device='auto'"),
        System("aya-101", "Aya-101", "seq2seq", "CohereForAI/aya-101", "read: its hub page", "aya-101",
               "Apache-2.0 (its hub page)", decoding_source=_UNSURE_BEAM, note="mT5 of 13 B parameters"),
        *(System(f"aya-23-{size}", f"Aya-23-{size.upper()}", "causal", f"CohereForAI/aya-23-{size.upper()}", "FACTS §7",
                 "alma-chat", "CC BY-NC 4.0 (from memory)", languages=AYA_23, decoding_source=_UNSURE_BEAM,
                 note="X-ALMA's tables have it in all groups, which takes force=True") for size in ("8b", "35b")),
        System("llamax3-alpaca", "LLaMAX3-Alpaca-8B", "causal", "LLaMAX/LLaMAX3-8B-Alpaca",
               "read: CONE-MT/LLaMAX README", "llamax", "MIT (a copy of its card)",
               languages=tuple(code for code in ALL if code != "mg"), decoding=Decoding(4),
               decoding_source="read: CONE-MT/LLaMAX scripts/inference/configs/flores101.yaml: beam 4",
               note="Malagasy is not among its languages (supported_languages.csv)"),
        System("llama-3.1-instruct", "LLaMA-3.1-8B-Instruct", "causal", "meta-llama/Meta-Llama-3.1-8B-Instruct",
               "FACTS §7", "alma-chat", "Llama 3.1 Community License, gated (from memory)",
               decoding_source=_UNSURE_BEAM, note=_ANY),
        System("bigtranslate", "BigTranslate-13B", "causal", "James-WYang/BigTranslate",
               "named in public code; its README has the older James-WYang/BigTrans", "bigtranslate",
               f"GPL-3.0, research only (its README); {_LLAMA1}", decoding=Decoding(5, 256, 6),
               decoding_source="read: ZNLP/BigTranslate README: beam 5, 256, no 6-gram twice", tokenizer="llama"),
        System("bayling-13b", "Bayling-13B", "causal", "ICTNLP/bayling-13b-v1.1", "read: ictnlp/BayLing README",
               "bayling", f"GPL-3.0 (its README); {_LLAMA1}", languages=WMT22_LANGUAGES, decoding=Decoding(1),
               decoding_source="could not be read: greedy, our choice", tokenizer="llama",
               note="the paper's v1.0 is a weight difference (ICTNLP/bayling-13b-diff): apply it first, then path=…"),
        System("tim-bloomz-7b", "TIM-BLOOMZ-7B", hub="Lemoooon/TIM-BLOOMZ-7b", licence="unknown", **_TIM),
        System("tim-llama-7b", "TIM-LLaMA-1-7B", hub="", licence=f"unknown; {_LLAMA1}", tokenizer="llama",
               note="the papers' 7B is not on its README; Lemoooon/TIM-LLaMA-13b is (path=…)", **_TIM),
        System("swie-bloomz-7b", "SWIE-BLOOMZ-7B", licence="unknown", **_SWIE),
        System("swie-llama-7b", "SWIE-LLaMA-1-7B", licence=f"unknown; {_LLAMA1}", tokenizer="llama", **_SWIE),
        System("gpt-3.5", "GPT-3.5-T zero-shot", "endpoint", "gpt-3.5-turbo", "from memory", "endpoint",
               "OpenAI's terms", decoding=Decoding(1), decoding_source="temperature 0, our choice", note=_ANY),
        System("gpt-4", "GPT-4 zero-shot", "endpoint", "gpt-4-1106-preview",
               "name of the released outputs in fe1ixxu/ALMA", "endpoint", "OpenAI's terms", decoding=Decoding(1),
               decoding_source="temperature 0, our choice", note=_ANY),
        System("endpoint", "any server with an OpenAI-compatible chat endpoint", "endpoint", "",
               "yours: path=MODEL, base_url=…", "endpoint", "the server's", decoding=Decoding(1),
               decoding_source="temperature 0, our choice", note=_ANY),
        System("files", "existing output files", "files", "", "yours: path=FOLDER with <src>-<tgt>.txt", "source",
               "the files'", decoding_source="none: the outputs are there", note="one line per segment"),
    ]  # fmt: skip


SYSTEMS: dict[str, System] = {row.name: row for row in _rows()}
