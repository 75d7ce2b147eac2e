"""A batch of journal records as rows, and the set-based SQL that writes them.

Records of one batch are applied kind by kind, in an order that is right whatever happened within it: a hold
is made before it is extended, ended or confirmed, and it may expire before a late payment confirms it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from app import invariants
from app.database import QUERIES, Database, text_columns
from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.journal import Record, parse_items
from app.outbox import Event, events_of, held_event, items_json, parse_skus
from app.workers import acts
from app.workers.acts import Act

Row = tuple[Any, ...]

_RESERVATION = "drain_unmatched_reservations"
_ORDER = "drain_unmatched_orders"
_ANY_STATUS = ("held", "confirmed", "released", "expired")


class Batch:
    """Rows by the statement that writes them. `source` names installation and partition in event ids.

    Raises ValueError for a record that cannot be read.
    """

    def __init__(self, source: str, partition: int, records: Iterable[Record]) -> None:
        self.partition = partition
        self.events: list[Event] = []
        self._sales: list[tuple[Record, dict[str, str]]] = []
        self._audits: list[tuple[Record, dict[str, str]]] = []
        self._held: list[Row] = []
        self._extended: dict[str, Row] = {}
        self._released: list[Row] = []
        self._expired: list[Row] = []
        self._confirmed: list[Row] = []
        self._orders: list[Row] = []
        self._cancelled: list[Row] = []
        self._refunds: list[Row] = []
        self._movements: list[Row] = []
        self._acts: list[Act] = []
        for record in records:
            if record.kind == "held":  # nearly all of a sale's records
                self._add_held(source, record)
                continue
            words = record.words()
            events = events_of(source, record, words)
            _ADD[record.kind](self, record, words, events)
            self.events += events

    # From records to rows

    def _add_opened(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        """Its epoch is in the position."""
        if (record.id.sequence, record.ordinal) != (1, 0):
            raise ValueError("an epoch is opened by its first record")

    def _add_sale(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._sales.append((record, words))

    def _add_audit(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._audits.append((record, words))

    def _add_repair(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        """Redis follows Postgres again: nothing changes there but the audit log."""
        self._acts.append(acts.repaired(self.partition, record, words))

    def _add_held(self, source: str, record: Record) -> None:
        sale_id, hold_id, customer_id, expires_at, digest, items = record.text.split(" ", 5)
        id_, at, until = RESERVATION_PREFIX + hold_id, record.at, int(expires_at)
        self._held.append((id_, sale_id, customer_id, items_json(items), digest, at, until))
        self.events.append(held_event(source, record, sale_id, id_, customer_id, items, until))

    def _add_extended(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        id_ = RESERVATION_PREFIX + words["hold"]
        # Extensions only go forward, so the last one of a batch stands for all.
        self._extended[id_] = (id_, words["sale"], int(words["expires_at"]))

    def _add_released(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._released.append((RESERVATION_PREFIX + words["hold"], words["sale"], record.at))

    def _add_expired(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._expired.append((RESERVATION_PREFIX + words["hold"], words["sale"], record.at))

    def _add_confirmed(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        reservation_id = RESERVATION_PREFIX + words["hold"]
        self._confirmed.append((reservation_id, words["sale"]))
        self._orders.append((
            ORDER_PREFIX + words["hold"], reservation_id, words["sale"], words["customer"],
            items_json(words["items"]), words["payment_reference"], words["metadata"],
            words["reacquired"] == "1", record.at, events[-1].id,
        ))  # fmt: skip

    def _add_refund(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._refunds.append((RESERVATION_PREFIX + words["hold"], words["payment_reference"], record.at))

    def _add_cancelled(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        restock, reason = words["restock"] == "1", orjson.loads(words["reason"])
        self._acts.append(acts.cancelled(self.partition, record, words))
        self._cancelled.append((ORDER_PREFIX + words["hold"], words["sale"], record.at, restock, reason))
        if restock:
            return
        for item in parse_items(words["items"]):
            self._movements.append((
                words["sale"], item.sku, "written_off", -item.quantity, None, None, None, None, None, None,
                reason, *self._place(record),
            ))  # fmt: skip

    def _add_movement(self, record: Record, words: dict[str, str], events: list[Event]) -> None:
        self._acts.append(acts.moved(self.partition, record, words))
        sign = 1 if record.kind == "restocked" else -1
        self._movements.append((
            words["sale"], words["sku"], record.kind, sign * int(words["quantity"]), int(words["allocated"]),
            int(words["available"]), int(words["held"]), int(words["sold"]), words["key"], words["digest"],
            orjson.loads(words["reason"]), *self._place(record),
        ))  # fmt: skip

    def _place(self, record: Record) -> Row:
        return self.partition, record.id.epoch, record.id.sequence, record.ordinal, record.at

    # From rows to Postgres

    async def write(self, database: Database, outbox_position: int) -> int:
        """Writes everything inside the caller's transaction; returns the outbox counter after it.

        Raises ValueError where a record names a row that is not there, and the driver's data errors.
        """
        for record, words in self._sales:
            await self._write_sale(database, record, words)
        if self._held:
            await _write_held(database, self._held)
        for name, rows, unmatched, statuses in self._steps():
            if rows:
                await _write_rows(database, name, rows, unmatched, statuses)
        if self._acts:
            await database.execute(QUERIES["audit_log_insert"], *_columns(self._acts))
        if self.events:
            columns = text_columns(self.events)
            name = QUERIES["drain_insert_outbox"]
            await database.execute(name, *columns, self.partition, outbox_position)
        for record, words in self._audits:
            await invariants.store_audit(database, self.partition, record.at, words)
        return outbox_position + len(self.events)

    def _steps(self) -> Iterable[tuple[str, Sequence[Row], str | None, tuple[str, ...]]]:
        """Statement, rows, and how to find rows it did not reach: the statuses that say "done before"."""
        yield "drain_extend_reservations", list(self._extended.values()), _RESERVATION, _ANY_STATUS
        yield "drain_release_reservations", self._released, _RESERVATION, ("released",)
        yield "drain_expire_reservations", self._expired, _RESERVATION, ("expired", "confirmed")
        yield "drain_confirm_reservations", self._confirmed, _RESERVATION, ("confirmed",)
        yield "drain_insert_orders", self._orders, None, ()
        yield "drain_cancel_orders", self._cancelled, _ORDER, ("cancelled",)
        yield "drain_insert_refunds", self._refunds, None, ()
        yield "drain_insert_movements", self._movements, None, ()

    async def _write_sale(self, database: Database, record: Record, words: dict[str, str]) -> None:
        sale_id = words["sale"]
        before = await database.fetchrow(QUERIES["audit_log_sale"], sale_id)
        if record.kind != "configured":
            if before is None:
                raise ValueError(f"there is no sale {sale_id}")
            self._acts.append(acts.steered(self.partition, record, words, before))
            await database.execute(QUERIES["drain_steer_sale"], sale_id, record.kind, record.at)
            return
        skus = parse_skus(words["skus"])
        act = await acts.configured(database, self.partition, record, words, skus, before)
        self._acts.append(act)
        await database.execute(
            QUERIES["drain_configure_sale"], sale_id, self.partition, orjson.loads(words["name"]),
            int(words["opens_at"]), int(words["closes_at"]), int(words["hold_seconds"]),
            int(words["max_hold_seconds"]), record.at,
        )  # fmt: skip
        if skus:
            await database.execute(
                QUERIES["drain_configure_skus"], sale_id, *self._place(record), *_columns(skus)
            )


Add = Callable[[Batch, Record, dict[str, str], list[Event]], None]

_ADD: Mapping[str, Add] = {
    "opened": Batch._add_opened,
    "configured": Batch._add_sale,
    "paused": Batch._add_sale,
    "resumed": Batch._add_sale,
    "closed": Batch._add_sale,
    "extended": Batch._add_extended,
    "released": Batch._add_released,
    "expired": Batch._add_expired,
    "confirmed": Batch._add_confirmed,
    "refund_required": Batch._add_refund,
    "cancelled": Batch._add_cancelled,
    "restocked": Batch._add_movement,
    "withdrawn": Batch._add_movement,
    "audited": Batch._add_audit,
    "repaired": Batch._add_repair,
}


def _columns(rows: Iterable[Row]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True))


def _affected(tag: str) -> int:
    """The count in a command tag such as `UPDATE 5`."""
    return int(tag.rpartition(" ")[2])


async def _write_rows(
    database: Database, name: str, rows: Sequence[Row], unmatched: str | None, statuses: tuple[str, ...]
) -> None:
    tag = await database.execute(QUERIES[name], *_columns(rows))
    if unmatched is not None and _affected(tag) < len(rows):
        await _require_matched(database, name, rows, unmatched, statuses)


async def _write_held(database: Database, rows: Sequence[Row]) -> None:
    name = "drain_insert_reservations"
    tag = await database.execute(QUERIES[name], *text_columns(rows))
    if _affected(tag) < len(rows):
        await _require_matched(database, name, rows, _RESERVATION, _ANY_STATUS)


async def _require_matched(
    database: Database, name: str, rows: Sequence[Row], unmatched: str, statuses: tuple[str, ...]
) -> None:
    """Fewer rows than records: a batch that was applied before, or a record that fits nothing."""
    ids, sale_ids, *_ = _columns(rows)
    missing = await database.fetch(QUERIES[unmatched], ids, sale_ids, list(statuses))
    if missing:
        raise ValueError(f"{name.removeprefix('drain_')}: nothing to change for {missing[0]['id']}")
