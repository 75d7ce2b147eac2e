"""What a hold costs, in counts that are the same on every machine: a guard against what nobody would time.

Each bound of calls is what was counted (150, 147 and 112), and a tenth more. Who passes one on purpose raises
it, and says why.
"""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.http.auth import Authenticator
from app.http.hotpath import Answer
from app.http.plain import PlainRequests, read_plain
from app.http.services import Services
from app.lineage import Lineage
from app.main import open_services
from app.settings import Settings
from tests.http.conftest import STOREFRONT_KEY
from tests.http.test_connections import request
from tests.shop import Shop

BATCH = 64
TOKEN = f"Authorization: Bearer {STOREFRONT_KEY}\r\n"


@pytest.fixture
async def services(settings: Settings, lineage: Lineage, pool: asyncpg.Pool) -> AsyncIterator[Services]:
    async with open_services(settings, Authenticator(settings)) as opened:
        yield opened


async def ask(plain_requests: PlainRequests, requests: list[bytes]) -> Counter[int]:
    """Their answers' statuses; all of them share a batch."""
    statuses: list[int] = []
    answered = asyncio.Event()

    def finish(answer: Answer | None, _common: bytes) -> None:
        assert answer is not None
        statuses.append(answer.status)
        if len(statuses) == len(requests):
            answered.set()

    for data in requests:
        plain = read_plain(data)
        assert plain is not None
        plain_requests.begin(plain, ("127.0.0.1", 1), finish)
    await asyncio.wait_for(answered.wait(), 5)
    return Counter(statuses)


def holds(sale_id: str, first: int, key: bool = True) -> list[bytes]:
    path = f"/v1/sales/{sale_id}/reservations"
    return [
        request(
            "POST",
            path,
            TOKEN + (f"Idempotency-Key: key-{number}\r\n" if key else ""),
            b'{"customer_id":"c%d","items":[{"sku":"a","quantity":1}]}' % number,
        )
        for number in range(first, first + BATCH)
    ]


@contextmanager
def counted_calls() -> Any:
    """Counts the calls of functions, Python's and C's, in this thread."""
    calls = Counter[str]()

    def count(_frame: Any, event: str, _argument: Any) -> None:
        if event in ("call", "c_call"):
            calls["all"] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def commands(redis: Redis) -> Counter[str]:
    """Calls by command, those of scripts included."""
    statistics = await redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): value["calls"] for name, value in statistics.items()})


@pytest.fixture
def shop(services: Services, redis: Redis) -> Shop:
    return Shop(services.inventory, redis)


async def test_a_batch_of_holds_is_one_round_trip_with_few_commands(
    services: Services, shop: Shop, redis: Redis
) -> None:
    await shop.configure(a=10_000)
    plain_requests = PlainRequests(services)
    await ask(plain_requests, holds("sale", 0))
    before = await commands(redis)
    assert await ask(plain_requests, holds("sale", 1000)) == {201: BATCH}
    spent = await commands(redis) - before
    spent.pop("info", None)  # the measurement's own, and two of the script's
    assert spent["evalsha"] == 1
    # XADD, HSET of meta, stock, holds and customers, HINCRBY, ZADD
    writes = {name: spent[name] for name in ("xadd", "hset", "hincrby", "zadd")}
    assert writes == {"xadd": 1, "hset": 4, "hincrby": 1, "zadd": 1}
    assert spent["hmget"] + spent["hget"] <= 5
    assert sum(spent.values()) <= 20


async def test_a_hold_takes_as_few_calls_as_it_did(services: Services, shop: Shop) -> None:
    await shop.configure(a=10_000)
    plain_requests = PlainRequests(services)
    for first in (0, 1000):
        await ask(plain_requests, holds("sale", first))
    with counted_calls() as calls:
        await ask(plain_requests, holds("sale", 2000))
    assert calls["all"] / BATCH <= 165


@pytest.mark.parametrize(("key", "most"), [(True, 162), (False, 123)])
async def test_a_sold_out_answer_takes_as_few_calls_as_it_did(
    services: Services, shop: Shop, key: bool, most: float
) -> None:
    await shop.configure(a=0)
    plain_requests = PlainRequests(services)
    for first in (0, 1000):
        await ask(plain_requests, holds("sale", first, key))
    with counted_calls() as calls:
        assert await ask(plain_requests, holds("sale", 2000, key)) == {409: BATCH}
    assert calls["all"] / BATCH <= most


async def test_a_batch_keeps_nothing_once_it_is_answered(services: Services, shop: Shop) -> None:
    await shop.configure(a=100_000)
    plain_requests = PlainRequests(services)

    async def blocks() -> int:
        for _ in range(5):
            await ask(plain_requests, holds("sale", numbers()))
        gc.collect()
        return sys.getallocatedblocks()

    numbers = iter(range(0, 100_000, BATCH)).__next__
    await blocks()
    before = await blocks()
    after = await blocks()
    # The loop keeps a batch's cancelled timers until they would have been due.
    assert (after - before) / (5 * BATCH) <= 1


async def test_refusals_do_not_look_for_room(services: Services, shop: Shop, redis: Redis) -> None:
    await shop.configure(a=0)
    plain_requests = PlainRequests(services)
    await ask(plain_requests, holds("sale", 0))
    before = await commands(redis)
    assert await ask(plain_requests, holds("sale", 1000)) == {409: BATCH}
    spent = await commands(redis) - before
    assert spent["evalsha"] == 1
    assert spent["memory|usage"] == spent["xlen"] == 0


async def test_a_shops_confirmation_is_plain_once_its_key_is_known(services: Services, shop: Shop) -> None:
    await shop.configure(a=10)
    hold, plain_requests = await shop.hold("c1", a=1), PlainRequests(services)
    path = f"/v1/sales/sale/reservations/res_{hold.hold_id}/confirm"
    confirmation = read_plain(request("POST", path, TOKEN, b'{"payment_reference":"pay"}'))
    assert confirmation is not None
    assert not plain_requests.takes(confirmation)
    await ask(plain_requests, holds("sale", 0)[:1])
    assert plain_requests.takes(confirmation)
