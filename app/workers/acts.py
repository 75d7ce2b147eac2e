"""Rows of the audit log from journal records: what an operator did, with what was before and after.

Of restocks, withdrawals and cancellations the record says all. Of a sale, Postgres says what was before, read
in the transaction that changes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import orjson

from app.database import QUERIES, Database
from app.ids import ORDER_PREFIX
from app.journal import Record
from app.models import UNKNOWN
from app.outbox import ConfiguredSku
from app.times import milliseconds_of, rfc3339

_SHOWN = 100
"""SKUs of one act that the log shows; a sale may have ten thousand, and its event has them all."""
_STOCK = ("allocated", "available", "held", "sold")
_RULES = ("name", "opens_at", "closes_at", "hold_seconds", "max_hold_seconds")

Words = Mapping[str, str]
Change = dict[str, Any]


class Act(NamedTuple):
    """A row; `before` and `after` are JSON."""

    partition: int
    epoch: int
    sequence: int
    ordinal: int
    at: int
    actor: str
    request_id: str | None
    action: str
    sale_id: str
    subject: str | None
    before: str | None
    after: str | None


def _act(
    partition: int,
    record: Record,
    action: str,
    words: Words,
    subject: str | None,
    before: Change | None,
    after: Change,
) -> Act:
    by = record.by or UNKNOWN
    return Act(
        partition, record.id.epoch, record.id.sequence, record.ordinal, record.at, by.name, by.request_id,
        action, words["sale"], subject,
        None if before is None else orjson.dumps(before).decode(), orjson.dumps(after).decode(),
    )  # fmt: skip


def moved(partition: int, record: Record, words: Words) -> Act:
    """A restock or withdrawal."""
    after: Change = {name: int(words[name]) for name in _STOCK}
    change = int(words["quantity"]) * (1 if record.kind == "restocked" else -1)
    before = after | {name: after[name] - change for name in ("allocated", "available")}
    after["reason"] = orjson.loads(words["reason"])
    return _act(partition, record, f"stock.{record.kind}", words, words["sku"], before, after)


def cancelled(partition: int, record: Record, words: Words) -> Act:
    reason = orjson.loads(words["reason"])
    after = {"status": "cancelled", "restocked": words["restock"] == "1", "reason": reason}
    order = ORDER_PREFIX + words["hold"]
    return _act(partition, record, "order.cancelled", words, order, {"status": "confirmed"}, after)


def repaired(partition: int, record: Record, words: Words) -> Act:
    """The auditor's repair of one kind of thing in Redis."""
    change = orjson.loads(words["change"])
    return _act(partition, record, f"repair.{words['kind']}", words, None, change["before"], change["after"])


def steered(partition: int, record: Record, words: Words, sale: asyncpg.Record) -> Act:
    """A pause, resumption or closing of the `sale` as it was before."""
    before: Change = {"paused": sale["paused"], "closed": sale["closed"]}
    change = {"closed": True} if record.kind == "closed" else {"paused": record.kind == "paused"}
    return _act(partition, record, f"sale.{record.kind}", words, None, before, before | change)


async def configured(
    database: Database,
    partition: int,
    record: Record,
    words: Words,
    skus: Sequence[ConfiguredSku],
    sale: asyncpg.Record | None,
) -> Act:
    """A new sale, or new rules of the `sale` as it was before; to be called before they are written."""
    after: Change = {
        "name": orjson.loads(words["name"]),
        "opens_at": rfc3339(int(words["opens_at"])),
        "closes_at": rfc3339(int(words["closes_at"])),
        "hold_seconds": int(words["hold_seconds"]),
        "max_hold_seconds": int(words["max_hold_seconds"]),
    }
    changed_before, after["items"] = await _changed_skus(database, words["sale"], skus, after)
    if sale is None:
        return _act(partition, record, "sale.created", words, None, None, after)
    before = {name: sale[name] for name in _RULES} | {"items": changed_before}
    for name in ("opens_at", "closes_at"):
        before[name] = rfc3339(milliseconds_of(sale[name]))
    return _act(partition, record, "sale.updated", words, None, before, after)


async def _changed_skus(
    database: Database, sale_id: str, skus: Sequence[ConfiguredSku], after: Change
) -> tuple[list[Change], list[Change]]:
    """The SKUs that get another limit as they were, and with those that are new as they will be."""
    if not skus:
        return [], []
    columns = [[getattr(line, name) for line in skus] for name in ("sku", "quantity", "limit")]
    rows = await database.fetch(QUERIES["audit_log_skus"], sale_id, *columns, _SHOWN)
    if rows and rows[0]["changed"] > len(rows):
        after["more_items"] = rows[0]["changed"] - len(rows)
    return (
        [{"sku": row["sku"], "limit_per_customer": row["most_before"]} for row in rows if not row["is_new"]],
        [
            {"sku": row["sku"], "limit_per_customer": row["most"]}
            | ({"quantity": row["quantity"]} if row["is_new"] else {})
            for row in rows
        ],
    )
