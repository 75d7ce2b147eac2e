"""Who may call, and what each may do."""

import time

import asyncpg

from app import api_keys
from tests.http.conftest import (
    ADMIN_KEY,
    STOREFRONT_KEY,
    Api,
    assert_problem,
    cart,
    sale,
    token,
)

RESERVATIONS = "/v1/sales/sale/reservations"


async def test_only_admin_keys_reach_the_admin_side(shop: Api) -> None:
    for by in (STOREFRONT_KEY, token("ada", holdfast_confirm=True)):
        for method, path in (("GET", ""), ("PUT", "/sale"), ("GET", "/sale/audit"), ("POST", "/sale/close")):
            body = sale(a=5) if method == "PUT" else None
            response = await shop.call(method, f"/v1/admin/sales{path}", body, by=by)
            assert_problem(response, 403, "forbidden")


async def test_an_admin_key_is_a_storefront_key_and_the_same_shop(shop: Api) -> None:
    first = await shop.reserve(key="k", by=STOREFRONT_KEY)
    again = await shop.reserve(key="k", by=ADMIN_KEY)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_principals_do_not_share_idempotency_keys(shop: Api) -> None:
    made = [await shop.reserve(key="k", by=by) for by in (STOREFRONT_KEY, token("ada"))]
    assert [response.status_code for response in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]
    again = await shop.reserve(key="k", by=token("ada", holdfast_confirm=True))
    assert again.json()["id"] == made[1].json()["id"]


async def test_a_customer_handles_their_own(shop: Api) -> None:
    ada = token("ada")
    hold = (await shop.reserve(by=ada)).json()
    path = f"{RESERVATIONS}/{hold['id']}"
    assert (await shop.call("GET", path, by=ada)).json() == hold
    assert (await shop.call("GET", RESERVATIONS, by=ada)).json()["items"] == [hold]
    assert (await shop.call("POST", f"{path}/extend", {"seconds": 90}, by=ada)).status_code == 200
    assert_problem(await shop.confirm(hold, by=ada), 403, "forbidden")
    trusted = token("ada", holdfast_confirm=True)
    order = (await shop.confirm(hold, by=trusted)).json()
    assert (await shop.call("GET", f"/v1/sales/sale/orders/{order['id']}", by=ada)).status_code == 200
    second = (await shop.reserve(by=ada)).json()
    released = await shop.call("DELETE", f"{RESERVATIONS}/{second['id']}", by=ada)
    assert released.json()["status"] == "released"
    for claim in ("true", 1, None):
        doubtful = token("ada", holdfast_confirm=claim)
        assert_problem(await shop.confirm(second, by=doubtful), 403, "forbidden")


async def test_what_is_not_theirs_is_the_same_403_existing_or_not(shop: Api) -> None:
    ada = token("ada", holdfast_confirm=True)
    bobs = await shop.hold("bob")
    bobs_order = await shop.hold("bob", b=1)
    await shop.confirm(bobs_order)
    names = [bobs["id"], bobs_order["id"], f"res_{'0' * 26}", "nonsense"]
    answers = set()
    for name in names:
        path = f"{RESERVATIONS}/{name}"
        order = name.replace("res_", "ord_")
        for response in (
            await shop.call("GET", path, by=ada),
            await shop.call("DELETE", path, by=ada),
            await shop.call("POST", f"{path}/extend", {"seconds": 1}, by=ada),
            await shop.call("POST", f"{path}/confirm", {"payment_reference": "p"}, by=ada),
            await shop.call("GET", f"/v1/sales/sale/orders/{order}", by=ada),
            await shop.call("GET", f"/v1/sales/no-such-sale/orders/{order}", by=ada),
        ):
            problem = assert_problem(response, 403, "forbidden")
            answers.add(response.text.replace(problem["instance"], ""))
    response = await shop.call("GET", f"{RESERVATIONS}?customer_id=bob", by=ada)
    answers.add(response.text.replace(assert_problem(response, 403, "forbidden")["instance"], ""))
    assert len(answers) == 1
    assert (await shop.call("GET", f"{RESERVATIONS}/{bobs['id']}")).json()["status"] == "held"


async def test_a_shop_must_say_which_customer(shop: Api) -> None:
    problem = assert_problem(await shop.call("GET", RESERVATIONS), 422, "validation_failed")
    assert [error["path"] for error in problem["errors"]] == ["/customer_id"]
    bad = await shop.call("GET", f"{RESERVATIONS}?customer_id=a%00b")
    assert_problem(bad, 422, "validation_failed")


async def test_a_stored_key_works_at_once_and_not_after_it_is_revoked(shop: Api, pool: asyncpg.Pool) -> None:
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    assert await eventually(shop, secret, 201)
    assert_problem(await shop.call("GET", "/v1/admin/sales", by=secret), 403, "forbidden")
    await api_keys.revoke(pool, key.id)
    assert await eventually(shop, secret, 401)


async def eventually(shop: Api, secret: str, status: int) -> bool:
    """Does a reservation with this key come to this answer within 5 seconds?"""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if (await shop.reserve(cart("eve"), key="k", by=secret)).status_code == status:
            return True
    return False


async def test_authorization_given_twice_is_refused(shop: Api) -> None:
    headers = [("Authorization", f"Bearer {STOREFRONT_KEY}")] * 2
    for method in ("GET", "POST"):
        assert_problem(await shop.client.request(method, RESERVATIONS, headers=headers), 401, "unauthorized")
