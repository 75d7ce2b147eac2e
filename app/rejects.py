"""Journal records that Postgres refused: a person looks at them, applies them again, or gives them up."""

import re
from dataclasses import dataclass
from typing import Any

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import audit_log
from app.database import QUERIES, Database, connection
from app.errors import ConfigurationError
from app.journal import Record
from app.migrate import current_pool
from app.models import Actor, JournalId
from app.settings import Settings
from app.times import milliseconds_of
from app.workers.batch import Batch
from app.workers.drain import DATA_ERRORS

_ID = re.compile(r"(\d{1,4})/(\d{1,18})-(\d{1,18})/(\d{1,9})")
_RULES = ("configured", "paused", "resumed")
"""Kinds that replace what a sale has: applied late, they would undo what came after them."""


@dataclass(frozen=True, slots=True, order=True)
class RejectId:
    """Where the record is: `partition/epoch-sequence/ordinal`. Those of a partition sort in journal order."""

    partition: int
    place: JournalId
    ordinal: int

    @classmethod
    def parse(cls, text: str) -> "RejectId":
        """Raises ConfigurationError for what is none."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"{text!r} is not the id of a reject, which is like 3/1-42/0")
        partition, epoch, sequence, ordinal = map(int, match.groups())
        return cls(partition, JournalId(epoch, sequence), ordinal)

    @classmethod
    def of(cls, row: asyncpg.Record) -> "RejectId":
        return cls(row["partition"], JournalId(row["epoch"], row["sequence"]), row["ordinal"])

    def __str__(self) -> str:
        return f"{self.partition}/{self.place}/{self.ordinal}"

    @property
    def columns(self) -> tuple[int, int, int, int]:
        return self.partition, self.place.epoch, self.place.sequence, self.ordinal


class Rejects:
    """Raises StoreUnavailable where Postgres is away, ConfigurationError for an id that is not unsettled."""

    def __init__(self, pool: asyncpg.Pool, namespace: str) -> None:
        self._pool = pool
        self._namespace = namespace

    async def list(self, *, settled: bool = False) -> list[asyncpg.Record]:
        """The unsettled rejects, or all of them, in journal order."""
        async with connection(self._pool) as database:
            return await database.fetch(QUERIES["rejects_list"], settled)

    async def retry(self, id_: RejectId, by: Actor) -> str | None:
        """Applies the record with its events, as the drain would have; or returns why it is refused again.

        The events have the ids that they would have had, and come last in the partition's order.
        """
        async with connection(self._pool) as database, database.transaction():
            counter = await database.fetchval(QUERIES["rejects_lock_position"], id_.partition)
            row = await self._unsettled(database, id_)
            if refusal := await _refusal(database, row):
                return refusal
            made_by = Actor.parse(row["actor"]) if row["actor"] else None
            record = Record(
                id_.place,
                id_.ordinal,
                milliseconds_of(row["recorded_at"]),
                row["kind"],
                row["record"],
                made_by,
            )
            try:
                async with database.transaction():
                    batch = Batch(f"{self._namespace}:{id_.partition}", id_.partition, [record])
                    counter = await batch.write(database, counter)
            except DATA_ERRORS as error:
                return str(error)
            await database.execute(QUERIES["rejects_move_outbox"], id_.partition, counter)
            await self._settle(database, id_, row, "retried", None, by)
        return None

    async def discard(self, id_: RejectId, reason: str, by: Actor) -> None:
        """Gives the record up: Postgres will never have it."""
        async with connection(self._pool) as database, database.transaction():
            row = await self._unsettled(database, id_)
            await self._settle(database, id_, row, "discarded", reason, by)

    async def _unsettled(self, database: Database, id_: RejectId) -> asyncpg.Record:
        row = await database.fetchrow(QUERIES["rejects_unsettled"], *id_.columns)
        if row is None:
            raise ConfigurationError(
                f"there is no unsettled reject {id_}: `holdfast rejects list` shows them"
            )
        return row

    async def _settle(
        self,
        database: Database,
        id_: RejectId,
        row: asyncpg.Record,
        resolution: str,
        reason: str | None,
        by: Actor,
    ) -> None:
        """The one place where a reject ends, in the transaction that ends it."""
        await database.execute(QUERIES["rejects_settle"], *id_.columns, resolution, reason, by.name)
        await audit_log.record(
            database, by, f"reject.{resolution}", sale_id=row["sale_id"], subject=str(id_),
            after={"kind": row["kind"], "reason": reason},
        )  # fmt: skip


async def _refusal(database: Database, row: asyncpg.Record) -> str | None:
    """Why a record must not be applied late, though Postgres might take it."""
    if row["kind"] == "audited":
        return "an audit's mark is compared at its place in the journal, or not at all"
    if row["kind"] in _RULES:
        changed: Any = await database.fetchval(
            QUERIES["rejects_sale_changed"], row["sale_id"], row["recorded_at"]
        )
        return "the sale has been changed since, and this would undo it" if changed else None
    return None


# The commands `holdfast rejects …`: each returns an exit code.


async def list_command(settings: Settings, settled: bool) -> int:
    async with current_pool(settings) as pool:
        rows = await Rejects(pool, settings.namespace).list(settled=settled)
    table = Table("id", "recorded", "sale", "record", "refused because", *(["settled"] if settled else []))
    for row in rows:
        cells = (
            str(RejectId.of(row)), f"{row['recorded_at']:%Y-%m-%d %H:%M:%S}", row["sale_id"] or "",
            f"{row['kind']} {row['record']}", row["error"], *([_ending(row)] if settled else []),
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    Console().print(table if rows else "no rejects")
    return 0


def _ending(row: asyncpg.Record) -> str:
    if row["resolved_at"] is None:
        return ""
    words = (row["resolution"] or "by hand", row["resolved_by"], row["reason"])
    return f"{row['resolved_at']:%Y-%m-%d %H:%M:%S} " + ", ".join(filter(None, words))


async def retry_command(settings: Settings, id_: str | None) -> int:
    """One, or all in journal order; 1 if one is refused again."""
    console = Console(stderr=True)
    refused = 0
    async with current_pool(settings) as pool:
        rejects = Rejects(pool, settings.namespace)
        chosen = [RejectId.parse(id_)] if id_ else [RejectId.of(row) for row in await rejects.list()]
        for one in chosen:
            refusal = await rejects.retry(one, audit_log.command_actor("rejects retry"))
            refused += refusal is not None
            console.print(
                f"{one} {'is applied' if refusal is None else f'is refused: {refusal}'}", markup=False
            )
    return 1 if refused else 0


async def discard_command(settings: Settings, id_: str, reason: str) -> int:
    async with current_pool(settings) as pool:
        by = audit_log.command_actor("rejects discard")
        await Rejects(pool, settings.namespace).discard(RejectId.parse(id_), reason, by)
    Console(stderr=True).print(f"{id_} is discarded", markup=False)
    return 0
