"""A Redis that fills up: what is new stops well before, so that all the rest can be paid or given back."""

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from app import errors
from app.embedded.servers import EmbeddedServers
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import OrderStatus, ReservationStatus
from app.reserving import Reserved
from app.scripts import connect
from app.settings import Settings
from tests.conftest import open_partitions
from tests.shop import Shop


@pytest.fixture(scope="module")
def own_redis(
    servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServers]:
    """A Redis whose memory a test may bound."""
    folder = tmp_path_factory.mktemp("own-redis")
    with EmbeddedServers(folder, fsync=False, database_url=servers.database_url) as own:
        yield own


@pytest.fixture
async def small_shop(own_redis: EmbeddedServers, settings: Settings) -> AsyncIterator[Shop]:
    settings = settings.model_copy(update={"redis_url": own_redis.redis_url})
    keys = Keys(settings.namespace, settings.partitions)
    async with connect(settings) as redis:
        await open_partitions(Lineage(redis, keys))
        yield Shop(Inventory(redis, keys, settings), redis)
        await redis.config_set("maxmemory", 0)


async def fill(redis: Redis, part: float) -> None:
    """Has the server use `part` of its memory."""
    memory = await redis.info("memory")
    used = memory["used_memory"] - memory["mem_not_counted_for_evict"]
    await redis.config_set("maxmemory", int(used / part))


async def test_past_the_watermark_nothing_new_begins_and_all_else_goes_on(small_shop: Shop) -> None:
    shop = small_shop
    await shop.configure(a=10)
    paid, extended, given_back, late, cancelled = [await shop.hold(f"c{i}", f"k{i}", a=1) for i in range(5)]
    await shop.confirm(cancelled)
    stock, head = await shop.stock(), shop.inventory.seen(shop.partition)
    await fill(shop.redis, 0.9)
    refused = await shop.refused("d", "new", a=1)
    assert isinstance(refused, errors.Overloaded)
    assert "memory" in refused.detail
    other = Shop(shop.inventory, shop.redis, sale_id="other")
    with pytest.raises(errors.Overloaded):
        await other.configure(a=1)
    assert (await shop.stock(), shop.inventory.seen(shop.partition)) == (stock, head)
    assert isinstance(await shop.reserve("c0", "k0", a=1), Reserved)
    await fill(shop.redis, 1.1)
    assert isinstance(await shop.refused("d", "new", a=1), errors.StoreUnavailable)
    assert (await shop.inventory.extend("sale", extended.hold_id, 90)).expires_at > extended.expires_at
    assert (await shop.confirm(paid)).status is ReservationStatus.CONFIRMED
    assert (await shop.inventory.release("sale", given_back.hold_id)).status is ReservationStatus.RELEASED
    order = (await shop.inventory.cancel("sale", cancelled.hold_id, True, None)).order
    assert order is not None
    assert order.status is OrderStatus.CANCELLED
    await shop.inventory.restock("sale", "a", 5, "key", "digest", None)
    await shop.redis.config_set("maxmemory", 0)
    await shop.wait(61)
    await fill(shop.redis, 1.1)
    assert await shop.sweep(late) == 1
    await shop.redis.config_set("maxmemory", 0)
    await shop.hold("d", "new", a=1)


async def test_without_a_bound_of_memory_there_is_no_watermark(small_shop: Shop) -> None:
    await small_shop.configure(a=1)
    await small_shop.hold("c", a=1)
