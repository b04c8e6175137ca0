"""The systems of the papers' tables, one row each: weights, prompt, languages, decoding, licence, and where we read it.

`id_source` says how we know the hub id: "read" in the repository or card named, "the paper" for arXiv 2410.03115,
"from memory" where nobody checked. Decoding is the systems' own where it was read (`decoding_source`);
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

    family: which class runs it ("causal", "xalma", "seq2seq", "endpoint", "files", "apertium"; "swie": none does).
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
    directions: tuple[str, ...] = ()  # where not all pairs of its languages are translated

    def supports(self, direction: str) -> bool:
        """Whether the system's authors name both languages. Raises ValueError for a bad direction."""
        src, tgt = parse_direction(direction)
        if self.directions:
            return direction in self.directions
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
            known = f"its languages are {' '.join(self.languages)}; --force runs it anyway"
            known = f"it has {' '.join(self.directions)}" if self.directions else known
            raise ValueError(f"{self.name} does not support {src}-{tgt}: {known}")


_LLAMA2 = "Llama 2's outputs may not improve other language models (from memory)"
_META = f"Llama 2 Community License, gated (from memory): {_LLAMA2}"
_GEMMA = (
    "Gemma Terms of Use (copies on the hub): a model trained on its outputs to act like it falls under them"
)
_OPENAI = (
    "OpenAI's terms: outputs may not make models that compete with OpenAI (the clause as quoted on the hub)"
)
_LLAMA1 = "LLaMA-1 weights: non-commercial research (from memory)"
_XALMA = {"family": "xalma", "template": "xalma", "id_source": "the paper, fe1ixxu/ALMA README", "english_only": True,
          "licence": f"MIT (from memory); base LLaMA-2: {_LLAMA2}", "title": "X-ALMA"}  # fmt: skip
_ALMA = {"family": "causal", "template": "alma", "languages": (ENGLISH, *ALMA_LANGUAGES), "english_only": True,
         "licence": f"MIT (repository README); base LLaMA-2: {_LLAMA2}"}  # fmt: skip
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
               "read: ictnlp/BayLing README; the paper", "source", "CC BY-NC 4.0 (from memory)",
               decoding_source=_UNSURE_BEAM),
        System("nllb-54b", "NLLB-54B", "seq2seq", "facebook/nllb-moe-54b", "read: its hub page",
               "source", "CC BY-NC 4.0 (from memory)", decoding_source=_UNSURE_BEAM, note="128 experts: device='auto'"),
        System("aya-101", "Aya-101", "seq2seq", "CohereForAI/aya-101", "read: its hub page", "aya-101",
               "Apache-2.0 (its hub page)", decoding_source=_UNSURE_BEAM, note="mT5 of 13 B parameters"),
        *(System(f"aya-23-{size}", f"Aya-23-{size.upper()}", "causal", f"CohereForAI/aya-23-{size.upper()}",
                 "the paper", "alma-chat", "CC BY-NC 4.0 (from memory)", languages=AYA_23, decoding_source=_UNSURE_BEAM,
                 note="X-ALMA's tables have it in all groups, which takes force=True") for size in ("8b", "35b")),
        System("llamax3-alpaca", "LLaMAX3-Alpaca-8B", "causal", "LLaMAX/LLaMAX3-8B-Alpaca",
               "read: CONE-MT/LLaMAX README", "llamax", "MIT (a copy of its card)",
               languages=tuple(code for code in ALL if code != "mg"), decoding=Decoding(4),
               decoding_source="read: CONE-MT/LLaMAX scripts/inference/configs/flores101.yaml: beam 4",
               note="Malagasy is not among its languages (supported_languages.csv)"),
        System("llama-3.1-instruct", "LLaMA-3.1-8B-Instruct", "causal", "meta-llama/Meta-Llama-3.1-8B-Instruct",
               "the paper", "alma-chat",
               "Llama 3.1 Community License, gated: a model trained on its outputs has Llama in its name (from memory)",
               decoding_source=_UNSURE_BEAM, note=_ANY),
        System("bigtranslate", "BigTranslate-13B", "causal", "James-WYang/BigTranslate",
               "named in public code; its README has the older James-WYang/BigTrans", "bigtranslate",
               f"GPL-3.0, research only (its README); {_LLAMA1}", decoding=Decoding(5, 256, 6),
               decoding_source="read: ZNLP/BigTranslate README: beam 5, 256, no 6-gram twice", tokenizer="llama"),
        System("bayling-13b", "Bayling-13B", "causal", "ICTNLP/bayling-13b-v1.1", "read: ictnlp/BayLing README",
               "bayling", f"GPL-3.0 (its README); {_LLAMA1}", languages=WMT22_LANGUAGES, decoding=Decoding(1),
               decoding_source="could not be read: our choice", tokenizer="llama",
               note="the paper's v1.0 is a weight difference (ICTNLP/bayling-13b-diff): apply it first, then path=…"),
        System("tim-bloomz-7b", "TIM-BLOOMZ-7B", hub="Lemoooon/TIM-BLOOMZ-7b", licence="unknown", **_TIM),
        System("tim-llama-7b", "TIM-LLaMA-1-7B", hub="", licence=f"unknown; {_LLAMA1}", tokenizer="llama",
               note="the papers' 7B is not on its README; Lemoooon/TIM-LLaMA-13b is (path=…)", **_TIM),
        System("swie-bloomz-7b", "SWIE-BLOOMZ-7B", licence="unknown", **_SWIE),
        System("swie-llama-7b", "SWIE-LLaMA-1-7B", licence=f"unknown; {_LLAMA1}", tokenizer="llama", **_SWIE),
        System("gpt-3.5", "GPT-3.5-T zero-shot", "endpoint", "gpt-3.5-turbo", "from memory", "endpoint",
               _OPENAI, decoding=Decoding(1), decoding_source="temperature 0, our choice", note=_ANY),
        System("gpt-4", "GPT-4 zero-shot", "endpoint", "gpt-4-1106-preview",
               "name of the released outputs in fe1ixxu/ALMA", "endpoint", _OPENAI, decoding=Decoding(1),
               decoding_source="temperature 0, our choice", note=_ANY),
        System("endpoint", "any server with an OpenAI-compatible chat endpoint", "endpoint", "",
               "yours: path=MODEL, base_url=…", "endpoint", "the server's", decoding=Decoding(1),
               decoding_source="temperature 0, our choice", note=_ANY),
        System("files", "existing output files", "files", "", "yours: path=FOLDER with <src>-<tgt>.txt", "source",
               "the files'", decoding_source="none: the outputs are there", note="one line per segment"),
    ]  # fmt: skip


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_HYMT_LANGUAGES = _codes("zh en fr pt es ja tr ru ar ko th it de vi ms id hi pl cs nl fa gu ur mr he uk kk")
_HYMT = {"family": "causal", "languages": _HYMT_LANGUAGES, "decoding": Decoding(1, 2048), "chosen_by": ("not known",),
         "decoding_source": "our choice, so that a run can be made again: its README samples (temperature 0.7, "
                            "top-k 20, top-p 0.6, repetition penalty 1.05)"}  # fmt: skip
