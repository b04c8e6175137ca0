"""The 50 languages of X-ALMA as one table, and the hard gate that maps a language to its module.

Groups: X-ALMA §3 / `published` table d (paper and released code agree, French in group 4 included).
Codes: `flores` as in the released `utils.py`; `oscar` names OSCAR-2301 configurations, `ntrex` NTREX-128 files.
`resource`: "high" = Joshi et al. (2020) classes 4-5 as Aya uses them. The X-ALMA text that lists the "High"
subset could not be read, so most entries are `inferred`; the few seen on the Aya data card are `confirmed`.

The table is the papers' and never changes. A language outside it gets a module of its own (`add_language`): group 9
or above, so that what the eight modules are trained on and serve stays as it is.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

ENGLISH = "en"
GROUP_NAMES: dict[int, str] = {
    1: "Germanic",
    2: "Romance",
    3: "Eastern and Southern Slavic",
    4: "Southeast Asian (and French)",
    5: "Central and Eastern European",
    6: "Eurasian mix",
    7: "Indo-Aryan",
    8: "Turkic and Semitic",
}

# code | name | script | family | genus | group | resource | confidence | FLORES | OSCAR | NTREX
_TABLE = """
en|English|Latn|Indo-European|Germanic|0|high|inferred|eng_Latn|en|eng
af|Afrikaans|Latn|Indo-European|Germanic|1|other|confirmed|afr_Latn|af|afr
da|Danish|Latn|Indo-European|Germanic|1|other|inferred|dan_Latn|da|dan
de|German|Latn|Indo-European|Germanic|1|high|inferred|deu_Latn|de|deu
is|Icelandic|Latn|Indo-European|Germanic|1|other|inferred|isl_Latn|is|isl
nl|Dutch|Latn|Indo-European|Germanic|1|high|inferred|nld_Latn|nl|nld
no|Norwegian|Latn|Indo-European|Germanic|1|other|inferred|nob_Latn|no|nob
sv|Swedish|Latn|Indo-European|Germanic|1|high|inferred|swe_Latn|sv|swe
ca|Catalan|Latn|Indo-European|Romance|2|high|inferred|cat_Latn|ca|cat
es|Spanish|Latn|Indo-European|Romance|2|high|confirmed|spa_Latn|es|spa
gl|Galician|Latn|Indo-European|Romance|2|other|inferred|glg_Latn|gl|glg
it|Italian|Latn|Indo-European|Romance|2|high|inferred|ita_Latn|it|ita
pt|Portuguese|Latn|Indo-European|Romance|2|high|inferred|por_Latn|pt|por
ro|Romanian|Latn|Indo-European|Romance|2|other|inferred|ron_Latn|ro|ron
bg|Bulgarian|Cyrl|Indo-European|Slavic|3|other|confirmed|bul_Cyrl|bg|bul
mk|Macedonian|Cyrl|Indo-European|Slavic|3|other|inferred|mkd_Cyrl|mk|mkd
ru|Russian|Cyrl|Indo-European|Slavic|3|high|inferred|rus_Cyrl|ru|rus
sr|Serbian|Cyrl|Indo-European|Slavic|3|high|confirmed|srp_Cyrl|sr|srp-Cyrl
uk|Ukrainian|Cyrl|Indo-European|Slavic|3|other|inferred|ukr_Cyrl|uk|ukr
fr|French|Latn|Indo-European|Romance|4|high|confirmed|fra_Latn|fr|fra
id|Indonesian|Latn|Austronesian|Malayo-Polynesian|4|other|inferred|ind_Latn|id|ind
mg|Malagasy|Latn|Austronesian|Malayo-Polynesian|4|other|inferred|plt_Latn|mg|mlg
ms|Malay|Latn|Austronesian|Malayo-Polynesian|4|other|inferred|zsm_Latn|ms|msa
th|Thai|Thai|Kra-Dai|Tai|4|other|inferred|tha_Thai|th|tha
vi|Vietnamese|Latn|Austroasiatic|Vietic|4|high|inferred|vie_Latn|vi|vie
cs|Czech|Latn|Indo-European|Slavic|5|high|inferred|ces_Latn|cs|ces
el|Greek|Grek|Indo-European|Hellenic|5|other|inferred|ell_Grek|el|ell
hu|Hungarian|Latn|Uralic|Ugric|5|high|inferred|hun_Latn|hu|hun
lt|Lithuanian|Latn|Indo-European|Baltic|5|other|inferred|lit_Latn|lt|lit
lv|Latvian|Latn|Indo-European|Baltic|5|other|inferred|lvs_Latn|lv|lav
pl|Polish|Latn|Indo-European|Slavic|5|high|inferred|pol_Latn|pl|pol
et|Estonian|Latn|Uralic|Finnic|6|other|inferred|est_Latn|et|est
fi|Finnish|Latn|Uralic|Finnic|6|high|inferred|fin_Latn|fi|fin
ja|Japanese|Jpan|Japonic|Japonic|6|high|inferred|jpn_Jpan|ja|jpn
ka|Georgian|Geor|Kartvelian|Kartvelian|6|other|inferred|kat_Geor|ka|kat
ko|Korean|Hang|Koreanic|Koreanic|6|high|inferred|kor_Hang|ko|kor
zh|Chinese|Hans|Sino-Tibetan|Sinitic|6|high|inferred|zho_Hans|zh|zho-CN
gu|Gujarati|Gujr|Indo-European|Indo-Aryan|7|other|inferred|guj_Gujr|gu|guj
hi|Hindi|Deva|Indo-European|Indo-Aryan|7|high|confirmed|hin_Deva|hi|hin
mr|Marathi|Deva|Indo-European|Indo-Aryan|7|other|inferred|mar_Deva|mr|mar
ne|Nepali|Deva|Indo-European|Indo-Aryan|7|other|inferred|npi_Deva|ne|nep
ur|Urdu|Arab|Indo-European|Indo-Aryan|7|other|inferred|urd_Arab|ur|urd
ar|Arabic|Arab|Afro-Asiatic|Semitic|8|high|confirmed|arb_Arab|ar|arb
az|Azerbaijani|Latn|Turkic|Turkic|8|other|confirmed|azj_Latn|az|aze-Latn
fa|Persian|Arab|Indo-European|Iranian|8|high|inferred|pes_Arab|fa|fas
he|Hebrew|Hebr|Afro-Asiatic|Semitic|8|other|inferred|heb_Hebr|he|heb
kk|Kazakh|Cyrl|Turkic|Turkic|8|other|inferred|kaz_Cyrl|kk|kaz
ky|Kyrgyz|Cyrl|Turkic|Turkic|8|other|inferred|kir_Cyrl|ky|kir
tr|Turkish|Latn|Turkic|Turkic|8|high|inferred|tur_Latn|tr|tur
uz|Uzbek|Latn|Turkic|Turkic|8|other|inferred|uzn_Latn|uz|uzb
"""


@dataclass(frozen=True)
class Language:
    """One row of the table; `group` is 1..8, and 0 for English, which belongs to every group."""

    code: str
    name: str
    script: str
    family: str
    genus: str
    group: int
    resource: str
    resource_confidence: str
    flores: str
    oscar: str
    ntrex: str

    @property
    def sacrebleu_tokenizer(self) -> str:
        """sacreBLEU tokenizer of the papers' evaluation: 13a but for Chinese, Japanese and Korean."""
        return {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}.get(self.code, "13a")


