"""HOLDFAST_REPLICA_ACKS: what is acknowledged is on a replica, replays included."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app import errors
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.preflight import check_redis
from app.scripts import connect
from app.settings import Settings
from tests.redis_pair import RedisPair, drop_connections
from tests.shop import Shop

PATIENT, HASTY = 10.0, 0.01


@pytest.fixture
def settings(settings: Settings, pair: RedisPair) -> Settings:
    return settings.model_copy(
        update={"redis_url": pair.url, "replica_acks": 1, "replica_timeout_seconds": PATIENT}
    )


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)


@pytest.fixture
def hasty(redis: Redis, keys: Keys, settings: Settings, lineage: Lineage) -> Shop:
    """The same sale, by a process that gives a replica next to no time."""
    little = settings.model_copy(update={"replica_timeout_seconds": HASTY})
    return Shop(Inventory(redis, keys, little), redis)


Call = Callable[[Shop], Awaitable[object]]


async def replays(shop: Shop) -> dict[str, Call]:
    """Everything that changes something is done once; the calls here do it again."""
    await shop.configure(a=100, b=1)
    inventory = shop.inventory
    bought, back, cancelled = [await shop.hold(name, a=1) for name in ("bought", "back", "cancelled")]
    expired = await shop.hold("expired", b=1)
    await shop.confirm(bought)
    await shop.confirm(cancelled)
    await inventory.release("sale", back.hold_id)
    await inventory.cancel("sale", cancelled.hold_id, True, None)
    await inventory.restock("sale", "a", 1, "k" * 24, "d", None)
    await inventory.withdraw("sale", "a", 1, "w" * 24, "d", None)
    await shop.wait(61)
    await shop.sweep(expired)
    await shop.hold("taker", b=1)
    with pytest.raises(errors.ReservationExpired):
        await shop.confirm(expired)
    living = await shop.hold("living", "key", a=1)
    await inventory.extend("sale", living.hold_id, 100)
    await inventory.steer("sale", "paused")
    return {
        "hold": lambda by: by.reserve("living", "key", a=1),
        "order": lambda by: by.confirm(bought),
        "refund": lambda by: by.confirm(expired),
        "release": lambda by: by.inventory.release("sale", back.hold_id),
        "extension": lambda by: by.inventory.extend("sale", living.hold_id, 50),
        "cancellation": lambda by: by.inventory.cancel("sale", cancelled.hold_id, True, None),
        "restock": lambda by: by.inventory.restock("sale", "a", 1, "k" * 24, "d", None),
        "withdrawal": lambda by: by.inventory.withdraw("sale", "a", 1, "w" * 24, "d", None),
        "pause": lambda by: by.inventory.steer("sale", "paused"),
    }


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the code of the error."""
    try:
        answer = await call
    except errors.HoldfastError as error:
        return error.code
    return answer.code if isinstance(answer, errors.HoldfastError) else "ok"


async def test_without_the_replica_nothing_is_acknowledged_and_a_retry_settles_it(
    shop: Shop, hasty: Shop, pair: RedisPair
) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("first", a=1)
    await pair.replica.cut()
    assert await outcome(hasty.reserve("c1", "key", a=1)) == "outcome_unknown"
    assert await outcome(hasty.confirm(hold)) == "outcome_unknown"
    await pair.replica.follow(pair.primary)
    assert (await shop.hold("c1", "key", a=1)).customer_id == "c1"
    assert (await shop.confirm(hold)).order is not None
    assert await shop.stock() == {"a": (10, 8, 1, 1)}


async def test_a_replay_waits_for_the_replica_as_well(
    shop: Shop, hasty: Shop, redis: Redis, pair: RedisPair
) -> None:
    """It writes nothing, but what it tells may be on the primary alone."""
    calls = await replays(shop)
    journal = await shop.journal()
    pair.replica.pause()
    found = {}
    for name, call in calls.items():
        await drop_connections(redis)  # on one that has written nothing, WAIT has nothing to wait for
        found[name] = await outcome(call(hasty))
    assert found == dict.fromkeys(calls, "outcome_unknown")
    pair.replica.resume()
    assert {name: await outcome(call(shop)) for name, call in calls.items()} == {
        **dict.fromkeys(calls, "ok"),
        "refund": "reservation_expired",
    }
    assert await shop.journal() == journal


