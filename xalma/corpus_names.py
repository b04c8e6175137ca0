"""The corpora that a profile can name, and where the class of each stands."""

from __future__ import annotations

# name in a profile -> module and class; imported when asked for, for `datasets` takes a second
FAMILIES: dict[str, tuple[str, str]] = {
    "hub": ("hub", "HubCorpus"),  # what X-ALMA used: OSCAR, NLLB and OPUS, its parallel data, FLORES-200
    "cldr": ("phrasebook.corpus", "CldrCorpus"),
    "cldr_web": ("phrasebook.corpus", "WebCorpus"),  # what the shipped tiny base has read
    "ntrex": ("ntrex", "NtrexCorpus"),
    "ntrex_whole": ("ntrex", "NtrexWhole"),  # no test documents: for runs that are tested elsewhere
    "oscar": ("hub", "OscarCorpus"),
    "nllb": ("hub", "NllbCorpus"),
    "opus": ("hub", "OpusCorpus"),
    "flores": ("flores", "FloresCorpus"),
    "wmt": ("wmt", "WmtCorpus"),  # trains on WMT'15 to '22, tests on '23
    "wmt22": ("wmt", "Wmt22Corpus"),  # ALMA's test set
    "wmt24": ("wmt", "Wmt24Corpus"),  # test sets after X-ALMA's time
    "wmt24pp": ("wmt", "Wmt24ppCorpus"),
    "alma": ("alma", "AlmaCorpus"),
    "alma_as_released": ("alma", "AlmaAsReleased"),  # with the FLORES-200 lines at its end
    "xalma": ("hub", "XalmaParallel"),
    "bibles": ("aligned", "BibleCorpus"),
    "mozilla": ("aligned", "MozillaCorpus"),
    "udhr": ("aligned", "UdhrCorpus"),
    "own": ("own", "OwnCorpus"),
}

ALIASES = {
    "real": "ntrex+bibles+mozilla",  # the real text at hand, tested on held-out documents of NTREX
    # X-ALMA's own SFT and test sets, tested on FLORES-200 devtest (WMT'23 is held out too), and stand-ins for web text
    "papers": "flores+ntrex_whole+wmt+bibles+mozilla+udhr",
}


def parse_corpus(text: str) -> tuple[str, ...]:
    """Family names of "ntrex" or "ntrex+bibles". Raises ValueError for one that is not there, or named twice."""
    names = tuple(name.strip() for name in ALIASES.get(text, text).split("+"))
    if any(name not in FAMILIES for name in names):
        known = [*list(FAMILIES)[:3], *ALIASES, *list(FAMILIES)[3:]]
        raise ValueError(
            f"bad value {text!r} for corpus: choose one of {', '.join(known)}, or join several with +"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"bad value {text!r} for corpus: a name stands there twice")
    return names
