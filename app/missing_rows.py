"""Rows that Postgres lacks and that can be told again: holds and orders from Redis, and orders' events."""

from typing import Any

import asyncpg
import orjson
from redis.asyncio import Redis

from app import audit_log
from app.database import QUERIES, Database, text_columns
from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.invariants import AuditReport
from app.journal import format_items
from app.keys import Keys
from app.models import Actor, Item
from app.outbox import describe, items_json, order_event_id, write_event
from app.times import milliseconds_of, rfc3339

_SHOWN = 100
"""Rows that the audit log names."""


async def restore(
    database: Database, redis: Redis, keys: Keys, report: AuditReport, by: Actor
) -> dict[str, list[str]]:
    """Restores what the report misses, and records it, in one transaction under the lock of the partition's
    position; the ids by kind, `reservations` and `outbox`. Raises the clients' errors."""
    partition = keys.partition(report.sale_id)
    async with database.transaction():
        counter = await database.fetchval(QUERIES["audit_lock_position"], partition)
        restored = {"reservations": await _restore_holds(database, redis, keys, report)}
        orders = await database.fetch(QUERIES["audit_orders_without_event"], report.sale_id)
        if orders:
            events = text_columns(map(_order_event, orders))
            await database.execute(QUERIES["drain_insert_outbox"], *events, partition, counter)
            await database.execute(QUERIES["audit_move_outbox_position"], partition, counter + len(orders))
        restored["outbox"] = [order["id"] for order in orders]
        restored = {kind: ids for kind, ids in restored.items() if ids}
        for kind, ids in restored.items():
            after = {"restored": ids[:_SHOWN], "count": len(ids)}
            await audit_log.record(database, by, f"repair.{kind}", sale_id=report.sale_id, after=after)
    return restored


async def _restore_holds(database: Database, redis: Redis, keys: Keys, report: AuditReport) -> list[str]:
    """Living holds and orders that only Redis has: a rebuild would lose them. Not while rejects wait, which
    tell more. A cancelled order, or a hold that ended, stays missing: Redis does not know all of it.
    """
    differing = report.differing["holds_equal_postgres"]
    ids = [id_ for id_, pair in differing.items() if _is_missing(*pair)]
    if not ids or not report.of("no_rejects").ok:
        return []
    packed: list[Any] = await redis.hmget(keys.for_sale(report.sale_id)[2], ids)
    read = {id_: hold.split(" ", 11) for id_, hold in zip(ids, packed, strict=True) if hold}
    holds = {id_: words for id_, words in read.items() if _is_whole(words)}
    if not holds:
        return []
    rows = [_reservation_row(report.sale_id, id_, words) for id_, words in holds.items()]
    await database.execute(QUERIES["drain_insert_reservations"], *text_columns(rows))
    source = f"{keys.namespace}:{keys.partition(report.sale_id)}"
    orders = [
        _order_row(source, report.sale_id, id_, words)
        for id_, words in holds.items()
        if words[0] == "confirmed"
    ]
    if orders:
        columns = list(zip(*orders, strict=True))
        await database.execute(QUERIES["drain_confirm_reservations"], *columns[1:3])
        await database.execute(QUERIES["drain_insert_orders"], *columns)
    return [row[0] for row in rows]


def _is_missing(expected: str | None, found: str | None) -> bool:
    """Has Postgres nothing of a hold in Redis, or all but its order?"""
    return found is not None and (expected is None or found.startswith(f"{expected} "))


def _is_whole(words: list[str]) -> bool:
    """Does the hold say all that Postgres keeps of it?"""
    if words[0] == "held":
        return len(words) == 6
    return len(words) == 12 and words[0] == words[6] == "confirmed"


def _reservation_row(sale_id: str, id_: str, words: list[str]) -> tuple[Any, ...]:
    _, created, expires, digest, customer, items = words[:6]
    return (
        RESERVATION_PREFIX + id_,
        sale_id,
        customer,
        items_json(items),
        digest,
        int(created),
        int(expires),
    )


def _order_row(source: str, sale_id: str, id_: str, words: list[str]) -> tuple[Any, ...]:
    customer, items, _, confirmed_at, reacquired, place, reference, metadata = words[4:]
    return (
        ORDER_PREFIX + id_, RESERVATION_PREFIX + id_, sale_id, customer, items_json(items), reference,
        metadata, reacquired == "1", int(confirmed_at), order_event_id(source, id_, place),
    )  # fmt: skip


def _order_event(order: asyncpg.Record) -> tuple[str, ...]:
    """The event that the drain wrote, or should have written, with this order."""
    words = {
        "sale": order["sale_id"],
        "hold": order["id"].removeprefix(ORDER_PREFIX),
        "customer": order["customer_id"],
        "items": format_items(Item(**item) for item in orjson.loads(order["items"])),
        "reacquired": "1" if order["reacquired"] else "0",
        "payment_reference": order["payment_reference"],
        "metadata": order["metadata"],
    }
    at = rfc3339(milliseconds_of(order["confirmed_at"]))
    return write_event(str(order["event_id"]), at, order["sale_id"], describe("confirmed", words)[-1])
