"""What the fuzzer finds before it starts, and what must be true after it."""

import asyncio
import time
from typing import Any

import asyncpg
import httpx

from tests.fuzz.messages import ADMIN_KEY, COLD, HOT, SMUGGLED, World
from tests.fuzz.round import Round
from tests.fuzz.service import Service

_PERSISTED = {
    "reservations": "SELECT coalesce(array_agg(id), '{}') FROM reservations",
    "orders": "SELECT coalesce(array_agg(id), '{}') FROM orders",
    "moves": "SELECT count(*) FROM movements WHERE kind IN ('restocked', 'withdrawn')",
    "hidden": f"SELECT count(*) FROM reservations WHERE customer_id = '{SMUGGLED}'",  # noqa: S608
    "rejects": "SELECT count(*) FROM rejects",
}
_UNITS = 10**7
_AUDITED = 40
_NORMAL_SECONDS = 1.0
_GROWTH_BYTES = 100 * 1024 * 1024


def client_of(service: Service) -> httpx.Client:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{service.port}", headers=headers, timeout=20)


def prepare(service: Service) -> World:
    """Two sales, and reservations of one of them, some of them confirmed."""
    items = [{"sku": sku, "quantity": _UNITS} for sku in ("a", "b", "c")]
    rules = {
        "name": "A sale", "opens_at": "2020-01-01T00:00:00Z", "closes_at": "2120-01-01T00:00:00Z",
        "hold_seconds": 86_400, "max_hold_seconds": 604_800, "items": [*items, {"sku": "none",
        "quantity": 0}],
    }  # fmt: skip
    with client_of(service) as client:
        for sale_id in (HOT, COLD):
            _ok(client.put(f"/v1/admin/sales/{sale_id}", json=rules))
        holds = [_hold(client, COLD, f"first-{number}")["id"] for number in range(40)]
        orders = []
        for hold in holds[:10]:
            path = f"/v1/sales/{COLD}/reservations/{hold}/confirm"
            answer = client.post(
                path, json={"payment_reference": f"pay-{hold}"}, headers={"Prefer": "wait=10"}
            )
            orders.append(_ok(answer)["id"])
    return World(tuple(holds), tuple(orders))


def _ok(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()


def _hold(client: httpx.Client, sale_id: str, customer: str) -> Any:
    body = {"customer_id": customer, "items": [{"sku": "a", "quantity": 1}]}
    return _ok(client.post(f"/v1/sales/{sale_id}/reservations", json=body))


def verify(done: Round, database_url: str) -> list[str]:
    """Everything that is not as the answers said, and every other sign of harm."""
    faults = list(done.violations)
    if complaints := done.service.complaints():
        faults.append(f"the log complains:\n{complaints}")
    with client_of(done.service) as client:
        faults += _audit(client)
        faults += _compare(done, client, asyncio.run(_persisted(database_url)))
        faults += _still_normal(client)
    if (growth := done.memory[-1] - done.memory[0]) > _GROWTH_BYTES:
        faults.append(f"memory grew by {growth / 2**20:.0f} MiB from {done.memory[0] / 2**20:.0f} MiB")
    return faults


def _audit(client: httpx.Client) -> list[str]:
    """Also waits for the drain."""
    sales = _ok(client.get("/v1/admin/sales", params={"limit": _AUDITED}))["items"]
    reports = {sale["id"]: client.get(f"/v1/admin/sales/{sale['id']}/audit") for sale in sales}
    for sale_id in (HOT, COLD):
        reports[sale_id] = client.get(f"/v1/admin/sales/{sale_id}/audit")
    return [
        f"the audit of {name}: {r.text}"
        for name, r in reports.items()
        if not (r.is_success and r.json()["ok"])
    ]


async def _persisted(database_url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return {name: await connection.fetchval(query) for name, query in _PERSISTED.items()}
    finally:
        await connection.close()


def _compare(done: Round, client: httpx.Client, persisted: dict[str, Any]) -> list[str]:
    """Reservations, orders and movements in Postgres are those that were answered; stock likewise."""
    told = done.told
    held, orders = set(persisted["reservations"]), set(persisted["orders"])
    units: dict[str, int] = {}
    for hold in told.held.values():
        for item in hold["items"] if hold["sale_id"] == HOT else ():
            units[item["sku"]] = units.get(item["sku"], 0) + item["quantity"]
    stock = _ok(client.get(f"/v1/admin/sales/{HOT}/stock"))["items"]
    found = {row["sku"]: row["held"] for row in stock if row["held"]}
    pairs = {
        "reservations that no answer told of": (set(), held - told.held.keys() - set(done.world.holds)),
        "reservations that were told and are not there": (set(), told.held.keys() - held),
        "orders that no answer told of": (set(), orders - told.orders - set(done.world.orders)),
        "restocks and withdrawals": (told.moves, persisted["moves"]),
        "units held of the hot sale": (units, found),
        "reservations out of bodies": (0, persisted["hidden"]),
        "rejects": (0, persisted["rejects"]),
    }
    return [f"{what}: expected {e}, found {f}" for what, (e, f) in pairs.items() if e != f]


def _still_normal(client: httpx.Client) -> list[str]:
    """A few ordinary requests, each with its answer in ordinary time."""
    times = []
    for number in range(20):
        started = time.monotonic()
        _hold(client, HOT, f"last-{number}")
        times.append(time.monotonic() - started)
    return [f"a normal request took {max(times):.1f} s"] if max(times) > _NORMAL_SECONDS else []
