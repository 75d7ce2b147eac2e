"""Workers that overlap, die in the middle or wake up late, and hosts with wrong clocks: no double effect."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta

import asyncpg
import pytest
import time_machine
from redis.asyncio import Redis

from app import errors
from app.database import open_pool
from app.inventory import Inventory
from app.keys import Keys
from app.models import JournalId
from app.settings import Settings
from app.workers import drain as drain_module
from app.workers.drain import Drain, Outcome
from app.workers.drain import _Slice as Slice
from app.workers.trimmer import Trimmer
from tests.shop import HOUR_MS, Shop

DAY = timedelta(days=1)


@pytest.fixture
async def own_pool(settings: Settings, database: str) -> AsyncIterator[asyncpg.Pool]:
    """For a worker on another host."""
    pool = await open_pool(settings)
    yield pool
    pool.terminate()


class PausedDrain(Drain):
    """Stops with the position locked and nothing read yet, until it is told to go on."""

    reached: asyncio.Event
    go_on: asyncio.Event

    async def _read(self, partition: int, position: JournalId) -> Slice:
        self.reached.set()
        await self.go_on.wait()
        return await super()._read(partition, position)


@pytest.fixture
def paused(redis: Redis, own_pool: asyncpg.Pool, keys: Keys, settings: Settings) -> PausedDrain:
    drain = PausedDrain(redis, own_pool, keys, settings)
    drain.reached, drain.go_on = asyncio.Event(), asyncio.Event()
    return drain


async def tables(pool: asyncpg.Pool) -> dict[str, list[asyncpg.Record]]:
    names = ("reservations", "orders", "movements", "outbox", "positions")
    return {name: await pool.fetch(f"SELECT * FROM {name} ORDER BY 1, 2") for name in names}  # noqa: S608


async def busy(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.confirm(await shop.hold("ada", a=2))
    await shop.inventory.release("sale", (await shop.hold("bob", a=1)).hold_id)


async def end_session(pool: asyncpg.Pool) -> None:
    """The one that is in a transaction and says nothing."""
    ended = await pool.fetch(
        """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE state = 'idle in transaction' AND datname = current_database()"""
    )
    assert len(ended) == 1


async def test_a_worker_that_wakes_up_after_its_session_has_ended_changes_nothing(
    shop: Shop, drain: Drain, paused: PausedDrain, pool: asyncpg.Pool
) -> None:
    await busy(shop)
    sleeping = asyncio.create_task(paused.run_once(shop.partition))
    await paused.reached.wait()
    assert (await drain.run_once(shop.partition)).outcome is Outcome.LOCKED
    await end_session(pool)
    assert await drain.run_partition(shop.partition)
    before = await tables(pool)
    assert [row["status"] for row in before["orders"]] == ["confirmed"]
    paused.go_on.set()
    with pytest.raises((errors.StoreUnavailable, asyncpg.PostgresError)):
        await sleeping
    assert (await paused.run_once(shop.partition)).outcome is Outcome.IDLE
    assert await tables(pool) == before


async def test_a_paused_worker_keeps_others_waiting_for_its_lease_and_no_longer(
    shop: Shop, drain: Drain, paused: PausedDrain, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "LEASE_SECONDS", 0.2)
    await busy(shop)
    sleeping = asyncio.create_task(paused.run_once(shop.partition))
    await paused.reached.wait()
    monkeypatch.undo()  # the others have all the time in the world
    async with asyncio.timeout(20):
        assert await drain.run_partition(shop.partition)  # which waits for the lock
    assert len((await tables(pool))["orders"]) == 1
    paused.go_on.set()
    with pytest.raises(errors.StoreUnavailable):
        await sleeping


class Killed(Exception):
    """In the place of a kill: nothing after this line is done."""


class DyingTrimmer(Trimmer):
    """The drain dies between commit and trim."""

    async def trim(self, partition: int, position: JournalId) -> None:
        raise Killed


async def test_a_drain_that_dies_before_it_trims_is_repeated_without_effect_and_trimmed_later(
    shop: Shop, redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings
) -> None:
    at_once = settings.model_copy(update={"journal_retention_seconds": 0.0})
    await busy(shop)
    dying = Drain(redis, pool, keys, at_once)
    dying.trimmer = DyingTrimmer(redis, keys, at_once)
    with pytest.raises(Killed):
        await dying.run_once(shop.partition)
    before, length = await tables(pool), await redis.xlen(keys.journal(shop.partition))
    assert length > 4
    successor = Drain(redis, pool, keys, at_once)
    assert (await successor.run_once(shop.partition)).outcome is Outcome.IDLE
    assert await tables(pool) == before
    await shop.hold("eve", a=1)
    await successor.run_once(shop.partition)
    assert await redis.xlen(keys.journal(shop.partition)) == 0


async def test_two_drains_at_once_write_everything_once(
    shop: Shop, drain: Drain, redis: Redis, own_pool: asyncpg.Pool, keys: Keys, settings: Settings
) -> None:
    other = Drain(redis, own_pool, keys, settings)
    await shop.configure(a=1000)

    async def sell() -> None:
        for number in range(20):
            await asyncio.gather(*(shop.hold(f"c{number}-{i}", a=1) for i in range(10)))

    selling = asyncio.create_task(sell())
    while not selling.done():
        await asyncio.gather(drain.run_once(shop.partition), other.run_once(shop.partition))
    await selling
    await drain.run_partition(shop.partition)
    events = await own_pool.fetch("SELECT id, position FROM outbox WHERE type = 'reservation.held'")
    assert len({row["id"] for row in events}) == len(events) == 200


@contextmanager
def a_wrong_clock(wrong_by: timedelta) -> Iterator[None]:
    right = time.time()
    with time_machine.travel(right + wrong_by.total_seconds(), tick=True):
        assert abs(time.time() - right) > HOUR_MS / 1000
        yield


@pytest.mark.parametrize("wrong_by", [-DAY, DAY])
async def test_a_host_with_a_wrong_clock_decides_as_all_others_do(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, wrong_by: timedelta
) -> None:
    """Its clock is a day off, the scripts ask Redis'."""
    wrong = Shop(Inventory(redis, keys, settings), redis)
    await shop.configure(a=10, hold_seconds=60)
    right_hold = await shop.hold("right", a=1)
    with a_wrong_clock(wrong_by):
        hold = await wrong.hold("wrong", a=1)
        extended = await wrong.inventory.extend("sale", hold.hold_id, 120)
        assert await wrong.sweep(right_hold, hold) == 0
        assert await wrong.inventory.due_holds(shop.partition, 10) == {}
    assert 0 <= hold.expires_at - right_hold.expires_at < 30_000
    assert 0 <= extended.expires_at - hold.created_at - 120_000 < 30_000
    await shop.wait(61)
    with a_wrong_clock(wrong_by):
        with pytest.raises(errors.ReservationExpired):
            await wrong.inventory.extend("sale", right_hold.hold_id, 60)
        assert await wrong.sweep(right_hold, hold) == 1
        assert (await wrong.confirm(hold)).order is not None
    assert await shop.stock() == {"a": (10, 9, 0, 1)}
