"""What operators do, over HTTP."""

import pytest

from app import errors
from app.inventory import Inventory
from tests.http.conftest import Api, assert_problem, cart, instant, sale

KEY = {"Idempotency-Key": "k"}


async def test_a_sale_is_made_once_and_then_replaced(api: Api) -> None:
    first = await api.admin("PUT", "/sale", sale(a=5))
    assert first.status_code == 201
    made = first.json()
    assert set(made) == {
        "id", "name", "state", "opens_at", "closes_at", "hold_seconds", "server_time", "items",
        "max_hold_seconds", "created_at", "updated_at",
    }  # fmt: skip
    assert made["items"] == [
        {"sku": "a", "available": 5, "held": 0, "sold": 0, "limit_per_customer": None, "allocated": 5}
    ]
    again = await api.admin("PUT", "/sale", sale(b=1) | {"name": "Ünï"})
    assert again.status_code == 200
    assert [item["sku"] for item in again.json()["items"]] == ["a", "b"]
    assert again.json()["name"] == "Ünï"
    assert (await api.admin("GET", "/sale")).json()["items"] == again.json()["items"]
    problem = assert_problem(await api.admin("PUT", "/sale", sale(b=1, a=6)), 422, "validation_failed")
    assert [error["path"] for error in problem["errors"]] == ["/items/1/quantity"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": ""}, "/name"), ({"name": "x" * 201}, "/name"), ({"name": "a\0"}, "/name"),
        ({"opens_at": "2026-11-27T18:00:00"}, "/opens_at"), ({"opens_at": 1795802400}, "/opens_at"),
        ({"opens_at": "1795802400"}, "/opens_at"), ({"opens_at": "2026-02-30T18:00:00Z"}, "/opens_at"),
        ({"opens_at": "2026-11-27 18:00:00Z"}, "/opens_at"),
        ({"opens_at": "9999-12-31T23:59:59-10:00"}, "/opens_at"),
        ({"opens_at": instant(3)}, "/closes_at"), ({"hold_seconds": 0}, "/hold_seconds"),
        ({"hold_seconds": 601}, "/max_hold_seconds"), ({"max_hold_seconds": 604_801}, "/max_hold_seconds"),
        ({"opens_at": "2026-11-27T18:00:00+01:60"}, "/opens_at"),
        ({"items": [{"sku": "a", "quantity": 10**9 + 1}]}, "/items/0/quantity"),
        ({"items": [{"sku": "a", "quantity": -1}]}, "/items/0/quantity"),
        ({"items": [{"sku": "a", "quantity": 1, "limit_per_customer": 0}]}, "/items/0/limit_per_customer"),
        ({"items": [{"sku": "a", "quantity": 1}] * 2}, "/items"), ({"state": "open"}, "/state"),
    ],
)  # fmt: skip
async def test_a_sale_has_bounds(api: Api, change: dict[str, object], path: str) -> None:
    problem = assert_problem(await api.admin("PUT", "/sale", sale(a=1) | change), 422, "validation_failed")
    assert [error["path"] for error in problem["errors"]] == [path]


async def test_times_come_with_any_offset_and_go_out_in_utc(api: Api) -> None:
    body = sale(a=0) | {"opens_at": "2026-11-27T20:30:00.5+02:30", "closes_at": "2096-11-27t18:00:00z"}
    made = (await api.admin("PUT", "/sale", body)).json()
    assert (made["opens_at"], made["closes_at"]) == ("2026-11-27T18:00:00.500Z", "2096-11-27T18:00:00.000Z")


async def test_rules_are_replaced_without_naming_skus(api: Api) -> None:
    empty = await api.admin("PUT", "/sale", sale())
    assert (empty.status_code, empty.json()["items"]) == (201, [])
    await api.admin("PUT", "/sale", sale(a=5))
    again = await api.admin("PUT", "/sale", sale() | {"name": "Another"})
    assert (again.status_code, again.json()["name"]) == (200, "Another")
    assert [item["sku"] for item in again.json()["items"]] == ["a"]
    assert (await api.admin("GET", "/sale/audit")).json()["ok"] is True


