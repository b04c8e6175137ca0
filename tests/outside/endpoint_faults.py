"""A chat server with every fault of `faulty_server`, each for all requests or once, and the system started twice on it:
what is paid for N segments, and what is kept of it. An answer that came is paid and kept once; a fault that passes
costs no more than its own answers; one that lasts ends the run after a few, without a word in the journal.
"""

from __future__ import annotations

from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path

from faulty_server import ANSWERED, LASTING, PASSING, FaultyServer

from xalma.systems.chat.endpoint import LOST_TRIES, Endpoint
from xalma.systems.chat.journal import Journal
from xalma.systems.registry import open_system

TITLE = "Faults of an endpoint"
COUNT = 6  # segments
WORKERS = 3
SLOW = (
    "hang",
    "trickle",
    "trickled headers",
    "endless",
)  # these end by the time limit; others must never meet it


def texts_of(n: int) -> list[str]:
    """n segments to translate."""
    return [f"Sentence number {i}." for i in range(n)]


def opened(server: FaultyServer, journal: Path, **options) -> Endpoint:
    """The system on a server; short waits."""
    is_slow = isinstance(server.fault, str) and server.fault in SLOW
    options = {"first_wait_s": 0.01, "timeout_s": 1.0 if is_slow else 60.0, "workers": WORKERS} | options
    return open_system("endpoint", path="m", journal=journal, base_url=server.url, **options)


def asked(server: FaultyServer, journal: Path, n: int = COUNT, **options) -> list[str]:
    """The translations of one start."""
    system = opened(server, journal, **options)
    try:
        return system.translate(texts_of(n), "en", "de", progress=False)
    finally:
        system.close()


def run(work: Path, runs: Path, n: int, seed: int) -> dict[str, object]:
    """Each kind of fault with n segments, over two starts."""
    work.mkdir(parents=True, exist_ok=True)
    paid, requests, tried, failed, all_paid = {}, 0, 0, [], 0
    most_lost = 2 * (WORKERS + LOST_TRIES + 2)  # tries, and what is under way when it stops
    for it, kinds in (("came whole", ANSWERED), ("passes", PASSING), ("lasts", LASTING)):
        for number, (kind, (fault, more)) in enumerate(kinds.items()):
            journal = work / f"{it}-{number}.jsonl"
            with FaultyServer(fault, 1 if it == "passes" else None) as server, redirect_stderr(StringIO()):
                for _ in range(2):
                    with suppress(RuntimeError):
                        asked(server, journal, n)
            book = Journal(journal)
            kept, tried, requests = len(book), tried + 1, requests + server.seen
            book.close()
            held = {
                "came whole": server.seen == server.paid == kept == n,
                "passes": kept == n and server.paid == n + (more if it == "passes" else 0),
                "lasts": kept == 0 and server.paid <= most_lost,
            }[it]
            paid[it] = max(paid.get(it, 0), server.paid)
            all_paid += server.paid if it != "lasts" else 0
            if not held:
                failed.append(
                    f"{kind}, {it}: {server.seen} requests, {server.paid} paid, {kept} kept of {n} segments"
                )
    most = {f"most paid for {n} segments, a fault that {it}": count for it, count in paid.items()}
    needed = n * (len(ANSWERED) + len(PASSING))
    bought = {"answers needed of those that answer in the end": needed, "answers paid of them": all_paid}
    return {
        "tried": tried,
        "held": tried - len(failed),
        "requests": requests,
        **bought,
        **most,
        "failed": failed,
    }
