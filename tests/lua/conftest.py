import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from tests.shop import Shop


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)
