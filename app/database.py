"""Connections to Postgres and the named queries of app/sql/."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.errors import ConfigurationError, StoreUnavailable
from app.settings import Settings

log = structlog.get_logger(__name__)

Database: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"""A connection, its own or lent by a pool."""

CONNECT_TIMEOUT_SECONDS = 5.0
"""A server on the same network answers in milliseconds; after this it is away."""
COMMAND_TIMEOUT_SECONDS = 30.0
"""Longer than the largest drained batch or audit takes, shorter than an operator's patience."""
LEASE_SECONDS = 60.0
"""A worker that says nothing to Postgres for so long is paused or gone, and loses the locks that others wait
for. Longer than it waits for Redis, or a large partition is written there."""
_RETRY_AFTER_SECONDS = 1.0
_SILENT_SECONDS = 1.0
"""A server that is there answers long before; after this, whoever watches is told what is waited for."""

_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.ReadOnlySQLTransactionError,
    # Logins that were good at the start: a rotated password, a database that takes none for a while.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


@contextmanager
def driver_errors() -> Iterator[None]:
    """The driver's ways of saying that the server is away, as one: StoreUnavailable."""
    try:
        yield
    except _UNREACHABLE as error:
        raise StoreUnavailable("Postgres cannot be reached.", retry_after=_RETRY_AFTER_SECONDS) from error


@asynccontextmanager
async def connection(pool: asyncpg.Pool) -> AsyncIterator[Database]:
    """A connection of the pool. Raises StoreUnavailable where Postgres is away."""
    with driver_errors():
        async with pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as database:
            yield database


def _starting(settings: Settings) -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(settings.startup_timeout_seconds),
        wait=wait_random_exponential(0.05, max=1.0),
        reraise=True,
    )


async def wait_for_database(
    settings: Settings, command_timeout: float | None = COMMAND_TIMEOUT_SECONDS
) -> asyncpg.Connection:
    """A connection, as soon as the database takes one.

    Raises StoreUnavailable after `startup_timeout_seconds`, ConfigurationError for a wrong URL or password.
    """
    dsn = settings.database_url.get_secret_value()
    try:
        with tells_if_slow("waiting for Postgres", settings):
            async for attempt in _starting(settings):
                with attempt, driver_errors(), _refusals():
                    return await asyncpg.connect(
                        dsn, timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=command_timeout
                    )
    except StoreUnavailable as error:
        raise StoreUnavailable("Postgres cannot be reached: see HOLDFAST_DATABASE_URL.") from error
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def tells_if_slow(what: str, settings: Settings) -> Iterator[None]:
    """Logs `what` once if the block takes longer than a start does. Only where an event loop runs."""
    notice = asyncio.get_running_loop().call_later(
        _SILENT_SECONDS, lambda: log.warning(what, seconds_at_most=settings.startup_timeout_seconds)
    )
    try:
        yield
    finally:
        notice.cancel()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.ClientConfigurationError,
    ) as error:
        raise ConfigurationError(f"HOLDFAST_DATABASE_URL: {error}") from None


async def open_pool(settings: Settings) -> asyncpg.Pool:
    """A pool of at most `database_connections`. Raises as `wait_for_database` does."""
    await (await wait_for_database(settings)).close()
    with driver_errors():
        return await asyncpg.create_pool(
            settings.database_url.get_secret_value(),
            # With a floor, asyncpg logs a traceback for every try at restoring it while Postgres is away.
            min_size=0,
            max_size=settings.database_connections,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
            server_settings={"application_name": "holdfast", "timezone": "UTC"},
        )


async def claim_installation(pool: asyncpg.Pool, settings: Settings) -> None:
    """Stores the partitions and the namespace at the first start, and holds every later start to them.

    Raises ConfigurationError if one is not as at the first start: the same sale would live in two places.
    """
    chosen = {"partitions": settings.partitions, "namespace": settings.namespace}
    async with connection(pool) as database:
        await database.execute(QUERIES["installation_claim"], *chosen.values())
        stored = await database.fetchrow(QUERIES["installation_read"])
    for name, value in chosen.items():
        if stored is not None and stored[name] != value:
            raise ConfigurationError(
                f"HOLDFAST_{name.upper()} is {value}, but this installation was started with {stored[name]}"
            )


_NAMED = re.compile(r"^-- name: (\w+)\n((?:-- [^\n]*\n)+)(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def _load_queries() -> Mapping[str, str]:
    queries: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / "sql").glob("*.sql")):
        for name, _description, sql in _NAMED.findall(path.read_text()):
            if name in queries:
                raise ValueError(f"two queries are named {name}")
            queries[name] = sql.strip().removesuffix(";")
    return MappingProxyType(queries)


QUERIES = _load_queries()
"""The SQL of each `-- name:` in app/sql/."""


def text_columns(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Each column as one text with a line per row, for values that have no line breaks and are not NULL.

    Encoding it costs a tenth of an array of the same values.
    """
    return ["\n".join(map(str, column)) for column in zip(*rows, strict=True)]


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Waits `seconds`, or until `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
