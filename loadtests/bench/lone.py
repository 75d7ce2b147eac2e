"""One request at a time, alone: where the time of a durable hold over HTTP goes, beside one plain EVALSHA."""

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import uvloop

from app.errors import ConfigurationError
from loadtests.bench.field import ASGI, HOLDFAST_NAME, SCRIPT_ALWAYS, Field
from loadtests.bench.rivals import script_per_request
from loadtests.bench.saturation import Load

AT_ONCE = 10
"""Of each, in turn: the time that the disk takes for a sync changes within a second."""
NOTHING, BY_PROCESS, BY_SCRIPT, HELD, EVALSHA = (
    "the plain ASGI callable", "sold out, keyless: the process itself refuses",
    "sold out, with key: the script refuses, and writes nothing", "a durable hold",
    "one durable EVALSHA through redis-py",
)  # fmt: skip


class _Client:
    """Asks for a unit over a connection of its own."""

    def __init__(self, load: Load, status: int, stack: ExitStack) -> None:
        place = urlsplit(load.url)
        self._status = b"HTTP/1.1 %d" % status
        self._requests: Iterator[bytes] = load.again().requests()
        self._connection = stack.enter_context(
            socket.create_connection((place.hostname or "", place.port or 80))
        )
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> float:
        """Milliseconds."""
        request, started = next(self._requests), time.perf_counter()
        self._connection.sendall(request)
        answer = b""
        while not _is_whole(answer):
            if not (piece := self._connection.recv(65536)):
                break
            answer += piece
        took = (time.perf_counter() - started) * 1000
        if not answer.startswith(self._status):
            raise ConfigurationError(f"{self._status.decode()} was due, and came {answer[:200]!r}")
        return took


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)


def latencies(field: Field, sale: str, turns: int) -> dict[str, float]:
    """Median milliseconds of each kind; holds and EVALSHA are durable before they are answered."""
    holdfast, nothing = field.named(HOLDFAST_NAME), field.named(ASGI)
    sold_out = f"{sale}-sold-out"
    for contender, name, units in (
        (holdfast, sale, 10**6), (holdfast, sold_out, 1), (field.named(SCRIPT_ALWAYS), sale, 10**6),
    ):  # fmt: skip
        assert contender.prepare  # noqa: S101
        contender.prepare(name, units)
    took: dict[str, list[float]] = {EVALSHA: []}
    with ExitStack() as stack:
        _Client(Load(holdfast.url, sold_out, field.token), 201, stack).ask()
        clients = {
            NOTHING: _Client(Load(nothing.url, sale, field.token), 201, stack),
            BY_PROCESS: _Client(Load(holdfast.url, sold_out, field.token, keyed=False), 409, stack),
            BY_SCRIPT: _Client(Load(holdfast.url, sold_out, field.token), 409, stack),
            HELD: _Client(Load(holdfast.url, sale, field.token), 201, stack),
        }
        for _ in range(turns * 10):
            for name, client in clients.items():
                took.setdefault(name, []).extend(client.ask() for _ in range(AT_ONCE))
            took[EVALSHA] += uvloop.run(_scripts(field.redis_url, sale))
    return {name: statistics.median(took[name]) for name in (*clients, EVALSHA)}


async def _scripts(store: str, sale: str) -> list[float]:
    took = []
    async with script_per_request.connect(store) as redis:
        sha = await redis.script_load(script_per_request.SCRIPT)
        for number in range(AT_ONCE):
            started = time.perf_counter()
            held = await script_per_request.hold(redis, sha, sale, f"c{number}", "a", 1)
            took.append((time.perf_counter() - started) * 1000)
            assert held  # noqa: S101
    return took
