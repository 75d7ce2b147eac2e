"""One request at a time, alone: a durable hold over HTTP, and one plain EVALSHA through redis-py."""

import asyncio
import socket
import statistics
import time
from urllib.parse import urlsplit

from app.errors import ConfigurationError
from loadtests.bench.field import HOLDFAST_NAME, SCRIPT_ALWAYS, Field
from loadtests.bench.rivals import script_per_request
from loadtests.bench.saturation import Load

AT_ONCE = 10
"""Of each, in turn: the time that the disk takes for a sync changes within a second."""


def latencies(field: Field, sale: str, turns: int) -> tuple[float, float]:
    """Median milliseconds of a hold over HTTP, and of the EVALSHA; both durable before they are answered."""
    for name in (HOLDFAST_NAME, SCRIPT_ALWAYS):
        prepare = field.named(name).prepare
        assert prepare  # noqa: S101
        prepare(sale, 10**6)
    over_http: list[float] = []
    by_script: list[float] = []
    requests = Load(field.stage.url, sale, field.token).again().requests()
    place = urlsplit(field.stage.url)
    with socket.create_connection((place.hostname or "", place.port or 80)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(turns * 10):
            over_http += [_ask(connection, next(requests)) for _ in range(AT_ONCE)]
            by_script += asyncio.run(_scripts(field.redis_url, sale))
    return statistics.median(over_http), statistics.median(by_script)


def _ask(connection: socket.socket, request: bytes) -> float:
    started = time.perf_counter()
    connection.sendall(request)
    answer = connection.recv(65536)
    took = (time.perf_counter() - started) * 1000
    if not answer.startswith(b"HTTP/1.1 201"):
        raise ConfigurationError(f"a hold was answered {answer[:200]!r}")
    return took


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
