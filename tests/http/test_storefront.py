"""What shoppers do, over HTTP."""

import asyncio
import json

import asyncpg
import pytest
from redis.asyncio import Redis

from app.keys import Keys
from app.settings import Settings
from tests.http.conftest import STOREFRONT_KEY, Api, assert_problem, cart, sale, serving

RESERVATIONS = "/v1/sales/sale/reservations"


async def test_a_reservation_is_made_and_found_where_location_says(shop: Api) -> None:
    response = await shop.reserve(cart("ada", b=2, a=1))
    hold = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{RESERVATIONS}/{hold['id']}"
    assert response.headers["content-type"] == "application/json"
    assert "idempotent-replayed" not in response.headers
    assert set(hold) == {
        "id", "sale_id", "customer_id", "status", "items", "created_at", "expires_at", "order_id",
    }  # fmt: skip
    assert hold["items"] == [{"sku": "b", "quantity": 2}, {"sku": "a", "quantity": 1}]
    assert (hold["status"], hold["order_id"]) == ("held", None)
    assert (await shop.call("GET", response.headers["location"])).json() == hold


async def test_a_key_is_the_same_quoted_or_not_and_items_in_any_order(shop: Api) -> None:
    first = await shop.reserve(cart(a=1, b=2), key="a-key")
    again = await shop.reserve(cart(b=2, a=1), key='"a-key"')
    assert again.json() == first.json()
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.headers["location"] == first.headers["location"]


async def test_concurrent_retries_hold_once(shop: Api) -> None:
    answers = await asyncio.gather(*(shop.reserve(cart(a=2), key="k") for _ in range(10)))
    assert {response.status_code for response in answers} == {201}
    assert len({response.json()["id"] for response in answers}) == 1
    stock = (await shop.admin("GET", "/sale/stock")).json()["items"][0]
    assert stock == {"sku": "a", "allocated": 5, "available": 3, "held": 2, "sold": 0}


async def test_a_replay_survives_a_change_of_the_secret(shop: Api, settings: Settings) -> None:
    first = await shop.reserve(key="k")
    rotated = settings.model_copy(
        update={
            "id_secret": type(settings.id_secret)("a new secret for the tests"),
            "id_secret_previous": settings.id_secret,
        }
    )
    with serving(rotated) as url:
        path = url + RESERVATIONS
        again = await shop.call("POST", path, cart(), headers={"Idempotency-Key": "k"})
    assert again.json() == first.json()


async def test_confirming_makes_an_order_that_is_readable_at_once(shop: Api) -> None:
    hold = await shop.hold(a=2)
    metadata = {"n": 123456789012345678901234567890, "f": 0.1, "deep": [{}, [], None, "ü\n"], "z": 1.0}
    response = await shop.confirm(hold, body={"metadata": metadata})
    order = response.json()
    assert response.status_code in (200, 202)
    assert set(order) == {
        "id", "sale_id", "reservation_id", "customer_id", "status", "items", "payment_reference", "metadata",
        "reacquired", "confirmed_at", "persisted",
    }  # fmt: skip
    assert order["id"] == "ord_" + hold["id"].removeprefix("res_")
    assert order["metadata"] == metadata
    assert '"n":123456789012345678901234567890,"f":0.1' in response.text
    read = await shop.call("GET", f"/v1/sales/sale/orders/{order['id']}")
    assert read.json() | {"persisted": True} == order | {"persisted": True}
    assert (await shop.call("GET", f"{RESERVATIONS}/{hold['id']}")).json()["order_id"] == order["id"]


async def test_the_wait_that_was_applied_is_bounded(shop: Api) -> None:
    response = await shop.confirm(await shop.hold(), headers={"Prefer": "wait=99999999999"})
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=10")


async def test_prefer_wait_answers_when_postgres_has_the_order(shop: Api) -> None:
    response = await shop.confirm(await shop.hold(), headers={"Prefer": 'respond-async, wait="5"; x=y'})
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=5"
    assert response.json()["persisted"] is True


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait", "=5", "wait=0", ";;;", "wait=1.5"])
async def test_a_malformed_preference_is_ignored(shop: Api, prefer: str) -> None:
    response = await shop.confirm(await shop.hold(), headers={"Prefer": prefer})
    assert response.status_code in (200, 202)
    assert response.status_code == 200 or "preference-applied" not in response.headers