async def test_steering_repeats_harmlessly_and_closing_is_final(shop: Api) -> None:
    for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "open"), ("resume", "open")):
        response = await shop.admin("POST", f"/sale/{verb}")
        assert (response.status_code, response.json()["state"]) == (200, state)
    hold = await shop.hold()
    for _ in range(2):
        assert (await shop.admin("POST", "/sale/close")).json()["state"] == "closed"
    for verb in ("pause", "resume"):
        assert_problem(await shop.admin("POST", f"/sale/{verb}"), 409, "sale_closed")
    assert_problem(await shop.admin("PUT", "/sale", sale(a=5)), 409, "sale_closed")
    assert_problem(await shop.admin("POST", "/none/pause"), 404, "sale_not_found")
    assert (await shop.confirm(hold)).status_code in (200, 202)


async def test_stock_moves_once_per_key(shop: Api) -> None:
    body = {"quantity": 3, "reason": "a pallet"}
    first = await shop.admin("POST", "/sale/skus/a/restock", body, headers=KEY)
    assert first.json() == {"sku": "a", "allocated": 8, "available": 8, "held": 0, "sold": 0}
    assert "idempotent-replayed" not in first.headers
    await shop.hold(a=1)
    again = await shop.admin("POST", "/sale/skus/a/restock", body, headers=KEY)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    reused = await shop.admin("POST", "/sale/skus/a/restock", body | {"quantity": 4}, headers=KEY)
    assert_problem(reused, 422, "idempotency_key_reused")
    assert_problem(
        await shop.admin("POST", "/sale/skus/a/withdraw", body, headers=KEY), 422, "idempotency_key_reused"
    )
    short = await shop.admin(
        "POST", "/sale/skus/a/withdraw", {"quantity": 8}, headers={"Idempotency-Key": "l"}
    )
    assert assert_problem(short, 409, "insufficient_stock")["available"] == 7
    less = await shop.admin(
        "POST", "/sale/skus/a/withdraw", {"quantity": 7}, headers={"Idempotency-Key": "l"}
    )
    assert less.json() == {"sku": "a", "allocated": 1, "available": 0, "held": 1, "sold": 0}
    missing = await shop.admin("POST", "/sale/skus/x/restock", body, headers={"Idempotency-Key": "m"})
    assert assert_problem(missing, 404, "sku_not_found")["sku"] == "x"
    movements = (await shop.admin("GET", "/sale/movements")).json()["items"]
    assert [(one["kind"], one["quantity"], one["reason"]) for one in movements[:2]] == [
        ("withdrawn", -7, None), ("restocked", 3, "a pallet"),
    ]  # fmt: skip


async def test_a_stock_movement_needs_its_key_before_its_body(shop: Api) -> None:
    for verb in ("restock", "withdraw"):
        path = f"/sale/skus/a/{verb}"
        assert_problem(await shop.admin("POST", path), 400, "idempotency_key_required")
        empty = await shop.admin("POST", path, headers={"Idempotency-Key": '""'})
        assert_problem(empty, 400, "malformed_header")
        for body in ({"quantity": 0}, {"quantity": 10**9 + 1}, {"quantity": 1, "reason": "\0"}, {}):
            response = await shop.admin("POST", path, body, headers={"Idempotency-Key": "k"})
            assert_problem(response, 422, "validation_failed")


@pytest.mark.parametrize(("restock", "stock"), [(None, (5, 5, 0, 0)), (False, (3, 3, 0, 0))])
async def test_an_order_is_cancelled_once(shop: Api, restock: bool | None, stock: tuple[int, ...]) -> None:
    order = (await shop.confirm(await shop.hold(a=2))).json()
    body = None if restock is None else {"restock": restock, "reason": "fraud"}
    for _ in range(2):
        response = await shop.admin("POST", f"/sale/orders/{order['id']}/cancel", body)
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    row = (await shop.admin("GET", "/sale/stock")).json()["items"][0]
    assert (row["allocated"], row["available"], row["held"], row["sold"]) == stock
    for name in (f"ord_{'0' * 26}", "nonsense"):
        assert_problem(await shop.admin("POST", f"/sale/orders/{name}/cancel"), 404, "order_not_found")


