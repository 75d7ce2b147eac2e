"""What must hold of a sale, compared between the journal and Postgres at one exact point.

The auditor's mark carries Redis' counters as of its place in the journal; the drain compares them in the very
transaction that has written everything up to that place and nothing after it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
import orjson

from app.database import QUERIES, Database

COUNTERS = ("reserved", "confirmed", "released", "expired", "cancelled")
_STOCK = ("allocated", "available", "held", "sold")


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
    sums = {sku: row["available"] + row["held"] + row["sold"] for sku, row in stock.items()}
    return [
        per_sku("allocated_equals_movements", _column(rows, "allocated"), counter("allocated")),
        per_sku("stock_adds_up", counter("allocated"), sums),
        per_sku("held_equals_holds", _column(rows, "held"), counter("held")),
        per_sku("sold_equals_orders", _column(rows, "sold"), counter("sold")),
        equal(
            "counts_equal_postgres",
            {name: counts[name] if counts else 0 for name in COUNTERS},
            {name: int(words[name]) for name in COUNTERS},
        ),
        equal(
            "orders_have_outbox_rows",
            {"without_outbox_row": 0, "without_reservation": 0, "reservations_without_order": 0},
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
