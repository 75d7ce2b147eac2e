"""Domain events of journal records: pure functions, so that a repeated record gives the same events.

docs/events.md describes every event. An event's id derives from its record's place in the journal.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.journal import Record, parse_items
from app.times import rfc3339

VERSION = 1
"""Of every payload; grows only when a field changes its meaning or goes away."""

_NAMESPACE = UUID("6c1f4a52-5b0e-5d0e-9a53-7b1f0c9c7a10").bytes


class Event(NamedTuple):
    """A row of the outbox; `payload` is JSON."""

    id: str
    aggregatetype: str
    aggregateid: str
    type: str
    payload: str


def event_id(name: str) -> str:
    """The UUIDv5 of `name`; by hand, since uuid.uuid5 costs three times as much."""
    digest = sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


@lru_cache(maxsize=4096)
def items_json(items: str) -> str:
    """`sku=quantity,…` as `[{"sku":…,"quantity":…},…]`. Raises ValueError."""
    return _json([{"sku": i.sku, "quantity": i.quantity} for i in parse_items(items)])


def _json(value: Any) -> str:
    """Raises ValueError for what JSON cannot have here, such as a number of more than 64 bits."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise ValueError(str(error)) from None


_time = lru_cache(maxsize=4096)(rfc3339)

Words = Mapping[str, str]
Described = tuple[str, str, str, dict[str, Any]]
"""aggregatetype, aggregateid, type, and what the payload says besides."""


def _items(words: Words) -> orjson.Fragment:
    return orjson.Fragment(items_json(words["items"]))


def _reservation(kind: str, words: Words, **extra: Any) -> Described:
    aggregate = RESERVATION_PREFIX + words["hold"]
    payload = {"reservation_id": aggregate, "customer_id": words["customer"], **extra}
    return "reservation", aggregate, f"reservation.{kind}", payload


def _order(kind: str, words: Words, **extra: Any) -> Described:
    aggregate = ORDER_PREFIX + words["hold"]
    payload = {
        "order_id": aggregate,
        "reservation_id": RESERVATION_PREFIX + words["hold"],
        "customer_id": words["customer"],
        "items": _items(words),
        **extra,
    }
    return "order", aggregate, f"order.{kind}", payload


def _extended(kind: str, words: Words) -> list[Described]:
    return [_reservation(kind, words, expires_at=_time(int(words["expires_at"])))]


def _ended(kind: str, words: Words) -> list[Described]:
    return [_reservation(kind, words, items=_items(words))]


def _refund_required(kind: str, words: Words) -> list[Described]:
    reference = words["payment_reference"]
    return [_reservation(kind, words, items=_items(words), payment_reference=reference)]


def _confirmed(kind: str, words: Words) -> list[Described]:
    return [
        _reservation(kind, words, items=_items(words), order_id=ORDER_PREFIX + words["hold"]),
        _order(
            kind,
            words,
            payment_reference=words["payment_reference"],
            metadata=orjson.Fragment(words["metadata"]),
            reacquired=words["reacquired"] == "1",
        ),
    ]


def _cancelled(kind: str, words: Words) -> list[Described]:
    return [_order(kind, words, restocked=words["restock"] == "1", reason=orjson.loads(words["reason"]))]


def _moved(kind: str, words: Words) -> list[Described]:
    stock = {name: int(words[name]) for name in ("quantity", "allocated", "available", "held", "sold")}
    payload = {"sku": words["sku"], **stock, "reason": orjson.loads(words["reason"])}
    return [("stock", f"{words['sale']}/{words['sku']}", f"stock.{kind}", payload)]


class ConfiguredSku(NamedTuple):
    """`limit`: 0 for none. `position`: its place in the sale, from 1."""

    sku: str
    quantity: int
    limit: int
    position: int