async def test_confirm_is_idempotent_by_its_payment_reference(shop: Api) -> None:
    hold = await shop.hold()
    first = await shop.confirm(hold, "pay-1", body={"metadata": {"n": 1}}, headers={"Prefer": "wait=5"})
    again = await shop.confirm(hold, "pay-1", body={"metadata": {"n": 2}})
    assert again.json() == first.json()
    assert again.status_code == 200
    assert_problem(await shop.confirm(hold, "pay-2"), 409, "reservation_confirmed")
    path = f"{RESERVATIONS}/{hold['id']}"
    assert_problem(await shop.call("DELETE", path), 409, "reservation_confirmed")
    assert_problem(await shop.call("POST", f"{path}/extend", {"seconds": 5}), 409, "reservation_confirmed")
    order = again.json()["id"]
    await shop.admin("POST", f"/sale/orders/{order}/cancel")
    cancelled = await shop.confirm(hold, "pay-1")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"payment_reference": ""}, {"payment_reference": "a b"}, {"payment_reference": "x" * 256},
        {"payment_reference": 1}, {"payment_reference": "p", "metadata": []},
        {"payment_reference": "p", "metadata": None}, {"payment_reference": "p", "metadata": {"a": "\0"}},
        {"payment_reference": "p", "metadata": {"a": "x" * 4096}},
        {"payment_reference": "p", "metadata": {"\0": 1}}, {"payment_reference": "p", "meta": {}},
    ],
)  # fmt: skip
async def test_a_confirmation_has_bounds(shop: Api, body: dict[str, object]) -> None:
    path = f"{RESERVATIONS}/res_{'0' * 26}/confirm"
    assert_problem(await shop.call("POST", path, body), 422, "validation_failed")


async def test_metadata_may_fill_four_kibibytes(shop: Api) -> None:
    metadata = {"a": "x" * (4096 - 8)}
    response = await shop.confirm(await shop.hold(), body={"metadata": metadata})
    assert response.json()["metadata"] == metadata
    raw = json.dumps({"payment_reference": "p"})[:-1] + ', "metadata": {"a": 1e999}}'
    path = f"{RESERVATIONS}/res_{'0' * 26}/confirm"
    response = await shop.call("POST", path, content=raw, headers={"content-type": "application/json"})
    assert_problem(response, 422, "validation_failed")


async def test_extending_is_harmless_to_repeat_and_never_clamped(shop: Api) -> None:
    hold = await shop.hold()
    path = f"{RESERVATIONS}/{hold['id']}/extend"
    assert (await shop.call("POST", path, {"seconds": 1})).json()["expires_at"] == hold["expires_at"]
    longer = (await shop.call("POST", path, {"seconds": 300})).json()["expires_at"]
    assert longer > hold["expires_at"]
    assert_problem(await shop.call("POST", path, {"seconds": 601}), 409, "extension_limit_reached")
    assert_problem(await shop.call("POST", path, {"seconds": 86_401}), 422, "validation_failed")


async def test_releasing_again_answers_as_it_is(shop: Api) -> None:
    hold = await shop.hold(a=5)
    path = f"{RESERVATIONS}/{hold['id']}"
    for _ in range(2):
        response = await shop.call("DELETE", path)
        assert (response.status_code, response.json()["status"]) == (200, "released")
    assert_problem(await shop.confirm(hold), 409, "reservation_released")
    assert_problem(await shop.call("POST", f"{path}/extend", {"seconds": 5}), 409, "reservation_released")
    assert (await shop.reserve(cart(a=5))).status_code == 201


async def move_clock(redis: Redis, keys: Keys, seconds: int) -> None:
    meta = keys.meta(keys.partition("sale"))
    await redis.hset(meta, "time", str(int(await redis.hget(meta, "time") or 0) + seconds * 1000))


async def test_a_late_payment_takes_the_units_again_or_says_refund(
    shop: Api, redis: Redis, keys: Keys
) -> None:
    late, lost = await shop.hold(a=1), await shop.hold(b=5)
    await move_clock(redis, keys, 61)
    assert (await shop.call("GET", f"{RESERVATIONS}/{lost['id']}")).json()["status"] == "expired"
    order = (await shop.confirm(late)).json()
    assert order["reacquired"] is True
    limited = sale(a=5, b=5)
    limited["items"][1]["limit_per_customer"] = 1
    await shop.admin("PUT", "/sale", limited)
    problem = assert_problem(await shop.confirm(lost), 409, "reservation_expired")
    assert problem["refund_required"] is True
    extend = await shop.call("POST", f"{RESERVATIONS}/{lost['id']}/extend", {"seconds": 5})
    assert "refund_required" not in assert_problem(extend, 409, "reservation_expired")


