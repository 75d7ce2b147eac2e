"""A Redis that hangs, is slow, full, read-only or restarts: bounded waiting, honest errors, back by itself.

Each test has a server of its own to break.
"""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import httpx
import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.keys import Keys
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action
from app.workers.runner import build_keeper
from tests.http.conftest import STOREFRONT_KEY, Api, assert_problem, cart
from tests.redis_server import RedisServer, redis_server

TIMEOUT_SECONDS = 0.6
CONNECTIONS = 8
REDUCED = {"redis_timeout_seconds": TIMEOUT_SECONDS, "redis_connections": CONNECTIONS, "partitions": 2}
MARGIN_SECONDS = 1.0
"""What hundreds of requests of one test process take by themselves, on a machine that does other things."""


@pytest.fixture
async def store() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, store: RedisServer) -> Settings:
    return settings.model_copy(update={"redis_url": store.url} | REDUCED)


async def answer(api: Api, method: str, path: str, key: str = "") -> tuple[str, str, float]:
    """Method, code or status, and seconds of a call on a connection of its own; httpx is slow with many."""
    body = orjson.dumps(cart(key, a=1)) if method == "POST" else b""
    head = (
        f"{method} /v1/sales/big/reservations{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {STOREFRONT_KEY}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key or 'none'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(*api.url.removeprefix("http://").split(":"))
    writer.write(head.encode() + body)
    received = (await reader.read()).decode()
    took = time.monotonic() - started
    writer.close()
    status, (headers, _, content) = received[9:12], received.partition("\r\n\r\n")
    if status != "503":
        return method, status, took
    assert "\r\nretry-after: " in headers
    return method, orjson.loads(content)["code"], took


async def rush(api: Api, holds: int, others: int) -> list[tuple[str, str, float]]:
    """Holds with keys, and as many releases and reads of a reservation that is not there, all at once."""
    path = f"/res_{'0' * 26}"
    calls = [answer(api, "POST", "", f"c{i}") for i in range(holds)]
    calls += [answer(api, method, path) for _ in range(others) for method in ("DELETE", "GET")]
    return await asyncio.gather(*calls)


async def until_it_works(api: Api, key: str = "again") -> httpx.Response:
    """The answer of a hold that is tried until it is given; nothing else may be told than that it was not."""
    async with asyncio.timeout(15):
        while (response := await api.reserve(key=key)).status_code != 201:
            assert_problem(response, 503, "store_unavailable")
            await asyncio.sleep(0.02)
    return response


def living_tasks() -> int:
    return sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())


async def settled_tasks(most: int) -> int:
    """How many tasks live, once no more than `most` do, or after a while."""
    for _ in range(100):
        if (count := living_tasks()) <= most:
            break
        await asyncio.sleep(0.02)
    return count


async def test_a_hung_redis_under_load_is_answered_in_time_and_leaves_nothing_behind(
    shop: Api, store: RedisServer
) -> None:
    await shop.sale("big", a=1000)
    assert {code for _, code, _ in await rush(shop, 100, 60)} == {"201", "404"}
    connections, tasks = len(await store.client.client_list()), living_tasks()
    with store.paused():
        first = await rush(shop, 100, 60)
        second = await rush(shop, 100, 60)
        resumed_at = time.monotonic()
    await until_it_works(shop)
    assert time.monotonic() - resumed_at < 1 + MARGIN_SECONDS
    assert max(seconds for *_, seconds in first) < TIMEOUT_SECONDS + MARGIN_SECONDS
    told = Counter((method, code) for method, code, _ in first)
    # Only what was sent may have happened: a call for each connection.
    assert told["POST", "outcome_unknown"] + told["DELETE", "outcome_unknown"] > 0
    assert told["DELETE", "outcome_unknown"] <= CONNECTIONS
    assert told["GET", "store_unavailable"] == 60
    assert sum(told[method, "store_unavailable"] for method in ("POST", "DELETE")) >= 60 - CONNECTIONS
    assert {code for _, code, _ in second} == {"store_unavailable"}
    assert len(await store.client.client_list()) <= connections
    assert await settled_tasks(tasks) <= tasks
    retried = await rush(shop, 100, 0)
    assert {code for _, code, _ in retried} == {"201"}
    stock = (await shop.admin("GET", "/big/stock")).json()["items"][0]
    assert (stock["available"], stock["held"]) == (900, 100)


@pytest.mark.parametrize("what", ["ALL", "WRITE"])
async def test_a_slow_redis_is_asked_again_when_it_answers(shop: Api, store: RedisServer, what: str) -> None:
    """Also one that only keeps scripts waiting, as during a failover."""
    await store.client.client_pause(1500, all=what == "ALL")
    assert_problem(await shop.reserve(key="k"), 503, "outcome_unknown")
    started = time.monotonic()
    for _ in range(20):
        assert_problem(await shop.reserve(key="k"), 503, "store_unavailable")
    assert time.monotonic() - started < TIMEOUT_SECONDS
    assert (await shop.call("GET", "/readyz", by=None)).status_code == 503
    settled = await until_it_works(shop, "k")
    stock = (await shop.admin("GET", "/sale/stock")).json()["items"][0]
    assert (settled.status_code, stock["held"]) == (201, 1)


