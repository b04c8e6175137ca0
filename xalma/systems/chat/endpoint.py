"""GPT-3.5, GPT-4, or any server with an OpenAI-compatible chat endpoint (vLLM, llama.cpp, …).

Each segment is one request, temperature 0. An answer goes to the journal before it counts, so that nothing is lost and
nothing asked for twice, over restarts too; an answer that came is kept however odd it is (`answers`). Errors that pass
(429, 5xx) are tried again after the time the server names, else after a doubling wait. So is a request whose answer
was lost on the way, `LOST_TRIES` times: it may be paid each time, unless the server honours the Idempotency-Key.
Keys and passwords go nowhere but into the request (`address`).

Why these retries are ours and not those of the `openai` client (3.57, tried on `tests/outside/faulty_server.py`, which
honours no key): of an answer whose Content-Length was too long it bought three for each segment and lost all; a server
that sends a byte now and then it never left; and its retries can't be seen from outside, so that neither a limit of
cost nor Ctrl-C would stop them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx

from xalma import progress as bars
from xalma.files import fingerprint
from xalma.models.generation import blank_lines_kept
from xalma.systems.chat.address import open_client, parse_address
from xalma.systems.chat.answers import NoAnswer, UnreadableAnswer, is_answer, read_answer, tokens_of
from xalma.systems.chat.costs import Estimate, check_amounts
from xalma.systems.chat.faults import Clock, Fault, Lost, SegmentRefused, check_faults, passes, retry_after
from xalma.systems.chat.journal import Journal
from xalma.systems.chat.threads import GRACE_S, in_thread
from xalma.systems.table import System
from xalma.systems.templates import TEMPLATES

OPENAI = "https://api.openai.com/v1"
PROMPT_OVERHEAD = 10  # tokens of the chat form
LONGEST_WAIT_S = 60.0  # of our own backoff
LONGEST_ASKED_S = 600.0  # a server that asks for more ends the run: who started it decides when to go on
ANNOUNCED_WAIT_S = 5.0  # waits of this length are announced
LOST_TRIES = 4  # of a request whose answer may be paid and is lost
UNREACHED_TRIES = 3  # of a server that has not answered at all
LARGEST_ANSWER = 16 * 2**20  # bytes

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs whole URLs, in which keys may stand


class Endpoint:
    """A chat endpoint behind the systems' interface.

    prices: (input, output) per million tokens, yours; max_cost: what may be spent, with all that the journal holds.
    workers: requests at a time; attempts: tries of a request that is answered with errors. timeout_s: for one whole
    answer; deadline_s: for all that this object does, None for no end. body: fields added to each request, None takes
    one away. clock: what waits are measured by. `cut`: requests that may be paid though their answer was lost.
    """

    def __init__(
        self,
        row: System,
        model: str,
        journal: str | Path,
        *,
        base_url: str = OPENAI,
        key_variable: str = "OPENAI_API_KEY",
        prices: tuple[float, float] | None = None,
        max_cost: float | None = None,
        workers: int = 8,
        attempts: int = 8,
        first_wait_s: float = 1.0,
        timeout_s: float = 120.0,
        deadline_s: float | None = None,
        body: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not model:
            raise ValueError(
                f"{row.name} has no model: name the one the server is to run (path=…, --path MODEL)"
            )
        if max_cost is not None and prices is None:
            raise ValueError(
                "a limit of cost needs prices: give those of input and output per million tokens"
            )
        for name, value in {"max_cost": max_cost, "prices": prices}.items():
            check_amounts(name, value)
        for name, value in {"timeout_s": timeout_s, "deadline_s": deadline_s, "workers": workers}.items():
            check_amounts(name, value, above_zero=True)
        self.row = row
        self.model = model
        self.address = parse_address(base_url)
        self.template, self.prices, self.max_cost = TEMPLATES[row.template], prices, max_cost
        self.workers, self.attempts, self.first_wait_s = workers, attempts, first_wait_s
        self.body = dict(body or {})
        self.timeout_s, self.key_variable, self.cut = timeout_s, key_variable, 0
        self._open_client()  # a key that is not there should fail before the first request
        self._clock = clock or Clock()
        self._end = math.inf if deadline_s is None else self._clock.monotonic() + deadline_s
        self.journal = Journal(journal)
        self._at_start, self._at_risk, self._dearest, self._frame = self.journal.tokens, 0.0, 0.0, 0
        self._reached = False  # whether the server ever answered
        self._under_way: dict[str, float] = {}  # what is set aside for requests that were sent

    def _open_client(self) -> httpx.AsyncClient:
        return open_client(self.address, self.key_variable, self.timeout_s)

    def request(self, text: str, src: str, tgt: str) -> dict[str, Any]:
        """The body of the request for one segment."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.template.prompt(text, src, tgt)}],
            "temperature": 0,
            "max_tokens": self.row.decoding.max_new_tokens,
        } | self.body
        return {name: value for name, value in body.items() if value is not None}

    def key(self, body: Mapping[str, Any]) -> str:
        """The journal's key of a request: server and body, nothing secret."""
        return fingerprint({"base_url": self.address.url, "body": body})

    def estimate(self, texts: Sequence[str], src: str, tgt: str) -> Estimate:
        """What translating `texts` will take beyond what the journal has."""
        return self._estimate(*self._requests(texts, src, tgt))

    def _requests(self, texts: Sequence[str], src: str, tgt: str) -> tuple[list[dict[str, Any]], int]:
        """(bodies, tokens of the prompt without a segment)."""
        frame = tokens_of(self.template.prompt("", src, tgt)) + PROMPT_OVERHEAD
        return [self.request(text, src, tgt) for text in texts], frame

    def _estimate(self, bodies: Sequence[dict[str, Any]], frame: int) -> Estimate:
        asked = {self.key(body): body for body in bodies}
        todo = {key: body for key, body in asked.items() if key not in self.journal}
        given = sum(map(_prompt_tokens, todo.values()))
        self._frame = frame
        written = max(0, given - self._frame * len(todo))
        return Estimate(len(todo), len(asked) - len(todo), given, written, self.price(given, written))

    @blank_lines_kept  # a blank one costs nothing
    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`. Raises ValueError for a direction it has not, and as `answers`."""
        self.row.check(src, tgt)
        bodies, frame = self._requests(texts, src, tgt)
        found = self.answers(bodies, f"{src}-{tgt}", frame, progress=progress)
        return [self.template.clean(answer["text"]) for answer in found]

    def answers(
        self, bodies: Sequence[dict[str, Any]], label: str, frame: int = 0, *, progress: bool = True
    ) -> list[dict[str, Any]]:
        """The journal's answers to requests, in their order; says what it will roughly cost before the first one.

        frame: tokens of a prompt without its segment. Raises ValueError where the estimate is above `max_cost`,
        RuntimeError where answers are missing in the end, KeyboardInterrupt with a sentence; what was answered is in
        the journal then, and the same call goes on from there.
        """
        estimate = self._estimate(bodies, frame)
        if estimate.requests:
            self._say(f"{label}: {estimate}")
            if lost := self.journal.lost_lines:
                self._say(
                    f"{lost} lines of {self.journal.path} can't be read: their answers are paid for once more"
                )
        self.check_cost(estimate)
        keys = [self.key(body) for body in bodies]
        self._ask(
            {key: body for key, body in zip(keys, bodies, strict=True) if key not in self.journal}, progress
        )
        answers = [self.journal[key] for key in keys]
        self._say_oddities(label, answers)
        return answers

    def check_cost(self, estimate: Estimate) -> None:
        """Raises ValueError where what the journal holds and what is estimated are above `max_cost` together."""
        if self.max_cost is not None and self.spent + estimate.cost > self.max_cost:
            spent = f"{self.spent:.2f} spent and " if self.spent else ""
            raise ValueError(
                f"{self.row.name}: {spent}{estimate.cost:.2f} estimated are above {self.max_cost}"
            )

    @property
    def spent(self) -> float:
        """What all answers of the journal cost at `prices`; 0 without prices."""
        return self.price(*self.journal.tokens) or 0.0

    @property
    def spent_tokens(self) -> tuple[int, int]:
        """(in, out) of the answers that came since this object was made."""
        now, then = self.journal.tokens, self._at_start
        return now[0] - then[0], now[1] - then[1]

    def spending(self) -> str:
        """What this object and what the whole journal cost, in tokens and in money where prices are known."""
        parts = {"now": self.spent_tokens, "the whole journal": self.journal.tokens}
        words = [f"{name} {t[0]:,} tokens in, {t[1]:,} out{self._money(t)}" for name, t in parts.items()]
        lost = f"; {self.cut} answers were lost on the way and may be charged too" if self.cut else ""
        return f"spent: {'; '.join(words)}{lost}"

    def _money(self, tokens: tuple[int, int]) -> str:
        return "" if self.prices is None else f", {self.price(*tokens):.2f}"

    def close(self) -> None:
        """Lets the journal go."""
        self.journal.close()

    def price(self, given: int, written: int) -> float | None:
        """What tokens in and out cost, None without prices."""
        return None if self.prices is None else (given * self.prices[0] + written * self.prices[1]) / 1e6

    def _ask(self, todo: Mapping[str, dict[str, Any]], progress: bool) -> None:
        refused: list[str] = []
        bar = bars.progress(len(todo), self.row.name) if progress else nullcontext()
        with bar as shown:
            try:
                in_thread(self._ask_all(todo, refused, shown))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped: {len(self.journal)} answers are in {self.journal.path}; the same command goes on from "
                    f"there and asks for none of them again"
                ) from None
        if refused:
            raise RuntimeError(
                f"{len(refused)} of {len(todo)} segments were refused, the first because: {refused[0]}; "
                f"the others are in {self.journal.path}"
            )

    async def _ask_all(self, todo: Mapping[str, dict[str, Any]], refused: list[str], shown: Any) -> None:
        """All requests, `workers` at a time. What is under way when one fails for good may still be answered."""
        self._stop = asyncio.Event()
        self._not_before = 0.0
        self._lost_in_a_row = 0
        self._n_workers = min(self.workers, len(todo))
        waiting = iter(todo.items())
        async with self._open_client() as self._client:
            tasks = [asyncio.create_task(self._work(waiting, refused, shown)) for _ in range(self._n_workers)]
            try:
                await asyncio.gather(*tasks)
            except BaseException as error:
                self._stop.set()
                await asyncio.wait(
                    tasks, timeout=GRACE_S if isinstance(error, asyncio.CancelledError) else None
                )
                raise
            finally:
                for task in tasks:
                    task.cancel()

    async def _work(self, waiting: Iterator[tuple[str, dict]], refused: list[str], shown: Any) -> None:
        had = len(self.journal)
        for key, body in waiting:
            if self._stop.is_set():
                return
            try:
                await self._persist(key, body)
            except SegmentRefused as error:
                refused.append(str(error))
                # nothing but refusals: not about the segments
                if len(refused) == 3 and len(self.journal) == had:
                    raise
            if shown:
                shown.update(1)

    async def _persist(self, key: str, body: Mapping[str, Any]) -> None:
        """One request until it is answered and journaled, refused, or has failed too often."""
        errors = lost = 0
        for attempt in range(self.attempts):
            wait = min(LONGEST_WAIT_S, self.first_wait_s * 2**attempt * (1 + int(key[:4], 16) / 0xFFFF))
            await self._wait_for_turn()
            await self._set_aside(key, body)
            try:
                fault = await self._try(key, body, f"{key}-{errors}")
            except Lost as error:
                fault = Fault(str(error))
                lost = lost + 1
                self._at_risk += self._under_way[key]
                self._count_lost(fault, lost)
            finally:
                del self._under_way[key]
            if fault is None:
                return
            tries = attempt + 1
            if fault.is_unreached and not self._reached and tries >= UNREACHED_TRIES:
                break  # a host that never answered is more likely a wrong one than one that will
            errors += not lost  # an error was not charged; the same key might have it sent again
            if fault.asked_s or fault.is_for_all:
                self._hold_all(fault.asked_s or wait, fault)
            elif tries < self.attempts:
                await self._pause(wait, fault.words)
        raise RuntimeError(
            f"{self.address.host} failed {tries} times, last with {fault.words}: the answers so far are "
            f"in {self.journal.path}; the same command goes on from there"
        )

    async def _try(self, key: str, body: Mapping[str, Any], idempotency_key: str) -> Fault | None:
        """One request: None where its answer is in the journal, else a fault that may pass. Raises Lost for an answer
        that may be paid, SegmentRefused, and RuntimeError for what will not pass."""
        try:
            response, data = await self._send(body, idempotency_key)
            if response.status_code != 200:
                words = check_faults(response, data, self.address.host)
                return Fault(words, retry_after(response, self._clock.time()), response.status_code == 429)
            return self._keep(key, body, read_answer(data))
        except NoAnswer as error:
            if not passes(error.code):
                raise SegmentRefused(f"{self.address.host} sends {error}") from None
            return Fault(str(error), is_for_all=error.code == 429)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            return Fault(f"no connection ({type(error).__name__})", is_unreached=True)
        except UnreadableAnswer as error:
            raise Lost(f"an answer that could not be read ({error})") from None
        except (httpx.RequestError, TimeoutError) as error:
            raise Lost(f"an answer that broke off ({type(error).__name__})") from None

    async def _send(self, body: Mapping[str, Any], idempotency_key: str) -> tuple[httpx.Response, bytes]:
        """The response and what came of its body, within `timeout_s` from the first byte to the last."""
        url, headers = f"{self.address.url}/chat/completions", {"Idempotency-Key": idempotency_key}
        data = bytearray()
        seconds = min(self.timeout_s, max(0.0, self._end - self._clock.monotonic()))
        response: httpx.Response | None = None
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream("POST", url, json=body, headers=headers) as response,
            ):
                self._reached = True
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > LARGEST_ANSWER:
                        raise UnreadableAnswer(f"more than {LARGEST_ANSWER:,} bytes")
        except (httpx.TransportError, TimeoutError):
            # the end may be missing, and nothing of the answer
            if response is None or not is_answer(bytes(data)):
                raise
        return response, bytes(data)

    async def _wait_for_turn(self) -> None:
        while (wait := self._not_before - self._clock.monotonic()) > 0 and not self._stop.is_set():
            await self._pause(wait)
        if self._stop.is_set():
            raise RuntimeError("stopped")
        if self._clock.monotonic() >= self._end:
            raise RuntimeError(f"the deadline is over: the answers so far are in {self.journal.path}")

    async def _pause(self, seconds: float, why: str = "") -> None:
        """Waits, unless all is stopped meanwhile."""
        if why and seconds >= ANNOUNCED_WAIT_S:
            self._say(f"{why}: tries again in {seconds:.0f} s")
        await self._clock.wait(self._stop, min(seconds, max(0.0, self._end - self._clock.monotonic())))

    def _hold_all(self, seconds: float, fault: Fault) -> None:
        """No request begins for so long. Raises RuntimeError where that is too long to wait for unasked."""
        until, host = self._clock.monotonic() + seconds, self.address.host
        if seconds > LONGEST_ASKED_S or until > self._end:
            raise RuntimeError(
                f"{host} asks for a wait of {min(seconds, 1e9):,.0f} s ({fault.words}): run the same command again "
                f"then, it goes on from {self.journal.path}"
            )
        if until > self._not_before + 1 and seconds >= ANNOUNCED_WAIT_S:
            self._say(
                f"{fault.words}: waits {seconds:.0f} s{', as the server asks' if fault.asked_s else ''}"
            )
        self._not_before = max(self._not_before, until)

    async def _set_aside(self, key: str, body: Mapping[str, Any]) -> None:
        """Keeps back what a request will cost while it is under way. Raises RuntimeError where so much is not left."""
        given = _prompt_tokens(body)
        expected = max(self.price(given, max(0, given - self._frame)) or 0.0, self._dearest)
        limit = math.inf if self.max_cost is None else self.max_cost - expected
        while self.spent + self._at_risk + sum(self._under_way.values()) > limit and self._under_way:
            await self._pause(0.02)  # the answers under way may be cheaper than expected
        if self.spent + self._at_risk > limit:
            raise RuntimeError(
                f"{self.spent:.2f} spent, the limit is {self.max_cost}: raise it to go on from {self.journal.path}"
            )
        self._under_way[key] = expected

    def _count_lost(self, fault: Fault, times: int) -> None:
        """Raises SegmentRefused or RuntimeError where asking again might be paid and lost once more."""
        self.cut, self._lost_in_a_row = self.cut + 1, self._lost_in_a_row + 1
        if self._lost_in_a_row >= self._n_workers + LOST_TRIES:
            raise RuntimeError(
                f"{self.address.host} sent {fault.words}, {self._lost_in_a_row} in a row, and may charge each: the "
                f"answers so far are in {self.journal.path}; the same command goes on from there"
            )
        if times >= LOST_TRIES:
            raise SegmentRefused(f"{self.address.host} sent {fault.words}, {times} times")

    def _keep(self, key: str, body: Mapping[str, Any], answer: dict[str, Any]) -> None:
        guesses = {"prompt_tokens": _prompt_tokens(body), "completion_tokens": tokens_of(answer["text"])}
        missing = {name: guess for name, guess in guesses.items() if answer[name] is None}
        self.journal.add(key, answer | missing | ({"estimated": sorted(missing)} if missing else {}))
        self._lost_in_a_row = 0
        self._dearest = max(self._dearest, self.price(*(self.journal[key][name] for name in guesses)) or 0.0)

    def _say_oddities(self, direction: str, answers: Sequence[Mapping[str, Any]]) -> None:
        """On stderr, what of a direction's answers someone should look at."""
        counts = {
            "answers were cut at max_tokens": sum(answer["finish"] == "length" for answer in answers),
            "answers hold no text": sum(not answer["text"].strip() for answer in answers),
            "answers held half characters or bytes that are no text, now U+FFFD": sum(
                "\ufffd" in answer["text"] for answer in answers
            ),
        }
        for words, n in counts.items():
            if n:
                self._say(f"{direction}: {n} {words}")

    def _say(self, words: str) -> None:
        print(f"{self.row.name} {words}", file=sys.stderr, flush=True)


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    return sum(tokens_of(message["content"]) for message in body["messages"]) + PROMPT_OVERHEAD
