"""After a load: is every acknowledged operation there as it was told, and was no unit given twice?"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from loadtests.admin import Admin
from loadtests.tally import Fate
from loadtests.torture.clients import HOLD_SECONDS, moment
from loadtests.torture.ledger import Hold, Ledger
from loadtests.torture.load import QUANTITIES, Load
from loadtests.torture.stand import Stand
from loadtests.torture.wire import Wire
from loadtests.verification import order_differs, peak_units, reservation_differs, units

SETTLE_SECONDS = 60.0
REPLAYS = 200
"""Keys that are asked for again afterwards: a sample, as each is a request."""
_EXAMPLES = 5

Operation = tuple[str, str]
"""The journal's kind of record, and the reservation's id or the movement's key."""

_ROWS = """
SELECT (SELECT count(*) FROM reservations WHERE sale_id = ANY($1::text[])) AS reservations,
       (SELECT count(*) FROM orders WHERE sale_id = ANY($1::text[])) AS orders,
       (SELECT count(*) FROM outbox WHERE type = 'order.confirmed'
        AND payload ->> 'sale_id' = ANY($1::text[])) AS events,
       (SELECT count(*) FROM rejects WHERE resolved_at IS NULL) AS rejects
"""


@dataclass(slots=True)
class Verdict:
    """`lost`: acknowledged operations that are not there; `documented`: likewise, but only a lost Redis knew.

    `wrong`: everything else that must not be, such as two effects of one key, or a broken invariant.
    """

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    documented: list[str] = field(default_factory=list)
    oversold: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.oversold or self.wrong)


@dataclass(frozen=True, slots=True)
class Found:
    """What the service says of one sale after the load."""

    reservations: dict[str, dict[str, Any]]
    orders: dict[str, dict[str, Any]]
    movements: list[dict[str, Any]]
    stock: list[dict[str, Any]]
    audit: dict[str, Any]


async def judge(stand: Stand, load: Load, only_in_redis: frozenset[Operation] = frozenset()) -> Verdict:
    """Waits, bounded, for the last hold to end and the drain to catch up, then compares.

    `only_in_redis`: what a Redis that was emptied on purpose had not passed on. Raises AdminError or OSError
    where the service does not answer.
    """
    admin = Admin(stand.urls[0], stand.admin_key, patience=SETTLE_SECONDS)
    verdict = Verdict(acknowledged=load.ledger.total, wrong=list(load.ledger.failures))
    await asyncio.to_thread(_settle, admin, load.sales, verdict)
    found = {sale: await asyncio.to_thread(_read, admin, sale) for sale in load.sales}
    for sale, state in found.items():
        judge_sale(sale, state, load.ledger, only_in_redis, verdict)
    await _compare_with_postgres(stand, found, verdict)
    await _ask_again(stand, load, only_in_redis, verdict)
    return verdict


def _settle(admin: Admin, sales: tuple[str, ...], verdict: Verdict) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while held := sum(row["held"] for sale in sales for row in admin.stock(sale)):
        if time.monotonic() > deadline:
            verdict.wrong.append(f"{held} units are still held after {SETTLE_SECONDS:.0f} s")
            return
        time.sleep(0.2)


def _read(admin: Admin, sale: str) -> Found:
    audit = admin.audit(sale)  # first: it waits for the drain
    return Found(
        {row["id"]: row for row in admin.listed(sale, "reservations")},
        {row["id"]: row for row in admin.listed(sale, "orders")},
        list(admin.listed(sale, "movements")),
        admin.stock(sale),
        audit,
    )


def judge_sale(
    sale: str, found: Found, ledger: Ledger, only_in_redis: frozenset[Operation], verdict: Verdict
) -> None:
    """Adds to the verdict what is not as the clients of `sale` were told."""
    holds = [hold for hold in ledger.holds if hold.sale_id == sale]
    kept = [hold for hold in holds if not _judge_hold(hold, found, only_in_redis, verdict)]
    _judge_movements(sale, found, ledger, only_in_redis, verdict)
    _judge_stock(sale, found, kept, verdict)
    told = {hold.reservation_id for hold in holds}
    if len(told) != len(holds):
        verdict.wrong.append(f"{sale}: {len(holds) - len(told)} reservations were told to two clients")
    verdict.wrong += [f"{one} was made, but told to nobody" for one in found.reservations.keys() - told]
    asked = {hold.reservation_id for hold in holds if hold.fate in (Fate.CONFIRMED, Fate.CONFIRMING)}
    verdict.wrong += [
        f"{row['id']} was ordered by nobody"
        for row in found.orders.values()
        if row["reservation_id"] not in asked
    ]
    verdict.wrong += [
        f"{sale}: {broken['name']}: expected {broken['expected']}, found {broken['found']}"
        for broken in found.audit["invariants"]
        if not broken["ok"]
    ]


