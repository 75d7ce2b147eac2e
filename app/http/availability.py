"""The sale as shoppers see it, cached: a flash sale's page is asked for far more often than it changes."""

import asyncio
import time
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from app.errors import SaleNotFound
from app.http.views import sale_view
from app.inventory import Inventory
from app.models import Sale
from app.orders import Orders
from app.patience import read_soon
from app.times import rfc3339

LAG_SECONDS = 0.25
_SALES = 1_000


@dataclass(frozen=True, slots=True)
class SalePage:
    """A sale's JSON without `server_time`, and what tells it from another one."""

    facts: bytes
    etag: str
    server_time: int
    read_at: float
    """When reading it began, by the monotonic clock."""

    def now(self) -> int:
        """The Redis server's time, in milliseconds."""
        return self.server_time + int((time.monotonic() - self.read_at) * 1000)

    def body(self) -> bytes:
        return self.facts[:-1] + b',"server_time":"' + rfc3339(self.now()).encode() + b'"}'


async def read_sale(inventory: Inventory, orders: Orders, sale_id: str) -> Sale:
    """The sale from Redis, or from Postgres once Redis has forgotten it. Raises SaleNotFound."""
    try:
        return await inventory.snapshot(sale_id)
    except SaleNotFound:
        return await read_soon(orders.archived_sale(sale_id))


class Availability:
    """Reads each sale at most once in `LAG_SECONDS`, however many ask."""

    def __init__(self, inventory: Inventory, orders: Orders) -> None:
        self._inventory = inventory
        self._orders = orders
        self._pages: dict[str, SalePage] = {}
        self._reading: dict[str, asyncio.Task[SalePage]] = {}

    async def page(self, sale_id: str) -> SalePage:
        """Raises SaleNotFound, or as the inventory does."""
        page = self._pages.get(sale_id)
        if page is not None and time.monotonic() - page.read_at < LAG_SECONDS:
            return page
        reading = self._reading.get(sale_id)
        if reading is None:
            reading = self._reading[sale_id] = asyncio.create_task(self._read(sale_id))
            reading.add_done_callback(lambda _: self._reading.pop(sale_id))
        # One caller that goes away must not take the answer from the others.
        return await asyncio.shield(reading)

    async def _read(self, sale_id: str) -> SalePage:
        read_at = time.monotonic()
        sale = await read_sale(self._inventory, self._orders, sale_id)
        facts = orjson.dumps(sale_view(sale))
        etag = f'W/"{blake2b(facts, digest_size=12).hexdigest()}"'
        if len(self._pages) >= _SALES:
            self._pages.clear()
        page = self._pages[sale_id] = SalePage(facts, etag, sale.server_time, read_at)
        return page


def etag_matches(header: str, etag: str) -> bool:
    """Does an If-None-Match, empty where there is none, name the ETag, compared weakly?"""
    wanted = etag.removeprefix("W/")
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return wanted in tags or header.strip() == "*"