async def test_reads_do_not_wait(shop: Shop, hasty: Shop, pair: RedisPair) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    pair.replica.pause()
    assert (await hasty.inventory.reservation("sale", hold.hold_id)) == hold
    assert await hasty.stock() == {"a": (10, 9, 1, 0)}


async def test_a_closed_partition_is_rebuilding_with_and_without_a_replica(
    shop: Shop, hasty: Shop, pair: RedisPair
) -> None:
    """Nothing was changed, so nothing needs to be on a replica."""
    await shop.configure(a=10)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "state", "closed")
    assert await outcome(shop.reserve("c1", a=1)) == "sale_rebuilding"
    await pair.replica.cut()
    assert await outcome(hasty.reserve("c1", a=1)) == "sale_rebuilding"
    await pair.primary.client.flushall()
    assert await outcome(hasty.reserve("c1", a=1)) == "sale_rebuilding"
    assert await pair.primary.client.dbsize() == 0


async def test_one_wait_serves_a_batch(shop: Shop, redis: Redis) -> None:
    await shop.configure(a=100)
    before = await redis.info("commandstats")
    await asyncio.gather(*(shop.hold(f"c{i}", a=1) for i in range(100)))
    after = await redis.info("commandstats")
    waits, scripts = [
        after[name]["calls"] - before[name]["calls"] for name in ("cmdstat_wait", "cmdstat_evalsha")
    ]
    assert waits == scripts <= 5


async def test_orders_are_acknowledged_while_memory_is_short(shop: Shop, redis: Redis) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await redis.config_set("maxmemory", "1mb")
    assert await outcome(shop.reserve("c2", a=1)) == "store_unavailable"
    for _ in range(2):
        assert (await shop.confirm(hold)).order is not None


async def test_scripts_that_the_server_has_forgotten_are_loaded_again(shop: Shop, redis: Redis) -> None:
    await shop.configure(a=10)
    await redis.script_flush()
    hold = await shop.hold("c1", a=1)
    assert (await shop.confirm(hold)).order is not None
    assert await shop.stock() == {"a": (10, 9, 0, 1)}


async def test_too_few_replicas_are_told_at_the_start(
    redis: Redis, settings: Settings, pair: RedisPair
) -> None:
    with capture_logs() as logs:
        await check_redis(redis, settings)
        await check_redis(redis, settings.model_copy(update={"replica_acks": 2}))
    assert [(line["log_level"], line["connected"], line["wanted"]) for line in logs] == [("warning", 1, 2)]


async def test_no_answer_is_taken_for_the_one_of_a_call_before_it(
    settings: Settings, lineage: Lineage, keys: Keys, pair: RedisPair
) -> None:
    """A connection on which a primary that hung owes answers is not used again."""
    hurried = settings.model_copy(
        update={"redis_timeout_seconds": 0.2, "replica_timeout_seconds": 1.0, "redis_connections": 2}
    )
    async with connect(hurried) as redis:
        shop = Shop(Inventory(redis, keys, hurried), redis)
        await shop.configure(a=10)
        first, second = await shop.hold("first", a=1), await shop.hold("second", a=1)
        pair.primary.pause()
        assert await outcome(shop.confirm(first)) == "outcome_unknown"
        assert not any(
            connection.is_connected for connection in redis.connection_pool._get_free_connections()
        )
        pair.primary.resume()
        while (answered := await outcome(shop.confirm(second, "another"))) != "ok":
            assert answered == "store_unavailable"
            await asyncio.sleep(0.01)
        assert (await shop.confirm(second, "another")).hold_id == second.hold_id
