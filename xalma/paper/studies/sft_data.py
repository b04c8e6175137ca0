"""Which pairs SFT needs: NTREX, and WMT'15 to '22, and FLORES-200 dev (X-ALMA's ablation of SFT data, notebook 09).

The paper's bars could not be read; a review says that FLORES dev adds nothing significant to NTREX and WMT. Here the
group's module after the main ladder's stage 3 is tuned on each of the three sets, for those of its languages that have
all of them. All get the updates that the largest set needs for `stage4_epochs` passes times `ablation_sft_share`: more
data, fewer passes. Seeds change the order of the pairs and the test sentences; what they start from is one for all.

What is tested on is in no set: NTREX documents that are held out of all stages, WMT'23, and FLORES devtest. NTREX
translates newstest2019, which is also in WMT'19 with its own translations: pairs with a held-out NTREX sentence are
left out there.
"""

from __future__ import annotations

from typing import Any

from xalma.corpora.base import has_data
from xalma.corpora.registry import family, open_corpus
from xalma.corpus_names import parse_corpus
from xalma.data.contamination import left_out
from xalma.evaluation.records import Record
from xalma.paper.studies.seeds import seeds_of
from xalma.paper.studies.stage_ablation import branch_of, shortened
from xalma.paper.studies.study import Study, one_share
from xalma.profiles import Profile
from xalma.runs import read_run, stage_folder
from xalma.training.ladder import evaluate_folder
from xalma.training.stages import stage4_sft
from xalma.training.workers import run_jobs

NTREX, WMT, FLORES = "ntrex", "ntrex+wmt", "ntrex+wmt+flores"
DATA = {NTREX: "NTREX", WMT: "NTREX + WMT'15-'22", FLORES: "NTREX + WMT'15-'22 + FLORES dev"}
TEST_LABELS = {"ntrex": "NTREX, held-out documents", "wmt": "WMT'23", "flores": "FLORES-200 devtest"}
NEEDS = (
    "Nothing to compare: this needs real text, NTREX, WMT and FLORES-200 in one of the group's languages: "
    "set XALMA_DATA and --set corpus=ntrex+bibles+mozilla."
)
EVERY_PAIR = 10**9  # in place of `sft_pairs`: the sets differ in size


def sft_languages(p: Profile, group: int) -> tuple[str, ...]:
    """Languages of a group with pairs in NTREX, WMT and FLORES, and a WMT test set.

    None where the profile's corpus is without NTREX.
    """
    if "ntrex" not in parse_corpus(p.corpus) or not has_data("wmt"):
        return ()
    wmt, flores = (family(name)(p) for name in ("wmt", "flores"))
    return tuple(
        code for code in p.languages_of(group) if wmt.sft(code) and wmt.test(code) and flores.sft(code)
    )


def compare_sft_data(p: Profile, group: int) -> list[Study]:
    """A study for each test set of `TESTS`; none where `sft_languages` has no language.

    Finished stages are not run again. Raises FileNotFoundError where stage 3 of the ladder is missing.
    """
    if not sft_languages(p, group):
        return []
    read_run(stage_folder(p, 3, group))
    mine = one_share(p)
    run_jobs(p, [(_train, (mine, group, data, seed)) for data in DATA for seed in seeds_of(p)])
    jobs = [
        (_score, (mine, group, data, seed, test))
        for data in DATA
        for seed in seeds_of(p)
        for test in TEST_LABELS
    ]
    scored = dict(zip(jobs, run_jobs(p, jobs), strict=True))
    systems = {data: _columns(mine, group, data) for data in DATA}
    return [
        Study(
            f"sft_{test}_group{group}",
            f"SFT data, {', '.join(sft_languages(p, group))}, tested on {label}",
            WMT,
            systems,
            [record for job, found in scored.items() if job[1][-1] == test for record in found],
        )
        for test, label in TEST_LABELS.items()
    ]


def data_profile(p: Profile, group: int, data: str, seed: int) -> Profile:
    """The profile that tunes a group's module on one of the sets.

    A pair that holds a test sentence but for punctuation or case is dropped and counted: the guard would stop there.
    """
    q = shortened(p, seed).but(
        corpus=data,
        sft_pairs=EVERY_PAIR,
        contamination="drop",
        module_languages=f"{group}:{'+'.join(sft_languages(p, group))}",
    )
    return q.but(stage4_updates=shared_updates(p, group))


def shared_updates(p: Profile, group: int) -> int:
    """Updates of SFT on each of the sets: what the largest takes, times `ablation_sft_share`."""
    corpus = open_corpus(p.but(corpus=FLORES, sft_pairs=EVERY_PAIR))
    n_rows = sum(2 * len(corpus.sft(code)) for code in sft_languages(p, group))
    return max(1, round(n_rows * p.stage4_epochs * p.ablation_sft_share / p.stage4_batch_size))


def _train(p: Profile, group: int, data: str, seed: int) -> None:
    stage4_sft(
        data_profile(p, group, data, seed), group, stage_folder(p, 3, group), branch=_branch(data, seed)
    )


def _score(p: Profile, group: int, data: str, seed: int, test: str) -> list[Record]:
    folder = stage_folder(p, 4, group, _branch(data, seed))
    return evaluate_folder(data_profile(p, group, data, seed).but(corpus=test), folder, group, data)


def _branch(data: str, seed: int) -> str:
    return branch_of(seed, f"sft-{data}")


def _columns(p: Profile, group: int, data: str) -> dict[str, Any]:
    """Rows of both directions, updates and passes over the rows, for the profile's own seed."""
    run = read_run(stage_folder(p, 4, group, _branch(data, p.seed)))
    passes = run["steps"] * p.stage4_batch_size / run["rows"]
    return {
        "system": DATA[data],
        "rows": run["rows"],
        "updates": run["steps"],
        "passes": passes,
        "left out by the guard": left_out(run["contamination"]),
    }
