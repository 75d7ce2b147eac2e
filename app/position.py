"""How far a partition's journal is in Postgres: the fence of every history."""

from dataclasses import dataclass

from app.database import QUERIES, Database
from app.models import JournalId


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition's journal is in Postgres; `0-0` before the first entry.

    `previous`: the entry that its epoch continued. What a server of an earlier epoch has written after that
    is not in Postgres.
    """

    place: JournalId
    previous: JournalId

    def covers(self, head: JournalId) -> bool:
        """Is all that a server with this head has written in Postgres?"""
        return head <= (self.place if head.epoch == self.place.epoch else self.previous)

    def ends_at(self, head: JournalId) -> bool:
        """Is it as far as a server with this head, and no farther? An epoch that was given out, but not used,
        does not count."""
        return self.place == head or (self.place.sequence == 1 and self.previous == head)


async def read_position(database: Database, query: str, partition: int) -> Position:
    row = await database.fetchrow(QUERIES[query], partition)
    if row is None:
        return Position(JournalId(0, 0), JournalId(0, 0))
    previous = JournalId(row["previous_epoch"], row["previous_sequence"])
    return Position(JournalId(row["epoch"], row["sequence"]), previous)


async def has_rejects(database: Database, partition: int) -> bool:
    """Is there a record that nobody has settled? It is not in the tables, and may be an order."""
    return bool(await database.fetchval(QUERIES["rebuild_has_rejects"], partition))
