"""Puts right what can be put right without taking a unit from a buyer: `holdfast audit --repair`.

What Redis lacks and Postgres has, or what follows from other things in Redis, one script (lua/mend.lua)
writes, atomically beside a running sale, with a journal entry from which the drain writes the audit log. Rows
that Postgres lacks are app/missing_rows.py's. Nothing ends a hold, cancels an order, or changes what a buyer
was told; where nothing proves which store is right, both stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import asyncpg
from redis.asyncio import Redis

from app.database import Database, connection
from app.hold_checks import repaired_counts
from app.invariants import COUNTERS, AuditReport, Invariant
from app.keys import Keys
from app.missing_rows import restore
from app.models import Actor
from app.partition_calls import PartitionCalls
from app.rebuild import kept_holds
from app.settings import Settings

_CHUNK = 50
"""Entries of one call of the script: holds may be some kilobytes each, and all come into the journal."""


class Repair(NamedTuple):
    """What was repaired. `kind` as in the audit log's action `repair.kind`."""

    sale_id: str
    kind: str
    names: list[str]


class Entry(NamedTuple):
    """As lua/mend.lua takes it."""

    name: str
    found: str = ""
    expected: str = ""


class Repairer(PartitionCalls):
    """`by`: who asked for it."""

    def __init__(self, redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings, by: Actor) -> None:
        super().__init__(redis, keys, settings)
        self._pool = pool
        self._by = by

    async def run(self, report: AuditReport) -> list[Repair]:
        """One round: repairs what the report names and can be repaired; the next audit shows what is left.

        Raises StoreUnavailable, OutcomeUnknown, SaleRebuilding, SaleNotFound, and the Redis client's errors.
        """
        if report.mark is None:
            return []  # Redis does not have the sale at all
        async with connection(self._pool) as database:
            restored = await restore(database, self._redis, self.keys, report, self._by)
            done = [Repair(report.sale_id, kind, ids) for kind, ids in restored.items()]
            lost = await self._lost_holds(database, report)
        done += await self._mend(report, "holds", lost)
        if done:
            return done  # what else differs may follow from these
        for kind, entries in (
            *_rules(report),
            ("listed", [] if report.of("sale_is_listed").ok else [Entry(report.sale_id)]),
            ("answers", _lost_answers(report)),
        ):
            done += await self._mend(report, kind, entries)
        if report.of("holds_equal_postgres").ok:
            made = await self._reservations_made(report)
            for kind, entries in (("customers", made), *_what_follows_from_holds(report)):
                done += await self._mend(report, kind, entries)
        return done

    async def _mend(self, report: AuditReport, kind: str, entries: list[Entry]) -> list[Repair]:
        mended: list[str] = []
        repairs, epoch = report.repairs, report.mark.epoch if report.mark else 0
        sale_id, partition = report.sale_id, self.keys.partition(report.sale_id)
        keys = [*self.keys.for_script(sale_id), self.keys.sales(partition)]
        for start in range(0, len(entries), _CHUNK):
            words = [word for entry in entries[start : start + _CHUNK] for word in entry]
            args = [sale_id, str(self._by), kind, epoch, repairs, *words]
            reply = await self._call("mend", partition, keys, args)
            mended += reply.details
            repairs += bool(reply.details)
        return [Repair(sale_id, kind, mended)] if mended else []

    async def _lost_holds(self, database: Database, report: AuditReport) -> list[Entry]:
        """Holds and orders that Redis lacks."""
        differing = report.differing["holds_equal_postgres"]
        ids = [id_ for id_, (expected, found) in differing.items() if expected and found is None]
        holds = await kept_holds(database, report.sale_id, ids)
        return [Entry(id_, "", packed) for id_, packed in holds.items()]

    async def _reservations_made(self, report: AuditReport) -> list[Entry]:
        differing = report.differing["reservations_made_equal_postgres"]
        entries = []
        for customer_id, (expected, found) in differing.items():
            key = self.keys.for_sale(report.sale_id)[3]
            kept: Any = await self._redis.hget(key, customer_id) or ""
            made, _, taken = kept.partition(" ")
            if kept and made == found:
                entries.append(Entry(customer_id, kept, f"{expected or 0} {taken}"))
        return entries


# Entries of Redis


def _rules(report: AuditReport) -> Iterator[tuple[str, list[Entry]]]:
    """The rules that Postgres has; not SKUs that one of the stores lacks, or whose history is in doubt."""
    invariant = report.of("rules_equal_postgres")
    if invariant.ok:
        return
    both = [
        Entry(rule, found, invariant.expected[rule])
        for rule, found in invariant.found.items()
        if found is not None and invariant.expected[rule] is not None
    ]
    yield "rules", [entry for entry in both if not entry.name.startswith("sku ")]
    if not report.of("movements_add_up").ok:
        return
    yield (
        "skus",
        [
            Entry(entry.name.removeprefix("sku "), _numbers(entry.found), _numbers(entry.expected))
            for entry in both
            if entry.name.startswith("sku ")
        ],
    )


def _numbers(sku_rules: str) -> str:
    return " ".join(word.partition("=")[2] for word in sku_rules.split(" "))


def _lost_answers(report: AuditReport) -> list[Entry]:
    differing = report.differing["answers_equal_postgres"]
    return [Entry(name, "", expected) for name, (expected, found) in differing.items() if found is None]


def _what_follows_from_holds(report: AuditReport) -> Iterator[tuple[str, list[Entry]]]:
    """For where the stores agree about every hold."""
    yield "due", [Entry(id_) for id_ in report.differing["due_list_equals_holds"]]
    yield (
        "customers",
        [
            Entry(id_, kept, repaired_counts(implied, kept))
            for id_, (implied, kept) in report.differing["customer_counts_equal_holds"].items()
        ],
    )
    orders = report.of("orders_have_outbox_rows").found
    orders_agree = not any(count for name, count in orders.items() if name != "without_outbox_row")
    proofs = ("movements_add_up", "answers_equal_postgres", "no_rejects")
    if orders_agree and all(report.of(name).ok for name in proofs):
        yield from _counters(report)


def _counters(report: AuditReport) -> Iterator[tuple[str, list[Entry]]]:
    """Differences to what holds, orders and movements say."""
    counts = report.of("counts_equal_postgres")
    yield (
        "counts",
        [
            Entry(name, "", str(counts.expected[name] - counts.found[name]))
            for name in COUNTERS
            if counts.expected[name] != counts.found[name]
        ],
    )
    differences = [
        _differences(report.of(name))
        for name in ("allocated_equals_movements", "held_equals_holds", "sold_equals_orders")
    ]
    skus = {sku for one in (*differences, _differences(report.of("stock_adds_up"))) for sku in one}
    yield (
        "stock",
        [Entry(sku, "", " ".join(str(one.get(sku, 0)) for one in differences)) for sku in sorted(skus)],
    )


def _differences(invariant: Invariant) -> Mapping[str, int]:
    if invariant.ok or not isinstance(invariant.expected, dict):
        return {}
    return {sku: expected - invariant.found[sku] for sku, expected in invariant.expected.items()}