def _parse_row(row: str) -> Language:
    cells = row.split("|")
    return Language(*cells[:5], int(cells[5]), *cells[6:])


LANGUAGES: dict[str, Language] = {row.code: row for row in map(_parse_row, _TABLE.split("\n")[1:-1])}
GROUPS: dict[int, tuple[str, ...]] = {
    g: tuple(code for code, row in LANGUAGES.items() if row.group == g) for g in GROUP_NAMES
}
PAPER_GROUPS = tuple(GROUPS)  # 1..8, what "all" means
ALMA_LANGUAGES = ("cs", "de", "is", "ru", "zh")  # those of the ALMA paper, beside English
# the two classes of directions, as tables and figures name them
ARROWS = {"en-xx": "en→xx", "xx-en": "xx→en"}
ADDED: dict[str, Language] = {}  # languages outside the papers' table, by `add_language`


def add_language(row: Language | str, group_name: str = "") -> Language:
    """Adds a language outside the table, for this process, and returns its row; the same row twice is once.

    row: a Language, or the table's form, "sw|Swahili|Latn|Niger-Congo|Bantu|9|other|inferred|swh_Latn|sw|swa".
    Its group is 9 or above and may be shared by added languages only; group_name defaults to the language's.
    For all processes, and for the command line, name a file of such lines in XALMA_LANGUAGES.
    Raises ValueError for a malformed row, a code that is taken, or one of the papers' eight groups.
    """
    if isinstance(row, str):
        if len(row.split("|")) != 11 or not row.split("|")[5].isdigit():
            raise ValueError(
                f"bad language row {row!r}: write eleven cells with | between, the sixth a group number"
            )
        row = _parse_row(row)
    if not re.fullmatch("[a-z]{2,3}", row.code):
        raise ValueError(f"bad language code {row.code!r}: use two or three small letters, as sw")
    if row.code in LANGUAGES or ADDED.get(row.code, row) != row:
        raise ValueError(
            f"the language code {row.code!r} is taken by {language(row.code).name}: choose another"
        )
    if row.group <= max(PAPER_GROUPS):
        raise ValueError(
            f"{row.code} can't join group {row.group}: its module is trained already; "
            f"give a new language a group of its own, {max(PAPER_GROUPS) + 1} or above"
        )
    ADDED[row.code] = row
    GROUPS[row.group] = tuple(dict.fromkeys((*GROUPS.get(row.group, ()), row.code)))
    GROUP_NAMES.setdefault(row.group, group_name or row.name)
    return row


