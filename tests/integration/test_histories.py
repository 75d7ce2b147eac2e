"""Histories that differ: what Redis knows and Postgres lacks is never dropped without a person's decision."""

import asyncio
import itertools
from collections import Counter

import asyncpg
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app import errors
from app.auditor import audit
from app.keys import Keys
from app.lineage import Lineage
from app.models import JournalId
from app.progress import DrainProgress
from app.rebuild import Rebuilder
from app.settings import Settings
from app.workers.drain import Drain, Outcome
from app.workers.drain_loop import DrainLoop
from app.workers.keeper import Action, Keeper
from app.workers.runner import build_keeper
from app.workers.trimmer import Trimmer
from tests.integration.conftest import lose_everything, position_row, postgres_goes_back
from tests.shop import Shop


async def postgres_forgets_an_order(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    """It goes back behind an order that the journal no longer holds."""
    await shop.configure(a=1)
    await drain.run_partition(shop.partition)
    before = await position_row(pool, shop.partition)
    await shop.confirm(await shop.hold("c1", a=1))
    await drain.run_partition(shop.partition)
    await shop.redis.xtrim(shop.inventory.keys.journal(shop.partition), maxlen=0, approximate=False)
    await postgres_goes_back(pool, before)


async def test_a_gap_stays_closed_until_a_person_decides(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool, keys: Keys
) -> None:
    """A rebuild would drop the holds behind the gap, which Redis alone still knows."""
    await shop.configure(a=10)
    await drain.run_partition(shop.partition)
    holds = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    entries = await shop.redis.xrange(keys.journal(shop.partition))
    await shop.redis.xdel(keys.journal(shop.partition), entries[-2][0])
    assert not await drain.run_partition(shop.partition)
    for _ in range(2):
        assert await keeper.run_once(shop.partition) is Action.GAP
    with pytest.raises(errors.SaleRebuilding):
        await shop.sale()
    assert await shop.redis.hlen(keys.for_sale("sale")[2]) == 1 + len(holds)
    rebuilder = Rebuilder(Lineage(shop.redis, keys), pool, drain.run_partition, keys.namespace)
    assert not await rebuilder.run_once(shop.partition)
    assert await rebuilder.run_once(shop.partition, over_gap=True)
    assert await shop.stock() == {"a": (10, 9, 1, 0)}
    assert await keeper.run_once(shop.partition) is Action.NONE


async def test_a_lost_meta_record_does_not_hide_a_gap(shop: Shop, drain: Drain, keeper: Keeper) -> None:
    await shop.configure(a=10)
    await drain.run_partition(shop.partition)
    await shop.hold("c1", a=1)
    await shop.hold("c2", a=1)
    keys = shop.inventory.keys
    entries = await shop.redis.xrange(keys.journal(shop.partition))
    await shop.redis.xdel(keys.journal(shop.partition), entries[-2][0])
    await shop.redis.delete(keys.meta(shop.partition))
    for _ in range(2):
        assert await keeper.run_once(shop.partition) is Action.BUSY
    with pytest.raises(errors.SaleRebuilding):
        await shop.sale()


async def test_a_rejected_order_is_not_rebuilt_away(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool
) -> None:
    """Its unit was told to a buyer; a rebuild would give it to another."""
    await shop.configure(a=1)
    await pool.execute("ALTER TABLE orders ADD CHECK (payment_reference <> 'poison')")
    await shop.confirm(await shop.hold("c1", a=1), "poison")
    assert await drain.run_partition(shop.partition)
    await lose_everything(shop)
    for _ in range(2):
        assert await keeper.run_once(shop.partition) is Action.BUSY
    assert isinstance(await shop.refused("c2", a=1), errors.SaleRebuilding)
    await pool.execute("UPDATE rejects SET resolved_at = now()")
    assert await keeper.run_once(shop.partition) is Action.REBUILT


async def test_redis_is_not_rebuilt_from_a_postgres_that_lacks_what_it_knows(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool
) -> None:
    """An older Postgres beyond the retained journal: said, and never guessed."""
    await postgres_forgets_an_order(shop, drain, pool)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "state", "closed")
    assert await keeper.run_once(shop.partition) is Action.BUSY
    assert await keeper.run_once(shop.partition) is Action.GAP
    assert await shop.redis.exists(*shop.inventory.keys.for_sale("sale")) == 5


