"""The second at which a sale opens: a thousand shoppers, a hundred units, over real HTTP."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import asyncpg
import httpx
import pytest

from app.lineage import Lineage
from app.settings import Settings
from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, cart

SHOPPERS, UNITS = 1000, 100


def environment(settings: Settings) -> dict[str, str]:
    """The settings that differ from the defaults, as `holdfast serve` reads them."""
    urls = {
        "HOLDFAST_REDIS_URL": settings.redis_url,
        "HOLDFAST_DATABASE_URL": settings.database_url.get_secret_value(),
        "HOLDFAST_NAMESPACE": settings.namespace,
        "HOLDFAST_PARTITIONS": str(settings.partitions),
        "HOLDFAST_ID_SECRET": settings.id_secret.get_secret_value(),
        "HOLDFAST_ADMIN_KEY": ADMIN_KEY,
        "HOLDFAST_STOREFRONT_KEY": STOREFRONT_KEY,
        "HOLDFAST_ALLOW_VOLATILE": "1",
    }
    return os.environ | urls


@contextmanager
def serve(settings: Settings, workers: int) -> Iterator[str]:
    """`holdfast serve --workers N` as processes of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(command, env=environment(settings))
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/livez")
                break
            except httpx.TransportError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
async def two_workers(settings: Settings, lineage: Lineage, drain: None) -> AsyncIterator[Api]:
    with serve(settings, 2) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield Api(url, client)


async def rush(api: Api, skus: list[str]) -> Counter[tuple[int, str]]:
    """Everybody asks at once; what they were told."""
    answers = await asyncio.gather(
        *(api.reserve(cart(f"c{i}", **dict.fromkeys(skus, 1)), key=f"k{i}") for i in range(SHOPPERS))
    )
    ids = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(set(ids)) == len(ids)
    return Counter((answer.status_code, answer.json().get("code", "held")) for answer in answers)


async def assert_sold_exactly(api: Api, skus: list[str], pool: asyncpg.Pool) -> None:
    stock = (await api.admin("GET", "/sale/stock")).json()["items"]
    for row in stock:
        expected = (UNITS, 0, UNITS) if row["sku"] in skus else (UNITS, UNITS, 0)
        assert (row["allocated"], row["available"], row["held"]) == expected
    audit = (await api.admin("GET", "/sale/audit", timeout=20)).json()
    assert audit["ok"], audit
    assert await pool.fetchval("SELECT count(*) FROM reservations WHERE status = 'held'") == UNITS


@pytest.mark.parametrize("skus", [["a"], ["a", "b"]], ids=["one SKU", "a cart of two"])
async def test_exactly_as_many_holds_as_units(api: Api, pool: asyncpg.Pool, skus: list[str]) -> None:
    api.client.timeout = httpx.Timeout(30)
    await api.sale(a=UNITS, b=UNITS)
    assert await rush(api, skus) == {(201, "held"): UNITS, (409, "sold_out"): SHOPPERS - UNITS}
    await assert_sold_exactly(api, skus, pool)


async def test_exactly_as_many_holds_as_units_with_two_processes(
    two_workers: Api, pool: asyncpg.Pool
) -> None:
    await two_workers.sale(a=UNITS, b=UNITS)
    outcome = await rush(two_workers, ["a", "b"])
    assert outcome == {(201, "held"): UNITS, (409, "sold_out"): SHOPPERS - UNITS}
    await assert_sold_exactly(two_workers, ["a", "b"], pool)


async def test_a_key_sent_to_two_processes_at_once_is_one_hold(two_workers: Api) -> None:
    await two_workers.sale(a=UNITS, b=UNITS)
    answers = await asyncio.gather(*(two_workers.reserve(cart("c", a=1), key="one") for _ in range(40)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
