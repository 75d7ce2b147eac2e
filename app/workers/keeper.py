"""Opens partitions: the first start, a restarted or promoted Redis, one that came back empty or older."""

from enum import StrEnum

import asyncpg

from app.database import connection
from app.errors import StoreUnavailable
from app.lineage import Lineage
from app.models import JournalId
from app.position import read_position
from app.rebuild import Rebuilder


class Action(StrEnum):
    NONE = "none"
    ADOPTED = "adopted"
    REBUILT = "rebuilt"
    BUSY = "busy"
    """Another worker is at it."""
    GAP = "gap"
    """Journal entries are missing: a person has to decide."""


class Keeper:
    """Watches over the lineage of partitions; several workers may do so at once."""

    def __init__(self, lineage: Lineage, pool: asyncpg.Pool, rebuilder: Rebuilder) -> None:
        self._lineage = lineage
        self._pool = pool
        self._rebuilder = rebuilder

    async def run_once(self, partition: int) -> Action:
        """Looks at one partition and opens it if it may be opened.

        Raises StoreUnavailable where that needs a store that is away.
        """
        # First the position: a head that is read after it is never behind it on a healthy server.
        position = await self._position(partition)
        state = await self._lineage.inspect(partition)
        if state is not None and state.has_gap:
            return Action.GAP
        if state is not None and state.is_healthy(position):
            return Action.NONE
        if position is None:
            raise StoreUnavailable("Postgres has to say whether the partition may be opened.")
        opened = await self._rebuilder.open(partition)
        return Action(opened) if opened else Action.BUSY

    async def _position(self, partition: int) -> JournalId | None:
        """How far Postgres is, or None while it is away: then a healthy partition is left alone."""
        try:
            async with connection(self._pool) as database:
                return (await read_position(database, "rebuild_read_position", partition)).place
        except StoreUnavailable:
            return None
