"""What must hold of a sale, compared between the journal and Postgres at one exact point.

The auditor's mark carries Redis' counters as of its place in the journal; the drain compares them in the very
transaction that has written everything up to that place and nothing after it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import asyncpg
import orjson

from app.database import QUERIES, Database

COUNTERS = ("reserved", "confirmed", "released", "expired", "cancelled")
NOT_EXACT = "not exact while the sale runs"
_STOCK = ("allocated", "available", "held", "sold")
_LOOKS = 4
_SHOWN = 20
"""Differing entries that a report names."""

Pairs: TypeAlias = dict[str, tuple[Any, Any]]
"""What differs: by its id, the value that is expected and the one that is found."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """`expected` and `found`: numbers, or objects of those SKUs that differ."""

    name: str
    ok: bool
    expected: Any
    found: Any
    detail: str | None = None

    def as_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.detail is None:
            del fields["detail"]
        return fields


def equal(name: str, expected: Any, found: Any, detail: str | None = None) -> Invariant:
    return Invariant(name, expected == found, expected, found, detail)


def per_sku(
    name: str, expected: Mapping[str, int], found: Mapping[str, int], detail: str | None = None
) -> Invariant:
    """Compares SKU by SKU; shows those that differ, or the sums where none does."""
    skus = expected.keys() | found.keys()
    differing = sorted(sku for sku in skus if expected.get(sku, 0) != found.get(sku, 0))
    if not differing:
        return Invariant(name, True, sum(expected.values()), sum(found.values()), detail)
    return Invariant(
        name,
        False,
        {sku: expected.get(sku, 0) for sku in differing},
        {sku: found.get(sku, 0) for sku in differing},
        detail,
    )


async def settle(suspects: Pairs, look_again: Callable[[list[str]], Awaitable[Pairs]]) -> Pairs:
    """Those whose very same two values are found in two successive looks.

    What changes between two looks is not broken but in use; `look_again` looks at these ids alone.
    """
    settled: Pairs = {}
    for _ in range(_LOOKS - 1):
        if not suspects:
            break
        again = await look_again(list(suspects))
        settled |= {id_: pair for id_, pair in again.items() if suspects[id_] == pair}
        suspects = {id_: pair for id_, pair in again.items() if suspects[id_] != pair}
    return settled


def per_entry(name: str, looked_at: int, differing: Pairs) -> Invariant:
    """An invariant over single entries, of which `looked_at` were compared: shows the first that differ."""
    if not differing:
        return Invariant(name, True, looked_at, looked_at, NOT_EXACT)
    shown = sorted(differing)[:_SHOWN]
    return Invariant(
        name,
        False,
        {id_: differing[id_][0] for id_ in shown},
        {id_: differing[id_][1] for id_ in shown},
        f"{len(differing)} differ; {NOT_EXACT}",
    )


def stock_adds_up(stock: Mapping[str, Mapping[str, int]]) -> Invariant:
    """Per SKU: allocated is the sum of the other counters, and no counter is below zero."""
    allocated = {sku: row["allocated"] for sku, row in stock.items()}
    sums = {sku: row["available"] + row["held"] + row["sold"] for sku, row in stock.items()}
    below = sorted(f"{sku} {name} {row[name]}" for sku, row in stock.items() for name in row if row[name] < 0)
    invariant = per_sku("stock_adds_up", allocated, sums)
    if not below:
        return invariant
    return replace(invariant, ok=False, detail=f"below zero: {', '.join(below[:_SHOWN])}")


def parse_stock(stock: str) -> dict[str, dict[str, int]]:
    """`sku=allocated/available/held/sold,…` or `-`, by SKU. Raises ValueError."""
    if stock == "-":
        return {}
    rows = {}
    for line in stock.split(","):
        sku, _, numbers = line.partition("=")
        rows[sku] = dict(zip(_STOCK, map(int, numbers.split("/")), strict=True))
    return rows


async def compare(database: Database, partition: int, words: Mapping[str, str]) -> list[Invariant]:
    """The exact invariants of the sale that an `audited` record is about."""
    sale_id = words["sale"]
    stock = parse_stock(words["stock"])

    def counter(name: str) -> dict[str, int]:
        return {sku: row[name] for sku, row in stock.items()}

    rows = await database.fetch(QUERIES["audit_stock"], sale_id)
    counts = await database.fetchrow(QUERIES["audit_counts"], sale_id)
    orders = await database.fetchrow(QUERIES["audit_orders"], sale_id)
    rejects = await database.fetchval(QUERIES["audit_rejects"], sale_id, partition)
    return [
        per_sku("allocated_equals_movements", _column(rows, "allocated"), counter("allocated")),
        stock_adds_up(stock),
        per_sku("held_equals_holds", _column(rows, "held"), counter("held")),
        per_sku("sold_equals_orders", _column(rows, "sold"), counter("sold")),
        equal(
            "counts_equal_postgres",
            {name: counts[name] if counts else 0 for name in COUNTERS},
            {name: int(words[name]) for name in COUNTERS},
        ),
        equal(
            "orders_have_outbox_rows",
            {
                "without_outbox_row": 0,
                "without_reservation": 0,
                "unlike_their_reservation": 0,
                "reservations_without_order": 0,
            },
            dict(orders or {}),
        ),
        equal("no_rejects", 0, rejects),
    ]


def _column(rows: list[asyncpg.Record], name: str) -> dict[str, int]:
    return {row["sku"]: int(row[name]) for row in rows}


async def store_audit(database: Database, partition: int, at: int, words: Mapping[str, str]) -> None:
    """Compares, and keeps the result for the auditor that asked. `at`: milliseconds."""
    result = [invariant.as_dict() for invariant in await compare(database, partition, words)]
    payload = orjson.dumps(result).decode()
    await database.execute(QUERIES["audit_store"], words["audit"], words["sale"], payload, at)


async def stored_audit(database: Database, audit_id: str) -> list[Invariant] | None:
    """The result that the drain stored under this id, if it has."""
    result = await database.fetchval(QUERIES["audit_read"], audit_id)
    return None if result is None else [Invariant(**fields) for fields in orjson.loads(result)]
