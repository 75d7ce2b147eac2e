"""More than can be served: new holds are refused early, and everything else gets through."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.confirming import Confirmation
from app.errors import HoldfastError, Overloaded
from app.http import gate
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.partition_calls import ScriptAnswer
from app.settings import Settings
from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, assert_problem, cart, serving
from tests.http.test_connections import (
    IN_CHUNKS,
    RESERVATIONS,
    TOKEN,
    connected,
    read_status,
    request,
    statuses,
)

LIMIT = 2
BODY = json.dumps(cart()).encode()
HOLD = request("POST", RESERVATIONS, TOKEN, BODY)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "queue_limit": LIMIT,
            "redis_timeout_seconds": 20.0,
            "body_timeout_seconds": 20.0,
            "batch_lines": 20,
        }
    )


class Rush:
    """A process with as many new holds under way as it takes, none of which Redis decides yet."""

    def __init__(self, shop: Api, redis: Redis) -> None:
        self.shop = shop
        self._redis = redis
        self.waiting: set[asyncio.Task[httpx.Response]] = set()

    async def hold_back(self) -> None:
        """Redis decides nothing until the end."""
        await self._redis.execute_command("CLIENT", "PAUSE", "60000", "WRITE")  # type: ignore[no-untyped-call]

    async def fill(self) -> httpx.Response:
        """The first refusal."""
        await self.hold_back()
        asked = {asyncio.create_task(self.shop.reserve(key=f"rush-{n}")) for n in range(LIMIT + 1)}
        refused, self.waiting = await asyncio.wait(asked, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert len(refused) == 1
        return refused.pop().result()

    async def end(self) -> list[int]:
        """The answers to those who waited, now that Redis goes on."""
        await self._redis.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
        return [response.status_code for response in await asyncio.gather(*self.waiting)]


@pytest.fixture
async def rush(shop: Api, redis: Redis) -> AsyncIterator[Rush]:
    rush = Rush(shop, redis)
    yield rush
    await rush.end()


async def counted(api: Api) -> float:
    """The refusals that the metrics know of."""
    text = (await api.call("GET", "/metrics", by=None)).text
    lines = [line for line in text.splitlines() if 'outcome="overloaded"' in line and "sale_id" in line]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


async def test_past_the_bound_new_holds_are_refused_and_payments_get_through(rush: Rush) -> None:
    shop = rush.shop
    hold = await shop.hold()
    before = await counted(shop)
    problem = assert_problem(await rush.fill(), 503, "overloaded")
    assert problem["detail"] == "Too many new holds are under way."
    assert await counted(shop) == before + 1
    payment = asyncio.create_task(shop.confirm(hold))
    release = asyncio.create_task(shop.call("DELETE", f"{RESERVATIONS}/res_{'0' * 26}"))
    for path in ("/livez", "/v1/admin/sales"):
        assert (await shop.call("GET", path, by=ADMIN_KEY)).status_code == 200
    assert_problem(await shop.reserve(key="late"), 503, "overloaded")
    assert await rush.end() == [201] * LIMIT
    assert (await payment).status_code in (200, 202)
    assert (await release).status_code == 404
    stock = (await shop.admin("GET", "/sale/stock")).json()["items"][0]
    assert (stock["held"], stock["sold"]) == (LIMIT, 1)


def confirmation(hold_id: str) -> bytes:
    return request("POST", f"{RESERVATIONS}/{hold_id}/confirm", TOKEN, b'{"payment_reference": "pay"}')


async def test_more_payments_may_wait_than_new_holds(rush: Rush) -> None:
    holds = [await rush.shop.hold(f"c{number}") for number in range(LIMIT + 2)]
    await rush.hold_back()
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(rush.shop)) for _ in (*holds, "behind them")]
        for _, writer in connections:
            writer.write(request("GET", "/livez"))
        assert [await read_status(reader) for reader, _ in connections] == [200] * len(connections)
        for hold, (_, writer) in zip(holds, connections[:-1], strict=True):
            writer.write(confirmation(hold["id"]))
        reader, writer = connections[-1]
        writer.write(request("GET", "/livez"))
        assert await read_status(reader) == 200  # what was sent before it has been read
        await rush.end()
        assert {await read_status(reader) for reader, _ in connections[:-1]} <= {200, 202}
    assert (await rush.shop.admin("GET", "/sale/stock")).json()["items"][0]["sold"] == LIMIT + 2


async def test_payments_that_wait_have_the_bound_of_all_requests(
    redis: Redis, keys: Keys, settings: Settings, lineage: Lineage
) -> None:
    inventory = Inventory(redis, keys, settings.model_copy(update={"queue_limit": 1, "request_limit": 2}))
    answers: asyncio.Queue[ScriptAnswer | HoldfastError] = asyncio.Queue()
    payment = Confirmation("none", "0" * 26, "pay", b"{}")
    for _ in range(2):
        inventory.submit_confirmation(payment, answers.put_nowait)
    with pytest.raises(Overloaded):
        inventory.submit_confirmation(payment, answers.put_nowait)
    for _ in range(2):
        answer = await answers.get()
        assert isinstance(answer, ScriptAnswer)
        assert answer.words == "sale_not_found"


async def test_a_refusal_says_as_much_as_any_answer(rush: Rush) -> None:
    await rush.fill()
    headers = {"X-Request-Id": "mine", "Origin": "https://shop.example"}
    for by in (STOREFRONT_KEY, None):
        response = await rush.shop.call("POST", RESERVATIONS, cart(), by=by, headers=headers)
        assert_problem(response, 503, "overloaded")
        assert response.headers["x-request-id"] == "mine"
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Retry-After" in response.headers["access-control-expose-headers"]
        assert response.headers["date"]


CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
CHUNKED = request("POST", RESERVATIONS, TOKEN + IN_CHUNKS)


@pytest.mark.parametrize(
    ("pieces", "refusals"),
    [
        ([HOLD], 1),
        ([HOLD[:30], HOLD[30:]], 1),
        ([HOLD[:-9], HOLD[-9:]], 1),
        ([HOLD[:-9], HOLD[-9:] + HOLD[:40], HOLD[40:]], 2),
        ([HOLD * 40], 40),
        ([CHUNKED + CHUNK], 1),
        ([CHUNKED, CHUNK[:9], CHUNK[9:]], 1),
        ([request("POST", RESERVATIONS, TOKEN + "Expect: 100-continue\r\n", BODY)], 1),
    ],
)
async def test_a_refusal_leaves_the_connection_in_order(
    rush: Rush, pieces: list[bytes], refusals: int
) -> None:
    await rush.fill()
    assert await statuses(rush.shop, *pieces, pause=0.02) == [503] * refusals + [200]
    assert await rush.end() == [201] * LIMIT
    assert (await rush.shop.admin("GET", "/sale/stock")).json()["items"][0]["held"] == LIMIT


@pytest.mark.parametrize(
    "last", [HOLD.replace(b"HTTP/1.1", b"HTTP/1.0"), request("POST", RESERVATIONS, "Connection: close\r\n")]
)
async def test_a_connection_that_ends_with_its_request_ends_with_the_refusal(rush: Rush, last: bytes) -> None:
    await rush.fill()
    async with connected(rush.shop) as (reader, writer), asyncio.timeout(5):
        writer.write(last)
        assert await read_status(reader) == 503
        assert await reader.read() == b""


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refusal in twenty seconds."""
    monkeypatch.setattr(gate, "MAX_REST_SECONDS", 60.0)
    monkeypatch.setattr(gate, "REFUSALS_PER_SECOND", 0.05)
    monkeypatch.setattr(gate, "_LEAST_REFUSALS_PER_SECOND", 0.05)