def _judge_hold(hold: Hold, found: Found, only_in_redis: frozenset[Operation], verdict: Verdict) -> bool:
    """Whether something of it went with Redis' memory; then nothing else can be expected of it."""
    lost = list(_lost_operations(hold, found))
    documented = any((kind, hold.reservation_id) in only_in_redis for kind in _operations(hold))
    sentences = [f"{hold.reservation_id} was acknowledged as {kind}, and is not" for kind in lost]
    if documented:
        verdict.documented += sentences
    else:
        verdict.lost += sentences
        verdict.wrong += hold.contradictions
        differs = reservation_differs(hold, found.reservations)
        if differs and not lost:
            verdict.wrong.append(differs)
    return documented


def _operations(hold: Hold) -> Iterator[str]:
    yield "held"
    if hold.extended:
        yield "extended"
    if hold.fate in (Fate.CONFIRMED, Fate.RELEASED):
        yield hold.fate.value


def _lost_operations(hold: Hold, found: Found) -> Iterator[str]:
    row = found.reservations.get(hold.reservation_id)
    there = {
        "held": row is not None,
        "extended": row is not None and moment(row["expires_at"]) >= hold.expires_at,
        "confirmed": not order_differs(hold, found.orders.get(hold.order_id)),
        "released": row is not None and row["status"] == "released",
    }
    return (kind for kind in _operations(hold) if not there[kind])


def _judge_movements(
    sale: str, found: Found, ledger: Ledger, only_in_redis: frozenset[Operation], verdict: Verdict
) -> None:
    seen = Counter(row["reason"] for row in found.movements)
    allocated = Counter(QUANTITIES)
    for move in (move for move in ledger.movements if move.sale_id == sale):
        kind = "restocked" if move.quantity > 0 else "withdrawn"
        documented = (kind, move.key) in only_in_redis
        allocated[move.sku] += move.quantity if seen[move.key] or not documented else 0
        if seen[move.key] == 0:
            sentence = f"{sale}: {move.key} was acknowledged as {kind}, and is not"
            (verdict.documented if documented else verdict.lost).append(sentence)
        if seen[move.key] > 1:
            verdict.wrong.append(f"{sale}: {move.key} moved stock {seen[move.key]} times")
    for row in found.stock:
        if row["allocated"] != allocated[row["sku"]]:
            verdict.wrong.append(
                f"{sale} {row['sku']}: {row['allocated']} allocated, by what was told {allocated[row['sku']]}"
            )


def _judge_stock(sale: str, found: Found, holds: list[Hold], verdict: Verdict) -> None:
    ordered = units(_cart(order) for order in found.orders.values() if order["status"] == "confirmed")
    withdrawn: Counter[str] = Counter()
    for row in found.movements:
        withdrawn[row["sku"]] += abs(row["quantity"]) if row["kind"] == "withdrawn" else 0
    peaks = peak_units(holds, HOLD_SECONDS)
    for row in found.stock:
        sku, allocated = row["sku"], row["allocated"]
        if allocated != row["available"] + row["held"] + row["sold"] or row["available"] < 0:
            verdict.wrong.append(f"{sale} {sku}: the parts are not the whole: {row}")
        if row["sold"] != ordered[sku]:
            verdict.wrong.append(f"{sale} {sku}: {row['sold']} sold, {ordered[sku]} ordered")
        at_the_end = row["held"] + ordered[sku] - allocated
        at_a_moment = peaks.get(sku, 0) - allocated - withdrawn[sku]
        verdict.oversold += max(0, at_the_end, at_a_moment)


def _cart(row: dict[str, Any]) -> list[tuple[str, int]]:
    return [(item["sku"], item["quantity"]) for item in row["items"]]


async def _compare_with_postgres(stand: Stand, found: dict[str, Found], verdict: Verdict) -> None:
    """The lists over HTTP against the tables themselves, and one event for each order."""
    connection = await asyncpg.connect(stand.variables["HOLDFAST_DATABASE_URL"])
    try:
        row = await connection.fetchrow(_ROWS, list(found))
    finally:
        await connection.close()
    assert row is not None  # noqa: S101
    orders = sum(len(state.orders) for state in found.values())
    listed = {
        "reservations": sum(len(state.reservations) for state in found.values()),
        "orders": orders,
        "events": orders,
        "rejects": 0,
    }
    verdict.wrong += [
        f"{count} {name} by what is listed over HTTP, {row[name]} in Postgres"
        for name, count in listed.items()
        if row[name] != count
    ]


async def _ask_again(stand: Stand, load: Load, only_in_redis: frozenset[Operation], verdict: Verdict) -> None:
    """Each key still answers with its reservation: that is Redis' side of it."""
    there = [
        hold for hold in load.ledger.holds if hold.key and ("held", hold.reservation_id) not in only_in_redis
    ]
    rng = random.Random(len(there))
    wire = Wire(stand.urls, stand.storefront_key, Counter(), rng)
    try:
        for hold in rng.sample(there, min(REPLAYS, len(there))):
            items = [{"sku": sku, "quantity": quantity} for sku, quantity in hold.items]
            body = {"customer_id": hold.customer_id, "items": items}
            answer = await wire.ask("POST", f"/v1/sales/{hold.sale_id}/reservations", body, hold.key)
            if answer.body.get("id") != hold.reservation_id or not answer.replayed:
                verdict.wrong.append(f"{hold.reservation_id}: its key answers {answer.status} {answer.body}")
    finally:
        await wire.close()
