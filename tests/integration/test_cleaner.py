"""Redis forgets ended holds of sales that are long over, and nothing else."""

import asyncio

import asyncpg
import pytest
from redis.asyncio import Redis

from app import errors
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import ReservationStatus
from app.rebuild import forgotten_hold
from app.settings import Settings
from app.workers.cleaner import Cleaner
from app.workers.drain import Drain
from tests.shop import Shop

DAY = 86_400


@pytest.fixture
async def drain(redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings, lineage: Lineage) -> Drain:
    drain = Drain(redis, pool, keys, settings)
    await drain.prepare()
    return drain


@pytest.fixture
def cleaner(redis: Redis, pool: asyncpg.Pool, inventory: Inventory, drain: Drain) -> Cleaner:
    return Cleaner(redis, pool, inventory, DAY)


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)


@pytest.mark.parametrize("closed_by", ["verb", "clock"])
async def test_ended_holds_are_forgotten_a_day_after_the_closing(
    shop: Shop, cleaner: Cleaner, drain: Drain, closed_by: str
) -> None:
    await shop.configure(a=10, closes_in=1_000_000)
    expired, released, bought = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    await shop.inventory.release("sale", released.hold_id)
    await shop.confirm(bought)
    await shop.wait(61)
    await shop.sweep(expired)
    await drain.run_partition(shop.partition)
    await shop.wait(DAY - 100)
    if closed_by == "verb":
        await shop.wait(100 - DAY)
        await shop.inventory.steer("sale", "closed")
        await drain.run_partition(shop.partition)
        await shop.wait(DAY - 1)
    else:
        await shop.wait(1000)
    assert await cleaner.run_once(shop.partition) == 0
    await shop.wait(100)
    before = await shop.stock()
    assert await cleaner.run_once(shop.partition) == 2
    assert await cleaner.run_once(shop.partition) == 0
    assert await shop.inventory.reservation("sale", expired.hold_id) is None
    assert await shop.inventory.reservation("sale", bought.hold_id) is not None
    assert await shop.stock() == before


async def test_a_living_sale_forgets_nothing(shop: Shop, cleaner: Cleaner, drain: Drain) -> None:
    await shop.configure(a=10, closes_in=100 * DAY * 1000)
    hold = await shop.hold("c1", a=1)
    await shop.inventory.release("sale", hold.hold_id)
    await drain.run_partition(shop.partition)
    await shop.wait(10 * DAY)
    assert await cleaner.run_once(shop.partition) == 0
    assert await shop.inventory.reservation("sale", hold.hold_id) is not None


async def test_what_is_not_drained_is_not_forgotten(shop: Shop, cleaner: Cleaner, drain: Drain) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await drain.run_partition(shop.partition)
    await shop.inventory.release("sale", hold.hold_id)
    await shop.wait(10 * DAY)
    assert await cleaner.run_once(shop.partition) == 0
    await drain.run_partition(shop.partition)
    assert await cleaner.run_once(shop.partition) == 1


async def test_many_ended_holds_are_forgotten_in_small_steps(
    shop: Shop, cleaner: Cleaner, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.configure(a=250)
    for hold in await asyncio.gather(*(shop.hold(f"c{i}", a=1) for i in range(250))):
        await shop.inventory.release("sale", hold.hold_id)
    await drain.run_partition(shop.partition)
    await shop.wait(10 * DAY)
    forget, sizes = Inventory.forget, []

    async def recorded(inventory: Inventory, sale_id: str, ids: list[str], seconds: float) -> int | None:
        sizes.append(len(ids))
        return await forget(inventory, sale_id, ids, seconds)

    monkeypatch.setattr(Inventory, "forget", recorded)
    assert await cleaner.run_once(shop.partition) == 250
    assert sorted(sizes) == [0, 50, 100, 100]


async def test_a_forgotten_hold_is_taken_back_for_a_very_late_payment(
    shop: Shop, cleaner: Cleaner, drain: Drain, pool: asyncpg.Pool
) -> None:
    await shop.configure(a=1)
    hold = await shop.hold("c1", a=1)
    await shop.wait(61)
    await shop.sweep(hold)
    await drain.run_partition(shop.partition)
    await shop.wait(10 * DAY)
    assert await cleaner.run_once(shop.partition) == 1
    with pytest.raises(errors.ReservationNotFound):
        await shop.confirm(hold)
    packed = await forgotten_hold(pool, "sale", hold.hold_id)
    assert packed is not None
    await shop.inventory.recall("sale", hold.hold_id, packed)
    confirmed = await shop.confirm(hold)
    assert confirmed.status is ReservationStatus.CONFIRMED
    assert confirmed.order is not None
    assert confirmed.order.reacquired
    await shop.inventory.recall("sale", hold.hold_id, packed)
    assert await shop.stock() == {"a": (1, 0, 0, 1)}
    assert (await drain.run_once(shop.partition)).rejects == 0
    assert await forgotten_hold(pool, "sale", hold.hold_id) is None
