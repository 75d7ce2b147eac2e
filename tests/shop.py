"""A sale to test with: short words for what shoppers and operators do, and a clock that can be moved."""

import time
from dataclasses import dataclass, field
from typing import Any

from app.errors import HoldfastError
from app.ids import derived_hold_id, random_hold_id, request_digest
from app.inventory import Inventory
from app.journal import Record, format_items, parse_entry
from app.models import Item, Reservation, Sale, SaleRules
from app.reserving import Reserved, ReserveRequest

HOUR_MS = 3_600_000
SHOP = ("shop", "shop")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Shop:
    """One sale on the real scripts. Stock: SKU to quantity, or to (quantity, limit per customer)."""

    inventory: Inventory
    redis: Any
    sale_id: str = "sale"
    secret: bytes = field(default=b"s" * 32)

    @property
    def partition(self) -> int:
        return self.inventory.keys.partition(self.sale_id)

    async def configure(
        self,
        *,
        opens_in: int = -HOUR_MS,
        closes_in: int = HOUR_MS,
        hold_seconds: int = 60,
        max_hold_seconds: int = 600,
        name: str = "A sale",
        **stock: int | tuple[int, int],
    ) -> bool:
        items = tuple(
            (sku, quantity, None) if isinstance(quantity, int) else (sku, quantity[0], quantity[1])
            for sku, quantity in stock.items()
        )
        now = now_ms()
        rules = SaleRules(name, now + opens_in, now + closes_in, hold_seconds, max_hold_seconds, items)
        return await self.inventory.configure(self.sale_id, rules)

    def request(self, customer: str, key: str | None = None, **items: int) -> ReserveRequest:
        lines = tuple(Item(sku, quantity) for sku, quantity in items.items())
        hold_id = derived_hold_id(self.secret, SHOP, self.sale_id, key) if key else random_hold_id()
        digest = request_digest(customer, format_items(sorted(lines, key=lambda item: item.sku)))
        return ReserveRequest(self.sale_id, hold_id, "", customer, digest, lines, has_key=key is not None)

    async def reserve(self, customer: str, key: str | None = None, **items: int) -> Reserved | HoldfastError:
        return await self.inventory.reserve(self.request(customer, key, **items))

    async def hold(self, customer: str, key: str | None = None, **items: int) -> Reservation:
        """A reservation that must succeed."""
        outcome = await self.reserve(customer, key, **items)
        assert isinstance(outcome, Reserved), outcome
        return outcome.reservation

    async def refused(self, customer: str, key: str | None = None, **items: int) -> HoldfastError:
        """A reservation that must be refused."""
        outcome = await self.reserve(customer, key, **items)
        assert isinstance(outcome, HoldfastError), outcome
        return outcome

    async def confirm(
        self, hold: Reservation, reference: str = "pay", metadata: bytes = b"{}"
    ) -> Reservation:
        return await self.inventory.confirm(self.sale_id, hold.hold_id, reference, metadata)

    async def sweep(self, *holds: Reservation) -> int:
        return await self.inventory.expire(self.sale_id, [hold.hold_id for hold in holds])

    async def sale(self) -> Sale:
        return await self.inventory.snapshot(self.sale_id)

    async def stock(self) -> dict[str, tuple[int, int, int, int]]:
        """SKU to (allocated, available, held, sold)."""
        return {
            row.sku: (row.allocated, row.available, row.held, row.sold) for row in (await self.sale()).stock
        }

    async def wait(self, seconds: float) -> None:
        """Moves the partition's clock on: the scripts never go back behind the time that was last used."""
        meta = self.inventory.keys.meta(self.partition)
        used = int(await self.redis.hget(meta, "time") or 0)
        await self.redis.hset(meta, "time", str(max(used, now_ms()) + int(seconds * 1000)))

    async def journal(self) -> list[Record]:
        entries = await self.redis.xrange(self.inventory.keys.journal(self.partition))
        return [record for entry_id, fields in entries for record in parse_entry(entry_id, fields)]

    async def kinds(self) -> list[str]:
        """The kinds of the journal's records, without the partition's opening."""
        return [record.kind for record in await self.journal() if record.kind != "opened"]

    async def due(self) -> dict[str, int]:
        """The due list: member to milliseconds."""
        pairs = await self.redis.zrange(self.inventory.keys.due(self.partition), 0, -1, withscores=True)
        return {member: int(score) for member, score in pairs}
