"""The prompt of each system, where it was read, and how a translation is cut out of its output.

X-ALMA's and ALMA's own prompt lives in `xalma.prompts`; here are those of the systems the papers compare with. `source`
says where the wording was read; what could not be read there is `unsure`, and scores made with it are ours to defend.

    {src} {tgt}  language names in the template's language        {text}  the segment
    {src_code} {code}  codes of source and target
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from xalma.languages import LANGUAGES, language
from xalma.prompts import extract_translation, translation_prompt

Shot = tuple[str, str]  # (source, translation)

# BigTranslate is asked in Chinese, with the names of its own list (model/languages_abbreviation2fullname.txt).
_CHINESE_NAMES = """
en 英语|af 南非荷兰语|da 丹麦语|de 德语|is 冰岛语|nl 荷兰语|no 挪威语|sv 瑞典语
ca 加泰罗尼亚语|es 西班牙语|gl 加利西亚语|it 意大利语|pt 葡萄牙语|ro 罗马尼亚语|bg 保加利亚语|mk 马其顿语
ru 俄语|sr 塞尔维亚语|uk 乌克兰语|fr 法语|id 印度尼西亚语|mg 马尔加什语|ms 马来语|th 泰语
vi 越南语|cs 捷克语|el 希腊语|hu 匈牙利语|lt 立陶宛语|lv 拉脱维亚语|pl 波兰语|et 爱沙尼亚语
fi 芬兰语|ja 日语|ka 格鲁吉亚语|ko 韩语|zh 汉语|gu 古吉拉特语|hi 印地语|mr 马拉地语
ne 尼泊尔语|ur 乌尔都语|ar 阿拉伯语|az 阿塞拜疆语|fa 波斯语|he 希伯来语|kk 哈萨克语|ky 吉尔吉斯语
tr 土耳其语|uz 乌兹别克语
"""
CHINESE: dict[str, str] = dict(
    pair.split(" ") for pair in _CHINESE_NAMES.strip().replace("\n", "|").split("|")
)


_TAGS = {"no": "nb"}  # Seed-X's codes, where they are not ours


def in_one_line(output: str) -> str:
    """The output with its line breaks turned into blanks: for systems that answer with nothing but the translation."""
    return " ".join(line.strip() for line in output.splitlines() if line.strip())


def after_thoughts(output: str) -> str:
    """The answer after Qwen3's thoughts, which are empty where it was told not to think, in one line."""
    return in_one_line(output.rpartition("</think>")[2])


def joined(output: str) -> str:
    """The output with its line breaks taken out, as TIM's inference script does."""
    return "".join(output.split("\n")).strip()


@dataclass(frozen=True)
class Template:
    """A prompt. `names`: language -> the name the prompt uses; `clean`: output -> translation; `chat`: the prompt is
    a user's message in the tokenizer's own chat template, or in the chat form of an endpoint."""

    text: str
    source: str
    confidence: str = "read"  # "read" at the source named, or "unsure"
    chat: bool = False
    clean: Callable[[str], str] = extract_translation
    names: str = "English"
    renamed: Mapping[str, str] = field(default_factory=dict)  # language -> its name here, where it is another
    with_chinese: str = (
        ""  # the template where one side is Chinese: its text is in Chinese, with Chinese names
    )

    def prompt(self, text: str, src: str, tgt: str) -> str:
        """The prompt for one segment. Raises ValueError for an unknown language, or one without a name here."""
        if self.with_chinese and "zh" in (src, tgt):
            return TEMPLATES[self.with_chinese].prompt(text, src, tgt)
        return self.text.format(
            text=text, src=self._name(src), tgt=self._name(tgt), code=_TAGS.get(tgt, tgt), src_code=src
        )

    def _name(self, code: str) -> str:
        if code in self.renamed:
            return self.renamed[code]
        if self.names == "English":
            return language(code).name
        if language(code).code not in CHINESE:
            raise ValueError(f"{LANGUAGES[code].name} has no Chinese name in BigTranslate's list")
        return CHINESE[code]


def few_shot_prompt(text: str, src: str, tgt: str, shots: Sequence[Shot]) -> str:
    """ALMA's prompt with examples between its first line and the segment (fe1ixxu/ALMA, get_prompt_few_shot)."""
    source, target = language(src).name, language(tgt).name
    head, query = translation_prompt(text, src, tgt, "alma").split("\n", 1)
    examples = [f"{source}: {a}\n{target}: {b}" for a, b in shots]
    return "\n".join([head, *examples, query])


# the same words as xalma.prompts, tested
_ALMA_TEXT = "Translate this from {src} to {tgt}:\n{src}: {text}\n{tgt}:"
_ALMA_REPO = "fe1ixxu/ALMA utils/utils.py @ 8e8c4b18"

