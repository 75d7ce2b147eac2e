"""Two workers rebuild a partition; the first is paused until the second has opened it. When it wakes up,
nothing that it still does takes effect."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from app import errors
from app import rebuild as rebuild_module
from app.database import open_pool
from app.keys import Keys
from app.lineage import Lineage
from app.models import JournalId
from app.rebuild import Opened, Rebuilder
from app.scripts import connect
from app.settings import Settings
from app.workers.drain import Drain
from tests.integration.conftest import lose_everything
from tests.shop import Shop


class Pause:
    """A worker comes here once, and goes on when it is told to."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def here(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


class PausingLineage(Lineage):
    """Pauses before its first call of one script."""

    def __init__(self, redis: Redis, keys: Keys, pause: Pause, script: str) -> None:
        super().__init__(redis, keys)
        self._pause, self._script = pause, script

    async def _run_as_owner(self, script: str, keys: list[str], args: list[object]) -> None:
        if script == self._script:
            await self._pause.here()
        await super()._run_as_owner(script, keys, args)


class Worker:
    """A rebuilder with connections of its own."""

    def __init__(self, redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> None:
        self.drain = Drain(redis, pool, keys, settings)
        self.redis, self.pool, self.keys = redis, pool, keys

    def rebuilder(self) -> Rebuilder:
        lineage = Lineage(self.redis, self.keys)
        return Rebuilder(lineage, self.pool, self.drain.run_partition, self.keys.namespace)

    def pausing(self, pause: Pause, where: str) -> Rebuilder:
        """Pauses with the claim in hand: before it drains, or before its first write of a kind."""

        async def drain(partition: int) -> bool:
            if where == "drain":
                await pause.here()
            return await self.drain.run_partition(partition)

        lineage = PausingLineage(self.redis, self.keys, pause, where)
        return Rebuilder(lineage, self.pool, drain, self.keys.namespace)


@pytest.fixture
async def workers(settings: Settings, database: str, keys: Keys) -> AsyncIterator[list[Worker]]:
    clients, pools = [], []
    for _ in range(2):
        clients.append(connect(settings))
        pools.append(await open_pool(settings))
    yield [Worker(redis, pool, keys, settings) for redis, pool in zip(clients, pools, strict=True)]
    for redis, pool in zip(clients, pools, strict=True):
        await redis.aclose()
        pool.terminate()


async def end_session_with_the_lock(pool: asyncpg.Pool) -> None:
    """As Postgres does with a worker that says nothing for long, or whose network is gone."""
    ended = await pool.fetch(
        """SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    )
    assert len(ended) == 1


async def everything(shop: Shop) -> dict[str, object]:
    """All that Redis has of the partition, byte for byte."""
    keys = shop.inventory.keys
    names = [*keys.for_script("sale"), keys.sales(shop.partition)]
    return {name: await shop.redis.dump(name) for name in names}


@pytest.mark.parametrize("where", ["drain", "restore", "reopen"])
async def test_a_rebuilder_that_wakes_up_after_another_has_opened_changes_nothing(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, workers: list[Worker], where: str
) -> None:
    await shop.configure(a=10)
    early = await shop.hold("early", "early", a=2)
    await drain.run_partition(shop.partition)
    await lose_everything(shop)
    first, second, pause = workers[0], workers[1].rebuilder(), Pause()
    paused = asyncio.create_task(first.pausing(pause, where).run_once(shop.partition))
    await pause.reached.wait()
    assert await second.run_once(shop.partition) is None  # the first one still has the lock
    await end_session_with_the_lock(pool)
    assert await second.run_once(shop.partition) is Opened.REBUILT
    later = await shop.hold("later", a=1)
    before = await everything(shop)
    pause.go_on.set()
    with pytest.raises((errors.StoreUnavailable, errors.SaleRebuilding)):
        await paused
    assert await everything(shop) == before
    assert await shop.stock() == {"a": (10, 7, 3, 0)}
    await drain.run_partition(shop.partition)
    for hold in (early, later):
        assert await shop.inventory.reservation("sale", hold.hold_id) == hold
    epoch = await pool.fetchval("SELECT epoch FROM positions WHERE partition = $1", shop.partition)
    assert shop.inventory.seen(shop.partition) == JournalId(epoch, 2)


@pytest.mark.parametrize("where", ["drain", "restore", "reopen"])
async def test_a_paused_rebuilder_keeps_others_waiting_for_its_lease_and_no_longer(
    shop: Shop, workers: list[Worker], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "LEASE_SECONDS", 0.2)
    await shop.configure(a=10)
    await workers[0].drain.run_partition(shop.partition)
    await lose_everything(shop)
    first, second, pause = workers[0], workers[1].rebuilder(), Pause()
    paused = asyncio.create_task(first.pausing(pause, where).run_once(shop.partition))
    await pause.reached.wait()
    monkeypatch.undo()  # the others have all the time in the world
    async with asyncio.timeout(20):
        while await second.run_once(shop.partition) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    pause.go_on.set()
    with pytest.raises((errors.StoreUnavailable, errors.SaleRebuilding)):
        await paused
    await shop.hold("ada", a=1)


async def test_two_workers_that_see_a_closed_partition_open_it_once(
    shop: Shop, drain: Drain, workers: list[Worker]
) -> None:
    await shop.configure(a=10)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "server", "f" * 40)
    opened = await asyncio.gather(*(worker.rebuilder().open(shop.partition) for worker in workers))
    assert sorted(opened, key=str) == [None, Opened.ADOPTED]
    late = workers[1].rebuilder()  # it has seen the same, and gets the lock once the first one is done
    assert await late.open(shop.partition) is None
    assert [record.kind for record in await shop.journal()].count(
        "opened"
    ) == 2  # the first start is the other
