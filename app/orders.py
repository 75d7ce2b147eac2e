"""Reads of what Postgres remembers: reservations and orders for good, lists, and sales that Redis forgot."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from app.database import QUERIES, connection
from app.errors import SaleNotFound
from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.models import (
    Item,
    Order,
    OrderStatus,
    Reservation,
    ReservationStatus,
    Sale,
    SaleState,
    StockRow,
)
from app.pages import Page, SortKey, make_page, read_cursor
from app.patience import LIST_SECONDS, read_soon
from app.times import milliseconds_of


@dataclass(frozen=True, slots=True)
class Movement:
    """A change of a SKU's allocation. `kind`: allocated, restocked, withdrawn or written_off.

    `quantity` is signed; `stock` is the row right after it, where the operator was answered with one.
    """

    id: int
    sale_id: str
    sku: str
    kind: str
    quantity: int
    reason: str | None
    stock: StockRow | None
    at: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Of a list; None filters nothing. `since` and `until`: milliseconds, from and up to but not including.

    `now`: the Redis server's time in milliseconds, by which holds expire and sales open; None: Postgres' own.
    """

    customer_id: str | None = None
    status: str | None = None
    sku: str | None = None
    since: int | None = None
    until: int | None = None
    now: int | None = None


class Orders:
    """Every method raises StoreUnavailable where Postgres is away; lists raise ValidationFailed for a cursor
    that they have not given."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def reservation(self, sale_id: str, hold_id: str, now: int | None = None) -> Reservation | None:
        """The reservation with its order, or None. `now` as in Filters."""
        async with connection(self._pool) as database:
            row = await database.fetchrow(
                QUERIES["orders_reservation"], sale_id, RESERVATION_PREFIX + hold_id, now
            )
        return None if row is None else _reservation(row)

    async def is_persisted(self, hold_id: str, status: OrderStatus | None = None) -> bool:
        """Is the order of this hold committed, with this status where one is given?"""
        async with connection(self._pool) as database:
            return bool(
                await database.fetchval(QUERIES["orders_is_persisted"], ORDER_PREFIX + hold_id, status)
            )

    async def reservations(
        self, sale_id: str, filters: Filters, limit: int, cursor: str | None = None
    ) -> Page[Reservation]:
        """The sale's reservations, newest first."""
        rows = await self._list(
            "orders_list_reservations", sale_id, *_columns(filters), *read_cursor(cursor), limit + 1
        )
        return make_page(rows, limit, _reservation, _by_creation)

    async def orders(
        self, sale_id: str, filters: Filters, limit: int, cursor: str | None = None
    ) -> Page[Reservation]:
        """The sale's orders, newest first, each in its reservation; `status` is the order's."""
        rows = await self._list(
            "orders_list_orders", sale_id, *_columns(filters), *read_cursor(cursor), limit + 1
        )
        return make_page(rows, limit, _reservation, _by_confirmation)

    async def _list(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async def read() -> list[asyncpg.Record]:
            async with connection(self._pool) as database:
                return await database.fetch(QUERIES[query], *arguments)

        return await read_soon(read(), LIST_SECONDS)

    async def movements(
        self, sale_id: str, filters: Filters, limit: int, cursor: str | None = None
    ) -> Page[Movement]:
        """The sale's movements, newest first; `status` is their kind."""
        before, _ = read_cursor(cursor)
        rows = await self._list(
            "orders_list_movements", sale_id, filters.sku, filters.status, filters.since, filters.until,
            before, limit + 1,
        )  # fmt: skip
        return make_page(rows, limit, _movement, lambda row: (row["id"], ""))

    async def sales(self, filters: Filters, limit: int, cursor: str | None = None) -> Page[Sale]:
        """All sales, newest first, as far as they are drained; `status` is their state."""
        rows = await self._list(
            "orders_list_sales", filters.now, filters.status, filters.since, filters.until,
            *read_cursor(cursor), limit + 1,
        )  # fmt: skip
        stock = _by_sale(await self._list("orders_stock", [row["id"] for row in rows[:limit]]))
        return make_page(rows, limit, lambda row: _sale(row, stock[row["id"]]), _by_creation)

    async def archived_sale(self, sale_id: str, now: int | None = None) -> Sale:
        """The sale as Postgres has it. Raises SaleNotFound."""
        async with connection(self._pool) as database:
            row = await database.fetchrow(QUERIES["orders_sale"], sale_id, now)
            if row is None:
                raise SaleNotFound(f"There is no sale {sale_id}.")
            stock = _by_sale(await database.fetch(QUERIES["orders_stock"], [sale_id]))
        return _sale(row, stock[sale_id])


def _columns(filters: Filters) -> tuple[Any, ...]:
    return filters.now, filters.customer_id, filters.status, filters.sku, filters.since, filters.until


def _by_creation(row: asyncpg.Record) -> SortKey:
    return milliseconds_of(row["created_at"]), row["id"]


def _by_confirmation(row: asyncpg.Record) -> SortKey:
    return milliseconds_of(row["confirmed_at"]), ORDER_PREFIX + row["id"].removeprefix(RESERVATION_PREFIX)


def _reservation(row: asyncpg.Record) -> Reservation:
    order = None
    if row["order_status"] is not None:
        order = Order(
            OrderStatus(row["order_status"]), row["payment_reference"], row["metadata"].encode(),
            row["reacquired"], milliseconds_of(row["confirmed_at"]), persisted=True, journal_id=None,
        )  # fmt: skip
    return Reservation(
        row["sale_id"],
        row["id"].removeprefix(RESERVATION_PREFIX),
        row["customer_id"],
        ReservationStatus(row["status"]),
        tuple(Item(item["sku"], item["quantity"]) for item in orjson.loads(row["items"])),
        milliseconds_of(row["created_at"]),
        milliseconds_of(row["expires_at"]),
        order,
    )


def _movement(row: asyncpg.Record) -> Movement:
    stock = None
    if row["allocated"] is not None:
        stock = StockRow(row["sku"], row["allocated"], row["available"], row["held"], row["sold"])
    return Movement(
        row["id"], row["sale_id"], row["sku"], row["kind"], row["quantity"], row["reason"], stock,
        milliseconds_of(row["at"]),
    )  # fmt: skip


def _by_sale(rows: list[asyncpg.Record]) -> defaultdict[str, list[StockRow]]:
    """The stock rows of each sale, in the order in which the SKUs came."""
    stock: defaultdict[str, list[StockRow]] = defaultdict(list)
    for row in rows:
        available = row["allocated"] - row["held"] - row["sold"]
        stock[row["sale_id"]].append(
            StockRow(
                row["sku"], row["allocated"], available, row["held"], row["sold"], row["limit_per_customer"]
            )
        )
    return stock


def _sale(row: asyncpg.Record, stock: list[StockRow]) -> Sale:
    return Sale(
        id=row["id"],
        name=row["name"],
        state=SaleState(row["state"]),
        opens_at=milliseconds_of(row["opens_at"]),
        closes_at=milliseconds_of(row["closes_at"]),
        hold_seconds=row["hold_seconds"],
        max_hold_seconds=row["max_hold_seconds"],
        created_at=milliseconds_of(row["created_at"]),
        updated_at=milliseconds_of(row["updated_at"]),
        server_time=milliseconds_of(row["now"]),
        stock=tuple(stock),
    )
