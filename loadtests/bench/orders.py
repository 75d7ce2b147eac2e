"""A whole order over HTTP, reserve and confirm, until it and its outbox row are in Postgres."""

import asyncio
import time
from urllib.parse import urlsplit

import orjson
import uvloop

from app.demo.stage import Stage
from app.errors import ConfigurationError
from loadtests.bench.field import Contender, Field
from loadtests.bench.processes import MICROSECONDS
from loadtests.bench.saturation import ACCEPTED, PATH, Load
from loadtests.generator import exchange

CONFIRMED = (200, 202)
"""Already in Postgres, or not yet."""


def order_cpu(
    field: Field, contender: Contender, sale: str, connections: int, seconds: float
) -> dict[str, float]:
    """Microseconds of CPU of each process for one order; all of them were found in Postgres."""
    assert contender.prepare  # noqa: S101
    contender.prepare(sale, 10**6)
    before = field.cpu(contender)
    orders = uvloop.run(_buy(Load(contender.url, sale, field.token).again(), connections, seconds))
    contender.settle()
    spent = {role: value - before[role] for role, value in field.cpu(contender).items()}
    _require_persisted(field.stage, sale, orders)
    return {role: value / orders * MICROSECONDS for role, value in spent.items()}


def _require_persisted(stage: Stage, sale: str, orders: int) -> None:
    rows = asyncio.run(stage.persisted(sale))
    if (rows.orders, rows.with_outbox_row) != (orders, orders):
        raise ConfigurationError(f"{orders} orders were confirmed, in Postgres are {rows}")


async def _buy(load: Load, connections: int, seconds: float) -> int:
    """Each connection reserves and confirms, one after the other; how many orders that made."""
    place = urlsplit(load.url)
    requests, end, orders = load.requests(), time.perf_counter() + seconds, 0

    async def shop() -> None:
        nonlocal orders
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            while time.perf_counter() < end:
                status, body = await exchange(reader, writer, next(requests))
                hold = orjson.loads(body)
                confirmed, body = await exchange(reader, writer, _confirmation(load, hold["id"]))
                if status != ACCEPTED or confirmed not in CONFIRMED:
                    raise ConfigurationError(f"an order was answered {status}, {confirmed}: {body!r}")
                orders += 1
        finally:
            writer.close()

    await asyncio.gather(*(shop() for _ in range(connections)))
    return orders


def _confirmation(load: Load, hold: str) -> bytes:
    body = '{"payment_reference":"pay"}'
    return (
        f"POST {PATH.format(sale=load.sale)}/{hold}/confirm HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {load.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
