"""After the run: does the service's account agree with what the shoppers saw themselves?"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from loadtests.admin import Admin
from loadtests.options import Plan
from loadtests.tally import Fate, Tally, Told

SETTLE_POLL_SECONDS = 0.2
EXAMPLES = 3

ALLOWED_STATUSES: dict[Fate, frozenset[str]] = {
    Fate.HELD: frozenset(("expired",)),
    Fate.CONFIRMING: frozenset(("confirmed", "expired")),
    Fate.CONFIRMED: frozenset(("confirmed",)),
    Fate.RELEASING: frozenset(("released", "expired")),
    Fate.RELEASED: frozenset(("released",)),
    Fate.REFUND: frozenset(("expired",)),
}
"""What a reservation may be, once every hold has ended, given what its shopper was told last."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    expected: Any
    found: Any
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    checks: list[Check]
    audit: dict[str, Any]
    stock: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        return bool(self.audit["ok"]) and all(check.ok for check in self.checks)


def verify(admin: Admin, plan: Plan, tally: Tally) -> Verdict:
    """Waits, bounded, for the last holds to end and the drain to catch up, then compares.

    Raises AdminError or OSError where the service does not answer.
    """
    settled = _settle(admin, plan, tally)
    audit = admin.audit(plan.sale_id)
    stock = admin.stock(plan.sale_id)
    reservations = {row["id"]: row for row in admin.listed(plan.sale_id, "reservations")}
    orders = {row["id"]: row for row in admin.listed(plan.sale_id, "orders")}
    checks = [settled, *_told_checks(plan, tally, reservations, orders)]
    if plan.own_sale:
        checks += _whole_sale_checks(tally, stock, orders)
        checks.append(_peak_check(plan, tally, stock))
    checks.append(
        _check("unexpected answers", 0, tally.counts["failures"], "; ".join(tally.failures[:EXAMPLES]))
    )
    return Verdict(checks, audit, stock)


def _settle(admin: Admin, plan: Plan, tally: Tally) -> Check:
    """In a sale of our own until nothing is held; in another's until our own holds are over."""
    deadline = time.time() + plan.settle_seconds
    ours_over = max((told.told_at for told in tally.told), default=0.0) + plan.hold_seconds + 1
    while True:
        if plan.own_sale:
            held = sum(row["held"] for row in admin.stock(plan.sale_id))
        else:
            held = int(time.time() < ours_over)
        if not held or time.time() > deadline:
            return _check("units held after the last hold's end", 0, held)
        time.sleep(SETTLE_POLL_SECONDS)


def _check(name: str, expected: Any, found: Any, detail: str = "") -> Check:
    return Check(name, expected == found, expected, found, detail)


def _count_bad(name: str, bad: Iterable[str]) -> Check:
    sentences = list(bad)
    return _check(name, 0, len(sentences), "; ".join(sentences[:EXAMPLES]))


def _told_checks(
    plan: Plan, tally: Tally, reservations: dict[str, Any], orders: dict[str, Any]
) -> list[Check]:
    ids = [told.reservation_id for told in tally.told]
    return [
        _check("reservations, each told to one shopper", len(ids), len(set(ids))),
        _count_bad(
            "reservations told, but not found so",
            (sentence for told in tally.told if (sentence := reservation_differs(told, reservations))),
        ),
        _count_bad(
            "orders told, but not found so",
            (
                f"{told.order_id} of {told.reservation_id}"
                for told in tally.with_fate(Fate.CONFIRMED)
                if order_differs(told, orders.get(told.order_id))
            ),
        ),
        _check(
            "replays answered the same", tally.counts["replays"], tally.counts["replays answered the same"]
        ),
    ]


def _items(row: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted((item["sku"], item["quantity"]) for item in row["items"])


def reservation_differs(told: Told, reservations: dict[str, Any]) -> str:
    row = reservations.get(told.reservation_id)
    if row is None:
        return f"{told.reservation_id} is missing"
    if row["customer_id"] != told.customer_id or _items(row) != sorted(told.items):
        return f"{told.reservation_id} is another's, or has other items"
    if row["status"] not in ALLOWED_STATUSES[told.fate]:
        return f"{told.reservation_id} is {row['status']}, its shopper was told {told.fate}"
    return ""


def order_differs(told: Told, row: dict[str, Any] | None) -> bool:
    return (
        row is None
        or row["reservation_id"] != told.reservation_id
        or row["status"] != "confirmed"
        or not row["persisted"]
        or _items(row) != sorted(told.items)
    )


def _whole_sale_checks(tally: Tally, stock: list[dict[str, Any]], orders: dict[str, Any]) -> list[Check]:
    """Nobody else shops in a sale of our own."""
    sold = {row["sku"]: row["sold"] for row in stock}
    ordered = units(_items(order) for order in orders.values() if order["status"] == "confirmed")
    told_ids = {told.reservation_id for told in tally.with_fate(Fate.CONFIRMED, Fate.CONFIRMING)}
    return [
        _check("units sold = units of the orders", sum(sold.values()), sum(ordered.values())),
        _count_bad(
            "SKUs with other orders than units sold",
            (f"{sku}: {sold[sku]} sold, {ordered[sku]} ordered" for sku in sold if sold[sku] != ordered[sku]),
        ),
        _count_bad(
            "orders that no shopper asked for",
            (order["id"] for order in orders.values() if order["reservation_id"] not in told_ids),
        ),
    ]


def units(carts: Iterable[list[tuple[str, int]]]) -> Counter[str]:
    units: Counter[str] = Counter()
    for cart in carts:
        for sku, quantity in cart:
            units[sku] += quantity
    return units


def _peak_check(plan: Plan, tally: Tally, stock: list[dict[str, Any]]) -> Check:
    allocated = {row["sku"]: row["allocated"] for row in stock}
    peaks = peak_units(tally.told, plan.hold_seconds)
    return _count_bad(
        "SKUs handed out beyond their units",
        (f"{sku}: {peak} of {allocated[sku]}" for sku, peak in peaks.items() if peak > allocated[sku]),
    )


def peak_units(told: Iterable[Told], hold_seconds: float) -> dict[str, int]:
    """Per SKU, the most units that shoppers surely had at the same moment, by their own clocks.

    A unit is surely a shopper's from the answer on until the hold may have ended: it began after it was asked
    for, and a release may act from when it is asked for.
    """
    changes: list[tuple[float, int, str, int]] = []
    for one in told:
        for start, end in _spans(one, hold_seconds):
            for sku, quantity in one.items:
                # At the same moment, ends come first.
                changes += ((start, 1, sku, quantity), (end, 0, sku, -quantity))
    now: Counter[str] = Counter()
    peaks: dict[str, int] = {}
    for _, _, sku, change in sorted(changes):
        now[sku] += change
        peaks[sku] = max(peaks.get(sku, 0), now[sku])
    return peaks


def _spans(told: Told, hold_seconds: float) -> list[tuple[float, float]]:
    forever = float("inf")
    end = told.asked_at + hold_seconds
    if told.released_at:
        end = min(end, told.released_at)
    if told.fate is Fate.CONFIRMED and not told.reacquired_at:
        end = forever
    spans = [(told.told_at, end)] if end > told.told_at else []
    if told.reacquired_at:
        spans.append((told.reacquired_at, forever))
    return spans