async def is_busy(redis: Redis) -> bool:
    try:
        await redis.ping()
    except RedisError as error:
        return "BUSY" in str(error)
    return False


async def test_a_script_of_somebody_else_that_does_not_end_is_answered_at_once(
    shop: Api, store: RedisServer
) -> None:
    await store.client.config_set("busy-reply-threshold", 10)
    endless = Redis.from_url(store.url)
    running = asyncio.ensure_future(endless.eval("while true do end", 0))
    async with asyncio.timeout(5):
        while not await is_busy(store.client):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    problem = assert_problem(await shop.reserve(), 503, "store_unavailable")
    assert "nothing was changed" in problem["detail"]
    await store.client.script_kill()
    with pytest.raises(RedisError, match="killed"):
        await running
    assert (await shop.reserve()).status_code == 201
    await endless.aclose()


async def test_a_full_redis_takes_payments_and_gives_no_new_holds(shop: Api, store: RedisServer) -> None:
    hold, other = await shop.hold("ada"), await shop.hold("bob")
    used = (await store.client.info("memory"))["used_memory"]
    for most, code in ((used / 0.9, "overloaded"), (used / 2, "store_unavailable")):
        await store.client.config_set("maxmemory", int(most))
        await asyncio.sleep(0.3)  # room is believed in for 250 ms
        for _ in range(3):
            assert_problem(await shop.reserve(), 503, code)
    assert (await shop.confirm(hold)).status_code == 202
    path = f"/v1/sales/sale/reservations/{other['id']}"
    assert (await shop.call("POST", f"{path}/extend", {"seconds": 100})).status_code == 200
    assert (await shop.call("DELETE", path)).status_code == 200
    assert (await shop.admin("GET", "/sale/stock")).json()["items"][0] == {
        "sku": "a", "allocated": 5, "available": 4, "held": 0, "sold": 1
    }  # fmt: skip
    await store.client.config_set("maxmemory", 0)
    assert (await shop.reserve()).status_code == 201


async def test_a_redis_that_cannot_write_its_snapshot_is_store_unavailable(
    shop: Api, store: RedisServer
) -> None:
    """MISCONF: it refuses writes until the disk is well again."""
    obstacle = store.folder / "dump.rdb"
    obstacle.mkdir()
    await store.client.config_set("save", "3600 1")
    await snapshot(store, "err")
    assert_problem(await shop.reserve(), 503, "store_unavailable")
    obstacle.rmdir()
    await snapshot(store, "ok")
    assert (await shop.reserve()).status_code == 201


async def snapshot(store: RedisServer, outcome: str) -> None:
    await store.client.bgsave()
    async with asyncio.timeout(10):
        while True:
            info = await store.client.info("persistence")
            if not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] == outcome:
                return
            await asyncio.sleep(0.01)


async def test_a_read_only_redis_is_store_unavailable_and_rebuilding_once_it_is_promoted(
    shop: Api, store: RedisServer, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings
) -> None:
    await store.client.replicaof("127.0.0.1", "1")
    for _ in range(3):
        assert_problem(await shop.reserve(), 503, "store_unavailable")
    await store.client.replicaof("NO", "ONE")
    assert_problem(await shop.reserve(), 503, "sale_rebuilding")
    keeper = build_keeper(redis, pool, keys, Drain(redis, pool, keys, settings))
    assert {await keeper.run_once(partition) for partition in range(2)} == {Action.ADOPTED}
    assert (await shop.reserve()).status_code == 201


async def rewrite(store: RedisServer) -> None:
    """Makes its file one that is loaded key by key."""
    await store.client.bgrewriteaof()
    async with asyncio.timeout(10):
        while (await store.client.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_redis_that_stops_and_starts_again_is_refused_until_a_worker_has_looked(
    shop: Api, store: RedisServer, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings
) -> None:
    hold = await shop.hold()
    await store.client.mset({f"much to load {i}": os.urandom(2048) for i in range(50)})
    await rewrite(store)
    store.kill()
    started = time.monotonic()
    for _ in range(20):
        assert_problem(await shop.reserve(), 503, "store_unavailable")
    assert time.monotonic() - started < MARGIN_SECONDS
    await store.start(key_load_delay="20000", loading_process_events_interval_bytes="1024")
    codes = []
    async with asyncio.timeout(15):
        while (response := await shop.reserve()).json()["code"] != "sale_rebuilding":
            codes.append(response.json()["code"])
            await asyncio.sleep(0.02)
    assert set(codes) == {"store_unavailable"}
    keeper = build_keeper(redis, pool, keys, Drain(redis, pool, keys, settings))
    assert {await keeper.run_once(partition) for partition in range(2)} == {Action.ADOPTED}
    path = f"/v1/sales/sale/reservations/{hold['id']}"
    found = await shop.call("GET", path, by=STOREFRONT_KEY)
    assert found.json()["status"] == "held"
    assert (await shop.reserve()).status_code == 201