async def test_refusals_are_paced_until_the_load_has_gone(slowly: None, rush: Rush) -> None:
    assert (await rush.fill()).headers["retry-after"] == "20"
    async with connected(rush.shop) as (reader, writer), asyncio.timeout(5):
        writer.write(HOLD)
        assert b"retry-after: 40\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.write(request("GET", "/livez"))
        answer = asyncio.create_task(reader.readuntil(b" 200 OK\r\n"))
        assert not (await asyncio.wait({answer}, timeout=0.2))[0], "it was read at once"
        assert await rush.end() == [201] * LIMIT
        await answer


async def test_bodies_that_do_not_come_take_no_place(shop: Api) -> None:
    async with connected(shop) as (_, first), connected(shop) as (_, second), connected(shop) as (_, third):
        for writer in (first, second, third):
            writer.write(HOLD[:-1])
            await writer.drain()
        assert (await shop.reserve()).status_code == 201


@asynccontextmanager
async def bounded(settings: Settings, **bounds: Any) -> AsyncIterator[Api]:
    with serving(settings.model_copy(update=bounds)) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield Api(url, client)


async def test_all_requests_have_a_bound_too(settings: Settings, lineage: Lineage, pool: object) -> None:
    async with bounded(settings, request_limit=1) as api, connected(api) as (_, writer):
        writer.write(HOLD[:-1])
        await writer.drain()
        while (await api.call("GET", "/v1/sales/x")).status_code != 503:
            pass  # the head is not read yet
        problem = assert_problem(await api.call("GET", "/v1/sales/x%22y"), 503, "overloaded")
        assert problem["detail"] == "Too many requests are under way."
        head = await api.call("HEAD", "/v1/sales/x")
        assert (head.status_code, head.content) == (503, b"")
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await api.call("GET", path, by=None)).status_code == 200


async def test_plain_requests_have_that_bound_too(
    settings: Settings, lineage: Lineage, drain: None, redis: Redis
) -> None:
    async with bounded(settings, request_limit=1) as api, connected(api) as (reader, writer):
        await api.sale()
        rush = Rush(api, redis)
        await rush.hold_back()
        writer.write(HOLD)
        async with asyncio.timeout(5):
            while (await api.call("GET", "/v1/sales/x")).status_code != 503:
                pass  # it is not read yet
        for plain in (HOLD, confirmation("res_" + "0" * 26)):
            async with connected(api) as (other, asking), asyncio.timeout(5):
                asking.write(plain)
                assert b" 503 " in await other.readline()
                await other.readuntil(b"\r\n\r\n")
                problem = json.loads(await other.readuntil(b"}"))
                assert problem["code"] == "overloaded"
                assert problem["detail"] == "Too many requests are under way."
        await rush.end()
        assert await read_status(reader) == 201
        writer.write(HOLD)
        assert await read_status(reader) == 201
