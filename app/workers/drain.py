"""Writes the journal into Postgres, with the outbox rows, one transaction per batch.

The fence is the partition's row in `positions`, locked and compared inside the transaction: a crash anywhere
repeats a batch that changes nothing, and a second worker, or one that was paused, does no harm.
"""

import asyncio
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import asyncpg
import structlog
from prometheus_client import Counter, Gauge, Histogram
from redis.asyncio import Redis

from app.database import LEASE_SECONDS, QUERIES, Database, connection
from app.journal import Record, parse_entry
from app.keys import Keys
from app.lineage import Lineage
from app.models import JournalId
from app.settings import Settings
from app.workers.batch import Batch
from app.workers.trimmer import Trimmer

MAX_RECORDS = 5000
"""Per transaction: large enough to share a commit, small enough to answer a waiting confirm soon."""
MAX_ENTRIES = 2000
LOCKED_SECONDS = 0.1
"""Until a look at a partition that another worker drains: about as long as a large batch takes."""
_FIRST_ENTRIES, _MOST_ENTRIES = 4, 250
"""Per read: a batch's first one, and at most."""
READ_RECORDS = 2000
"""That a read should bring at most: less than a millisecond of Redis' time. An entry may carry hundreds, and
what is read past the end of a batch is read again by the next one."""

RECORDS = Counter("holdfast_drain_records", "Journal records written to Postgres")
BATCH_SECONDS = Histogram("holdfast_drain_batch_seconds", "Duration of one batch of the drain")
LAG = Gauge("holdfast_drain_lag_entries", "Journal entries that are not in Postgres yet", ["partition"])
GAPS = Counter("holdfast_drain_gaps", "Journals found with missing entries, whose partition was closed")
REJECTS = Counter("holdfast_drain_rejects", "Journal records that Postgres refused")
UNSETTLED = Gauge(
    "holdfast_rejects_unsettled", "Refused journal records that wait for a person, of all workers"
)

DATA_ERRORS = (
    asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, LookupError,
    ArithmeticError,
)  # fmt: skip
"""What one bad record causes; anything else is the server's trouble and is tried again."""

log = structlog.get_logger()


class Outcome(StrEnum):
    DRAINED = "drained"
    IDLE = "idle"
    LOCKED = "locked"
    """Another worker drains the partition at this moment."""
    GAP = "gap"
    """Entries are missing; the partition was closed."""


@dataclass(frozen=True, slots=True)
class DrainCount:
    """What one `run_once` did. `more`: there may be further entries already."""

    outcome: Outcome
    entries: int = 0
    records: int = 0
    rejects: int = 0
    more: bool = False
    position: JournalId | None = None


@dataclass(slots=True)
class _Slice:
    """A dense piece of the journal after a position."""

    last: JournalId
    records: list[Record] = field(default_factory=list)
    entries: int = 0
    largest: int = 1
    """Records of an entry, at most."""
    more: bool = False
    gap: JournalId | None = None
    continued: JournalId | None = None
    """What the last epoch of the slice continues; None if it was opened before."""

    def add(self, entry_id: str, fields: dict[str, str]) -> bool:
        """Takes the entry; False where the slice ends."""
        place = JournalId.parse(entry_id)
        try:
            records = parse_entry(entry_id, fields)
        except ValueError:
            # Of no known kind, so that it is rejected as a record.
            records = [Record(place, 0, 0, "unreadable", repr(fields))]
        if not _follows(self.last, place, records[0]):
            self.gap = place
            return False
        if place.epoch != self.last.epoch:
            self.continued = self.last
        self.last = place
        self.records += records
        self.entries += 1
        self.largest = max(self.largest, len(records))
        # The auditor's mark is compared with exactly what came before it.
        full = len(self.records) >= MAX_RECORDS or self.entries >= MAX_ENTRIES
        self.more = full or any(record.kind == "audited" for record in records)
        return not self.more


