"""Reads the packed values that lua/includes/sale.lua writes."""

from collections import Counter

import orjson

from app.journal import parse_items
from app.models import (
    Item,
    JournalId,
    Order,
    OrderStatus,
    Reservation,
    ReservationStatus,
    Sale,
    SaleState,
    StockRow,
)

_SALE_FIELDS = {
    "name", "opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "created_at", "updated_at",
}  # fmt: skip


def read_hold(sale_id: str, hold_id: str, packed: str, now: int) -> Reservation:
    """A hold as it is at `now`: past its time it is expired, swept or not. Raises ValueError."""
    status, created, expires, _digest, customer, items, *rest = packed.split(" ", 6)
    order = None
    if rest:
        order_status, confirmed_at, reacquired, journal_id, reference, metadata = rest[0].split(" ", 5)
        order = Order(
            OrderStatus(order_status), reference, metadata.encode(), reacquired == "1", int(confirmed_at),
            persisted=False, journal_id=JournalId.parse(journal_id.partition("/")[0]),
        )  # fmt: skip
    if status == "held" and now >= int(expires):
        status = "expired"
    return Reservation(
        sale_id,
        hold_id,
        customer,
        ReservationStatus(status),
        parse_items(items),
        int(created),
        int(expires),
        order,
    )


def read_stock(sku: str, words: str) -> StockRow:
    """A row from `allocated available held sold`, with or without the limit behind it. Raises ValueError."""
    allocated, available, held, sold, *rest = words.split(" ")
    limit = int(rest[0]) if rest else 0
    return StockRow(sku, int(allocated), int(available), int(held), int(sold), limit or None)


def read_sale(sale_id: str, now: int, state: str, rules: list[str], stock: list[str]) -> Sale:
    """A sale from flat lists of fields and values; its rows in the order in which its SKUs came.

    Raises ValueError.
    """
    fields = dict(zip(rules[::2], rules[1::2], strict=True))
    if missing := _SALE_FIELDS - fields.keys():
        raise ValueError(f"the sale {sale_id} lacks {', '.join(sorted(missing))}")
    rows = sorted(
        (
            (int(words.rpartition(" ")[2]), sku, words)
            for sku, words in zip(stock[::2], stock[1::2], strict=True)
            if sku
        ),
    )
    return Sale(
        id=sale_id,
        name=orjson.loads(fields["name"]),
        state=SaleState(state),
        opens_at=int(fields["opens_at"]),
        closes_at=int(fields["closes_at"]),
        hold_seconds=int(fields["hold_seconds"]),
        max_hold_seconds=int(fields["max_hold_seconds"]),
        created_at=int(fields["created_at"]),
        updated_at=int(fields["updated_at"]),
        server_time=now,
        stock=tuple(read_stock(sku, words) for _, sku, words in rows),
    )


class Customer:
    """What a customer has taken of a sale, gathered hold by hold; the scripts keep the same in one field."""

    def __init__(self, customer_id: str) -> None:
        self.id = customer_id
        self._made = 0
        self._units: Counter[str] = Counter()
        self._living: list[str] = []

    def add(self, hold_id: str, items: tuple[Item, ...], status: str, order_status: str | None) -> None:
        """One reservation; held and bought units count towards the limit."""
        self._made += 1
        if status == "held":
            self._living.append(hold_id)
        if status == "held" or order_status == "confirmed":
            for item in items:
                self._units[item.sku] += item.quantity

    def fields(self) -> tuple[str, ...]:
        """The hash field and its packed value, or nothing without a reservation."""
        if not self._made:
            return ()
        units = ",".join(f"{sku}={quantity}" for sku, quantity in self._units.items()) or "-"
        return self.id, f"{self._made} {units} {','.join(self._living) or '-'}"
