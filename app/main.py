"""The ASGI application: opens what it needs at the start, closes it at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, cast

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import database, migrate
from app.errors import ConfigurationError, HoldfastError
from app.garbage import collect_rarely
from app.http.application import build_application
from app.http.auth import Authenticator
from app.http.availability import Availability
from app.http.front import Front, request_id
from app.http.gate import Gate
from app.http.key_watch import KeyWatch
from app.http.plain import PlainRequests
from app.http.rate_limits import RateLimits
from app.http.services import Services
from app.inventory import Inventory
from app.keys import Keys
from app.orders import Orders
from app.preflight import check_redis
from app.progress import DrainProgress
from app.scripts import connect
from app.settings import Settings, load_settings

log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None) -> ASGIApp:
    """The application; `settings` default to the environment's.

    A wrong setting or store stops the start with one sentence.
    """
    try:
        settings = settings or load_settings()
        authenticator = Authenticator(settings)
        _ = settings.id_secrets
    except ConfigurationError as error:
        raise SystemExit(f"holdfast: {error}") from None
    return _Holdfast(settings, authenticator)


class _Holdfast:
    """Speaks the lifespan protocol; hands requests on."""

    def __init__(self, settings: Settings, authenticator: Authenticator) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._front: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._front is not None:
            await self._front(scope, receive, send)
        else:
            raise RuntimeError("the application has not been started: it needs a server with lifespan on")

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with open_services(self._settings, self._authenticator) as services:
                state = scope.setdefault("state", {})
                state["gate"] = services.gate
                # Whom a proxy has forwarded only the ordinary way knows; nothing but this limit asks.
                if not (self._settings.trusted_proxies and self._settings.rate_limit_address):
                    state["plain_requests"] = PlainRequests(services)
                self._front = _behind_proxies(Front(build_application(services), services), self._settings)
                collect_rarely()
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except (ConfigurationError, HoldfastError) as error:
            await send({"type": "lifespan.startup.failed", "message": f"holdfast: {error}"})
            return
        await send({"type": "lifespan.shutdown.complete"})


def _behind_proxies(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Names the client that trusted proxies have forwarded. What a client itself puts into X-Forwarded-For
    stands left of the address from which a trusted proxy was called, and is not read."""
    trusted = list(settings.trusted_proxies)
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted)) if trusted else app


@asynccontextmanager
async def open_services(settings: Settings, authenticator: Authenticator) -> AsyncIterator[Services]:
    """Connections and what works on them.

    Raises ConfigurationError if a store is unfit, StoreUnavailable if one does not come in time.
    """
    async with AsyncExitStack() as stack:
        redis = connect(settings)
        stack.push_async_callback(redis.aclose)
        keys = Keys(settings.namespace, settings.partitions)
        await check_redis(redis, settings)
        pool = await database.open_pool(settings)
        stack.callback(pool.terminate)
        await migrate.require_current(pool)
        await database.claim_installation(pool, settings)
        inventory, orders = Inventory(redis, keys, settings), Orders(pool)
        progress = DrainProgress(pool, inventory.saw)
        watch = KeyWatch(pool, authenticator)
        await watch.read()
        await stack.enter_async_context(progress)
        await stack.enter_async_context(_running(watch))
        yield Services(
            settings, keys, redis, pool, inventory, orders, progress, authenticator,
            Availability(inventory, orders), Gate(settings, request_id, progress.release),
            RateLimits.of(settings),
        )  # fmt: skip


@asynccontextmanager
async def _running(watch: KeyWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
