"""A sale with a bit of everything, and who audits it."""

from dataclasses import dataclass

import asyncpg
import pytest
from redis.asyncio import Redis

from app.audit_log import command_actor
from app.auditor import audit, repaired
from app.errors import ReservationExpired
from app.invariants import AuditReport, Invariant
from app.keys import Keys
from app.progress import DrainProgress
from app.repair import Repairer
from app.settings import Settings
from app.workers.drain import Drain
from tests.shop import Shop


@dataclass
class Auditing:
    shop: Shop
    pool: asyncpg.Pool
    redis: Redis
    keys: Keys
    settings: Settings
    drain: Drain
    progress: DrainProgress

    async def look(self, sale_id: str = "sale") -> AuditReport:
        return await audit(
            self.shop.inventory, self.pool, self.redis, self.keys, self.progress, sale_id,
            run_drain=self.drain.run_partition,
        )  # fmt: skip

    async def broken(self) -> set[str]:
        return names((await self.look()).invariants)

    async def broken_and_left(self) -> tuple[set[str], set[str]]:
        """What an audit finds broken, and what is left after a repair."""
        repairer = Repairer(self.redis, self.pool, self.keys, self.settings, command_actor("audit --repair"))

        async def look() -> list[AuditReport]:
            return [await self.look()]

        found = await look()
        left = await repaired(repairer, found, look)
        return names(found[0].invariants), names(left[0].invariants)

    def key(self, kind: str) -> str:
        names = ("sale", "stock", "holds", "customers", "answers")
        return self.keys.for_sale("sale")[names.index(kind)]

    async def hold_of(self, customer: str) -> tuple[str, str]:
        """The id and the packed hold of a customer's only reservation."""
        holds: dict[str, str] = await self.shop.redis.hgetall(self.key("holds"))
        return next((id_, packed) for id_, packed in holds.items() if f" {customer} " in packed)

    async def swap(self, one: str, other: str) -> None:
        """Each of the two holds under the other's id."""
        (id_, packed), (other_id, other_packed) = await self.hold_of(one), await self.hold_of(other)
        await self.redis.hset(self.key("holds"), mapping={id_: other_packed, other_id: packed})

    async def forget(self, customer: str) -> None:
        await self.redis.hdel(self.key("holds"), (await self.hold_of(customer))[0])


def names(invariants: list[Invariant]) -> set[str]:
    """Of those that are broken."""
    return {invariant.name for invariant in invariants if not invariant.ok}


async def tell_story(shop: Shop) -> None:
    """Everything that may happen to a hold: living, bought, cancelled, bought late, refused late."""
    await shop.configure(a=20, b=20)
    living, bought, returned, gone = [await shop.hold(f"c{i}", a=1, b=2) for i in range(4)]
    await shop.inventory.extend("sale", living.hold_id, 500)
    await shop.confirm(bought, "pay-1")
    await shop.confirm(returned, "pay-2")
    await shop.inventory.cancel("sale", returned.hold_id, False, None)
    await shop.wait(100)
    await shop.sweep(gone)
    await shop.confirm(gone, "pay-3")
    refunded = await shop.hold("c4", b=12)
    await shop.wait(100)
    await shop.sweep(refunded)
    await shop.hold("c5", b=1)
    with pytest.raises(ReservationExpired):
        await shop.confirm(refunded, "pay-4")
    await shop.inventory.restock("sale", "a", 5, "key", "digest", None)
