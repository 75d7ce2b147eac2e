"""A replica takes the primary's place without its last writes: nothing is given on the stale state, the sale
opens by itself, and what Postgres has is there again."""

import itertools

import asyncpg
import pytest

from app import errors
from app.inventory import Inventory
from app.keys import Keys
from app.reserving import Reserved
from app.settings import Settings
from app.workers.keeper import Action
from tests.integration.stage import Stage, open_stage
from tests.redis_pair import RedisPair


@pytest.fixture
def settings(settings: Settings, pair: RedisPair) -> Settings:
    return settings.model_copy(update={"redis_url": pair.url, "partitions": 1})


async def test_what_postgres_has_is_there_again(stage: Stage) -> None:
    lost = await stage.lost_hold("ada", "key", 2)
    await stage.drain.run_partition(0)
    await stage.fail_over()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.REBUILT
    for shop in (stage.witness, stage.stranger):
        replay = await shop.reserve("ada", "key", a=2)
        assert isinstance(replay, Reserved)
        assert (replay.replayed, replay.reservation) == (True, lost)
    await stage.holds_what_it_should(stage.early, lost)


async def test_only_what_neither_the_replica_nor_postgres_has_is_lost(stage: Stage) -> None:
    """And a retry with its key gets a hold, not an answer about one that is gone."""
    lost = await stage.lost_hold("ada", "key", 2)
    await stage.fail_over()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    for shop in (stage.witness, stage.stranger):
        with pytest.raises(errors.ReservationNotFound):
            await shop.confirm(lost)
    again = await stage.witness.reserve("ada", "key", a=2)
    assert isinstance(again, Reserved)
    assert (again.replayed, again.reservation.hold_id) == (False, lost.hold_id)
    await stage.holds_what_it_should(stage.early, again.reservation)


async def test_of_what_the_replica_lacks_the_drained_part_is_there_again(stage: Stage) -> None:
    kept = await stage.lost_hold("ada", "key", 2)
    await stage.drain.run_partition(0)
    lost = await stage.witness.hold("bob", a=3)
    await stage.fail_over()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.REBUILT
    assert await stage.stranger.inventory.reservation("sale", lost.hold_id) is None
    await stage.holds_what_it_should(stage.early, kept)


@pytest.mark.parametrize("drained", [False, True])
async def test_time_never_runs_backwards(stage: Stage, drained: bool) -> None:
    """The promoted host's clock is five minutes behind the dead one's. Both run on this machine, so the dead
    one's is moved ahead: a script compares its own clock with the time that was last used, and cannot tell
    which of them is wrong."""
    await stage.stranger.wait(300)
    first = await stage.stranger.hold("first", a=1)
    await stage.drain.run_partition(0)
    await stage.pair.replica.follow(stage.pair.primary)
    expected = [stage.early, first]
    if drained:
        await stage.stranger.wait(5)
        expected.append(await stage.lost_hold("ada", "key", 1))
        await stage.drain.run_partition(0)
    await stage.fail_over()
    assert await stage.keeper.run_once(0) is (Action.REBUILT if drained else Action.ADOPTED)
    expected.append(await stage.stranger.hold("second", a=1))
    for sooner, later in itertools.pairwise(expected):
        assert sooner.created_at <= later.created_at
        assert sooner.expires_at <= later.expires_at
    assert (await stage.witness.sale()).server_time >= expected[-1].created_at
    await stage.holds_what_it_should(*expected)


@pytest.mark.parametrize("disaster", ["flushed", "disk lost"])
async def test_an_emptied_redis_is_rebuilt(stage: Stage, disaster: str) -> None:
    bought = await stage.witness.hold("ada", a=2)
    await stage.drain.run_partition(0)
    primary = stage.pair.primary
    if disaster == "flushed":
        await primary.client.flushall()
    else:
        primary.kill()
        primary.lose_data()
        await primary.start()
        await stage.reconnect()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.REBUILT
    await stage.holds_what_it_should(stage.early, bought)


async def test_a_restart_loses_nothing_drained_or_not(stage: Stage) -> None:
    bought = await stage.witness.hold("ada", a=2)
    stage.pair.primary.kill()
    await stage.pair.primary.start()
    await stage.reconnect()
    await stage.refuses_everybody()
    assert await stage.keeper.run_once(0) is Action.ADOPTED
    await stage.holds_what_it_should(stage.early, bought)


@pytest.mark.parametrize("fault", ["paused", "cut"])
async def test_with_replica_acks_nothing_acknowledged_is_lost(
    pair: RedisPair, settings: Settings, pool: asyncpg.Pool, keys: Keys, fault: str
) -> None:
    """And what was not has one effect, once the caller has asked again."""
    acks = settings.model_copy(update={"replica_acks": 1, "replica_timeout_seconds": 0.3})
    async with open_stage(pair, settings, pool, keys) as stage:
        for shop in (stage.witness, stage.stranger):
            shop.inventory = Inventory(shop.redis, keys, acks)
        acknowledged = await stage.witness.hold("ada", "ada", a=2)
        if fault == "paused":
            pair.replica.pause()
        else:
            await pair.replica.cut()
        assert isinstance(await stage.witness.refused("bob", "bob", a=1), errors.OutcomeUnknown)
        with pytest.raises(errors.OutcomeUnknown):
            await stage.witness.confirm(acknowledged)
        await stage.fail_over()
        await pair.primary.start()
        await pair.primary.follow(pair.replica)
        await stage.refuses_everybody()
        assert await stage.keeper.run_once(0) is Action.ADOPTED
        for shop in (stage.witness, stage.stranger):
            settled = await shop.hold("bob", "bob", a=1)
            order = await shop.confirm(acknowledged)
        await stage.holds_what_it_should(stage.early, order, settled)