TEMPLATES: dict[str, Template] = {
    "xalma": Template(
        "[INST] " + _ALMA_TEXT + " [/INST]", f"README and {_ALMA_REPO}: prompt in LLaMA-2's chat form"
    ),
    "alma": Template(_ALMA_TEXT, f"{_ALMA_REPO}: get_prompt"),
    "alma-chat": Template(
        _ALMA_TEXT,
        f"{_ALMA_REPO}: the prompt and its --chat_style; that the paper ran this system with both could not be read",
        confidence="unsure",
        chat=True,
    ),
    "source": Template(
        "{text}", f"{_ALMA_REPO}: get_prompt, 'nllb'; NLLB takes languages as tokens", clean=in_one_line
    ),
    "aya-101": Template(
        "Translate to {tgt}: {text}", f"{_ALMA_REPO}: get_prompt, 'aya101'", clean=in_one_line
    ),
    "llamax": Template(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n### Instruction:\nTranslate the following sentences from "
        "{src} to {tgt}.\n### Input:\n{text}\n### Response:",
        "CONE-MT/LLaMAX scripts/inference/src/datasets/flores101.py and the model card of LLaMAX3-8B",
        clean=in_one_line,
    ),
    "bigtranslate": Template(
        "以下是一个描述任务的指令，请写一个完成该指令的适当回复。\n\n"
        "### 指令:\n请将以下{src}句子翻译成{tgt}：{text}\n\n### 回复:",
        "ZNLP/BigTranslate model/translate.py (the first of the two prompts its README names for inference)",
        names="Chinese",
    ),
    "bayling": Template(
        "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.\nBelow is a dialog consisting "
        "of instructions and responses. Write a response that completes the request.\n\n### Instruction:\nTranslate "
        "the following sentence from {src} to {tgt}.\n{text}\n### Response:\n",
        "frame: ictnlp/BayLing bayling/conversation.py; the sentence in 'Instruction' could not be read, ours",
        confidence="unsure",
    ),
    "tim": Template(
        "Write a response that appropriately completes the request.\n\n### Request:\nTranslate from {src} to {tgt}.\n"
        "{text}\n\n### Response:",
        "lemon0830/TIM inference/infer_bloom.py and infer_llama.py, without hint or dictionary (as in its test script)",
        clean=joined,
    ),
    "swie": Template(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nTranslate the following sentences "
        "from {src} to {tgt}.\n\n### Input:\n{text}\n\n### Response:\n",
        "frame: pppa2019/swie_overmiss_llm4mt src/inference.py; its instruct_inf.txt could not be read: the sentence "
        "is that of LLaMAX, whose script has the same lineage",
        confidence="unsure",
    ),
    "milmmt": Template(
        _ALMA_TEXT,
        "xiaomi-research/gemmax README @ d18eb82: ALMA's words, with its own names of languages",
        renamed={"zh": "Chinese (Simplified)"},
    ),
    "hy-mt1.5": Template(
        "Translate the following segment into {tgt}, without additional explanation.\n\n{text}",
        "Tencent-Hunyuan/HY-MT README @ 248d5b5; with Chinese on one side it is asked in Chinese",
        chat=True,
        clean=in_one_line,
        with_chinese="hy-mt, Chinese",
    ),
    "hy-mt2": Template(
        "Translate the following text into {tgt}. Note that you should only output the translated result without any "
        "additional explanation:\n\n{text}",
        "Tencent-Hunyuan/Hy-MT2 README @ c30b36c, without its table's marks for bold; it has both languages of prompt "
        "for all pairs, the choice is that of HY-MT1.5",
        chat=True,
        clean=in_one_line,
        with_chinese="hy-mt, Chinese",
    ),
    "hy-mt, Chinese": Template(
        "将以下文本翻译为{tgt}，注意只需要输出翻译后的结果，不要额外解释：\n\n{text}",
        "Tencent-Hunyuan/HY-MT README @ 248d5b5 and Hy-MT2 README @ c30b36c",
        chat=True,
        clean=in_one_line,
        names="Chinese",
        renamed={"zh": "中文", "id": "印尼语"},
    ),
    "translategemma": Template(
        "You are a professional {src} ({src_code}) to {tgt} ({code}) translator. Your goal is to accurately convey the "
        "meaning and nuances of the original {src} text while adhering to {tgt} grammar, vocabulary, and cultural "
        "sensitivities.\nProduce only the {tgt} translation, without any additional explanations or commentary. Please "
        "translate the following {src} text into {tgt}:\n\n\n{text}",
        "ollama.com/library/translategemma, in a stored copy",
        chat=True,
        clean=in_one_line,
    ),
    "lmt": Template(
        "Translate the following text from {src} into {tgt}:\n{src}: {text}\n{tgt}:",
        "NiuTrans/LMT README and src/utils.py @ d87c68a",
        chat=True,
        clean=in_one_line,
        renamed={"el": "Modern Greek", "he": "Modern Hebrew", "ky": "Kirghiz", "no": "Norwegian Bokmål"},
    ),
    "tower-plus": Template(
        "Translate the following {src} source text to {tgt}:\n{src}: {text}\n{tgt}: ",
        "public code that runs it; its own card could not be read",
        confidence="unsure",
        chat=True,
        clean=in_one_line,
    ),
    "eurollm": Template(
        "Translate the following {src} source text to {tgt}:\n{src}: {text} \n{tgt}: ",
        "copies of the example of EuroLLM-1.7B-Instruct's card; the system turn of the 9B's card could not be read",
        confidence="unsure",
        chat=True,
        clean=in_one_line,
    ),
    "seed-x": Template(
        "Translate the following {src} sentence into {tgt}:\n{text} <{code}>",
        "ByteDance-Seed/Seed-X-7B README @ 8335570: no chat form, the target's tag at the end",
    ),
    "salamandrata": Template(
        "Translate the following text from {src} into {tgt}.\n{src}: {text} \n{tgt}:",
        "a copy of the card of BSC-LT/salamandraTA-7b-instruct",
        chat=True,
        clean=in_one_line,
    ),
    "qwen3": Template(
        "/no_think\n" + _ALMA_TEXT,
        "ALMA's prompt, our choice, and Qwen3's switch against thoughts (from memory)",
        confidence="unsure",
        chat=True,
        clean=after_thoughts,
    ),
    "endpoint": Template(
        _ALMA_TEXT,
        "ALMA's prompt as a user's message, our choice; the papers' GPT rows were made elsewhere, their prompt could "
        "not be read",
        confidence="unsure",
        chat=True,
        clean=in_one_line,
    ),
}
