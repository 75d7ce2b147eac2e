"""The audit log over HTTP: whatever an operator changes leaves who it was, what was before and what after."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from fastapi.routing import APIRoute

from app import api_keys
from app.http import admin, admin_lists
from app.models import Actor
from tests.http.conftest import ADMIN_KEY, JSON, STOREFRONT_KEY, Api, assert_problem, sale, token

LOG = "/v1/admin/audit-log"
STOCK = {"allocated": 5, "available": 5, "held": 0, "sold": 0}


async def acts(api: Api, query: str = "", **options: Any) -> list[JSON]:
    response = await api.call("GET", LOG + query, by=ADMIN_KEY, **options)
    assert response.status_code == 200, response.text
    listed: list[JSON] = response.json()["items"]
    return listed


def changing_routes() -> Iterator[str]:
    for route in [*admin.router.routes, *admin_lists.router.routes]:
        assert isinstance(route, APIRoute)
        if (route.methods or set()) - {"GET"}:
            yield route.name


async def test_every_changing_call_is_in_the_log(shop: Api) -> None:
    """A new route that changes something belongs into `calls`, and so into the log."""
    order = (await shop.confirm(await shop.hold(a=1))).json()["id"]
    calls = {
        "put_sale": ("PUT", "", sale(a=5), "sale.updated"),
        "pause_sale": ("POST", "/pause", None, "sale.paused"),
        "resume_sale": ("POST", "/resume", None, "sale.resumed"),
        "restock": ("POST", "/skus/a/restock", {"quantity": 2}, "stock.restocked"),
        "withdraw": ("POST", "/skus/a/withdraw", {"quantity": 1}, "stock.withdrawn"),
        "cancel_order": ("POST", f"/orders/{order}/cancel", None, "order.cancelled"),
        "close_sale": ("POST", "/close", None, "sale.closed"),
    }
    assert set(calls) == set(changing_routes())
    for name, (method, path, body, action) in calls.items():
        headers = {"X-Request-Id": f"call-{name}", "Idempotency-Key": name}
        response = await shop.admin(method, f"/sale{path}", body, headers=headers)
        assert response.status_code == 200, response.text
        newest = (await acts(shop))[0]
        found = [newest[field] for field in ("action", "actor", "request_id", "sale_id")]
        assert found == [action, "HOLDFAST_ADMIN_KEY", f"call-{name}", "sale"]
        assert newest["before"] != newest["after"] or name == "put_sale"


async def test_what_was_before_and_after_is_told(api: Api) -> None:
    body = sale(a=5) | {"opens_at": "2026-11-27T18:00:00.000Z", "closes_at": "2096-11-27T18:00:00.000Z"}
    await api.admin("PUT", "/sale", body)
    rules = {name: value for name, value in body.items() if name != "items"}
    changed = body | {"hold_seconds": 30, "items": [
        {"sku": "a", "quantity": 5, "limit_per_customer": 2}, {"sku": "b", "quantity": 1},
    ]}  # fmt: skip
    await api.admin("PUT", "/sale", changed)
    key = {"Idempotency-Key": "k"}
    await api.admin("POST", "/sale/skus/a/restock", {"quantity": 3, "reason": "a pallet"}, headers=key)
    restocked, updated, created = await acts(api)
    assert (created["action"], created["before"]) == ("sale.created", None)
    assert created["after"] == rules | {"items": [{"sku": "a", "limit_per_customer": None, "quantity": 5}]}
    assert updated["before"] == rules | {"items": [{"sku": "a", "limit_per_customer": None}]}
    assert updated["after"] == rules | {"hold_seconds": 30, "items": [
        {"sku": "a", "limit_per_customer": 2}, {"sku": "b", "limit_per_customer": None, "quantity": 1},
    ]}  # fmt: skip
    assert (restocked["subject"], restocked["before"]) == ("a", STOCK)
    assert restocked["after"] == STOCK | {"allocated": 8, "available": 8, "reason": "a pallet"}


async def test_a_repeat_is_no_further_act_and_a_refusal_none(shop: Api) -> None:
    for _ in range(2):
        await shop.admin("POST", "/sale/pause")
        body = {"quantity": 1}
        await shop.admin("POST", "/sale/skus/a/restock", body, headers={"Idempotency-Key": "k"})
    short = {"Idempotency-Key": "l"}
    await shop.admin("POST", "/sale/skus/a/withdraw", {"quantity": 100}, headers=short)
    await shop.admin("PUT", "/sale", sale(a=99))
    assert [act["action"] for act in await acts(shop)] == ["stock.restocked", "sale.paused", "sale.created"]


@pytest.fixture
async def office(pool: asyncpg.Pool) -> tuple[str, str]:
    """An admin key that is there before the API starts; its id and secret."""
    key, secret = await api_keys.create(pool, "office", "admin", Actor("holdfast keys create (ann)"))
    return key.id, secret


async def test_each_key_is_told_from_the_others_but_for_idempotency(
    office: tuple[str, str], shop: Api
) -> None:
    key_id, secret = office
    path, headers = "/v1/admin/sales/sale/skus/a/restock", {"Idempotency-Key": "k"}
    response = await shop.call("POST", path, {"quantity": 1}, by=secret, headers=headers)
    restocked, _, made = await acts(shop)
    assert (restocked["actor"], restocked["request_id"]) == (key_id, response.headers["x-request-id"])
    found = [made[field] for field in ("actor", "action", "subject", "after")]
    assert found == [
        "holdfast keys create (ann)", "key.created", key_id, {"name": "office", "scope": "admin"},
    ]  # fmt: skip
    made_by_one = (await shop.reserve(key="cart", by=secret)).json()
    replay = await shop.reserve(key="cart", by=ADMIN_KEY)
    assert (replay.json()["id"], replay.headers["idempotent-replayed"]) == (made_by_one["id"], "true")


async def test_the_log_comes_in_pages_and_filtered(shop: Api) -> None:
    await shop.sale("other")
    for verb in ("pause", "resume", "close"):
        await shop.admin("POST", f"/sale/{verb}")
    whole = await acts(shop)
    page = (await shop.call("GET", f"{LOG}?limit=2", by=ADMIN_KEY)).json()
    rest = (await shop.call("GET", f"{LOG}?cursor={page['next_cursor']}", by=ADMIN_KEY)).json()
    assert page["items"] + rest["items"] == whole
    assert [act["action"] for act in whole] == [
        "sale.closed", "sale.resumed", "sale.paused", "sale.created", "sale.created",
    ]  # fmt: skip
    for query, count in (
        ("?sale_id=sale", 4), ("?sale_id=other", 1), ("?action=sale.paused", 1), ("?actor=nobody", 0),
        ("?actor=HOLDFAST_ADMIN_KEY", 5), ("?from=2096-01-01T00:00:00Z", 0), ("?to=2096-01-01T00:00:00Z", 5),
    ):  # fmt: skip
        assert len(await acts(shop, query)) == count, query


@pytest.mark.parametrize(
    "query", ["limit=0", "cursor=x", "from=now", "who=ann", "sale_id=a%20b", "actor=%00"]
)
async def test_a_wrong_parameter_is_refused(api: Api, query: str) -> None:
    assert_problem(await api.call("GET", f"{LOG}?{query}", by=ADMIN_KEY), 422, "validation_failed")


async def test_only_operators_read_the_log(api: Api) -> None:
    for caller in (STOREFRONT_KEY, token("ada")):
        assert_problem(await api.call("GET", LOG, by=caller), 403, "forbidden")
    assert_problem(await api.call("GET", LOG, by=None), 401, "unauthorized")
