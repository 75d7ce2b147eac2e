"""Sends the inputs and judges what comes back."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.answers import Answer, Malformed, fault_of
from tests.fuzz.cases import Case, make_case
from tests.fuzz.messages import SMUGGLED, World
from tests.fuzz.service import BODY_SECONDS, Service
from tests.fuzz.wire import Connection

QUIET_SECONDS = 0.2
"""After this long without an answer the client takes its input for unfinished, and sends more."""
HANG_SECONDS = BODY_SECONDS + 14.5
"""Longer than the server waits for the rest of anything, by 4 s for a busy machine."""
_SLOW_SECONDS = 5.0
_BLOCK = b"x" * 40_000


@dataclass
class Tally:
    """What became of one kind of inputs."""

    inputs: int = 0
    bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    """Connections that ended without an answer to the last thing sent."""
    slowest: float = 0.0


@dataclass
class Told:
    """What the service has said it did."""

    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: set[str] = field(default_factory=set)
    moves: int = 0

    def hear(self, answer: Answer) -> None:
        if answer.status not in (200, 201, 202) or not answer.body.startswith(b'{"'):
            return
        value = answer.json()
        if answer.status == 201 and "expires_at" in value:
            self.held[value["id"]] = value
        elif "payment_reference" in value:
            self.orders.add(value["id"])
        elif value.keys() == {"sku", "allocated", "available", "held", "sold"}:
            self.moves += b"idempotent-replayed" not in answer.headers


@dataclass
class Round:
    """All inputs of a seed, or those of `numbers`."""

    service: Service
    world: World
    seed: int
    numbers: list[int]
    connections: int
    deadline: float
    silent: bool = True
    """With clients that wait for the server's patience to end, which takes a while."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    violations: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    progress: Callable[[int], None] = lambda done: None
    _next_look: int = 0

    async def run(self) -> None:
        # What a process needs at all is there after a sixth of the inputs.
        self._next_look = len(self.numbers) // 6
        queue = iter(self.numbers)
        await asyncio.gather(*(self._client(queue) for _ in range(self.connections)))
        self.memory.append(self.service.memory())

    @property
    def sent(self) -> int:
        return sum(tally.inputs for tally in self.tallies.values())

    async def _client(self, numbers: Any) -> None:
        connection = None
        for number in numbers:
            if time.monotonic() > self.deadline or len(self.violations) > 20:
                break
            case = make_case(self.seed, number, self.world)
            if case.silent and not self.silent:
                case = make_case(self.seed, number, self.world, "truncated")
            if connection is None:
                connection = await Connection.open(self.service.port)
            if not await self._send(connection, case):
                connection.leave()
                connection = None
            if self.sent >= self._next_look:
                self._next_look += max(1, len(self.numbers) // 6)
                self.memory.append(self.service.memory())
            self.progress(self.sent)
        if connection is not None:
            connection.leave()

    async def _send(self, connection: Connection, case: Case) -> bool:
        """Sends one input and hears its answers; True if the connection is as good as new."""
        tally = self.tallies.setdefault(case.kind, Tally())
        tally.inputs += 1
        tally.bytes += len(case.wire)
        for piece in case.pieces:
            connection.send(piece)
            if len(case.pieces) > 1:
                await asyncio.sleep(0.001 * (case.number % 2))
        if case.leaves:
            return False
        exchange = _Exchange(connection, case, tally)
        try:
            reusable = await exchange.run()
        except (Malformed, _Violation) as fault:
            self._violated(case, str(fault), exchange.answers)
            reusable = False
        for answer in exchange.answers:
            self.told.hear(answer)
            fault_found = fault_of(answer) or _fault_of_smuggler(answer)
            if fault_found:
                self._violated(case, fault_found, exchange.answers)
        return reusable

    def _violated(self, case: Case, what: str, answers: list[Answer]) -> None:
        statuses = [answer.status for answer in answers]
        self.violations.append(
            f"input {case.number} ({case.kind}): {what}\n  sent: {[piece[:700] for piece in case.pieces]}\n"
            f"  answers: {statuses}"
        )


class _Violation(Exception):
    pass


def _fault_of_smuggler(answer: Answer) -> str | None:
    if answer.request_id.startswith(SMUGGLED.encode()) or b'"customer_id":"smuggled"' in answer.body:
        return f"a body was taken for a request: {answer.status} {answer.body[:300]!r}"
    return None


class _Exchange:
    """One input on a connection, up to the answer to the request behind it, or the connection's end."""

    def __init__(self, connection: Connection, case: Case, tally: Tally) -> None:
        self.answers: list[Answer] = []
        self._connection = connection
        self._case = case
        self._tally = tally
        self._mark = b"end-%d" % case.number
        self._last = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: %b\r\n\r\n" % self._mark
        # Whatever state the input has left the server in, one of these ends it.
        self._steps = [self._last, b"\r\n0\r\n\r\n" + self._last, *(_BLOCK,) * 6, b"\r\n\r\n" + self._last]
        if case.silent:
            self._steps.clear()
        self._went_on = False

    async def run(self) -> bool:
        """True if the last request was answered as it should be. Raises Malformed or _Violation."""
        started = time.monotonic()
        if not self._case.silent:
            self._connection.send(self._last)
        while time.monotonic() < started + HANG_SECONDS:
            answer = self._connection.take()
            if answer is not None:
                self.answers.append(answer)
                self._tally.statuses[answer.status] += 1
                if answer.request_id == self._mark:
                    return self._finish(answer, started)
            elif self._connection.closed:
                return self._finish(None, started)
            elif not await self._connection.wait(self._patience(started)):
                self._go_on()
        raise _Violation(f"no answer and no end within {HANG_SECONDS:.0f} s")

    def _patience(self, started: float) -> float:
        if not self._steps or self._case.expected:
            return max(0.0, started + HANG_SECONDS - time.monotonic())
        return QUIET_SECONDS

    def _go_on(self) -> None:
        if self._steps:
            self._went_on = True
            self._connection.send(self._steps.pop(0))

    def _finish(self, last: Answer | None, started: float) -> bool:
        took = time.monotonic() - started
        self._tally.slowest = max(self._tally.slowest, took)
        if took > _SLOW_SECONDS and not self._case.silent:
            raise _Violation(f"it took {took:.1f} s")
        if last is None and (not self.answers or not self.answers[-1].closes):
            self._tally.closed += 1
        if last is None and self._connection.buffer and b"HEAD" not in self._case.wire:
            raise _Violation(f"half an answer: {bytes(self._connection.buffer[:300])!r}")
        if self._case.expected:
            self._require_expected(last)
        return last is not None and last.status == 200 and not self._went_on and not last.closes

    def _require_expected(self, last: Answer | None) -> None:
        statuses = [answer.status for answer in self.answers]
        fits = [status in expected for status, expected in zip(statuses, self._case.expected, strict=False)]
        if last is None or len(statuses) != len(self._case.expected) + 1 or not all(fits):
            raise _Violation(f"a request that nothing spoilt got {statuses}")
