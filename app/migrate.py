"""Applies migrations/ and tells whether the schema is the one that this version needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from app.database import connection, driver_errors, open_pool, wait_for_database
from app.errors import ConfigurationError, StoreUnavailable
from app.paths import data_folder
from app.settings import Settings

_LOCK_SECONDS = 1.0
"""A change of a table waits this long for those who use it. Whoever comes after it, such as the drain, waits
behind it, so it gives up and lets them go first."""
_PATIENCE_SECONDS = 60.0
"""For all tries together: a transaction that keeps a table for longer is one to look at."""
_LOCK_NOT_AVAILABLE = "55P03"
_LOCK = 0x686F6C6466617374
"""`holdfast` in ASCII: the advisory lock under which one process at a time migrates."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(data_folder("migrations")).replace("%", "%%"))
    return config


def upgrade(settings: Settings) -> None:
    """Brings the schema to the newest version, in one transaction; two at once are safe.

    Starts an event loop of its own: call it in a thread where one is running.
    Raises StoreUnavailable if the database cannot be reached within `startup_timeout_seconds`, or somebody
    keeps a table locked; nothing was changed then.
    """
    asyncio.run(_upgrade(settings))


async def _upgrade(settings: Settings) -> None:
    async def connect() -> Any:
        # An index of a large table takes as long as it takes.
        return await wait_for_database(settings, command_timeout=None)

    # A creator, not a URL: SQLAlchemy and asyncpg read the options of a URL differently.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_locked),
            stop=stop_after_delay(_PATIENCE_SECONDS),
            wait=wait_random_exponential(_LOCK_SECONDS, max=5 * _LOCK_SECONDS),
            reraise=True,
        ):
            with attempt, driver_errors():
                async with engine.begin() as transaction:
                    await transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                    await transaction.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS:g}s'"))
                    await transaction.run_sync(_run)
    except DBAPIError as error:
        if not _is_locked(error):
            raise
        raise StoreUnavailable("A table is locked: somebody's transaction has to end first.") from error
    finally:
        await engine.dispose()


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def _run(sqlalchemy_connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = sqlalchemy_connection
    command.upgrade(config, "head")


async def pending(pool: asyncpg.Pool) -> list[str]:
    """The revisions that are not applied yet, oldest first; none on a newer schema than this code's."""
    scripts = ScriptDirectory.from_config(_config())
    known = [script.revision for script in scripts.walk_revisions()][::-1]
    async with connection(pool) as database:
        if await database.fetchval("SELECT to_regclass('alembic_version')") is None:
            return known
        applied = await database.fetchval("SELECT version_num FROM alembic_version")
    if applied is None:
        return known
    return known[known.index(applied) + 1 :] if applied in known else []


async def require_current(pool: asyncpg.Pool) -> None:
    """Raises ConfigurationError if migrations are pending."""
    missing = await pending(pool)
    if missing:
        raise ConfigurationError(
            f"the database lacks {len(missing)} migration(s), from {missing[0]}: run `holdfast migrate`"
        )


@asynccontextmanager
async def current_pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    """A pool of connections for a command. Raises as `open_pool` and `require_current` do."""
    pool = await open_pool(settings)
    try:
        await require_current(pool)
        yield pool
    finally:
        await pool.close()