_MILMMT = _codes(
    "ar az bg ca cs da de el en es fa fi fr he hi hu id it ja kk ko ms no nl pl pt ro ru sv th tr ur uz vi zh"
)
_LMT = _codes(
    "ar en es de fr it ja nl pl pt ru tr zh bg cs da el fa fi hi hu id ko no ro sv th uk vi az "
    "he is ka kk ky mr ms ne ur uz"
)
_TOWER = _codes("de es fr it ko nl ru en pt zh ja cs uk hi is pl sv hu ro da no fi")
_EUROLLM = _codes("bg cs da nl en et fi fr de el hu it lv lt pl pt ro es sv ar ca zh gl hi ja ko no ru tr uk")
_SALAMANDRA = _codes("bg ca cs da de el en es et fi fr gl hu it lt lv nl no pl pt ro ru sr sv uk")
_SEEDX = _codes("ar cs da de en es fi fr hu id it ja ko ms no nl pl pt ro ru sv th tr uk vi zh")
_GREEDY = "our choice"


def _newer_rows() -> list[System]:
    """Systems after X-ALMA's time, read in stored copies of their repositories and cards in November 2026."""
    return [
        *(System(f"milmmt-46-{size}", f"MiLMMT-46-{size.upper()} v1.0", "causal",
                 f"xiaomi-research/MiLMMT-46-{size.upper()}-v1.0",
                 "read: xiaomi-research/gemmax README @ d18eb82",
                 "milmmt", "Apache-2.0 (its repository; the weights' page could not be read); base: " + _GEMMA,
                 languages=_MILMMT, decoding=Decoding(1, 1024),
                 decoding_source="read: its README: temperature 0, top-k 1",
                 chosen_by=("xcomet-xl-qe", "cometkiwi"),
                 note="RL by xCOMET and CometKiwi behind a language gate, then merged with SFT's weights (its README "
                      "and scripts/rl; the metrics' sizes could not be read). Its example adds no begin-of-text token; "
                      "here the tokenizer decides") for size in ("1b", "4b", "12b")),
        *(System(f"hy-mt1.5-{size}", f"HY-MT1.5-{size.upper()}", hub=f"tencent/HY-MT1.5-{size.upper()}",
                 id_source="read: Tencent-Hunyuan/HY-MT README @ 248d5b5", template="hy-mt1.5",
                 licence="Tencent HY Community License (its License.txt): not in the EU, UK and South Korea; its "
                         "outputs may not train other models", **_HYMT) for size in ("1.8b", "7b")),
        *(System(f"hy-mt2-{size}", f"Hy-MT2-{size.upper()}", hub=f"tencent/Hy-MT2-{size.upper()}",
                 id_source="read: Tencent-Hunyuan/Hy-MT2 README @ c30b36c", template="hy-mt2",
                 licence="Apache-2.0 (its LICENSE.txt)",
                 note="its README asks for transformers 5.6 or newer; not tried with the locked one",
                 **_HYMT) for size in ("1.8b", "7b")),
        System("translategemma", "TranslateGemma 12B", "endpoint", "translategemma:12b",
               "read: ollama.com/library/translategemma, a name of Ollama's",
               "translategemma", _GEMMA, decoding=Decoding(1),
               decoding_source="temperature 0, our choice", chosen_by=("metricx24-qe", "automqm", "chrf"),
               note="needs --base-url of Ollama, or of a server with Gemma's chat template: the hub's own "
                    "(google/translategemma-12b-it) wants language codes beside the text, and was not tried. At most "
                    "2,000 tokens of input. Its 55 languages could not be read, so any pair is tried. RL by MetricX-QE "
                    "and AutoMQM (its report's abstract), and by chrF (a summary of the report)"),
        *(System(f"lmt-60-{size}", f"LMT-60-{size.upper()}", "causal", f"NiuTrans/LMT-60-{size.upper()}",
                 "read: NiuTrans/LMT README @ d87c68a", "lmt",
                 "Apache-2.0 (the hub's page of its 4B and of the 8B's base); base Qwen3: Apache-2.0 (from memory)",
                 languages=_LMT, decoding=Decoding(5, 512),
                 decoding_source="read: its README: beam 5, 512 new tokens",
                 chosen_by=("not known",),
                 note="trained on FLORES-200 dev, NTREX and WMT'14-'23: WMT'23 is no test; "
                      "its 234 directions have English or Chinese on a side") for size in ("0.6b", "1.7b", "4b", "8b")),
    ]  # fmt: skip


