"""Runs the drain: waits for the journals to grow and drains those that did; small batches share a commit."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog
from redis.asyncio import Redis

from app.cluster import grown
from app.database import sleep_or_stop
from app.keys import Keys
from app.models import JournalId
from app.settings import Settings
from app.workers.drain import LOCKED_SECONDS, Drain, DrainCount, Outcome

_AT_ONCE = 3
"""Partitions drained at the same time: while one waits for its commit, another uses the processor."""
_LINGER_SECONDS, _LINGER_LIMIT_SECONDS = 0.015, 0.1
"""Short beside the wait of a confirm that asked for persistence; at least as long as the last round took, so
that a burst over many partitions doesn't spend its time on small transactions."""
_SMALL = 1000
"""Records in a round, below which lingering makes the next one larger."""
_GAP_SECONDS = 5.0
_BACK_OFF_LIMIT_SECONDS = 5.0
_WAIT_SECONDS = 1.0
"""The longest wait for a signal: then drained entries are trimmed."""

log = structlog.get_logger()


class DrainLoop:
    def __init__(self, drain: Drain, redis: Redis, keys: Keys, settings: Settings) -> None:
        self._drain = drain
        self._redis = redis
        self._keys = keys
        # Below the client's time-out, or a quiet journal would look like a dead server.
        self._wait_seconds = min(_WAIT_SECONDS, settings.redis_timeout_seconds / 2)
        self._positions: dict[int, JournalId] = {}
        self._again_at: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._check_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Drains until `stop` is set; errors are logged and tried again, ever more slowly up to seconds."""
        failures = 0
        while not stop.is_set():
            try:
                if not self._positions:
                    self._positions = await self._drain.prepare()
                ready = await self._ready(stop)
                failures = 0
            except Exception as error:
                failures += 1
                log.warning("drain: cannot wait for the journal", error=repr(error))
                await sleep_or_stop(stop, _back_off(failures))
                continue
            if ready:
                await self._round(ready, stop)
            if time.monotonic() >= self._check_at:
                await self._check()

    async def _ready(self, stop: asyncio.Event) -> list[int]:
        """The partitions whose journals have grown, or none after a while."""
        now = time.monotonic()
        awake = [p for p in range(self._keys.partitions) if self._again_at.get(p, 0.0) <= now]
        pause = min([self._wait_seconds, *(at - now for at in self._again_at.values() if at > now)])
        if not awake:
            await sleep_or_stop(stop, pause)
            return []
        by_key = {self._keys.journal(partition): partition for partition in awake}
        places = {
            key: str(self._positions.get(partition, JournalId(0, 0))) for key, partition in by_key.items()
        }
        keys = await _unless_stopped(grown(self._redis, places, pause), stop)
        return [by_key[key] for key in keys or ()]

    async def _round(self, partitions: Iterable[int], stop: asyncio.Event) -> None:
        started = time.perf_counter()
        gate = asyncio.Semaphore(_AT_ONCE)
        counts = await asyncio.gather(*(self._drain_partition(partition, gate) for partition in partitions))
        if sum(counts) < _SMALL:
            took = time.perf_counter() - started
            await sleep_or_stop(stop, min(max(_LINGER_SECONDS, took), _LINGER_LIMIT_SECONDS))

    async def _drain_partition(self, partition: int, gate: asyncio.Semaphore) -> int:
        async with gate:
            try:
                count = await self._drain.run_once(partition)
                await self._note(partition, count)
            except Exception as error:
                failures = self._failures[partition] = self._failures.get(partition, 0) + 1
                self._again_at[partition] = time.monotonic() + _back_off(failures)
                log.warning("drain: batch failed", partition=partition, failures=failures, error=repr(error))
                return 0
        return count.records

    async def _note(self, partition: int, count: DrainCount) -> None:
        self._failures.pop(partition, None)
        self._again_at.pop(partition, None)
        if count.position is not None:
            self._positions[partition] = count.position
            await self._drain.measure_lag(partition, count.position)
        if count.outcome is Outcome.LOCKED:
            self._again_at[partition] = time.monotonic() + LOCKED_SECONDS
        elif count.outcome is Outcome.GAP:
            self._again_at[partition] = time.monotonic() + _GAP_SECONDS

    async def _check(self) -> None:
        """Trims what Postgres has for long; where it has lost commits, goes back to its position."""
        self._check_at = time.monotonic() + _WAIT_SECONDS
        try:
            for partition, position in (await self._drain.prepare()).items():
                known = self._positions.get(partition, position)
                self._positions[partition] = position
                await self._drain.trimmer.trim(partition, position)
                if position < known:
                    log.warning("drain: Postgres went back", partition=partition, position=str(position))
                    await self._drain.run_once(partition)
            await self._drain.measure_rejects()
        except Exception as error:
            log.warning("drain: cannot check the positions", error=repr(error))


def _back_off(failures: int) -> float:
    return float(min(0.1 * 2.0 ** min(failures, 10), _BACK_OFF_LIMIT_SECONDS))


async def _unless_stopped(coroutine: Any, stop: asyncio.Event) -> Any:
    """What it returns; None where `stop` was set first."""
    reading = asyncio.ensure_future(coroutine)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        stopping.cancel()
        if not reading.done():
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
