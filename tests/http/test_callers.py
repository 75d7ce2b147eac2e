"""Who may call, and what each may do."""

from tests.http.conftest import (
    ADMIN_KEY,
    STOREFRONT_KEY,
    Api,
    assert_problem,
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


async def test_a_shop_must_say_which_customer(shop: Api) -> None:
    problem = assert_problem(await shop.call("GET", RESERVATIONS), 422, "validation_failed")
    assert [error["path"] for error in problem["errors"]] == ["/customer_id"]
    bad = await shop.call("GET", f"{RESERVATIONS}?customer_id=a%00b")
    assert_problem(bad, 422, "validation_failed")


async def test_authorization_given_twice_is_refused(shop: Api) -> None:
    headers = [("Authorization", f"Bearer {STOREFRONT_KEY}")] * 2
    for method in ("GET", "POST"):
        assert_problem(await shop.client.request(method, RESERVATIONS, headers=headers), 401, "unauthorized")
