"""What must hold of a sale, compared between the journal and Postgres at one exact point.

The auditor's mark carries Redis' counters as of its place in the journal; the drain compares them in the very
transaction that has written everything up to that place and nothing after it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import asyncpg
import orjson

from app.database import QUERIES, Database
from app.models import JournalId

COUNTERS = ("reserved", "confirmed", "released", "expired", "cancelled")
RULES = (
    "name", "opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "paused", "closed", "created_at",
    "updated_at",
)  # fmt: skip
NOT_EXACT = "not exact while the sale runs"
_STOCK = ("allocated", "available", "held", "sold")
SKU_RULES = ("limit", "first_quantity", "position")
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Single entries, of which `looked_at` were compared, and all that differ."""

    name: str
    looked_at: int
    differing: Pairs

    def invariant(self) -> Invariant:
        """Shows the first that differ."""
        if not self.differing:
            return Invariant(self.name, True, self.looked_at, self.looked_at, NOT_EXACT)
        shown = sorted(self.differing)[:_SHOWN]
        return Invariant(
            self.name,
            False,
            {id_: self.differing[id_][0] for id_ in shown},
            {id_: self.differing[id_][1] for id_ in shown},
            f"{len(self.differing)} differ; {NOT_EXACT}",
        )


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit of a sale found. `mark`: its place in the journal; `repairs`: how many times the sale's
    counters had been repaired before; `differing`: all entries that differ, by invariant."""

    sale_id: str
    invariants: list[Invariant]
    mark: JournalId | None = None
    repairs: int = 0
    differing: Mapping[str, Pairs] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(invariant.ok for invariant in self.invariants)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "invariants": [invariant.as_dict() for invariant in self.invariants]}

    def of(self, name: str) -> Invariant:
        return next(invariant for invariant in self.invariants if invariant.name == name)


def stock_adds_up(stock: Mapping[str, Mapping[str, int]]) -> Invariant:
    """Per SKU: allocated is the sum of the other counters, and no counter is below zero."""
    allocated = {sku: row["allocated"] for sku, row in stock.items()}
    sums = {sku: row["available"] + row["held"] + row["sold"] for sku, row in stock.items()}
    below = sorted(
        f"{sku} {name} {row[name]}" for sku, row in stock.items() for name in _STOCK if row[name] < 0
    )
    invariant = per_sku("stock_adds_up", allocated, sums)
    if not below:
        return invariant
    return replace(invariant, ok=False, detail=f"below zero: {', '.join(below[:_SHOWN])}")


def parse_stock(stock: str) -> dict[str, dict[str, int]]:
    """The word `stock` of a mark, by SKU: counters and rules. Raises ValueError."""
    if stock == "-":
        return {}
    rows = {}
    for line in stock.split(","):
        sku, _, numbers = line.partition("=")
        rows[sku] = dict(zip(_STOCK + SKU_RULES, map(int, numbers.split("/")), strict=True))
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
    movements = await database.fetchrow(QUERIES["audit_movements"], sale_id)
    return [
        equal(
            "movements_add_up", dict.fromkeys(movements.keys(), 0) if movements else {}, dict(movements or {})
        ),
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
        rules_equal(await _kept_rules(database, sale_id), _told_rules(words, stock)),
        equal("no_rejects", 0, rejects),
    ]


def _told_rules(words: Mapping[str, str], stock: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """The rules in Redis, by a name that a person understands."""
    rules = {name: words[name] for name in RULES}
    return rules | {f"sku {sku}": _sku_rules(row) for sku, row in stock.items()}


async def _kept_rules(database: Database, sale_id: str) -> dict[str, str]:
    """The same in Postgres; nothing where it does not know the sale."""
    sale = await database.fetchrow(QUERIES["audit_rules"], sale_id)
    if sale is None:
        return {}
    rules = {name: sale[name] for name in RULES} | {"name": orjson.dumps(sale["name"]).decode()}
    skus = await database.fetch(QUERIES["audit_sku_rules"], sale_id)
    return rules | {f"sku {row['sku']}": _sku_rules(row) for row in skus}


def _sku_rules(row: Mapping[str, int] | asyncpg.Record) -> str:
    return " ".join(f"{name}={row[name]}" for name in SKU_RULES)


def rules_equal(expected: Mapping[str, str], found: Mapping[str, str]) -> Invariant:
    """Names the rules that differ, or counts them where none does."""
    name = "rules_equal_postgres"
    differing = sorted(
        rule for rule in expected.keys() | found.keys() if expected.get(rule) != found.get(rule)
    )
    if not differing:
        return Invariant(name, True, len(expected), len(found))
    kept, told = ({rule: side.get(rule) for rule in differing} for side in (expected, found))
    return Invariant(name, False, kept, told, f"{len(differing)} differ")


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
