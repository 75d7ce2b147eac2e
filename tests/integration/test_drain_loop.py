"""The drain's loop: it drains what comes, tells who waits, and trims the journal behind it."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.keys import Keys
from app.models import JournalId
from app.progress import DrainProgress
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from tests.integration.test_drain import add_entry
from tests.shop import Shop


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)


@pytest.fixture
def drain(redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> Drain:
    return Drain(redis, pool, keys, settings)


@pytest.fixture
async def progress(pool: asyncpg.Pool) -> AsyncIterator[DrainProgress]:
    async with DrainProgress(pool) as progress:
        await progress.listening()
        yield progress


@pytest.mark.parametrize(("retention", "left"), [(3600.0, 2), (0.0, 0)])
async def test_drained_entries_are_trimmed_after_the_retention(
    shop: Shop, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings, retention: float, left: int
) -> None:
    await shop.configure(a=1)
    patient = settings.model_copy(update={"journal_retention_seconds": retention})
    drain = Drain(redis, pool, keys, patient)
    await drain.run_once(shop.partition)
    assert await redis.xlen(keys.journal(shop.partition)) == left


async def test_the_loop_drains_what_comes_and_tells_who_waits(
    shop: Shop, drain: Drain, redis: Redis, keys: Keys, settings: Settings, progress: DrainProgress
) -> None:
    stop = asyncio.Event()
    loop = asyncio.create_task(DrainLoop(drain, redis, keys, settings).run(stop))
    for i in range(3):
        await shop.configure(a=5, name=f"round {i}")
        head = shop.inventory.seen(shop.partition)
        assert await progress.wait(shop.partition, head, 10)
        assert (progress.drained(shop.partition) or JournalId(0, 0)) >= head
    assert not await progress.wait(shop.partition, JournalId(9, 9), 0.01)
    stop.set()
    await asyncio.wait_for(loop, 5)


async def test_progress_survives_a_lost_connection(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, progress: DrainProgress
) -> None:
    await pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR"
        " (datname = current_database() AND pid <> pg_backend_pid())"
    )
    await shop.configure(a=5)
    await drain.run_partition(shop.partition)
    assert await progress.wait(shop.partition, shop.inventory.seen(shop.partition), 10)


async def test_a_bad_batch_leaves_the_other_partitions_alone(
    drain: Drain, redis: Redis, keys: Keys, settings: Settings, inventory: Inventory, progress: DrainProgress
) -> None:
    await add_entry(redis, keys, 0, "1-9", "paused sale")
    stop = asyncio.Event()
    loop = asyncio.create_task(DrainLoop(drain, redis, keys, settings).run(stop))
    assert await progress.wait(1, JournalId(1, 1), 10)
    stop.set()
    await asyncio.wait_for(loop, 5)
