"""Lets Redis forget the ended holds of sales that are long over, once Postgres has them.

Not a time-to-live: an id must not come back as a new hold while its sale lives, and nothing may go that is
not drained. Orders stay, as they may still be cancelled.
"""

from collections.abc import AsyncIterator

import asyncpg
from prometheus_client import Counter
from redis.asyncio import Redis

from app.database import QUERIES, connection
from app.ids import RESERVATION_PREFIX
from app.inventory import Inventory

BATCH = 100
"""Holds per step, which blocks Redis for about half a millisecond."""
_SALES = 1000
"""Per step of the scan of a partition's sales, which may be many."""

FORGOTTEN = Counter("holdfast_forgotten_holds", "Ended holds that only Postgres keeps now")


class Cleaner:
    """`retention_seconds`: how long after a sale's closing its ended holds stay."""

    def __init__(
        self, redis: Redis, pool: asyncpg.Pool, inventory: Inventory, retention_seconds: float
    ) -> None:
        self._redis = redis
        self._pool = pool
        self._inventory = inventory
        self._retention_seconds = retention_seconds

    async def run_once(self, partition: int) -> int:
        """Goes through the partition's sales; how many holds it let go of."""
        key = self._inventory.keys.sales(partition)
        # A scan may name a sale twice.
        sales = {sale_id async for sale_id in self._redis.sscan_iter(key, count=_SALES)}
        return sum([await self._clean(sale_id) for sale_id in sorted(sales)])

    async def _clean(self, sale_id: str) -> int:
        if await self._inventory.forget(sale_id, [], self._retention_seconds) is None:
            return 0
        forgotten = 0
        async for hold_ids in self._ended_holds(sale_id):
            kept = await self._persisted(hold_ids)
            forgotten += await self._inventory.forget(sale_id, kept, self._retention_seconds) or 0
        FORGOTTEN.inc(forgotten)
        return forgotten

    async def _ended_holds(self, sale_id: str) -> AsyncIterator[list[str]]:
        """Ids of holds that ended without an order, as Redis has them, in batches."""
        holds_key = self._inventory.keys.for_sale(sale_id)[2]
        batch: list[str] = []
        async for hold_id, packed in self._redis.hscan_iter(holds_key, count=BATCH):
            if packed.startswith(("released ", "expired ")):
                batch.append(hold_id)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _persisted(self, hold_ids: list[str]) -> list[str]:
        """Those that Postgres has as ended, too."""
        async with connection(self._pool) as database:
            rows = await database.fetch(
                QUERIES["rebuild_ended"], [RESERVATION_PREFIX + hold_id for hold_id in hold_ids]
            )
        return [row["id"].removeprefix(RESERVATION_PREFIX) for row in rows]
