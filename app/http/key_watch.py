"""Keeps the API keys of Postgres in memory: a request never waits for Postgres to be let in."""

import asyncio

import asyncpg
import structlog

from app import api_keys
from app.http.auth import Authenticator
from app.patience import read_soon

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 0.25
"""A revoked key must be refused within a second. A look takes a millisecond, and unlike a notification it
cannot get lost with a connection; in a second there are three, should one be late."""


class KeyWatch:
    """Reads the keys again and again; while Postgres is away the last ones hold."""

    def __init__(self, pool: asyncpg.Pool, authenticator: Authenticator) -> None:
        self._pool = pool
        self._authenticator = authenticator

    async def read(self) -> None:
        """Raises StoreUnavailable."""
        self._authenticator.accept(await api_keys.load(self._pool))

    async def run(self) -> None:
        """Until cancelled."""
        failed = False
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await read_soon(self.read())
                failed = False
            except Exception as error:
                # Whatever it is, a watch that ended would let revoked keys in for ever.
                if not failed:
                    log.warning(
                        "API keys could not be read; those known before stay", error=type(error).__name__
                    )
                failed = True
