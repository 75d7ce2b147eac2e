"""The breaker before Redis: who waits, for how long, and who is told at once."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.errors import HoldfastError, OutcomeUnknown, Overloaded, StoreUnavailable
from app.scripts import Scripts, connect
from app.settings import Settings
from tests.redis_server import RedisServer, until

TIMEOUT_SECONDS = 0.3
CONNECTIONS = 2
Call = Callable[[], Any]


@pytest.fixture
async def redis(store: RedisServer) -> AsyncIterator[Redis]:
    settings = Settings(
        redis_url=store.url, redis_timeout_seconds=TIMEOUT_SECONDS, redis_connections=CONNECTIONS
    )
    client = connect(settings)
    yield client
    await client.aclose()


@pytest.fixture
async def call(redis: Redis) -> Call:
    """One call of a script that writes; the server knows it, and has nothing for it to change."""
    scripts = Scripts(redis)

    async def run() -> str:
        try:
            return str((await scripts.run("release", list("abcdefgh"), ["0-0", "sale", "hold"]))[0])
        except HoldfastError as error:
            return error.code

    assert await many(run, 10) == {"rebuilding": 10}
    return run


async def many(call: Call, times: int) -> Counter[str]:
    return Counter(await asyncio.gather(*(call() for _ in range(times))))


async def until_answered(call: Call) -> float:
    """Seconds until a call gets through."""
    started = time.monotonic()
    async with asyncio.timeout(10):
        while (word := await call()) != "rebuilding":
            assert word in (StoreUnavailable.code, OutcomeUnknown.code)
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_only_those_who_were_sent_may_have_changed_something(store: RedisServer, call: Call) -> None:
    """The others wait for a connection, and are told when the first answer stays away."""
    with store.paused():
        started = time.monotonic()
        words = await many(call, 10)
        assert time.monotonic() - started < TIMEOUT_SECONDS * 2
    assert words == {OutcomeUnknown.code: CONNECTIONS, StoreUnavailable.code: 10 - CONNECTIONS}


async def test_who_waits_is_told_as_soon_as_the_first_answer_stays_away(
    store: RedisServer, call: Call
) -> None:
    with store.paused():
        sent = asyncio.create_task(many(call, CONNECTIONS))
        await asyncio.sleep(TIMEOUT_SECONDS * 0.8)
        started = time.monotonic()
        assert await many(call, 5) == {StoreUnavailable.code: 5}
        assert time.monotonic() - started < TIMEOUT_SECONDS * 0.8
        await sent


async def test_a_store_that_is_known_to_be_away_is_not_waited_for(store: RedisServer, call: Call) -> None:
    with store.paused():
        assert await call() == OutcomeUnknown.code
        started = time.monotonic()
        assert await many(call, 500) == {StoreUnavailable.code: 500}
        assert time.monotonic() - started < TIMEOUT_SECONDS
    assert await until_answered(call) < 1


async def test_a_server_that_starts_again_is_found_within_a_second(store: RedisServer, call: Call) -> None:
    store.kill()
    killed = time.monotonic()
    while time.monotonic() - killed < 1:  # probes have become rare by then
        assert await call() != "rebuilding"
        await asyncio.sleep(0.05)
    await store.start()
    assert await until_answered(call) < 1


async def test_one_slow_answer_closes_no_door(store: RedisServer, call: Call) -> None:
    await store.client.client_pause(int(TIMEOUT_SECONDS * 1000) + 20)
    assert await call() == OutcomeUnknown.code
    assert await until_answered(call) < 0.25


async def test_a_broken_connection_is_no_outage(store: RedisServer, call: Call) -> None:
    await store.client.client_kill_filter(_type="normal", skipme=True)
    assert await until_answered(call) < 0.25


async def test_too_many_who_wait_for_a_connection_are_refused(store: RedisServer, call: Call) -> None:
    waiting = CONNECTIONS * 16
    with store.paused():
        words = await many(call, CONNECTIONS + waiting + 7)
    assert words == {OutcomeUnknown.code: CONNECTIONS, StoreUnavailable.code: waiting, Overloaded.code: 7}


async def test_errors_that_come_at_once_are_told_as_they_are(store: RedisServer, call: Call) -> None:
    await store.client.config_set("maxmemory", 1)
    assert await call() == "rebuilding"  # this script may run when memory is short
    await store.client.replicaof("127.0.0.1", "1")
    assert await call() == StoreUnavailable.code
    await store.client.replicaof("NO", "ONE")
    assert await call() == "rebuilding"


async def test_an_error_as_the_answer_ends_an_outage(store: RedisServer, redis: Redis, call: Call) -> None:
    """A script that takes too long: nothing is answered at first, then that the server is busy."""
    await store.client.config_set("lua-time-limit", int(TIMEOUT_SECONDS * 3000))
    running = asyncio.gather(store.client.eval("while true do end", 0))
    while (word := await call()) == "rebuilding":
        pass
    assert word == OutcomeUnknown.code
    pool: Any = redis.connection_pool
    assert pool.is_away

    async def is_back() -> bool:
        return not pool.is_away

    await until(is_back)
    assert await call() == StoreUnavailable.code
    await store.client.script_kill()
    with pytest.raises(ResponseError):
        await running
    assert await call() == "rebuilding"


async def test_a_server_that_forgot_its_scripts_and_hangs_has_changed_nothing(
    store: RedisServer, redis: Redis
) -> None:
    """It says that it has no such script, so nothing ran, whatever becomes of loading it."""
    scripts = Scripts(redis)
    loading = asyncio.Event()
    load = scripts._load

    async def load_while_it_hangs(pool: Any, connection: Any, name: str) -> None:
        loading.set()
        with store.paused():
            await load(pool, connection, name)

    scripts._load = load_while_it_hangs  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await scripts.run("release", list("abcdefgh"), ["0-0", "sale", "hold"])
    assert loading.is_set()


async def test_closing_ends_the_probe(store: RedisServer, redis: Redis, call: Call) -> None:
    before = asyncio.all_tasks()
    with store.paused():
        assert await call() == OutcomeUnknown.code
        assert len(asyncio.all_tasks() - before) == 1
        await redis.aclose()
        assert asyncio.all_tasks() == before


async def test_closing_ends_a_probe_whose_cancellation_was_swallowed(
    call: Call, redis: Redis, store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Any = redis.connection_pool.__class__
    probing = asyncio.Event()

    async def swallow(_pool: Any) -> bool:
        """As the client does where it is cancelled at the moment at which its write ends."""
        probing.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return False

    monkeypatch.setattr(pool, "_is_answered", swallow)
    redis.connection_pool.report_lost()  # type: ignore[attr-defined]
    await probing.wait()
    async with asyncio.timeout(5):
        await redis.aclose()
