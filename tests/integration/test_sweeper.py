"""The sweeper gives back what is due: all of it, once, and nothing else."""

import asyncio
import time
from collections import Counter
from math import ceil

import asyncpg
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.keys import Keys
from app.models import Reservation
from app.settings import Settings
from app.workers.runner import work
from app.workers.sweeper import BATCH, Sweeper
from tests.shop import Shop, now_ms

LATENESS_MS = 1000


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)


@pytest.fixture
def sweeper(inventory: Inventory) -> Sweeper:
    return Sweeper(inventory)


async def due_holds(shop: Shop, count: int) -> list[Reservation]:
    """Holds of one unit each, past their time: a second has gone by."""
    holds = await asyncio.gather(*(shop.hold(f"c{i}", a=1) for i in range(count)))
    end = max(hold.expires_at for hold in holds)
    await asyncio.sleep(max(end - now_ms() + 1, 0) / 1000)
    return holds


async def test_all_that_is_due_goes_in_one_go_in_bounded_steps(shop: Shop, sweeper: Sweeper) -> None:
    count = 2 * BATCH + 50
    await shop.configure(a=count, hold_seconds=1)
    await due_holds(shop, count)
    assert await sweeper.run_once(shop.partition) == BATCH
    assert await shop.stock() == {"a": (count, BATCH, count - BATCH, 0)}
    await sweeper.run_partition(shop.partition)
    assert await shop.stock() == {"a": (count, count, 0, 0)}
    assert await shop.due() == {}
    assert await sweeper.run_once(shop.partition) == 0


async def test_ten_thousand_holds_that_are_due_at_once_go_in_bounded_steps(
    shop: Shop, sweeper: Sweeper
) -> None:
    count = 10_000
    await shop.configure(a=count, hold_seconds=1)
    for start in range(0, count, 500):
        await asyncio.gather(*(shop.hold(f"c{i}", a=1) for i in range(start, start + 500)))
    await asyncio.sleep(1.001)
    steps = 0
    while await sweeper.run_once(shop.partition):
        steps += 1
    assert steps == ceil(count / BATCH)
    assert await shop.stock() == {"a": (count, count, 0, 0)}
    assert await shop.due() == {}
    calls = Counter(record.id for record in await shop.journal() if record.kind == "expired")
    assert sum(calls.values()) == count
    assert max(calls.values()) <= BATCH


async def test_what_is_not_due_stays(shop: Shop, sweeper: Sweeper) -> None:
    await shop.configure(a=4, hold_seconds=1)
    kept = await shop.hold("extends", a=1)
    await shop.inventory.extend(shop.sale_id, kept.hold_id, 60)
    paid = await shop.hold("pays", a=1)
    await shop.confirm(paid)
    await due_holds(shop, 1)
    await sweeper.run_partition(shop.partition)
    assert await shop.stock() == {"a": (4, 2, 1, 1)}
    assert list(await shop.due()) == [f"sale/{kept.hold_id}"]
    assert [record.words()["customer"] for record in await shop.journal() if record.kind == "expired"] == [
        "c0"
    ]


async def test_two_sweepers_at_once_give_each_unit_back_once(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings
) -> None:
    count = BATCH + 50
    await shop.configure(a=count, hold_seconds=1)
    holds = await due_holds(shop, count)
    both = [Sweeper(Inventory(redis, keys, settings)) for _ in range(2)]
    await asyncio.gather(*(sweeper.run_partition(shop.partition) for sweeper in both))
    expired = Counter(record.words()["hold"] for record in await shop.journal() if record.kind == "expired")
    assert expired == {hold.hold_id: 1 for hold in holds}
    assert await shop.stock() == {"a": (count, count, 0, 0)}


async def test_a_running_worker_sweeps_within_a_second(
    shop: Shop, redis: Redis, pool: asyncpg.Pool, settings: Settings
) -> None:
    await shop.configure(a=1, hold_seconds=1)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(work(settings, redis, pool, stop))
        hold = await shop.hold("c", a=1)
        try:
            expired_at = await wait_for_expiry(shop, redis)
        finally:
            stop.set()
    assert 0 <= expired_at - hold.expires_at < LATENESS_MS
    assert await shop.stock() == {"a": (1, 1, 0, 0)}


async def wait_for_expiry(shop: Shop, redis: Redis) -> int:
    """Follows the journal; when the first hold expired, in milliseconds."""
    journal = shop.inventory.keys.journal(shop.partition)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        newest: str = (await redis.xinfo_stream(journal))["last-generated-id"]
        for record in await shop.journal():
            if record.kind == "expired":
                return record.at
        await redis.xread({journal: newest}, block=500)
    raise AssertionError("nothing was swept")
