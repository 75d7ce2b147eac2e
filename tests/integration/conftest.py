"""A sale on partitions that the keeper has opened, with a drain beside it."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.keys import Keys
from app.progress import DrainProgress
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action, Keeper
from app.workers.runner import build_keeper
from tests.integration.auditing import Auditing, tell_story
from tests.integration.stage import Stage, open_stage
from tests.redis_pair import RedisPair, redis_pair
from tests.redis_server import RedisServer, redis_server
from tests.shop import Shop


@pytest.fixture
async def store() -> AsyncIterator[RedisServer]:
    """A Redis that the test may do anything to."""
    async with redis_server() as server:
        yield server


@pytest.fixture
def drain(redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> Drain:
    return Drain(redis, pool, keys, settings)


@pytest.fixture
def keeper(redis: Redis, pool: asyncpg.Pool, keys: Keys, drain: Drain) -> Keeper:
    return build_keeper(redis, pool, keys, drain)


@pytest.fixture
async def shop(redis: Redis, keys: Keys, settings: Settings, keeper: Keeper) -> Shop:
    """On partitions that the keeper has opened."""
    for partition in range(keys.partitions):
        assert await keeper.run_once(partition) is Action.REBUILT
    return Shop(Inventory(redis, keys, settings), redis)


@pytest.fixture
async def auditing(
    inventory: Inventory, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings, drain: Drain
) -> AsyncIterator[Auditing]:
    """A sale with a bit of everything."""
    shop = Shop(inventory, redis)
    await tell_story(shop)
    async with DrainProgress(pool) as progress:
        await progress.listening()
        yield Auditing(shop, pool, redis, keys, settings, drain, progress)


@pytest.fixture
async def pair() -> AsyncIterator[RedisPair]:
    async with redis_pair() as pair:
        yield pair


@pytest.fixture
async def stage(pair: RedisPair, settings: Settings, pool: asyncpg.Pool, keys: Keys) -> AsyncIterator[Stage]:
    """On the pair, which `settings` must lead to."""
    async with open_stage(pair, settings, pool, keys) as stage:
        yield stage


async def lose_everything(shop: Shop) -> None:
    keys = shop.inventory.keys
    await shop.redis.delete(
        *keys.for_partition(shop.partition), keys.sales(shop.partition), *keys.for_sale("sale")
    )


async def postgres_goes_back(pool: asyncpg.Pool, before: asyncpg.Record) -> set[UUID]:
    """As after a restore to an older point: what was written since `before` is gone. The lost events' ids."""
    async with pool.acquire() as database, database.transaction():
        await database.execute("SELECT FROM positions WHERE partition = $1 FOR UPDATE", before["partition"])
        await database.execute("ALTER TABLE outbox DISABLE TRIGGER ALL")
        await database.execute("DELETE FROM orders")
        await database.execute("DELETE FROM reservations")
        lost = await database.fetch(
            "DELETE FROM outbox WHERE aggregatetype IN ('reservation', 'order') RETURNING id"
        )
        await database.execute(
            "UPDATE positions SET epoch = $2, sequence = $3, outbox_position = $4 WHERE partition = $1",
            *(before[name] for name in ("partition", "epoch", "sequence", "outbox_position")),
        )
    return {row["id"] for row in lost}


async def position_row(pool: asyncpg.Pool, partition: int) -> asyncpg.Record:
    row = await pool.fetchrow("SELECT * FROM positions WHERE partition = $1", partition)
    assert row is not None
    return row


def bounded(settings: Settings, **bounds: float) -> Settings:
    """With bounds that a test reaches, even below what the settings allow."""
    return settings.model_copy(update=bounds)
