"""A Redis that fills up: what is new stops well before, so that all the rest can be paid or given back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app import errors
from app.auditor import audit
from app.embedded.servers import EmbeddedServers
from app.inventory import Inventory, Reserved
from app.keys import Keys
from app.lineage import Lineage
from app.models import JournalId, OrderStatus, Reservation, ReservationStatus
from app.progress import DrainProgress
from app.scripts import connect
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from app.workers.trimmer import Trimmer
from tests.conftest import open_partitions
from tests.integration.conftest import bounded
from tests.shop import Shop

NODE_BYTES = 4096
"""Redis keeps a stream in nodes of this size, and frees one when its last entry has gone."""


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


@pytest.mark.parametrize("bound", [{"max_journal_entries": 100}, {"max_journal_bytes": 20_000}])
async def test_without_postgres_the_journal_grows_to_its_bound_and_drains_afterwards(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, pool: asyncpg.Pool, bound: dict[str, int]
) -> None:
    """Orders go through to the end; new holds wait for the drain."""
    shop.inventory = Inventory(redis, keys, bounded(settings, **bound))
    await shop.configure(a=5000)
    held: list[Reservation] = []
    while isinstance(outcome := await shop.reserve(f"c{len(held)}", a=1), Reserved):
        held.append(outcome.reservation)
        assert len(held) < 2000
    assert isinstance(outcome, errors.Overloaded)
    assert "journal" in outcome.detail
    for hold in held:
        assert (await shop.confirm(hold)).status is ReservationStatus.CONFIRMED
    eager = bounded(settings, journal_retention_seconds=0.0, **bound)
    drain = Drain(redis, pool, keys, eager)
    stop = asyncio.Event()
    async with DrainProgress(pool) as progress:
        await progress.listening()
        loop = asyncio.create_task(DrainLoop(drain, redis, keys, eager).run(stop))
        assert await progress.wait(shop.partition, shop.inventory.seen(shop.partition), 20)
        report = await audit(shop.inventory, pool, redis, keys, progress, "sale")
        stop.set()
        await loop
    assert report.ok, report
    assert await pool.fetchval("SELECT count(*) FROM orders") == len(held)
    await shop.hold("afterwards", a=1)


@pytest.mark.parametrize("bound", [{"max_journal_entries": 200}, {"max_journal_bytes": 40_000}])
async def test_drained_entries_make_room_before_their_time_whoever_drained_them(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, bound: dict[str, int]
) -> None:
    """A worker that has just started has seen none of them drained."""
    key, trimmer = keys.journal(shop.partition), Trimmer(redis, keys, bounded(settings, **bound))
    await shop.configure(a=1000)

    async def first_of(length: int) -> JournalId:
        while await redis.xlen(key) < length:
            await shop.hold("c", a=1)
        oldest: Any = await redis.xrange(key, count=1)
        return JournalId.parse(oldest[0][0])

    first = await first_of(50)
    await trimmer.trim(shop.partition, shop.inventory.seen(shop.partition))
    assert await first_of(350) == first
    # Postgres follows another server: its position tells nothing of what is here.
    await trimmer.trim(shop.partition, JournalId(first.epoch + 1, 5))
    assert await first_of(350) == first
    drained = JournalId(first.epoch, first.sequence + 9)
    await trimmer.trim(shop.partition, drained)
    assert (await first_of(1)).sequence == drained.sequence + 1
    await trimmer.trim(shop.partition, shop.inventory.seen(shop.partition))
    if most := bound.get("max_journal_entries"):
        assert await redis.xlen(key) == most / 2
    else:
        assert 16_000 < (await redis.memory_usage(key) or 0) < 20_000 + NODE_BYTES
