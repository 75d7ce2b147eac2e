"""Journals at their bounds: new holds wait for the drain, and drained entries make room in time."""

import asyncio
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app import errors
from app.auditor import audit
from app.inventory import Inventory
from app.keys import Keys
from app.models import JournalId, Reservation, ReservationStatus
from app.progress import DrainProgress
from app.reserving import Reserved
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from app.workers.trimmer import Trimmer
from tests.integration.conftest import bounded
from tests.shop import Shop

NODE_BYTES = 4096
"""Redis keeps a stream in nodes of this size, and frees one when its last entry has gone."""


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


async def test_a_long_journal_goes_in_steps_that_are_bounded(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes in one call blocks Redis for everybody."""
    monkeypatch.setattr("app.workers.trimmer._AT_ONCE", 20)
    monkeypatch.setattr("app.workers.trimmer._STEP", 8)
    key, trimmer = (
        keys.journal(shop.partition),
        Trimmer(redis, keys, bounded(settings, max_journal_entries=20)),
    )
    await shop.configure(a=1000)
    while await redis.xlen(key) < 55:
        await shop.hold("c", a=1)
    drained = shop.inventory.seen(shop.partition)
    xtrim: Any = redis.xtrim
    lengths, removed = [], []

    async def counted(*args: Any, **options: Any) -> None:
        removed.append(await xtrim(*args, **options))

    monkeypatch.setattr(redis, "xtrim", counted)
    for _ in range(4):
        await trimmer.trim(shop.partition, drained)
        lengths.append(await redis.xlen(key))
    assert lengths == [35, 15, 10, 10]
    assert removed == [8, 8, 4, 8, 8, 4, 5]
