"""GPT-3.5, GPT-4, or any server with an OpenAI-compatible chat endpoint (vLLM, llama.cpp, …).

Each segment is one request, temperature 0. An answer goes to the journal before it counts, so that nothing is lost and
nothing asked for twice, over restarts too. Faults that pass (429, 5xx, cut connections) are tried again after the time
the server names, else after a doubling wait; the requests carry an Idempotency-Key, so that a server that honours it
does not charge an answer lost on the way again. One that does not may: such requests are counted in `cut`.
The key comes from the environment alone, and goes nowhere but into the request's header.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx

from xalma.runtime import fingerprint
from xalma.systems.bars import bar
from xalma.systems.faults import Clock, SegmentRefused, check, headers, retry_after
from xalma.systems.journal import Journal
from xalma.systems.table import System
from xalma.systems.templates import TEMPLATES

OPENAI = "https://api.openai.com/v1"
BYTES_PER_TOKEN = 3  # rough, over scripts: English has more, Devanagari fewer
PROMPT_OVERHEAD = 10  # tokens of the chat form
LONGEST_WAIT_S = 60.0  # of our own backoff; a server's Retry-After is kept to whatever it says


@dataclass(frozen=True)
class Estimate:
    """What a run will roughly take; `cost` in the currency of the prices, None where none were given."""

    requests: int
    in_journal: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __add__(self, other: Estimate) -> Estimate:
        sums = [a + b for a, b in zip(astuple(self)[:4], astuple(other)[:4], strict=True)]
        return Estimate(*sums, None if self.cost is None or other.cost is None else self.cost + other.cost)

    def __str__(self) -> str:
        money = "unknown, give prices" if self.cost is None else f"about {self.cost:.2f}"
        return (
            f"{self.requests} requests ({self.in_journal} more are in the journal), about {self.input_tokens:,} tokens "
            f"in and {self.output_tokens:,} out by a rule of {BYTES_PER_TOKEN} bytes a token; cost {money}"
        )


class Endpoint:
    """A chat endpoint behind the systems' interface.

    prices: (input, output) per million tokens, yours; max_cost: what this system may spend before it is closed.
    workers: requests at a time; attempts: tries a request; body: fields added to each request, None takes one away.
    `cut`: requests sent again after their connection broke. clock: what waits are measured by.
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
        body: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not model:
            raise ValueError(f"{row.name} has no model: name the one the server is to run (path=…, --path MODEL)")
        if max_cost is not None and prices is None:
            raise ValueError("a limit of cost needs prices: give those of input and output per million tokens")
        self.row, self.model, self.base_url = row, model, base_url.rstrip("/")
        self.template, self.prices, self.max_cost = TEMPLATES[row.template], prices, max_cost
        self.workers, self.attempts, self.first_wait_s, self.body = workers, attempts, first_wait_s, dict(body or {})
        self.cut, self._not_before, self._spent, self._lock, self._stop = 0, 0.0, 0.0, Lock(), Event()
        self._failure: BaseException | None = None
        self._clock = clock or Clock()
        self._client = httpx.Client(headers=headers(self.base_url, key_variable), timeout=timeout_s)
        self.journal = Journal(journal)

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
        return fingerprint({"base_url": self.base_url, "body": body})

    def estimate(self, texts: Sequence[str], src: str, tgt: str) -> Estimate:
        """What translating `texts` will take beyond what the journal has."""
        asked = {self.key(body): body for body in (self.request(text, src, tgt) for text in texts)}
        todo = {key: body for key, body in asked.items() if key not in self.journal}
        given = sum(_tokens(body["messages"][0]["content"]) + PROMPT_OVERHEAD for body in todo.values())
        frame = _tokens(self.template.prompt("", src, tgt)) + PROMPT_OVERHEAD
        written = max(0, given - frame * len(todo))
        return Estimate(len(todo), len(asked) - len(todo), given, written, self.price(given, written))

    def translate(self, texts: Sequence[str], src: str, tgt: str, *, progress: bool = True) -> list[str]:
        """Translations in the order of `texts`; says what it will roughly cost before the first request.

        Raises ValueError where the estimate is above `max_cost`, RuntimeError where answers are missing in the end;
        what was answered is in the journal then, and the same call goes on from there.
        """
        self.row.check(src, tgt)
        estimate = self.estimate(texts, src, tgt)
        if estimate.requests:
            print(f"{self.row.name} {src}-{tgt}: {estimate}", file=sys.stderr)
        self.check_cost(estimate)
        bodies = [self.request(text, src, tgt) for text in texts]
        keys = [self.key(body) for body in bodies]
        self._ask({key: body for key, body in zip(keys, bodies, strict=True) if key not in self.journal}, progress)
        answers = [self.journal[key] for key in keys]
        if long := sum(answer["finish"] == "length" for answer in answers):
            print(f"{self.row.name} {src}-{tgt}: {long} answers were cut at max_tokens", file=sys.stderr)
        return [self.template.clean(answer["text"]) for answer in answers]

    def check_cost(self, estimate: Estimate) -> None:
        """Raises ValueError where what was spent and what is estimated are above `max_cost` together."""
        if self.max_cost is not None and self._spent + estimate.cost > self.max_cost:
            spent = f"{self._spent:.2f} spent and " if self._spent else ""
            raise ValueError(f"{self.row.name}: {spent}{estimate.cost:.2f} estimated are above {self.max_cost}")

    def close(self) -> None:
        """Ends the connections and lets the journal go."""
        self._client.close()
        self.journal.close()

    def _ask(self, todo: Mapping[str, dict[str, Any]], progress: bool) -> None:
        refused: list[str] = []
        self._stop.clear()
        self._failure = None
        with bar(len(todo), self.row.name, progress) as shown, ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(self._answer, key, body) for key, body in todo.items()]
            try:
                for n, future in enumerate(as_completed(futures), 1):
                    try:
                        future.result()
                    except SegmentRefused as error:
                        refused.append(str(error))
                        if len(refused) == n == 3:  # nothing but refusals: it is not about the segments
                            raise
                    shown.update(1)
            except BaseException as error:
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise (self._failure or error) from None
        if refused:
            raise RuntimeError(
                f"{len(refused)} of {len(todo)} segments were refused, the first because: {refused[0]}; "
                f"the others are in {self.journal.path}"
            )

    def _answer(self, key: str, body: Mapping[str, Any]) -> None:
        """`_persist`; a failure that is not about this segment alone stops all workers, here and now."""
        try:
            self._persist(key, body)
        except SegmentRefused:
            raise
        except BaseException as error:
            with self._lock:
                if not self._stop.is_set():  # the others' will only say that they were stopped
                    self._failure = error
            self._stop.set()
            raise

    def _persist(self, key: str, body: Mapping[str, Any]) -> None:
        """One request until it is answered and journaled, refused, or has failed `attempts` times."""
        fault, was_cut, errors = "", False, 0
        for attempt in range(self.attempts):
            self._wait_for_turn()
            wait = min(LONGEST_WAIT_S, self.first_wait_s * 2**attempt * (1 + int(key[:4], 16) / 0xFFFF))
            try:
                response = self._send(body, f"{key}-{errors}")
                if response.status_code == 200:
                    return self._keep(key, response.json())
                fault, asked = check(response), retry_after(response, self._clock.time())
                wait = asked or wait
                errors += not was_cut  # an error was not charged; the same key might have it sent again
                if asked or response.status_code == 429:  # about all requests, not this one
                    with self._lock:
                        self._not_before = max(self._not_before, self._clock.monotonic() + wait)
            except (httpx.TransportError, ValueError, KeyError, IndexError, TypeError) as error:
                fault, was_cut = f"a connection or an answer that broke off ({type(error).__name__})", True
                with self._lock:
                    self.cut += 1
            self._clock.wait(self._stop, wait if attempt + 1 < self.attempts else 0)
        raise RuntimeError(
            f"{httpx.URL(self.base_url).host} failed {self.attempts} times, last with {fault}: the answers so far are "
            f"in {self.journal.path}; the same command goes on from there"
        )

    def _send(self, body: Mapping[str, Any], idempotency_key: str) -> httpx.Response:
        headers = {"Idempotency-Key": idempotency_key}
        return self._client.post(f"{self.base_url}/chat/completions", json=body, headers=headers)

    def _wait_for_turn(self) -> None:
        while not self._stop.is_set() and (wait := self._not_before - self._clock.monotonic()) > 0:
            self._clock.wait(self._stop, wait)
        if self._stop.is_set():
            raise RuntimeError("stopped")
        if self.max_cost is not None and self._spent >= self.max_cost:
            raise RuntimeError(f"{self._spent:.2f} spent, the limit is {self.max_cost}: raise it to go on from here")

    def _keep(self, key: str, answer: Mapping[str, Any]) -> None:
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        text = choice["message"]["content"] or ""  # None: withheld by the server's filter, which finish_reason says
        self.journal.add(
            key,
            {
                "text": text, "finish": choice.get("finish_reason"), "model": answer.get("model"),
                "prompt_tokens": tokens[0], "completion_tokens": tokens[1],
            },
        )  # fmt: skip
        with self._lock:
            self._spent += self.price(*(n or 0 for n in tokens)) or 0.0

    def price(self, given: int, written: int) -> float | None:
        """What tokens in and out cost, None without prices."""
        return None if self.prices is None else (given * self.prices[0] + written * self.prices[1]) / 1e6


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)
