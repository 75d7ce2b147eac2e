"""A running API over real HTTP, with a drain beside it."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import uvicorn
from redis.asyncio import Redis

from app.keys import Keys
from app.lineage import Lineage
from app.main import create_app
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop

ADMIN_KEY = "admin-key-of-the-tests"
STOREFRONT_KEY = "storefront-key-of-the-tests"
JWT_SECRET = "a shared secret of 32 bytes or more"
ISSUER, AUDIENCE = "https://shop.example", "holdfast"
JSON = dict[str, Any]


def token(customer: str, *, key: str = JWT_SECRET, **claims: Any) -> str:
    """A customer's token, good for a minute unless `claims` say otherwise; a claim of None is left out."""
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": customer, "exp": time.time() + 60} | claims
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, key, "HS256")


def instant(hours: float) -> str:
    """So many hours from now."""
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The API in a thread with an event loop of its own, as it runs in production; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            loop="uvloop",
            http="app.http_holds:HoldProtocol",
            ws="none",
            proxy_headers=False,
            lifespan="on",
            access_log=False,
            log_config=None,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.005)
        assert server.started, "the API did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update=Settings(
            admin_key=ADMIN_KEY,
            storefront_key=STOREFRONT_KEY,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            jwt_algorithm="HS256",
            jwt_key=JWT_SECRET,
            cors_origins="https://shop.example",
        ).model_dump(exclude_unset=True)
        | {"body_timeout_seconds": 0.3}
    )


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 5) -> None:
    """Returns once `check` is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@dataclass
class Api:
    """A client of a running API; `as_…` choose who calls."""

    url: str
    client: httpx.AsyncClient

    async def call(
        self, method: str, path: str, body: Any = None, *, by: str | None = STOREFRONT_KEY, **options: Any
    ) -> httpx.Response:
        """One request; `body` goes as JSON, `by` is the token."""
        headers = options.pop("headers", {})
        if by is not None:
            headers = {"Authorization": f"Bearer {by}"} | headers
        if body is not None:
            options["json"] = body
        return await self.client.request(method, path, headers=headers, **options)

    async def admin(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return await self.call(method, f"/v1/admin/sales{path}", body, by=ADMIN_KEY, **options)

    async def sale(self, sale_id: str = "sale", /, *, opens: float = -1, **stock: int) -> str:
        """Makes a sale; its id."""
        response = await self.admin("PUT", f"/{sale_id}", sale(opens=opens, **stock or {"a": 5, "b": 5}))
        assert response.status_code == 201, response.text
        return sale_id

    async def reserve(
        self,
        body: JSON | None = None,
        *,
        sale_id: str = "sale",
        key: str | None = None,
        by: str | None = STOREFRONT_KEY,
    ) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key is not None else {}
        path = f"/v1/sales/{sale_id}/reservations"
        return await self.call("POST", path, body or cart(), by=by, headers=headers)

    async def hold(self, customer: str = "ada", /, **items: int) -> JSON:
        """A reservation that must succeed."""
        response = await self.reserve(cart(customer, **items))
        assert response.status_code == 201, response.text
        made: JSON = response.json()
        return made

    async def confirm(self, hold: JSON, reference: str = "pay", **options: Any) -> httpx.Response:
        body = {"payment_reference": reference} | options.pop("body", {})
        path = f"/v1/sales/{hold['sale_id']}/reservations/{hold['id']}/confirm"
        return await self.call("POST", path, body, **options)


def cart(customer: str = "ada", /, **items: int) -> JSON:
    return {
        "customer_id": customer,
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in (items or {"a": 1}).items()],
    }


def sale(*, opens: float = -1, closes: float = 2, **stock: int) -> JSON:
    return {
        "name": "A sale",
        "opens_at": instant(opens),
        "closes_at": instant(closes),
        "hold_seconds": 60,
        "max_hold_seconds": 600,
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in stock.items()],
    }


def assert_problem(response: httpx.Response, status: int, code: str) -> JSON:
    """The response is this problem in every member; returns it."""
    problem: JSON = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.request.url.raw_path.decode().partition("?")[0]
    assert response.headers["x-request-id"]
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return problem


@pytest.fixture
async def drain(redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(DrainLoop(Drain(redis, pool, keys, settings), redis, keys, settings).run(stop))
    yield
    stop.set()
    await task


@pytest.fixture
async def api(settings: Settings, lineage: Lineage, drain: None) -> AsyncIterator[Api]:
    """A running API with a drain, and no sale."""
    with serving(settings) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield Api(url, client)


@pytest.fixture
async def shop(api: Api) -> Api:
    """The API with an open sale of 5 units each of the SKUs a and b."""
    await api.sale()
    return api
