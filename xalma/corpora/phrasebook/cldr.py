"""What each of the 50 languages really says in the Unicode CLDR, without fallbacks, part by part.

`xalma.corpora.phrasebook.phrasebook` stands in for the papers' corpora, which can't be embedded. Babel ships the CLDR,
but its formatting functions answer with a code or a root value ("-5 d", "length-kilometer") where
a language has none. So the values are read from the locale's *own* data: its file and its
language's, never `root`. What stays of inheritance is the CLDR's own (UTS #35), because its
published data leaves out whatever a language would inherit from itself:

- a unit without a long form has its short one; a currency without the plural form at hand has its
  "other" form, then its name; an abbreviated "am" is the wide one;
- patterns of mere punctuation ("{0}, {1}") may be root's, in a language that has any of the kind.

Digits are Latin and the calendar is Gregorian, also where a language's default differs.
"""

from __future__ import annotations

import datetime
import pickle
import re
import unicodedata
from functools import cache, lru_cache

from babel.localedata import merge, resolve_locale_filename

# Babel's locale where it isn't the bare code: European Portuguese, the scripts of the NLLB codes.
LOCALES = {"pt": "pt_PT", "zh": "zh_Hans", "sr": "sr_Cyrl", "az": "az_Latn", "uz": "uz_Latn"}
MAX_NUMBER = 999  # a fourth digit would need each language's grouping mark
# The CLDR's own widths: dates of that width, and measures, spans and money in words ("3 kilometers", "3 euros") or,
# from medium on, in short form ("3 km", "3 EUR"). Two styles of one part state the same facts.
LENGTHS = ("full", "long", "medium", "short")

Part = tuple[str, object]  # ("date", (2025, 3, 3)), ("countries", ("DE", "FR")), ("amount", ("EUR", 3))

