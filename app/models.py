"""What the service talks about. Times are milliseconds since 1970 by the Redis server's clock."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class SaleState(StrEnum):
    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class ReservationStatus(StrEnum):
    HELD = "held"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"


class OrderStatus(StrEnum):
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Item(NamedTuple):
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True, order=True)
class JournalId:
    """A place in a partition's journal; later is greater."""

    epoch: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> "JournalId":
        epoch, _, sequence = text.partition("-")
        return cls(int(epoch), int(sequence))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted: an API key's id, or a command with its user. `request_id`: to find it in the logs."""

    name: str
    request_id: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Actor":
        """Reads what `str` wrote: the request's id, which has no space, or `-`, and the name."""
        request_id, _, name = text.partition(" ")
        return cls(name, None if request_id == "-" else request_id)

    def __str__(self) -> str:
        return f"{self.request_id or '-'} {self.name}"


UNKNOWN = Actor("unknown")
"""Code that does not say for whom it calls."""


@dataclass(frozen=True, slots=True)
class Order:
    """A confirmed reservation; it shares the reservation's hold id."""

    status: OrderStatus
    payment_reference: str
    metadata: bytes
    """A JSON object, as the shop gave it."""
    reacquired: bool
    confirmed_at: int
    persisted: bool
    """Is the order, with its outbox row, committed in Postgres?"""
    journal_id: JournalId | None
    """Where its last change is in the journal; None when read from Postgres."""


@dataclass(frozen=True, slots=True)
class Reservation:
    sale_id: str
    hold_id: str
    """26 characters; `res_` and `ord_` before it make the public ids."""
    customer_id: str
    status: ReservationStatus
    items: tuple[Item, ...]
    created_at: int
    expires_at: int
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class StockRow:
    """Always: allocated = available + held + sold."""

    sku: str
    allocated: int
    available: int
    held: int
    sold: int
    limit_per_customer: int | None = None


@dataclass(frozen=True, slots=True)
class SaleRules:
    """What an operator sets of a sale. `items`: sku, quantity, limit per customer or None."""

    name: str
    opens_at: int
    closes_at: int
    hold_seconds: int
    max_hold_seconds: int
    items: tuple[tuple[str, int, int | None], ...]


@dataclass(frozen=True, slots=True)
class Sale:
    id: str
    name: str
    state: SaleState
    opens_at: int
    closes_at: int
    hold_seconds: int
    max_hold_seconds: int
    created_at: int
    updated_at: int
    server_time: int
    stock: tuple[StockRow, ...]