def _storable(text: str) -> str:
    """Without what Postgres takes for no text: bytes that are none, and NULs."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def _follows(last: JournalId, place: JournalId, first: Record) -> bool:
    """Is `place` the next entry of the epoch, or the start of a later one that continues at `last`?"""
    if place.epoch == last.epoch:
        return place.sequence == last.sequence + 1
    opens = first.kind == "opened" and first.text == str(last)
    return place.epoch > last.epoch and place.sequence == 1 and opens


class Drain:
    def __init__(self, redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> None:
        self._redis = redis
        self._pool = pool
        self._keys = keys
        self._settings = settings
        self._lineage = Lineage(redis, keys)
        self.trimmer = Trimmer(redis, keys, settings)
        self._gaps: dict[int, JournalId] = {}

    async def prepare(self) -> dict[int, JournalId]:
        """Makes sure that every partition has a position; returns them all."""
        async with connection(self._pool) as database:
            await database.execute(QUERIES["drain_prepare"], self._keys.partitions)
            rows = await database.fetch(QUERIES["positions_read"])
        return {row["partition"]: JournalId(row["epoch"], row["sequence"]) for row in rows}

    async def run_once(self, partition: int) -> DrainCount:
        """Drains one bounded batch.

        Raises StoreUnavailable, RedisError or a driver's error where it should be tried again.
        """
        started = time.perf_counter()
        try:
            count, gap = await self._transact(partition, isolate=False)
        except DATA_ERRORS:
            count, gap = await self._transact(partition, isolate=True)
        if gap is not None:
            await self._close(partition, gap, count)
            return count
        self._gaps.pop(partition, None)
        if count.outcome is Outcome.DRAINED:
            BATCH_SECONDS.observe(time.perf_counter() - started)
            RECORDS.inc(count.records)
            REJECTS.inc(count.rejects)
        if count.position is not None:
            if count.outcome is Outcome.DRAINED:
                self.trimmer.remember(partition, count.position)
            await self.trimmer.trim(partition, count.position)
        return count

    async def run_partition(self, partition: int) -> bool:
        """Drains all that can be drained, also where another worker is at it; False at a gap."""
        while True:
            count = await self.run_once(partition)
            if count.outcome is Outcome.GAP or not count.more:
                return count.outcome is not Outcome.GAP
            if count.outcome is Outcome.LOCKED:
                await asyncio.sleep(LOCKED_SECONDS)

    async def _transact(self, partition: int, *, isolate: bool) -> tuple[DrainCount, JournalId | None]:
        async with connection(self._pool) as database, database.transaction():
            row = await self._lock(database, partition)
            if row is None:
                return DrainCount(Outcome.LOCKED, more=True), None
            position = JournalId(row["epoch"], row["sequence"])
            piece = await self._read(partition, position)
            if piece.entries == 0:
                gap = piece.gap or await self._missing(partition, position)
                outcome = Outcome.GAP if gap else Outcome.IDLE
                return DrainCount(outcome, position=position), gap
            if isolate:
                counter, rejects = await self._isolate(
                    database, partition, piece.records, row["outbox_position"]
                )
            else:
                batch = Batch(self._source(partition), partition, piece.records)
                counter, rejects = await batch.write(database, row["outbox_position"]), 0
            continued = piece.continued
            await database.execute(
                QUERIES["drain_move_position"], partition, piece.last.epoch, piece.last.sequence, counter,
                continued and continued.epoch, continued and continued.sequence,
            )  # fmt: skip
        more = piece.more or piece.gap is not None
        records = len(piece.records) - rejects
        return DrainCount(Outcome.DRAINED, piece.entries, records, rejects, more, piece.last), None

    async def _lock(self, database: Database, partition: int) -> asyncpg.Record | None:
        lock = (QUERIES["drain_lock_position"], partition, str(int(LEASE_SECONDS * 1000)))
        row = await database.fetchrow(*lock)
        if row is None:
            await database.execute(QUERIES["drain_prepare"], self._keys.partitions)
            row = await database.fetchrow(*lock)
        return row

    def _source(self, partition: int) -> str:
        return f"{self._keys.namespace}:{partition}"

    async def _read(self, partition: int, position: JournalId) -> _Slice:
        piece = _Slice(position)
        key, count = self._keys.journal(partition), _FIRST_ENTRIES
        while True:
            reply: Any = await self._redis.xrange(key, min=f"({piece.last}", count=count)
            for entry_id, fields in reply:
                if not piece.add(entry_id, fields):
                    return piece
            if len(reply) < count:
                return piece
            # The next entries are as large as those before, more or less: a rush may have begun.
            count = min(_MOST_ENTRIES, 4 * count, max(1, READ_RECORDS // piece.largest))

    async def _missing(self, partition: int, position: JournalId) -> JournalId | None:
        """The head, if it is past the position though nothing is left in the journal to drain."""
        state = await self._lineage.inspect(partition)
        if state is None or state.head <= position or (await self._read(partition, position)).entries:
            return None
        return state.head

    async def _isolate(
        self, database: Database, partition: int, records: list[Record], outbox_position: int
    ) -> tuple[int, int]:
        """Applies records in halves, down to the bad ones, which are set aside; counter and rejects."""
        try:
            async with database.transaction():
                batch = Batch(self._source(partition), partition, records)
                return await batch.write(database, outbox_position), 0
        except DATA_ERRORS as error:
            if len(records) == 1:
                await self._reject(database, partition, records[0], error)
                return outbox_position, 1
        middle = len(records) // 2
        counter, first = await self._isolate(database, partition, records[:middle], outbox_position)
        counter, second = await self._isolate(database, partition, records[middle:], counter)
        return counter, first + second

    async def _reject(self, database: Database, partition: int, record: Record, error: BaseException) -> None:
        # Postgres' own words quote the row, such as a payment's reference: they stay in the table of rejects.
        log.error(
            "drain: record rejected", partition=partition, id=str(record.id), kind=record.kind,
            error=type(error).__name__, constraint=getattr(error, "constraint_name", None),
        )  # fmt: skip
        texts = (record.kind, record.text, str(error))
        kind, text, why = map(_storable, texts)
        sale_id = text.split(" ", 1)[0] if record.kind != "unreadable" else None
        await database.execute(
            QUERIES["drain_reject"], partition, record.id.epoch, record.id.sequence, record.ordinal,
            sale_id, kind, text, why, str(record.by) if record.by else None, record.at,
        )  # fmt: skip

    async def _close(self, partition: int, gap: JournalId, count: DrainCount) -> None:
        """Nobody may sell from a partition whose history has a hole."""
        await self._lineage.report_gap(partition, epoch=gap.epoch)
        if self._gaps.get(partition) != gap:
            self._gaps[partition] = gap
            GAPS.inc()
            log.error("drain: gap", partition=partition, position=str(count.position), next=str(gap))

    async def measure_rejects(self) -> None:
        async with connection(self._pool) as database:
            UNSETTLED.set(await database.fetchval(QUERIES["rejects_count"]))

    async def measure_lag(self, partition: int, position: JournalId) -> None:
        head: list[Any] = await self._redis.hmget(self._keys.meta(partition), ["epoch", "sequence"])
        if head[0] is not None:
            started = position.sequence if int(head[0]) == position.epoch else 0
            LAG.labels(partition).set(max(0, int(head[1] or 0) - started))