async def test_a_customer_resumes_their_active_holds(shop: Api) -> None:
    holds = [await shop.hold(a=1), await shop.hold(a=2)]
    ended = await shop.hold(b=1)
    await shop.call("DELETE", f"{RESERVATIONS}/{ended['id']}")
    await shop.hold("bob")
    listed = (await shop.call("GET", f"{RESERVATIONS}?customer_id=ada")).json()
    assert sorted(item["id"] for item in listed["items"]) == sorted(hold["id"] for hold in holds)
    assert listed["next_cursor"] is None
    first = (await shop.call("GET", f"{RESERVATIONS}?customer_id=ada&limit=1")).json()
    path = f"{RESERVATIONS}?customer_id=ada&limit=1&cursor={first['next_cursor']}"
    second = (await shop.call("GET", path)).json()
    assert first["items"] + second["items"] == listed["items"]
    assert second["next_cursor"] is None


async def test_a_sale_shows_its_stock_with_an_etag(shop: Api) -> None:
    await shop.hold(a=2)
    await asyncio.sleep(0.3)  # the page may lag so much
    response = await shop.call("GET", "/v1/sales/sale")
    page = response.json()
    assert set(page) == {
        "id", "name", "state", "opens_at", "closes_at", "hold_seconds", "server_time", "items",
    }  # fmt: skip
    assert page["items"][0] == {"sku": "a", "available": 3, "held": 2, "sold": 0, "limit_per_customer": None}
    etag = response.headers["etag"]
    assert etag.startswith('W/"')
    for tags in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        same = await shop.call("GET", "/v1/sales/sale", headers={"If-None-Match": tags})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    lines = [("Authorization", f"Bearer {STOREFRONT_KEY}"), ("If-None-Match", etag), ("If-None-Match", '"x"')]
    assert (await shop.client.get("/v1/sales/sale", headers=lines)).status_code == 304
    await shop.hold(a=1)
    await asyncio.sleep(0.3)
    changed = await shop.call("GET", "/v1/sales/sale", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["items"][0]["held"]) == (200, 3)
    assert_problem(await shop.call("GET", "/v1/sales/none"), 404, "sale_not_found")


async def test_what_redis_forgot_is_answered_from_postgres(
    shop: Api, redis: Redis, keys: Keys, pool: asyncpg.Pool
) -> None:
    released, expired = await shop.hold(a=1), await shop.hold("eve", a=1)
    await shop.call("DELETE", f"{RESERVATIONS}/{released['id']}")
    await shop.call("DELETE", f"{RESERVATIONS}/{expired['id']}")
    await shop.admin("POST", "/sale/close")
    await pool.execute("UPDATE reservations SET status = 'expired' WHERE customer_id = 'eve'")
    ids = [reservation["id"].removeprefix("res_") for reservation in (released, expired)]
    await redis.hdel(keys.for_sale("sale")[2], *ids)
    for reservation, status in ((released, "released"), (expired, "expired")):
        answer = await shop.call("GET", f"{RESERVATIONS}/{reservation['id']}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert_problem(await shop.confirm(released), 409, "reservation_released")
    assert (await shop.call("DELETE", f"{RESERVATIONS}/{released['id']}")).json()["status"] == "released"
    late = await shop.confirm(expired, headers={"Prefer": "wait=5"})
    assert (late.status_code, late.json()["reacquired"]) == (200, True)
    assert_problem(await shop.call("GET", f"{RESERVATIONS}/res_{'0' * 26}"), 404, "reservation_not_found")


async def test_a_sale_that_only_postgres_has_can_still_be_read(shop: Api, redis: Redis, keys: Keys) -> None:
    held = await shop.hold(a=1)
    order = (await shop.confirm(held, headers={"Prefer": "wait=5"})).json()
    await redis.delete(*keys.for_sale("sale"))
    for path, member, value in (
        (f"{RESERVATIONS}/{held['id']}", "order_id", order["id"]),
        (f"/v1/sales/sale/orders/{order['id']}", "persisted", True),
        ("/v1/sales/sale", "name", "A sale"),
    ):
        assert (await shop.call("GET", path)).json()[member] == value
    assert_problem(await shop.confirm(held), 404, "sale_not_found")
