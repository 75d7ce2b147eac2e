"""What each command of real classes costs Redis: a proxy that asks for the server's CPU between commands."""

import asyncio
import itertools
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from loadtests.bench.growth_lab import main_thread_seconds, scripts_by_sha

_PIECE = 2**20
_CALIBRATIONS = 50


class Meter:
    """Milliseconds of the CPU of Redis' main thread for each command, its reply and what it adds to the
    append-only file included. Only for callers that wait for each answer before they send the next command:
    what is used from one command to the next is the first one's.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = scripts_by_sha()
        self._name = ""
        self._began = self._look = 0.0
        self._answered = True
        self._calls: defaultdict[str, list[float]] = defaultdict(list)

    async def calibrate(self) -> None:
        """Finds out what a look itself costs."""
        looks = [await self._cpu() for _ in range(_CALIBRATIONS)]
        self._look = statistics.median(after - before for before, after in itertools.pairwise(looks))

    async def take(self) -> dict[str, list[float]]:
        """The calls so far, by script or command, in order of size; begins anew."""
        await self._end()
        calls = {name: sorted(took) for name, took in self._calls.items()}
        self._calls.clear()
        return calls

    async def _cpu(self) -> float:
        return main_thread_seconds(await self._redis.info("cpu")) * 1000

    async def _end(self) -> None:
        now = await self._cpu()
        if self._name:
            self._calls[self._name].append(max(now - self._began - self._look, 0.0))
        self._name, self._began = "", now

    async def serve(
        self, target: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection of a caller; `target`: where Redis is."""
        if path := target.get("path"):
            answers, onward = await asyncio.open_unix_connection(path)
        else:
            answers, onward = await asyncio.open_connection(target["host"], target["port"])
        relay = asyncio.create_task(self._relay(answers, writer))
        try:
            while data := await reader.read(_PIECE):
                if self._answered:  # else it is the rest of a large command
                    await self._end()
                    self._name, self._answered = self._name_of(data), False
                onward.write(data)
                await onward.drain()
        finally:
            relay.cancel()
            onward.close()
            writer.close()

    async def _relay(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await answers.read(_PIECE):
            self._answered = True
            writer.write(data)
            await writer.drain()

    def _name_of(self, data: bytes) -> str:
        """The script or, as the first of a pipeline's or transaction's, the command."""
        words = data.split(b"\r\n", 5)
        name = words[2].decode().upper()
        if name == "MULTI" and len(words) > 3:
            return self._name_of(data.split(b"\r\n", 3)[3])
        return self._scripts.get(words[4].decode(errors="replace"), name) if name == "EVALSHA" else name


@asynccontextmanager
async def metered(redis: Redis) -> AsyncIterator[tuple[Meter, str]]:
    """A meter before the server of the client, and the URL that leads through it."""
    meter = Meter(redis)
    await meter.calibrate()
    target = redis.connection_pool.connection_kwargs
    server = await asyncio.start_server(lambda r, w: meter.serve(target, r, w), "127.0.0.1", 0)
    async with server:
        yield meter, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