async def test_an_older_postgres_is_noticed_without_a_new_entry(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    """Beyond the retained journal: it stops, and says so once."""
    await postgres_forgets_an_order(shop, drain, pool)
    with capture_logs() as logs:
        for _ in range(2):
            assert (await drain.run_once(shop.partition)).outcome is Outcome.GAP
    assert [line["event"] for line in logs] == ["drain: gap"]
    assert isinstance(await shop.refused("c2", a=1), errors.SaleRebuilding)


async def test_an_older_postgres_is_fed_again_from_the_retained_journal(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, pool: asyncpg.Pool
) -> None:
    """Without traffic: what it has lost is noticed before it is trimmed."""
    eager = settings.model_copy(update={"journal_retention_seconds": 0.2})
    drain = Drain(redis, pool, keys, eager)
    await shop.configure(a=1)
    await drain.run_partition(shop.partition)
    before = await position_row(pool, shop.partition)
    await shop.confirm(await shop.hold("c1", a=1))
    await drain.run_partition(shop.partition)
    events = await pool.fetch("SELECT id FROM outbox ORDER BY id")
    await postgres_goes_back(pool, before)
    stop = asyncio.Event()
    async with DrainProgress(pool) as progress:
        await progress.listening()
        loop = asyncio.create_task(DrainLoop(drain, redis, keys, eager).run(stop))
        assert await progress.wait(shop.partition, shop.inventory.seen(shop.partition), 10)
        stop.set()
        await loop
    assert await pool.fetch("SELECT id FROM outbox ORDER BY id") == events


async def test_an_older_postgres_is_fed_again_while_the_sale_runs_on(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, drain: Drain, pool: asyncpg.Pool
) -> None:
    """New entries come before, while and after it is fed: each event is there once, under its first id."""
    await shop.configure(a=100_000)
    await drain.run_partition(shop.partition)
    before = await position_row(pool, shop.partition)
    stop, busy, ended, sold = asyncio.Event(), asyncio.Event(), asyncio.Event(), Counter[str]()

    async def buy(customer: str) -> None:
        await shop.confirm(await shop.hold(customer, a=1))
        sold.update(("reservation.held", "reservation.confirmed", "order.confirmed"))

    async def sell() -> None:
        for customer in itertools.count():
            if ended.is_set():
                return
            await asyncio.gather(*(buy(f"c{customer}-{i}") for i in range(5)))
            busy.set()

    async def drained(progress: DrainProgress) -> bool:
        return await progress.wait(shop.partition, shop.inventory.seen(shop.partition), 20)

    async with DrainProgress(pool) as progress:
        await progress.listening()
        loop = asyncio.create_task(DrainLoop(drain, redis, keys, settings).run(stop))
        selling = asyncio.create_task(sell())
        await busy.wait()
        assert await drained(progress)
        events = await postgres_goes_back(pool, before)
        assert await drained(progress)
        ended.set()
        await selling
        assert await drained(progress)
        report = await audit(
            shop.inventory, pool, redis, keys, progress, "sale", run_drain=drain.run_partition
        )
        stop.set()
        await loop
    assert report.ok, report.invariants
    rows = await pool.fetch("SELECT id, type, position FROM outbox WHERE partition = $1", shop.partition)
    assert events
    assert events <= {row["id"] for row in rows}
    assert Counter(row["type"] for row in rows if row["type"] in sold) == sold
    assert sorted(row["position"] for row in rows) == list(range(1, len(rows) + 1))


async def test_what_postgres_has_lost_is_not_trimmed(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, drain: Drain, pool: asyncpg.Pool
) -> None:
    trimmer = Trimmer(redis, keys, settings.model_copy(update={"journal_retention_seconds": 0.0}))
    await shop.configure(a=1)
    await drain.run_partition(shop.partition)
    before = await position_row(pool, shop.partition)
    await shop.hold("c1", a=1)
    await drain.run_partition(shop.partition)
    length = await redis.xlen(keys.journal(shop.partition))
    trimmer.remember(shop.partition, shop.inventory.seen(shop.partition))
    await trimmer.trim(shop.partition, JournalId(before["epoch"], before["sequence"]))
    assert await redis.xlen(keys.journal(shop.partition)) == length
    trimmer.remember(shop.partition, shop.inventory.seen(shop.partition))
    await trimmer.trim(shop.partition, shop.inventory.seen(shop.partition))
    assert await redis.xlen(keys.journal(shop.partition)) == 0
    assert not trimmer._drained[shop.partition]


async def test_a_worker_that_leads_postgres_astray_stops_the_sale_instead_of_losing_orders(
    shop: Shop, redis: Redis, keys: Keys, settings: Settings, drain: Drain, keeper: Keeper, pool: asyncpg.Pool
) -> None:
    """A worker on the wrong Redis rebuilds everything there, and moves Postgres' position."""
    await shop.configure(a=10)
    await drain.run_partition(shop.partition)
    await shop.hold("c1", a=1)
    elsewhere = Keys(f"{settings.namespace}-elsewhere", settings.partitions)
    stray = Drain(redis, pool, elsewhere, settings)
    assert await build_keeper(redis, pool, elsewhere, stray).run_once(shop.partition) is Action.REBUILT
    await stray.run_partition(shop.partition)
    position = await position_row(pool, shop.partition)
    shop.inventory.saw(shop.partition, JournalId(position["epoch"], position["sequence"]))
    assert isinstance(await shop.refused("c2", a=1), errors.SaleRebuilding)
    assert await keeper.run_once(shop.partition) is Action.BUSY
    assert await keeper.run_once(shop.partition) is Action.GAP
    assert await redis.xlen(keys.journal(shop.partition)) == 3


async def test_a_redis_that_is_behind_postgres_is_not_left_open(
    shop: Shop, drain: Drain, keeper: Keeper
) -> None:
    await shop.configure(a=10)
    await drain.run_partition(shop.partition)
    await shop.redis.hincrby(shop.inventory.keys.meta(shop.partition), "sequence", -1)
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    await shop.hold("c1", a=1)


async def test_an_order_that_a_rebuild_lost_is_never_called_persisted(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool
) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await drain.run_partition(shop.partition)
    async with DrainProgress(pool) as progress:
        await progress.listening()
        confirmed = await shop.confirm(hold)
        assert confirmed.order is not None
        place = confirmed.order.journal_id
        assert place is not None
        waiting = asyncio.create_task(progress.wait(shop.partition, place, 30))
        await lose_everything(shop)
        assert await keeper.run_once(shop.partition) is Action.REBUILT
        await drain.run_partition(shop.partition)
        assert await waiting is False
        assert progress.has_drained(shop.partition, place) is None


async def test_time_goes_on_after_a_rebuild_on_a_host_whose_clock_is_behind(
    shop: Shop, drain: Drain, keeper: Keeper
) -> None:
    await shop.configure(a=10, hold_seconds=600)
    hold = await shop.hold("c1", a=1)
    await shop.wait(300)
    confirmed = await shop.confirm(hold)
    await drain.run_partition(shop.partition)
    await lose_everything(shop)
    await keeper.run_once(shop.partition)
    assert confirmed.order is not None
    assert (await shop.sale()).server_time >= confirmed.order.confirmed_at
    await shop.inventory.cancel("sale", hold.hold_id, True, None)
    assert (await drain.run_once(shop.partition)).rejects == 0


async def test_a_sale_that_postgres_does_not_know_is_gone_after_a_rebuild(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, keys: Keys
) -> None:
    await drain.run_partition(shop.partition)
    await shop.configure(a=10)
    entries = await shop.redis.xrange(keys.journal(shop.partition))
    await shop.redis.xdel(keys.journal(shop.partition), entries[-1][0])
    rebuilder = Rebuilder(Lineage(shop.redis, keys), pool, drain.run_partition, keys.namespace)
    assert await rebuilder.run_once(shop.partition, over_gap=True)
    assert isinstance(await shop.refused("c1", a=1), errors.SaleNotFound)
    assert await shop.redis.exists(*keys.for_sale("sale")) == 0


async def test_a_late_report_of_a_gap_does_not_close_what_was_rebuilt(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, keys: Keys
) -> None:
    lineage = Lineage(shop.redis, keys)
    await shop.configure(a=10)
    rebuilder = Rebuilder(lineage, pool, drain.run_partition, keys.namespace)
    assert await rebuilder.run_once(shop.partition, over_gap=True)
    assert not await lineage.report_gap(shop.partition, epoch=1)
    await lineage.claim(shop.partition, "mine")
    assert not await lineage.report_gap(shop.partition, epoch=2)
    assert not await lineage.report_gap(shop.partition, token="another")
    assert await lineage.report_gap(shop.partition, token="mine")
