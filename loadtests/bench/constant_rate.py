"""Requests at a constant rate, whose latency counts from when each was due, not from when it could be sent.

A server that stalls makes all wait who would have come meanwhile; a generator that itself waits for answers
before it goes on would ask, and count, only one of them (coordinated omission). Arrivals that find no idle
connection wait for one, and their waiting counts.
"""

import math
import select
import socket
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

GRACE_SECONDS = 5.0
"""For answers after the end; who has none by then waits for ever."""


@dataclass
class Arrivals:
    """What became of the arrivals: latencies in seconds by status, from being due to the whole answer."""

    rate: float
    latencies: dict[int, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    unanswered: int = 0
    busy: float = 0.0
    """Share of its core that the generator itself used: far below 1, or it measures itself."""

    def latency_ms(self, status: int, quantile: float) -> float:
        """Infinite where the request at that rank was never answered."""
        ordered = sorted(self.latencies[status])
        rank = int((len(ordered) + self.unanswered - 1) * quantile)
        return ordered[rank] * 1000 if rank < len(ordered) else math.inf


class _Connection:
    """One request in flight at most."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""
        self.due = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._socket.sendall(request)

    def receive(self) -> int | None:
        """The status if the answer is whole. Raises ConnectionError if the server has hung up."""
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection while it was measured")
        answer = self._answer = self._answer + data
        head = answer.find(b"\r\n\r\n")
        if head < 0:
            return None
        lowered = answer[:head].lower()
        start = lowered.index(b"content-length:") + 15
        if len(answer) < head + 4 + int(lowered[start:].split(b"\r", 1)[0]):
            return None
        self._answer = b""
        return int(answer[9:12])


def offer(
    url: str,
    requests: Iterator[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
    warm_up: float = 0.5,
) -> Arrivals:
    """Offers `rate` requests a second for `warm_up` + `seconds`, of which the latter count."""
    place = urlsplit(url)
    if place.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("this generator sends only to the loopback interface")
    address = (place.hostname, place.port or 80)
    idle = deque(_Connection(address) for _ in range(connections))
    by_descriptor = {connection.fileno(): connection for connection in idle}
    with select.epoll() as epoll:
        for descriptor in by_descriptor:
            epoll.register(descriptor, select.EPOLLIN)
        try:
            return _run(epoll, idle, by_descriptor, requests, rate, warm_up, seconds)
        finally:
            for connection in by_descriptor.values():
                connection.close()


def _run(
    epoll: select.epoll,
    idle: "deque[_Connection]",
    by_descriptor: dict[int, _Connection],
    requests: Iterator[bytes],
    rate: float,
    warm_up: float,
    seconds: float,
) -> Arrivals:
    arrivals = Arrivals(rate)
    total, counted_from = int((warm_up + seconds) * rate), int(warm_up * rate) / rate
    sent, worked, started = 0, time.process_time(), time.perf_counter()
    last = warm_up + seconds + GRACE_SECONDS
    while (sent < total or len(idle) < len(by_descriptor)) and time.perf_counter() - started < last:
        while idle and sent < total and sent / rate <= time.perf_counter() - started:
            # The longest idle first: all of them stay in use.
            idle.popleft().send(next(requests), sent / rate)
            sent += 1
        pause = sent / rate - (time.perf_counter() - started) if idle and sent < total else GRACE_SECONDS
        # epoll's own time-out has milliseconds, select's has microseconds.
        select.select([epoll], [], [], max(pause, 0.0))
        for descriptor, _ in epoll.poll(0):
            connection = by_descriptor[descriptor]
            status = connection.receive()
            if status is not None:
                if connection.due >= counted_from:
                    arrivals.latencies[status].append(time.perf_counter() - started - connection.due)
                idle.append(connection)
    arrivals.unanswered = total - sent + len(by_descriptor) - len(idle)
    arrivals.busy = (time.process_time() - worked) / (time.perf_counter() - started)
    return arrivals
