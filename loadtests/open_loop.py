"""Requests at a constant rate, whatever becomes of them: a slow server does not slow the arrivals down.

Each arrival takes the connection that has been idle for longest. One that finds none is counted and dropped,
as a shopper whose connection is not even read.
"""

import asyncio
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TICK_SECONDS = 0.001
CONNECT_AT_ONCE = 200


@dataclass
class Arrivals:
    """What became of the arrivals: latencies in seconds by status, from being due to the whole answer."""

    seconds: float
    offered: int = 0
    unsent: int = 0
    """Found no idle connection."""
    lost: int = 0
    """The connection ended before the answer."""
    latencies: dict[int, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))

    def rate(self, status: int) -> float:
        return len(self.latencies[status]) / self.seconds

    def latency_ms(self, status: int, quantile: float) -> float:
        ordered = sorted(self.latencies[status])
        return ordered[int((len(ordered) - 1) * quantile)] * 1000 if ordered else 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._due = 0.0
        self._answer = b""
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._pool.idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        answer = self._answer = self._answer + data
        head = answer.find(b"\r\n\r\n")
        if head < 0:
            return
        start = answer.find(b"content-length: ", 0, head) + 16
        if len(answer) >= head + 4 + int(answer[start : answer.find(b"\r", start)]):
            self._answer = b""
            if self._due >= self._pool.counted_from:
                latency = time.perf_counter() - self._due
                self._pool.arrivals.latencies[int(answer[9:12])].append(latency)
            self._due = 0.0
            self._rest(answer[:head])

    def _rest(self, head: bytes) -> None:
        start = head.find(b"retry-after: ") if self._pool.patient else -1
        if start < 0:
            self._pool.idle.append(self)
        else:
            seconds = int(head[start + 13 :].split(b"\r", 1)[0])
            asyncio.get_running_loop().call_later(seconds, self._pool.idle.append, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.arrivals.lost += self._due > 0
        self._pool.open_again(self)


class Pool:
    """Connections to a server on the loopback interface, for one rate after the other."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        if place.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("this generator sends only to the loopback interface")
        self._address = place.hostname, place.port or 80
        self._closing = False
        self._opening: set[asyncio.Task[None]] = set()
        self.patient = False
        """Whether a connection is left alone for as long as Retry-After asks."""
        self.idle: deque[_Connection] = deque()
        self.arrivals = Arrivals(0)
        self.counted_from = 0.0

    async def open(self, connections: int) -> None:
        for first in range(0, connections, CONNECT_AT_ONCE):
            await asyncio.gather(
                *(self._open() for _ in range(first, min(first + CONNECT_AT_ONCE, connections)))
            )

    async def _open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self._address)

    def open_again(self, lost: _Connection) -> None:
        """The connection ended; another one takes its place."""
        if lost in self.idle:
            self.idle.remove(lost)
        if not self._closing:
            task = asyncio.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def close(self) -> None:
        self._closing = True
        for connection in list(self.idle):
            connection.transport.abort()

    async def drive(
        self, request: Callable[[], bytes], rate: float, seconds: float, warm_up: float = 1.0
    ) -> Arrivals:
        """Offers `rate` requests a second; counts those of `seconds`, after `warm_up`, that were answered
        before the end."""
        started = time.perf_counter()
        self.counted_from = started + warm_up
        arrivals = self.arrivals = Arrivals(seconds)
        gone = 0
        while (elapsed := time.perf_counter() - started) < warm_up + seconds:
            due = int(elapsed * rate)
            sent = min(due - gone, len(self.idle))
            for number in range(gone, gone + sent):
                self.idle.popleft().send(request(), started + number / rate)
            if elapsed >= warm_up:
                arrivals.offered += due - gone
                arrivals.unsent += due - gone - sent
            gone = due
            await asyncio.sleep(TICK_SECONDS)
        self.arrivals = Arrivals(seconds)  # late answers are nobody's
        return arrivals
