"""Language-neutral draws: what a phrase is about, before any language says it.

Which phrases there are, and how often, is our choice; no paper prescribes it. A draw is
`(shape, parts)`: one part, "A: B", "A (B)" or "A: B (C)"; its parts are dates, spans of time, lists
of countries or languages, amounts and measures. Every item of an inventory has a name of its own
in all 50 languages; `dropped` says which candidates have not, and why.
"""

from __future__ import annotations

import datetime
import random
from functools import cache

from xalma.corpora.phrasebook.cldr import MAX_NUMBER, Gap, Part, speaker
from xalma.languages import LANGUAGES

Draw = tuple[str, tuple[Part, ...]]  # shape: "one", "colon", "paren" or "colon+paren"


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Candidates, best-known first: an order made by hand (large, often-named ones), not a measurement.
CANDIDATES: dict[str, tuple[str, ...]] = {
    "countries": _codes("""
        DE FR JP CN IN IT ES RU BR GB US CA MX EG TR KR ID PL UA GR SE NL PT AR AU TH VN IR ZA NG
        AT CH BE NO FI DK HU RO BG CZ IL SA IQ KE ET MA CL CO PE CU IE IS EE LV LT RS HR SK SI AL
        GE AM AZ KZ UZ KG MN PK BD NP LK MY PH SG NZ DZ TN LY SD GH SN ML AO UG TZ MG MZ ZM ZW CM
        JO LB SY KW QA YE OM AF TM TJ KH LA VE EC BO PY UY PA CR JM HT LU MT CY BY MD"""),
    "languages": _codes("""
        en fr de es zh ja ru ar it pt hi ko tr pl nl el sv uk cs hu ro bg fa th vi id ms ur bn ne
        ta pa be my km jv am ha so yo ig zu mg rw ak no da fi he"""),
    "currencies": _codes("""
        EUR USD JPY CNY INR GBP CHF CAD AUD ZAR EGP SAR NGN KES MAD DZD TND ETB GHS UGX TZS SDG LYD
        AOA ZMW NAD SEK RUB TRY BRL"""),
    "units": _codes("""
        length-kilometer length-meter mass-kilogram volume-liter duration-hour duration-minute
        duration-day duration-week duration-month duration-year length-centimeter mass-gram
        area-square-kilometer area-square-meter temperature-celsius length-millimeter area-hectare
        duration-second speed-kilometer-per-hour digital-gigabyte energy-kilowatt-hour"""),
}
SPANS = ("day", "week", "month", "year", "hour", "minute")
LAST_SPAN = 30  # longest "n days ago"
FIRST_DAY = datetime.date(1950, 1, 1).toordinal()
DAYS = datetime.date(2050, 1, 1).toordinal() - FIRST_DAY


@cache
def dropped_entries(kind: str) -> dict[str, str]:
    """Candidates of `kind`, a key of CANDIDATES, left out; each with a "language: reason"."""
    reasons: dict[str, str] = {}
    owner: dict[tuple[str, str], str] = {}  # (language, name) -> item
    for item in CANDIDATES[kind]:
        mine: dict[tuple[str, str], str] = {}
        try:
            for lang in LANGUAGES:
                if kind == "units" and not speaker(lang).data.get("unit_patterns"):
                    continue  # the phrase type as a whole is missing: Phrasebook.coverage says so
                for name in speaker(lang).names(kind, item):
                    if (lang, name) in owner:
                        raise Gap(f"'{name}' is also the name of {owner[lang, name]}")
                    mine[lang, name] = item
        except Gap as gap:
            reasons[item] = f"{lang}: {gap}"
        else:
            owner |= mine
    return reasons


def inventory(kind: str, size: int) -> tuple[str, ...]:
    """The first `size` candidates of `kind` that all languages can name.

    Raises ValueError if there are fewer.
    """
    usable = [item for item in CANDIDATES[kind] if item not in dropped_entries(kind)]
    if not 3 <= size <= len(usable):
        raise ValueError(
            f"{size} {kind} asked for: choose 3 to {len(usable)}, which all 50 languages can name"
        )
    return tuple(usable[:size])


class Dice:
    """One seeded stream of draws."""

    def __init__(self, sizes: dict[str, int], max_list: int, seed: int) -> None:
        """Use inventories of `sizes` (kind -> items) and lists of up to `max_list` items.

        Raises ValueError for a size or list out of range.
        """
        if not 1 <= max_list <= 3:
            raise ValueError(f"max_list is {max_list}: choose the longest list from 1 to 3 items")
        self.items = {kind: inventory(kind, size) for kind, size in sizes.items()}
        self.max_list = max_list
        self.random = random.Random(f"phrasebook {seed}").random  # random.choice is 3 times slower

    def pick(self, items: tuple) -> object:
        """One of `items`, each as likely."""
        return items[int(self.random() * len(items))]

    def number(self) -> int:
        """1..999, small numbers most often, as in text."""
        return 1 + int(self.random() * self.pick((9, 30, 99, MAX_NUMBER)))

    def names(self, kind: str | None = None) -> Part:
        """A list of up to `max_list` different countries or languages, longer lists more often."""
        kind = kind or ("countries" if self.random() < 0.55 else "languages")
        length = 1 + int(max(self.random(), self.random()) * self.max_list)
        chosen: list[object] = []
        while len(chosen) < length:
            item = self.pick(self.items[kind])
            if item not in chosen:
                chosen.append(item)
        return kind, tuple(chosen)

    def when(self) -> Part:
        """A span from now (half of the time), a full date, or a date with a time of day."""
        throw = self.random()
        if throw < 0.5:
            span = 1 + int(self.random() * LAST_SPAN)
            return "relative", (self.pick(SPANS), self.pick((-span, span)))
        day = datetime.date.fromordinal(FIRST_DAY + int(self.random() * DAYS))
        date = (day.year, day.month, day.day)
        if throw < 0.85:
            return "date", date
        return "datetime", (*date, int(self.random() * 24), 5 * int(self.random() * 12))

    def quantity(self) -> Part:
        """An amount of money, a measure, or both."""
        throw = self.random()
        amount = ("amount", (self.pick(self.items["currencies"]), self.number()))
        measure = ("measure", (self.pick(self.items["units"]), self.number()))
        if throw < 0.8:
            return amount if throw < 0.4 else measure
        return "both", (amount, measure)

    def draw(self) -> Draw:
        """One draw: about 5 % single parts, 80 % pairs, 15 % triples."""
        throw = self.random()
        if throw < 0.05:
            return "one", (self.pick((self.when, self.quantity, self.names))(),)
        if throw < 0.37:
            return "colon", (self.when(), self.names())
        if throw < 0.50:
            return "colon", (self.when(), self.quantity())
        if throw < 0.57:
            return "colon", (self.names("countries"), self.quantity())
        if throw < 0.65:
            return "colon", (self.names("countries"), self.names("languages"))
        if throw < 0.75:
            return "paren", (self.names(), self.when())
        if throw < 0.85:
            return "paren", (self.names(), self.quantity())
        return "colon+paren", (self.when(), self.names(), self.quantity())


def say(draw: Draw, lang: str, style: str = "full") -> str:
    """`draw` in `lang` and one of the CLDR's styles. Raises Gap where the language has no words for a part."""
    shape, parts = draw
    voice = speaker(lang, style)
    text = voice.say(parts[0])
    for joiner, part in zip(shape.split("+"), parts[1:], strict=False):
        text = voice.join(joiner, text, voice.say(part))
    return text