def _general_rows() -> list[System]:
    """The other half of `_newer_rows`: models made of general ones, general models, and rules."""
    return [
        System("tower-plus-9b", "Tower-Plus-9B", "causal", "Unbabel/Tower-Plus-9B", "named in public code",
               "tower-plus",
               "CC BY-NC-SA 4.0 (two repositories say so; its card could not be read)", languages=_TOWER,
               decoding=Decoding(1, 512), decoding_source=_GREEDY, chosen_by=("not known",),
               note="22 languages (a copy of its card names 12 of them; the others from memory)"),
        System("eurollm-9b", "EuroLLM-9B-Instruct", "causal", "utter-project/EuroLLM-9B-Instruct",
               "read: the hub's list of its models", "eurollm", "Apache-2.0, gated (the hub's list of its models)",
               languages=_EUROLLM, decoding=Decoding(1, 512), decoding_source=_GREEDY),
        *(System(f"seed-x-{kind.lower()}-7b", f"Seed-X-{kind}-7B", "causal", f"ByteDance-Seed/Seed-X-{kind}-7B",
                 "read: ByteDance-Seed/Seed-X-7B README @ 8335570", "seed-x", "OpenMDW 1.0 (its LICENSE.openmdw)",
                 languages=_SEEDX, decoding=Decoding(4, 512),
                 decoding_source="read: its README: beam 4, 512 new tokens",
                 note="28 languages, in a table that its README speaks of and does not have: these are from memory, "
                      "and so is that Norwegian's tag is nb. PPO's reward is a model of its own, Seed-X-RM")
          for kind in ("Instruct", "PPO")),
        System("salamandrata-7b", "SalamandraTA-7b-instruct", "causal", "BSC-LT/salamandraTA-7b-instruct",
               "read: a copy of its card", "salamandrata", "Apache-2.0 (a copy of its card)", languages=_SALAMANDRA,
               decoding=Decoding(5, 400), decoding_source="read: a copy of its card: beam 5, 400 new tokens"),
        System("gemma-3-12b-it", "Gemma-3-12B-it", "causal", "google/gemma-3-12b-it", "named in public code",
               "alma-chat",
               f"gated; {_GEMMA}", decoding=Decoding(1), decoding_source=_GREEDY, note=_ANY),
        System("qwen3-8b", "Qwen3-8B", "causal", "Qwen/Qwen3-8B", "named in public code", "qwen3",
               "Apache-2.0 (from memory)", decoding=Decoding(1, 512), decoding_source=_GREEDY, note=_ANY),
        System("apertium", "Apertium", "apertium", "", "Debian: apt-get install apertium apertium-eng-spa …",
               "source",
               "GPL, version 2 or 3 by pair (Debian 12's copyright files, which say nothing of outputs)",
               languages=("en", "es", "ca", "gl", "is", "mk"),
               directions=("en-es", "es-en", "en-ca", "ca-en", "en-gl", "gl-en", "is-en", "mk-en"),
               decoding_source="rules, no decoding",
               note="rule-based, runs on any CPU: a real weak system. Unknown words stay as they are"),
    ]  # fmt: skip


SYSTEMS: dict[str, System] = {row.name: row for row in (*_rows(), *_newer_rows(), *_general_rows())}
