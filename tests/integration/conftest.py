"""A sale on partitions that the keeper has opened, with a drain beside it."""

import asyncpg
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.keys import Keys
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action, Keeper
from app.workers.runner import build_keeper
from tests.shop import Shop


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


async def lose_everything(shop: Shop) -> None:
    keys = shop.inventory.keys
    await shop.redis.delete(
        *keys.for_partition(shop.partition), keys.sales(shop.partition), *keys.for_sale("sale")
    )