def parse_skus(skus: str) -> list[ConfiguredSku]:
    """`sku=quantity/limit/position,…` or `-`. Raises ValueError."""
    if skus == "-":
        return []
    lines = []
    for line in skus.split(","):
        sku, _, numbers = line.partition("=")
        quantity, limit, position = numbers.split("/")
        lines.append(ConfiguredSku(sku, int(quantity), int(limit), int(position)))
    return lines


def _configured(kind: str, words: Words) -> list[Described]:
    payload = {
        "name": orjson.loads(words["name"]),
        "opens_at": _time(int(words["opens_at"])),
        "closes_at": _time(int(words["closes_at"])),
        "hold_seconds": int(words["hold_seconds"]),
        "max_hold_seconds": int(words["max_hold_seconds"]),
        "items": [
            {"sku": line.sku, "quantity": line.quantity, "limit_per_customer": line.limit or None}
            for line in parse_skus(words["skus"])
        ],
    }
    return [("sale", words["sale"], "sale.configured", payload)]


def _steered(kind: str, words: Words) -> list[Described]:
    return [("sale", words["sale"], f"sale.{kind}", {})]


_DESCRIBE: Mapping[str, Callable[[str, Words], list[Described]]] = {
    "extended": _extended,
    "released": _ended,
    "expired": _ended,
    "confirmed": _confirmed,
    "refund_required": _refund_required,
    "cancelled": _cancelled,
    "restocked": _moved,
    "withdrawn": _moved,
    "configured": _configured,
    "paused": _steered,
    "resumed": _steered,
    "closed": _steered,
}


def describe(kind: str, words: Words) -> list[Described]:
    """What a record of this kind means to others, in order; nothing for the service's own kinds."""
    describer = _DESCRIBE.get(kind)
    return describer(kind, words) if describer else []


def write_event(identifier: str, at: str, sale_id: str, described: Described) -> Event:
    """`at`: RFC 3339. Raises ValueError."""
    aggregatetype, aggregateid, type_, payload = described
    head = {"version": VERSION, "id": identifier, "type": type_, "occurred_at": at, "sale_id": sale_id}
    return Event(identifier, aggregatetype, aggregateid, type_, _json({**head, **payload}))


def held_event(
    source: str, record: Record, sale_id: str, id_: str, customer_id: str, items: str, expires_at: int
) -> Event:
    """The event of a hold, the most frequent one, without the steps that others take.

    Raises ValueError.
    """
    identifier = event_id(f"{source}/{record.id.epoch}-{record.id.sequence}/{record.ordinal}/0")
    payload = {
        "version": VERSION, "id": identifier, "type": "reservation.held", "occurred_at": _time(record.at),
        "sale_id": sale_id, "reservation_id": id_, "customer_id": customer_id,
        "items": orjson.Fragment(items_json(items)), "expires_at": _time(expires_at),
    }  # fmt: skip
    return Event(identifier, "reservation", id_, "reservation.held", _json(payload))


def order_event_id(source: str, hold: str, place: str) -> str:
    """The id of the event of an order's confirmation. `place`: its record's, or `0-0` where nobody knows that
    any more, as after a rebuild: the hold stands for it."""
    if "/" not in place:  # its entry's first record
        place += "/0"
    return event_id(f"{source}/{place}/1" if place != "0-0/0" else f"{source}/{hold}")


def events_of(source: str, record: Record, words: Words) -> list[Event]:
    """The events of one record, in their order.

    `source` names the installation and the partition. Raises ValueError for a record that cannot be read.
    """
    if record.kind == "held":
        id_, expires_at = RESERVATION_PREFIX + words["hold"], int(words["expires_at"])
        return [held_event(source, record, words["sale"], id_, words["customer"], words["items"], expires_at)]
    place = f"{source}/{record.id.epoch}-{record.id.sequence}/{record.ordinal}"
    at = _time(record.at)
    return [
        write_event(event_id(f"{place}/{index}"), at, words["sale"], described)
        for index, described in enumerate(describe(record.kind, words))
    ]
