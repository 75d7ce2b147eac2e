"""A sale on a primary and its replica, with two API processes and a worker, each with its own connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest

from app import errors
from app.auditor import audit
from app.inventory import Inventory
from app.keys import Keys
from app.models import JournalId, Reservation
from app.progress import DrainProgress
from app.scripts import connect
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action, Keeper
from app.workers.runner import build_keeper
from tests.redis_pair import RedisPair, ReplicatedServer, drop_connections
from tests.shop import Shop

STOCK = 10


@dataclass
class Stage:
    """The sale is drained, and on both servers. Of the API processes one goes on to see what the replica will
    lack, the other does not."""

    pair: RedisPair
    settings: Settings
    pool: asyncpg.Pool
    keys: Keys
    witness: Shop
    stranger: Shop
    drain: Drain
    keeper: Keeper
    early: Reservation
    partition: int = 0

    async def fail_over(self) -> None:
        """Everybody's connections break with the primary."""
        await self.pair.fail_over()
        await self.reconnect()

    async def reconnect(self) -> None:
        for redis in (self.witness.redis, self.stranger.redis, self.drain._redis):
            await drop_connections(redis)

    async def lost_hold(self, customer: str, key: str, quantity: int) -> Reservation:
        """Acknowledged by a primary whose replica hears no more of it."""
        await self.pair.replica.cut()
        return await self.witness.hold(customer, key, a=quantity)

    async def refuses_everybody(self) -> None:
        """Nobody gets a hold, an order or a wrong answer, and nothing is written."""
        before = await self.witness.redis.xlen(self.keys.journal(0))
        for shop in (self.witness, self.stranger):
            assert isinstance(await shop.refused("eve", a=1), errors.SaleRebuilding)
            with pytest.raises(errors.SaleRebuilding):
                await shop.confirm(self.early)
            with pytest.raises(errors.SaleRebuilding):
                await shop.sale()
        assert await self.witness.redis.xlen(self.keys.journal(0)) == before

    async def holds_what_it_should(self, *expected: Reservation) -> None:
        """All of `expected` are there for both processes, the rest of the stock is sold once, and the audit
        finds nothing wrong."""
        for shop in (self.witness, self.stranger):
            for hold in expected:
                assert await shop.inventory.reservation("sale", hold.hold_id) == hold
        taken = sum(item.quantity for hold in expected for item in hold.items)
        sold = sum(item.quantity for hold in expected if hold.order for item in hold.items)
        assert await self.stranger.stock() == {"a": (STOCK, STOCK - taken, taken - sold, sold)}
        for number in range(STOCK - taken):
            await (self.witness, self.stranger)[number % 2].hold(f"late-{number}", a=1)
        assert isinstance(await self.witness.refused("eve", a=1), errors.SoldOut)
        await self.is_in_order()

    async def is_in_order(self) -> None:
        async with DrainProgress(self.pool) as progress:
            report = await audit(
                self.witness.inventory, self.pool, self.witness.redis, self.keys, progress, "sale",
                run_drain=self.drain.run_partition,
            )  # fmt: skip
        assert report.ok, [invariant for invariant in report.invariants if not invariant.ok]

    async def position(self) -> JournalId:
        row = await self.pool.fetchrow("SELECT epoch, sequence FROM positions WHERE partition = 0")
        assert row is not None
        return JournalId(row["epoch"], row["sequence"])

    def worker_on(self, server: ReplicatedServer) -> tuple[Drain, Keeper]:
        """Another worker, which believes in this server."""
        drain = Drain(server.client, self.pool, self.keys, self.settings)
        return drain, build_keeper(server.client, self.pool, self.keys, drain)


@asynccontextmanager
async def open_stage(
    pair: RedisPair, settings: Settings, pool: asyncpg.Pool, keys: Keys
) -> AsyncIterator[Stage]:
    clients = [connect(settings) for _ in range(3)]
    witness, stranger = (Shop(Inventory(redis, keys, settings), redis) for redis in clients[:2])
    drain = Drain(clients[2], pool, keys, settings)
    keeper = build_keeper(clients[2], pool, keys, drain)
    assert await keeper.run_once(0) is Action.REBUILT
    await witness.configure(a=STOCK, hold_seconds=600)
    early = await stranger.hold("early", "early", a=1)
    await drain.run_partition(0)
    await pair.replica.follow(pair.primary)
    yield Stage(pair, settings, pool, keys, witness, stranger, drain, keeper, early)
    for redis in clients:
        await redis.aclose()
