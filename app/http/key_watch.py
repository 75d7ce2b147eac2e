"""Keeps the API keys of Postgres in memory: a request never waits for Postgres to be let in."""

import asyncio

import asyncpg
import structlog

from app import api_keys
from app.errors import HoldfastError
from app.http.auth import Authenticator
from app.progress import KEYS_CHANNEL, DrainProgress

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0


class KeyWatch:
    """Reads the keys when they change, at most once a second; while Postgres is away the last ones hold."""

    def __init__(self, pool: asyncpg.Pool, authenticator: Authenticator, progress: DrainProgress) -> None:
        self._pool = pool
        self._authenticator = authenticator
        self._changed = asyncio.Event()
        progress.subscribe(KEYS_CHANNEL, lambda _: self._changed.set())

    async def read(self) -> None:
        """Raises StoreUnavailable."""
        keys = await api_keys.load(self._pool)
        self._authenticator.accept({digest: key.scope for digest, key in keys.items()})

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.read()
            except HoldfastError:
                log.warning("API keys could not be read; those known before stay")
                self._changed.set()
            await asyncio.sleep(_PAUSE_SECONDS)
