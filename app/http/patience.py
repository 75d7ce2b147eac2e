"""Bounded waiting for Postgres, where an answer without it is better than none."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.errors import StoreUnavailable

T = TypeVar("T")

POSTGRES_SECONDS = 2.0
"""A read by primary key takes milliseconds; a server that needs longer is as good as away."""


async def read_soon(reading: Coroutine[Any, Any, T]) -> T:
    """What `reading` returns. Raises StoreUnavailable after `POSTGRES_SECONDS`."""
    task = asyncio.create_task(reading)
    # Not a time-out around it: the driver waits for a hung server again while it is being cancelled.
    try:
        done, _ = await asyncio.wait({task}, timeout=POSTGRES_SECONDS)
    finally:
        if not task.done():  # it took too long, or nobody waits any more
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()
    if done:
        return task.result()
    raise StoreUnavailable("Postgres does not answer.")
