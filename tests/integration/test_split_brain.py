"""Two servers that were the primary at some time, and workers and API processes on either: Postgres' position
decides which one goes on, and the other is closed."""

import asyncio

import asyncpg
import pytest

from app import errors
from app.lineage import Lineage
from app.models import JournalId
from app.progress import DrainProgress
from app.rebuild import Rebuilder
from app.settings import Settings
from app.workers.drain import Outcome
from app.workers.keeper import Action, Keeper
from tests.integration.stage import Stage
from tests.redis_pair import RedisPair, drop_connections


@pytest.fixture
def settings(settings: Settings, pair: RedisPair) -> Settings:
    return settings.model_copy(update={"redis_url": pair.url, "partitions": 1})


async def promote_beside(stage: Stage) -> None:
    """The replica is promoted though the primary lives; the worker and `witness` follow the new address."""
    await stage.pair.replica.promote()
    stage.pair.point_at(stage.pair.replica)
    for redis in (stage.witness.redis, stage.drain._redis):
        await drop_connections(redis)


async def test_a_primary_that_was_left_behind_is_closed_by_those_who_still_sell_there(stage: Stage) -> None:
    await stage.pair.replica.cut()
    await promote_beside(stage)
    async with DrainProgress(stage.pool, stage.stranger.inventory.saw) as progress:
        await progress.listening()
        stray = await stage.stranger.hold("ada", a=2)  # nobody there can know
        assert await stage.keeper.run_once(0) is Action.ADOPTED
        assert await progress.wait(0, await stage.position(), 3)  # less than until it looks by itself
        assert isinstance(await stage.stranger.refused("eve", a=1), errors.SaleRebuilding)
    drain, keeper = stage.worker_on(stage.pair.primary)
    assert (await drain.run_once(0)).outcome is Outcome.IDLE
    for expected in (Action.BUSY, Action.GAP):
        assert await keeper.run_once(0) is expected
    assert await stage.keeper.run_once(0) is Action.NONE
    await drop_connections(stage.stranger.redis)
    assert await stage.stranger.inventory.reservation("sale", stray.hold_id) is None
    await stage.holds_what_it_should(stage.early)


async def waiting_for_locks(pool: asyncpg.Pool, sessions: int) -> None:
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()"""
    async with asyncio.timeout(20):
        while await pool.fetchval(query) < sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_drain_that_still_commits_what_it_read_from_the_old_primary_leaves_no_gap(
    stage: Stage, pool: asyncpg.Pool
) -> None:
    """It has read more than the promoted replica has, and commits when that is about to be adopted."""
    read = await stage.lost_hold("ada", "key", 2)
    await promote_beside(stage)
    stale, _ = stage.worker_on(stage.pair.primary)
    tasks: list[asyncio.Task[object]] = []

    async def drain(partition: int) -> bool:
        drained = await stage.drain.run_partition(partition)
        if tasks or not await stage.drain._redis.hexists(stage.keys.meta(0), "token"):
            return drained
        tasks.append(asyncio.create_task(stale.run_once(partition)))
        await waiting_for_locks(pool, 1)
        return drained

    lineage = Lineage(stage.drain._redis, stage.keys)
    keeper = Keeper(lineage, pool, Rebuilder(lineage, pool, drain, stage.keys.namespace))
    async with pool.acquire() as database, database.transaction():
        await database.execute("LOCK TABLE outbox IN SHARE MODE")  # here the drain waits, its entries in hand
        opening = asyncio.create_task(keeper.run_once(0))
        await waiting_for_locks(pool, 2)
    assert await opening is Action.REBUILT
    await tasks[0]
    await drop_connections(stage.stranger.redis)
    await stage.holds_what_it_should(stage.early, read)


async def test_a_drain_of_the_old_primary_comes_too_late_once_the_replica_is_opened(stage: Stage) -> None:
    await stage.lost_hold("ada", "key", 2)
    await promote_beside(stage)
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    stale, _ = stage.worker_on(stage.pair.primary)
    position = await stage.position()
    assert (await stale.run_once(0)).outcome is Outcome.IDLE
    assert await stage.position() == position
    await drop_connections(stage.stranger.redis)
    await stage.holds_what_it_should(stage.early)


async def test_an_old_primary_that_comes_back_is_rebuilt_where_it_knows_nothing_more(stage: Stage) -> None:
    """The address leads to it again, and its state is from before the failover."""
    await stage.fail_over()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    later = await stage.witness.hold("ada", a=2)
    await stage.drain.run_partition(0)
    await stage.pair.primary.start()
    stage.pair.point_at(stage.pair.primary)
    await stage.reconnect()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.REBUILT
    await stage.holds_what_it_should(stage.early, later)


async def test_an_old_primary_that_knows_more_stays_closed_until_a_person_decides(stage: Stage) -> None:
    """It has acknowledged a hold that nobody else has; the promoted replica has sold since."""
    lost = await stage.lost_hold("ada", "key", 2)
    await stage.fail_over()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    later = await stage.witness.hold("bob", a=2)
    await stage.pair.primary.start()
    stage.pair.point_at(stage.pair.primary)
    await stage.reconnect()
    await stage.refuses_everybody()
    for expected in (Action.BUSY, Action.GAP):
        assert await stage.keeper.run_once(0) is expected
    assert await stage.pair.primary.client.hexists(stage.keys.for_sale("sale")[2], lost.hold_id)
    stage.pair.point_at(stage.pair.replica)
    await stage.reconnect()
    assert await stage.keeper.run_once(0) is Action.NONE
    await stage.holds_what_it_should(stage.early, later)


async def test_servers_that_are_promoted_at_the_same_place_get_epochs_of_their_own(stage: Stage) -> None:
    """Else an entry of one could follow an entry of the other."""
    await stage.fail_over()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    await stage.stranger.hold("ada", a=1)
    await stage.stranger.hold("bob", a=1)  # neither is drained, and the old primary comes back
    await stage.pair.primary.start()
    stage.pair.point_at(stage.pair.primary)
    await stage.reconnect()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    later = await stage.witness.hold("eve", a=1)
    await stage.drain.run_partition(0)
    assert await stage.position() == JournalId(3, 2)
    stale, _ = stage.worker_on(stage.pair.replica)
    assert (await stale.run_once(0)).outcome is Outcome.IDLE
    await stage.holds_what_it_should(stage.early, later)


class DyingBeforeTheOpening(Lineage):
    async def reopen(self, *_: object) -> None:
        raise errors.StoreUnavailable()


async def test_an_opening_that_ended_between_the_stores_is_done_again(
    stage: Stage, pool: asyncpg.Pool
) -> None:
    """Postgres has given out an epoch that no server uses: the next one continues the same entry."""
    bought = await stage.witness.hold("ada", a=2)
    await stage.pair.replica.follow(stage.pair.primary)
    await stage.fail_over()
    lineage = DyingBeforeTheOpening(stage.drain._redis, stage.keys)
    dying = Keeper(lineage, pool, Rebuilder(lineage, pool, stage.drain.run_partition, stage.keys.namespace))
    with pytest.raises(errors.StoreUnavailable):
        await dying.run_once(0)
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.REBUILT
    assert await stage.position() == JournalId(3, 1)
    await stage.holds_what_it_should(stage.early, bought)
