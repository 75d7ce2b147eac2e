"""How far the drain has come, told by Postgres: one listening connection per process."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

from app.database import QUERIES, Database, connection, sleep_or_stop
from app.models import JournalId

CHANNEL = "holdfast_drained"
_HEARTBEAT_SECONDS = 5.0
"""A connection can die without a word; positions are read again this often, so nobody waits on a dead one."""
_CLOSE_SECONDS = 1.0
_BACK_OFF_SECONDS, _BACK_OFF_LIMIT_SECONDS = 0.1, 5.0

log = structlog.get_logger()


class DrainProgress:
    """The newest drained place of each partition, for whoever waits; keeps one connection of the pool."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        on_progress: Callable[[int, JournalId], None] | None = None,
    ) -> None:
        self._pool = pool
        self._on_progress = on_progress
        self._drained: dict[int, JournalId] = {}
        self._waiting: dict[int, list[tuple[JournalId, asyncio.Future[bool]]]] = defaultdict(list)
        self._released = False
        self._stop = asyncio.Event()
        self._lost = asyncio.Event()
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens from now on, and returns at once; it connects by itself whenever it has to."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._stop.set()
        self._lost.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            if not done:  # Postgres hangs, and the driver waits for it
                self._task.cancel()
        for waiting in self._waiting.values():
            for _, future in waiting:
                future.cancel()

    def release(self) -> None:
        """Answers who waits, now and from now on, as if their time were over."""
        self._released = True
        for waiting in self._waiting.values():
            for _, future in waiting:
                if not future.done():
                    future.set_result(False)

    async def __aenter__(self) -> "DrainProgress":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listening(self) -> None:
        """Returns when notifications arrive."""
        await self._listening.wait()

    def drained(self, partition: int) -> JournalId | None:
        """How far the partition is drained, as far as is known."""
        return self._drained.get(partition)

    def has_drained(self, partition: int, journal_id: JournalId) -> bool | None:
        """Is the place in Postgres? None where only the tables can tell: a later epoch goes on from where
        Postgres was when a rebuild began, which may be before this place."""
        drained = self._drained.get(partition)
        if drained is None or drained.epoch < journal_id.epoch:
            return False
        return drained.sequence >= journal_id.sequence if drained.epoch == journal_id.epoch else None

    async def wait(self, partition: int, journal_id: JournalId, timeout: float) -> bool:
        """Is the place in Postgres, now or within `timeout` seconds? False where only tables can tell."""
        if (reached := self.has_drained(partition, journal_id)) is not False:
            return reached is True
        if self._released:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (journal_id, future)
        self._waiting[partition].append(entry)
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting[partition]:
                self._waiting[partition].remove(entry)

    def _set(self, partition: int, place: JournalId) -> None:
        self._drained[partition] = place
        if self._on_progress is not None:
            self._on_progress(partition, place)
        still_waiting = []
        for journal_id, future in self._waiting.pop(partition, []):
            reached = self.has_drained(partition, journal_id)
            if reached is False:
                still_waiting.append((journal_id, future))
            elif not future.done():
                future.set_result(reached is True)
        if still_waiting:
            self._waiting[partition] = still_waiting

    async def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                async with connection(self._pool) as database:
                    failures = 0
                    await self._listen(database)
            except Exception as error:
                failures += 1
                log.warning("progress: listening connection lost", error=repr(error))
            pause = min(_BACK_OFF_SECONDS * 2.0 ** min(failures, 10), _BACK_OFF_LIMIT_SECONDS)
            await sleep_or_stop(self._stop, pause)

    async def _listen(self, database: Database) -> None:
        self._lost.clear()
        database.add_termination_listener(self._on_lost)
        try:
            await database.add_listener(CHANNEL, self._on_notification)
            await self._read_positions(database)
            self._listening.set()
            while not (self._stop.is_set() or self._lost.is_set()):
                await sleep_or_stop(self._lost, _HEARTBEAT_SECONDS)
                if not self._lost.is_set():
                    await self._read_positions(database)
        finally:
            self._listening.clear()
            if not database.is_closed():
                database.remove_termination_listener(self._on_lost)
                await database.remove_listener(CHANNEL, self._on_notification)

    async def _read_positions(self, database: Database) -> None:
        for row in await database.fetch(QUERIES["positions_read"]):
            # Also back: a Postgres that lost commits must not count as having them.
            self._set(row["partition"], JournalId(row["epoch"], row["sequence"]))

    def _on_lost(self, _connection: Any) -> None:
        self._lost.set()

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        partition, _, place = str(payload).partition(" ")
        # Several workers' notifications may overtake each other.
        newest = max(self._drained.get(int(partition), JournalId(0, 0)), JournalId.parse(place))
        self._set(int(partition), newest)
