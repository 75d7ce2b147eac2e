"""A pool of connections to Redis that refuses callers at once while Redis does not answer.

Libraries of circuit breakers let a caller's own call through as the trial. Here that call may be a payment
whose outcome then nobody knows, so a probe of the pool's own asks instead, beside the callers.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    MaxConnectionsError,
    RedisError,
    ResponseError,
)

_PROBE = ("EVAL", "return 1", 0)
"""A script, since a server can answer other commands while it makes scripts wait, as during a failover."""
_PROBE_SECONDS = 1.0
"""A server that needs longer for nothing is no better than one that is away."""
_PAUSE_SECONDS, _PAUSE_LIMIT_SECONDS = 0.1, 0.5
"""Between probes: recovery is seen within a second, and a server that starts is not hammered."""
_WAITERS_PER_CONNECTION = 16
"""Callers that may wait for each connection: tenths of a second at the pace of a Redis that works."""

_QUICK_REFUSALS = (ResponseError, AuthenticationError, BusyLoadingError)
"""An error is an answer: it came at once, and says more to the caller than that the store is away."""

log = structlog.get_logger(__name__)


class StoreAway(ConnectionError):
    """Redis does not answer; nothing was sent."""


class GuardedPool(ConnectionPool):
    """After a lost answer or connection, callers get StoreAway until a probe is answered.

    So do those who already wait for a connection; nobody does for more than `timeout` seconds. Where too many
    wait, further ones get MaxConnectionsError.
    """

    def __init__(self, *, timeout: float, **options: Any) -> None:
        super().__init__(**options)
        self.timeout = timeout
        self.on_silence: Callable[[], object] = lambda: None
        """Called with every probe that is not answered."""
        self._waiting = 0
        self._changed = asyncio.Condition()
        """A connection has become free, or Redis is away."""
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        return self._probing is not None

    def report_lost(self) -> None:
        """To be called where an answer did not come, or a connection broke. The first probe goes out now."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe_until_answered())

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        connection = await self._free_connection()
        try:
            if _is_lost(connection):
                await connection.disconnect(nowait=True)
            await self.ensure_connection(connection)
        except BaseException as error:
            await self.release(connection)
            if isinstance(error, RedisError | OSError) and not isinstance(error, _QUICK_REFUSALS):
                self.report_lost()
            raise
        return connection

    async def _free_connection(self) -> Any:
        if not self.is_away and (self._waiting or not self.can_get_connection()):
            await self._wait()
        if self.is_away:
            raise StoreAway("Redis does not answer.")
        return self.get_available_connection()  # type: ignore[no-untyped-call]

    async def _wait(self) -> None:
        if self._waiting >= self.max_connections * _WAITERS_PER_CONNECTION:
            raise MaxConnectionsError("Too many wait for a connection.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self.timeout), self._changed:
                await self._changed.wait_for(lambda: self.is_away or self.can_get_connection())
        except TimeoutError:
            raise ConnectionError("No connection became free in time.") from None
        finally:
            self._waiting -= 1

    async def release(self, connection: Any) -> None:
        await super().release(connection)
        async with self._changed:
            self._changed.notify()

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await super().disconnect(inuse_connections)

    async def _probe_until_answered(self) -> None:
        started, pause = time.monotonic(), _PAUSE_SECONDS
        try:
            async with self._changed:
                self._changed.notify_all()
            if await self._is_answered():
                return  # one answer was slow; that is no outage
            log.warning("Redis does not answer: callers are refused until it does")
            while not _is_cancelled():
                # Jitter keeps many processes from asking at the same moments.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, _PAUSE_LIMIT_SECONDS)
                if await self._is_answered():
                    log.info("Redis answers again", after_seconds=round(time.monotonic() - started, 1))
                    return
        finally:
            self._probing = None

    async def _is_answered(self) -> bool:
        connection = self.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await connection.connect()
                await connection.send_command(*_PROBE)
                await connection.read_response()
        except _QUICK_REFUSALS:
            return True
        except (RedisError, OSError):
            self.on_silence()
            return False
        finally:
            await connection.disconnect(nowait=True)
        return True


def _is_lost(connection: Any) -> bool:
    """Was it reset while it was idle? The client itself only notices an orderly end."""
    return bool(connection.is_connected and connection._writer.transport.is_closing())


def _is_cancelled() -> bool:
    """Has this task been told to end? `asyncio.wait_for`, through which the client goes, can swallow that in
    Python 3.11 (python/cpython#86296)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