_SPACES = re.compile(r"[\s\u00a0\u2009\u202f]+")
MARKS_AND_SPACES = "\u200e\u200f\u061c\u00a0\u202f "
_MARKS = re.compile(r"[\u200b\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def clean_pattern(text: str) -> str:
    """`text` in NFC, without bidi marks, each run of (no-break, narrow) spaces one plain space.

    The zero-width joiner and non-joiner stay: Persian and the Indic scripts spell with them.
    """
    return _SPACES.sub(" ", _MARKS.sub("", unicodedata.normalize("NFC", text))).strip()


class Gap(LookupError):
    """The language has no CLDR value of its own for this; the message says which."""


def _file(locale: str) -> dict:
    # babel.localedata.load would do, but its cache mixes merged and unmerged data under one name.
    # Babel ships its data pickled; the file is the installed package's own, as trusted as its code.
    with open(resolve_locale_filename(locale), "rb") as stream:
        return pickle.load(stream)


class Speaker:
    """Says parts in one language and style from its own CLDR data; get one from `speaker(code, style)`."""

    def __init__(self, lang: str, style: str = "full") -> None:
        """Load the data of the two-letter code `lang`. Raises ValueError for a style that is none of STYLES."""
        if style not in LENGTHS:
            raise ValueError(f"unknown style {style!r}: choose one of {', '.join(LENGTHS)}")
        self.lang = lang
        self.style = style
        self.data = {}
        self.root = _file("root")
        self.words = style in ("full", "long")
        steps = LOCALES.get(lang, lang).split("_")
        for depth in range(1, len(steps) + 1):
            merge(self.data, _file("_".join(steps[:depth])))
        rule = self.data.get("plural_form")
        self.plurals = [rule(n) if rule else "other" for n in range(MAX_NUMBER + 1)]
        self.examples = [self.plurals.index(tag, 1) for tag in sorted(set(self.plurals[1:]))]
        self._dates = self._date_words()
        self.latin = bool(re.search("[A-Za-z]", self._dates["EEEE"][0]))
        self._say = {
            "date": self._date,
            "datetime": self._datetime,
            "relative": self._relative,
            "amount": self._amount,
            "measure": self._measure,
            "countries": lambda codes: self._list([self._own("territories", c) for c in codes]),
            "languages": lambda codes: self._list([self._own("languages", c) for c in codes]),
            "both": lambda parts: self._list([self.say(part) for part in parts]),
        }
        self.say = lru_cache(maxsize=50_000)(self._clean_say)

    def _clean_say(self, part: Part) -> str:
        """`part` in this language. Raises Gap where the CLDR has no words for it."""
        kind, value = part
        return clean_pattern(self._say[kind](value))

    def names(self, kind: str, item: str) -> list[str]:
        """What `item` of "countries", "languages", "currencies", "units" is called, in each plural.

        Raises Gap where there is no name, or one that is a code, has brackets, or mixes Latin
        letters into another script.
        """
        if kind in ("countries", "languages"):
            texts = [self.say((kind, (item,)))]
        else:
            part = "amount" if kind == "currencies" else "measure"
            texts = [self.say((part, (item, number))) for number in self.examples]
        for text in texts:
            if re.search(rf"\b{item}\b|[\[\](){{}}]", text):
                raise Gap(f"'{text}' is a code or has brackets")
            if not self.latin and re.search("[A-Za-z]", text):
                raise Gap(f"'{text}' mixes scripts")
        return texts

    def join(self, joiner: str, first: str, second: str) -> str:
        """The two texts joined by "colon" ("A: B") or "paren" ("A (B)").

        This rule is ours, not the CLDR's: full-width marks in Chinese and Japanese, a space before
        the colon in French, the same marks everywhere else.
        """
        if self.lang in ("zh", "ja"):
            return f"{first}：{second}" if joiner == "colon" else f"{first}（{second}）"
        colon = " :" if self.lang == "fr" else ":"
        return f"{first}{colon} {second}" if joiner == "colon" else f"{first} ({second})"

    def _own(self, *path: object):
        value = self.data
        for key in path:
            if not isinstance(value, dict) or value.get(key) in (None, {}):
                raise Gap(f"no {' '.join(map(str, path))}")
            value = value[key]
        return value

    def _plural(self, forms: dict, number: int) -> str | None:
        return forms.get(self.plurals[number]) or forms.get("other")

    def _date_words(self) -> dict[str, dict[int, str]]:
        days = self._own("days")
        months = self._own("months")
        words = {"EEEE": days["format"]["wide"], "MMMM": months["format"]["wide"]}
        words["cccc"] = days.get("stand-alone", {}).get("wide") or words["EEEE"]
        words["LLLL"] = months.get("stand-alone", {}).get("wide") or words["MMMM"]
        words["EEE"] = days["format"].get("abbreviated") or words["EEEE"]
        words["MMM"] = months["format"].get("abbreviated") or words["MMMM"]
        words["LLL"] = months.get("stand-alone", {}).get("abbreviated") or words["MMM"]
        return words

    def _date(self, value: tuple[int, int, int]) -> str:
        year, month, day = value
        weekday = datetime.date(*value).weekday()
        fields = {"y": year, "yy": f"{year % 100:02}", "d": day, "dd": f"{day:02}"}
        fields |= {"M": month, "MM": f"{month:02}", "L": month, "LL": f"{month:02}"}
        for key, words in self._dates.items():
            fields[key] = words[weekday if key[0] in "Ec" else month]
        pattern = self._own("date_formats", self.style).format  # "%(EEEE)s, %(d)s. %(MMMM)s %(y)s"
        if "(G)" in pattern or "(GGGGG)" in pattern:
            fields["G"] = fields["GGGGG"] = self._own("eras", "abbreviated", 1)
        return pattern % fields

    def _time(self, hour: int, minute: int) -> str:
        twelve = hour % 12 or 12
        fields = {"H": hour, "HH": f"{hour:02}", "h": twelve, "hh": f"{twelve:02}"}
        fields["mm"] = f"{minute:02}"
        pattern = self._own("time_formats", "short").format
        if "(a)" in pattern:
            half = "am" if hour < 12 else "pm"
            widths = self._own("day_periods", "format")
            short = widths.get("abbreviated", {}).get(half)
            fields["a"] = short or self._own("day_periods", "format", "wide", half)
        return pattern % fields

    def _datetime(self, value: tuple[int, int, int, int, int]) -> str:
        pattern = self._own("datetime_formats", self.style)
        return pattern.format(self._time(*value[3:]), self._date(value[:3]))

    def _relative(self, value: tuple[str, int]) -> str:
        unit, offset = value
        side = "future" if offset > 0 else "past"
        path = ("date_fields", unit, side)
        short = {} if self.words else self.data.get("date_fields", {}).get(f"{unit}-short", {}).get(side, {})
        pattern = self._plural(short, abs(offset)) or self._plural(self._own(*path), abs(offset))
        if not pattern:
            raise Gap(f"no plural {self.plurals[abs(offset)]} of {' '.join(path)}")
        return pattern.format(abs(offset))

    def _amount(self, value: tuple[str, int]) -> str:
        currency, number = value
        if not self.words:
            first = self._own("currency_formats", "standard").pattern.strip(MARKS_AND_SPACES).startswith("¤")
            return f"{currency} {number}" if first else f"{number} {currency}"
        forms = self.data.get("currency_names_plural", {}).get(currency, {})
        name = self._plural(forms, number) or self._own("currency_names", currency)
        pattern = self._plural(self.data.get("currency_unit_patterns", {}), number) or "{0} {1}"
        return pattern.format(number, name)

    def _measure(self, value: tuple[str, int]) -> str:
        unit, number = value
        widths = self._own("unit_patterns", unit)
        pattern = self._plural(widths.get("long", {}), number) if self.words else None
        pattern = pattern or self._plural(widths.get("short", {}), number)
        symbol = self.root["unit_patterns"].get(unit, {}).get("short", {}).get("other")
        if not self.words:  # a symbol is what a short form is
            pattern = pattern or symbol or self._plural(widths.get("long", {}), number)
        if not pattern or (self.words and pattern == symbol):
            raise Gap(f"no unit_patterns {unit} in words")
        return pattern.format(number)

    def _list(self, items: list[str]) -> str:
        if len(items) == 1:
            return items[0]
        patterns = self.root["list_patterns"]["standard"] | self._own("list_patterns", "standard")
        if len(items) == 2:
            return self._and(patterns["2"], *items)
        text = self._and(patterns["end"], *items[-2:])
        for item in reversed(items[1:-2]):
            text = patterns["middle"].format(item, text)
        return patterns["start"].format(items[0], text)

    def _and(self, pattern: str, first: str, last: str) -> str:
        # Two rules of sound and script that the CLDR's text states and ICU applies, but no pattern.
        if self.lang == "es" and re.match(r"h?i(?![aeo])", last, re.IGNORECASE):
            pattern = pattern.replace(" y ", " e ")  # España e Italia
        if self.lang == "he" and last[0].isdigit():
            pattern = pattern.replace("ו{1}", "ו-{1}")
        return pattern.format(first, last)


@cache
def speaker(lang: str, style: str = "full") -> Speaker:
    """The Speaker of a two-letter code, in one of STYLES."""
    return Speaker(lang, style)
