"""Gives back the units of holds that are past their time.

It only returns stock: whether a hold has expired is decided by the scripts, swept or not, so a slow sweeper
costs availability and never correctness. Two at once do no harm.
"""

from prometheus_client import Counter

from app.inventory import Inventory

BATCH = 120
"""Holds per step, which `Inventory.expire` ends in several calls."""

SWEPT = Counter("holdfast_swept_holds", "Holds that the sweeper expired")


class Sweeper:
    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    async def run_once(self, partition: int) -> int:
        """One bounded step; how many due holds it looked at: `BATCH` of them means that there may be more."""
        due = await self._inventory.due_holds(partition, BATCH)
        for sale_id, hold_ids in due.items():
            SWEPT.inc(await self._inventory.expire(sale_id, hold_ids))
        return sum(len(hold_ids) for hold_ids in due.values())

    async def run_partition(self, partition: int) -> None:
        """Steps until nothing more is due."""
        while await self.run_once(partition) == BATCH:
            pass