async def test_lists_come_in_pages_and_filtered(shop: Api) -> None:
    holds = [
        await shop.hold(customer, **{sku: 1}) for customer, sku in (("ada", "a"), ("bob", "b"), ("ada", "b"))
    ]
    await shop.confirm(holds[0], headers={"Prefer": "wait=5"})
    await shop.admin("POST", "/sale/pause")
    first = (await shop.admin("GET", "/sale/reservations?limit=2")).json()
    rest = (await shop.admin("GET", f"/sale/reservations?limit=2&cursor={first['next_cursor']}")).json()
    assert rest["next_cursor"] is None
    listed = first["items"] + rest["items"]
    assert sorted(one["id"] for one in listed) == sorted(one["id"] for one in holds)
    for query, count in (
        ("customer_id=ada", 2), ("status=confirmed", 1), ("sku=b", 2), ("customer_id=ada&sku=b", 1),
        ("from=2096-01-01T00:00:00Z", 0), ("to=2096-01-01T00:00:00Z", 3), ("status=released", 0),
    ):  # fmt: skip
        page = (await shop.admin("GET", f"/sale/reservations?{query}")).json()
        assert len(page["items"]) == count, query
    orders = (await shop.admin("GET", "/sale/orders")).json()["items"]
    assert [(order["reservation_id"], order["persisted"]) for order in orders] == [(holds[0]["id"], True)]


async def test_sales_are_listed_newest_first(api: Api) -> None:
    for sale_id in ("one", "two", "three"):
        await api.sale(sale_id)
    page = (await api.admin("GET", "?limit=2")).json()
    assert [one["id"] for one in page["items"]] == ["three", "two"]
    assert (await api.admin("GET", f"?cursor={page['next_cursor']}")).json()["items"][0]["id"] == "one"


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "/limit"), ("limit=501", "/limit"), ("limit=x", "/limit"), ("limit=", "/limit"),
        ("limit=1.0", "/limit"), ("limit=1_0", "/limit"), ("custmer_id=ada", "/custmer_id"),
        ("cursor=x", "/cursor"), ("cursor=%00", "/cursor"), ("status=held%00", "/status"),
        ("sku=a%20b", "/sku"), ("customer_id=", "/customer_id"),
        ("from=yesterday", "/from"), ("to=2026-11-27T18:00:00", "/to"),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(shop: Api, query: str, path: str) -> None:
    for name in ("reservations", "orders"):
        problem = assert_problem(await shop.admin("GET", f"/sale/{name}?{query}"), 422, "validation_failed")
        assert [error["path"] for error in problem["errors"]] == [path]


async def test_sales_and_movements_are_filtered_by_status_and_time(shop: Api) -> None:
    await shop.sale("later", opens=1)
    for path, count in (
        ("?status=open", 1), ("?status=scheduled", 1), ("?status=closed", 0),
        ("?from=2096-01-01T00:00:00Z", 0),
        ("?to=2096-01-01T00:00:00Z", 2), ("?from=2020-01-01T00:00:00Z&status=open", 1),
        ("/sale/movements?status=allocated", 2), ("/sale/movements?status=restocked", 0),
    ):  # fmt: skip
        assert len((await shop.admin("GET", path)).json()["items"]) == count, path
    for path in ("?state=open", "/sale/movements?kind=allocated", "/sale/movements?status=held"):
        assert_problem(await shop.admin("GET", path), 422, "validation_failed")
    typo = await shop.call("GET", "/v1/sales/sale/reservations?customer_id=ada&limt=1")
    assert_problem(typo, 422, "validation_failed")


async def test_a_change_whose_result_cannot_be_read_is_no_failure(
    shop: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(*_: object) -> None:
        raise next(raised)

    raised = iter([errors.StoreUnavailable(), errors.SaleRebuilding(), errors.StoreUnavailable()])
    with monkeypatch.context() as patched:
        patched.setattr(Inventory, "snapshot", unreadable)
        for method, path, body in (
            ("PUT", "", sale(a=5)),
            ("POST", "/pause", None),
            ("POST", "/close", None),
        ):
            response = await shop.admin(method, f"/sale{path}", body)
            assert_problem(response, 503, "outcome_unknown")
    assert (await shop.admin("GET", "/sale")).json()["state"] == "closed"


async def test_lists_of_a_sale_that_is_none_are_not_found(api: Api) -> None:
    for name in ("", "/stock", "/movements", "/reservations", "/orders", "/audit"):
        assert_problem(await api.admin("GET", f"/none{name}"), 404, "sale_not_found")


async def test_the_audit_is_exact(shop: Api) -> None:
    await shop.confirm(await shop.hold(a=1))
    await shop.hold(b=1)
    report = (await shop.admin("GET", "/sale/audit")).json()
    assert report["ok"] is True
    assert all(set(one) >= {"name", "ok", "expected", "found"} for one in report["invariants"])
    assert (await shop.reserve(cart(a=1))).status_code == 201