def known_languages() -> dict[str, Language]:
    """The 50 and the added ones, by code."""
    return LANGUAGES | ADDED


def language(code: str) -> Language:
    """The row of `code`. Raises ValueError, naming near codes, if it is neither one of the 50 nor added."""
    known = known_languages()
    if code in known:
        return known[code]
    by_name = {row.name.lower(): row.code for row in known.values()}
    text = str(code)
    near = get_close_matches(text.lower(), [*known, *by_name], n=4, cutoff=0.5)
    near += [c for c in known if text[:1] and c.startswith(text[0].lower())][:4]
    codes = list(dict.fromkeys(by_name.get(hit, hit) for hit in near)) or list(known)
    hint = ", ".join(f"{c} ({known[c].name})" for c in codes[:5])
    raise ValueError(
        f"unknown language code {code!r}: use one of the codes that `xalma languages` lists; near: {hint}"
    )


def group_of(code: str) -> int:
    """The group (1..8, above for an added language) whose module serves `code`: X-ALMA's hard gate.

    Raises ValueError for an unknown code, and for English, which belongs to every group: the
    non-English side of a direction picks the module.
    """
    row = language(code)
    if row.group == 0:
        raise ValueError(
            "English belongs to every group: pass the non-English language of the direction instead"
        )
    return row.group


def parse_direction(direction: str) -> tuple[str, str]:
    """("en", "de") for "en-de". Raises ValueError for another form, unknown codes or src == tgt."""
    parts = direction.split("-")
    if len(parts) != 2:
        raise ValueError(
            f"bad direction {direction!r}: write it as source-target, for example en-de or ja-en"
        )
    src, tgt = (language(part).code for part in parts)
    if src == tgt:
        raise ValueError(f"bad direction {direction!r}: source and target are the same language")
    return src, tgt


def other_side(src: str, tgt: str) -> str:
    """The non-English code of an English-centric direction. Raises ValueError if there is none, or two."""
    codes = language(src).code, language(tgt).code
    sides = [code for code in codes if code != ENGLISH]
    if codes[0] == codes[1]:
        raise ValueError(f"bad direction {src}-{tgt}: source and target are the same language")
    if len(sides) != 1:
        raise ValueError(
            f"direction {src}-{tgt} is not English-centric: X-ALMA has a module for en-xx and xx-en only; "
            f"translate through English in two steps"
        )
    return sides[0]


def directions(codes: tuple[str, ...] | list[str]) -> list[str]:
    """Both English-centric directions of each code, "en-xx" first."""
    return [d for code in codes for d in (f"en-{code}", f"{code}-en")]


def gated_group(request: str | int) -> int:
    """The group whose module serves a language ("zh"), a direction ("en-zh") or a group (6): the hard gate.

    Raises ValueError for an unknown language or group, English alone, or a direction without English.
    """
    if isinstance(request, int):
        adapter_name(request)  # raises where there is no such group
        return request
    return group_of(other_side(*parse_direction(request)) if "-" in request else request)


def parse_groups(text: str) -> tuple[int, ...]:
    """Group numbers from "all" (the papers' eight), "6" or "3,6". Raises ValueError for a group that is not there."""
    if text.strip() == "all":
        return PAPER_GROUPS
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) in GROUPS for part in parts):
        raise ValueError(
            f"bad groups {text!r}: write 'all' or numbers of 1..{max(GROUPS)} separated by commas, for example 3,6"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_module_languages(text: str) -> dict[int, tuple[str, ...]]:
    """{6: ("et", "fi")} of "6:et+fi"; several groups with commas between.

    Raises ValueError for another form, a group that is not there or named twice, English, or an unknown language.
    """
    found: dict[int, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        number, colon, codes = part.partition(":")
        if not colon or not number.isdigit() or int(number) not in GROUPS or int(number) in found:
            raise ValueError(
                f"bad module_languages {part!r}: write group and languages, for example 6:et+fi,3:ru"
            )
        found[int(number)] = tuple(dict.fromkeys(code.strip() for code in codes.split("+")))
        for code in found[int(number)]:
            group_of(code)  # raises for English and for what is no language
    return found


def add_languages_from(path: str | Path) -> None:
    """Adds the languages of a file, a row of the table per line; blank lines and those after # are left out.

    Raises ValueError, naming the file and the line, where there is no such file, it is not UTF-8, or a row is wrong.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(
            f"can't read the file of languages {file}, which XALMA_LANGUAGES names: {error}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the file of languages {file}, which XALMA_LANGUAGES names, is not UTF-8"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                add_language(line.strip())
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from error


# read here, so that worker processes and notebooks' kernels see them too
if os.environ.get("XALMA_LANGUAGES"):
    add_languages_from(os.environ["XALMA_LANGUAGES"])


def adapter_name(group: int) -> str:
    """What a group's module is called, adapter and folder: "group6". Raises ValueError for no such group."""
    if group not in GROUPS:
        raise ValueError(f"there is no language group {group!r}: choose 1 to {max(GROUPS)}")
    return f"group{group}"
