"""A lean keep-alive HTTP client: many connections, one request in flight on each."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Result:
    """What came back: answers by status, the seconds it took, and each latency in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())

    def latency_ms(self, quantile: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * quantile), len(ordered) - 1)] * 1000 if ordered else 0.0


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """Status and body of an answer that has a Content-Length."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    body = await reader.readexactly(int(lowered[start : lowered.index(b"\r\n", start)]))
    return int(head[9:12]), body


async def drive(
    url: str,
    request: Callable[[int], bytes],
    *,
    connections: int,
    seconds: float,
) -> Result:
    """Sends `request(n)` (the n-th, whole, as bytes) over `connections` for `seconds`."""
    place = urlsplit(url)
    if place.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("this generator sends only to the loopback interface")
    result = Result()
    numbers = iter(range(10**9))
    started = time.perf_counter()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            while True:
                sent = time.perf_counter()
                if sent - started >= seconds:
                    return
                status, _ = await exchange(reader, writer, request(next(numbers)))
                result.statuses[status] += 1
                result.latencies.append(time.perf_counter() - sent)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection())
    result.seconds = time.perf_counter() - started
    return result
