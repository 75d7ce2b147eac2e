"""What a customer learns of others' reservations: nothing, not even whether there are any."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest

from app.inventory import Inventory
from tests.http.conftest import JSON, Api, assert_problem, cart, token, until

ADA = token("ada", holdfast_confirm=True, exp=time.time() + 36_000)
NO_ID = "0" * 26


class Sight(NamedTuple):
    """What a client sees of an answer, but for the path that it sent itself."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


def sight(response: httpx.Response) -> Sight:
    instance = assert_problem(response, 403, "forbidden")["instance"]
    assert int(response.headers.pop("content-length")) == len(response.content)
    assert response.headers.pop("x-request-id")
    response.headers.pop("date")
    body = response.text.replace(instance, "", 1)
    return Sight(response.status_code, tuple(response.headers.multi_items()), body)


async def ask_everywhere(api: Api, sale_id: str, public_id: str) -> list[httpx.Response]:
    """Ada's requests for a reservation and its order, by every route that names one."""
    path = f"/v1/sales/{sale_id}/reservations/{public_id}"
    order = f"/v1/sales/{sale_id}/orders/{public_id.replace('res_', 'ord_')}"
    calls: list[tuple[str, str, Any]] = [
        ("GET", path, None), ("HEAD", path, None), ("DELETE", path, None),
        ("POST", f"{path}/extend", {"seconds": 60}),
        ("POST", f"{path}/confirm", {"payment_reference": "hers"}), ("GET", order, None),
    ]  # fmt: skip
    responses = [await api.call(method, path, body, by=ADA) for method, path, body in calls]
    head = responses.pop(1)
    assert head.status_code == responses[0].status_code
    assert head.headers.keys() == responses[0].headers.keys()
    return responses


@pytest.fixture
async def bobs(shop: Api, inventory: Inventory) -> AsyncIterator[dict[str, JSON]]:
    """Reservations of Bob, by what has become of them."""
    await shop.sale("over", a=5)
    made = {name: await shop.hold("bob") for name in ("held", "sold", "released")}
    hold = await shop.reserve(cart("bob"), sale_id="over")
    made["forgotten"] = hold.json()
    for name in ("released", "forgotten"):
        one = made[name]
        await shop.call("DELETE", f"/v1/sales/{one['sale_id']}/reservations/{one['id']}")
    for name in ("sold", "forgotten"):  # waits for all before it of the same partition
        extra = made[name] if name == "sold" else (await shop.reserve(cart("eve"), sale_id="over")).json()
        assert (await shop.confirm(extra, headers={"Prefer": "wait=10"})).status_code == 200
    await shop.admin("POST", "/over/close")
    assert await inventory.forget("over", [made["forgotten"]["id"].removeprefix("res_")], 0) == 1
    before = {name: await state(shop, one) for name, one in made.items()}
    yield made
    assert {name: await state(shop, one) for name, one in made.items()} == before


async def state(api: Api, hold: JSON) -> JSON:
    response = await api.call("GET", f"/v1/sales/{hold['sale_id']}/reservations/{hold['id']}")
    assert response.status_code == 200
    found: JSON = response.json()
    return found


async def test_what_is_not_theirs_is_one_and_the_same_answer(shop: Api, bobs: dict[str, JSON]) -> None:
    places = [(hold["sale_id"], hold["id"]) for hold in bobs.values()]
    places += [
        ("sale", f"res_{NO_ID}"), ("over", f"res_{NO_ID}"), ("none", f"res_{NO_ID}"),
        ("none", bobs["held"]["id"]), ("over", bobs["held"]["id"]), ("sale", bobs["forgotten"]["id"]),
        ("sale", "nonsense"), ("sale", bobs["held"]["id"].upper()), ("none", "res_"),
    ]  # fmt: skip
    seen = {}
    for place in places:
        for response in await ask_everywhere(shop, *place):
            seen[sight(response)] = place
    assert len(seen) == 1, seen
    for sale_id in ("sale", "over", "none"):
        for customer in ("bob", "nobody"):
            path = f"/v1/sales/{sale_id}/reservations?customer_id={customer}"
            assert sight(await shop.call("GET", path, by=ADA)) in seen
    own = (await shop.reserve(by=ADA)).json()
    answers = await ask_everywhere(shop, "sale", own["id"])
    assert [response.status_code for response in answers] == [200, 200, 409, 409, 404], "released by DELETE"


async def test_reserving_for_somebody_else_is_refused_before_the_sale_is_looked_at(shop: Api) -> None:
    await shop.sale("paused", a=5)
    await shop.admin("POST", "/paused/pause")
    await shop.sale("empty", a=1)
    taken = await shop.reserve(cart("bob"), sale_id="empty", key="bobs")
    assert taken.status_code == 201
    before = (await shop.admin("GET", "/sale/stock")).json()
    seen = {
        sight(await shop.reserve(cart("bob", **items), sale_id=sale_id, key=key, by=ADA))
        for sale_id in ("sale", "paused", "empty", "none")
        for key in (None, "bobs")
        for items in ({"a": 1}, {"no-such-sku": 1})
    }
    assert len(seen) == 1
    assert (await shop.admin("GET", "/sale/stock")).json() == before


async def test_both_stores_are_asked_for_whatever_is_not_theirs(
    shop: Api, bobs: dict[str, JSON], pool: asyncpg.Pool
) -> None:
    own = (await shop.reserve(cart("ada"))).json()
    paths = [
        f"/v1/sales/{sale_id}/reservations/{public_id}"
        for sale_id, public_id in (
            *((hold["sale_id"], hold["id"]) for hold in bobs.values()),
            ("sale", f"res_{NO_ID}"),
            ("none", "nonsense"),
        )
    ]
    async with pool.acquire() as database, database.transaction():
        await database.execute("LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE")
        asked = [asyncio.create_task(shop.call("GET", path, by=ADA)) for path in paths]
        waiting = """
            SELECT count(*) = $1 FROM pg_locks
            WHERE NOT granted AND relation = 'reservations'::regclass AND mode = 'AccessShareLock'"""
        await until(lambda: database.fetchval(waiting, len(paths)))
        assert (await shop.call("GET", f"/v1/sales/sale/reservations/{own['id']}", by=ADA)).status_code == 200
        assert not any(task.done() for task in asked)
    assert len({sight(response) for response in await asyncio.gather(*asked)}) == 1
