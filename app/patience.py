"""Bounded waiting for Postgres, where an answer without it is better than none."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.errors import StoreUnavailable

T = TypeVar("T")

POSTGRES_SECONDS = 2.0
"""A read by primary key takes milliseconds; a server that needs longer is as good as away."""
LIST_SECONDS = 5.0
"""A page of a list reads hundreds of rows by an index."""
_READS_AT_ONCE = 256
"""Per process: what a handful of connections answers within the bound. While Postgres hangs, reads that were
given up still wait for the driver; beyond these, nobody waits for a time-out first."""

_reading: set[asyncio.Task[Any]] = set()


async def read_soon(reading: Coroutine[Any, Any, T], seconds: float = POSTGRES_SECONDS) -> T:
    """What `reading` returns. Raises StoreUnavailable after `seconds`, or at once if too many wait."""
    if len(_reading) >= _READS_AT_ONCE:
        reading.close()
        raise StoreUnavailable("Too many reads wait for Postgres.", retry_after=1)
    task = asyncio.create_task(reading)
    _reading.add(task)
    task.add_done_callback(_reading.discard)
    # Not a time-out around it: the driver waits for a hung server again while it is being cancelled.
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():  # it took too long, or nobody waits any more
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()
    if done:
        return task.result()
    raise StoreUnavailable("Postgres does not answer.", retry_after=1)
