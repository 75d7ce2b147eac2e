"""Is this process ready to serve? (`application/health+json`)"""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import __version__
from app.cluster import node_of
from app.database import connection
from app.errors import HoldfastError
from app.http.services import Services
from app.models import JournalId
from app.patience import read_soon

MEDIA_TYPE = "application/health+json"
_TIMEOUT_SECONDS = 2.0
_LAG_WARNING = 10_000
"""Undrained journal entries, over all partitions: seconds of work for the drain."""

Check = dict[str, Any]


class _PartitionState(NamedTuple):
    """`head`: None unless it is open."""

    head: JournalId | None
    has_gap: bool


async def check(services: Services) -> tuple[bool, dict[str, Any]]:
    """Whether holds and confirms can be served, and the checks.

    Postgres away or behind is a warning: they go on without it. Redis away, or no partition open, is not. At
    the start all partitions are waited for; later one that is closed must not take the others' sales down.
    """
    (heads, gaps), postgres = await asyncio.gather(_partitions(services), _postgres(services))
    if heads is not None and heads.count(None) <= gaps:
        services.started.set()
    redis, drain = _judge_redis(heads, services.started.is_set()), _judge_drain(services, heads)
    checks = {"redis": [redis], "postgres": [postgres], "drain:lag": [drain]}
    if services.gate.closing.is_set():
        checks["process"] = [{"componentType": "system", "status": "fail", "output": "is about to stop"}]
    statuses = [one["status"] for (one,) in checks.values()]
    status = next(one for one in ("fail", "warn", "pass") if one in statuses)
    return status != "fail", {"status": status, "version": __version__, "checks": checks}


async def _partitions(services: Services) -> tuple[list[JournalId | None] | None, int]:
    """The head of each partition, None for one that is not open, and how many of those only a person may
    open; None if Redis does not answer. If one master of a cluster does not, its partitions are not open."""
    by_server: dict[Redis, list[int]] = {}
    for partition in range(services.keys.partitions):
        with suppress(RedisError):
            server = node_of(services.redis, services.keys.meta(partition))
            by_server.setdefault(server, []).append(partition)
    states: dict[int, _PartitionState] = {}
    for found in await asyncio.gather(*(_ask(services, partitions) for partitions in by_server.values())):
        states |= found
    if not states:
        return None, 0
    heads = [states[i].head if i in states else None for i in range(services.keys.partitions)]
    return heads, sum(state.has_gap for state in states.values())


async def _ask(services: Services, partitions: list[int]) -> dict[int, _PartitionState]:
    """Of one server; without those of which it says nothing."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), services.redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.hmget(services.keys.meta(partition), "state", "epoch", "sequence", "server")
            pipe.info("replication")
            *metas, replication = await pipe.execute(raise_on_error=False)
    except (RedisError, OSError):
        return {}
    if isinstance(replication, RedisError):
        return {}
    return {
        partition: _state(*meta, server=replication["master_replid"])
        for partition, meta in zip(partitions, metas, strict=True)
        if not isinstance(meta, RedisError)
    }


def _state(state: str, epoch: str, sequence: str, writer: str, *, server: str) -> _PartitionState:
    is_open = state == "open" and writer == server
    return _PartitionState(JournalId(int(epoch), int(sequence)) if is_open else None, state == "gap")


def _judge_redis(heads: list[JournalId | None] | None, started: bool) -> Check:
    if heads is None:
        return {"status": "fail", "componentType": "datastore", "output": "Redis does not answer"}
    closed = heads.count(None)
    check: Check = {
        "componentType": "datastore",
        "observedValue": closed,
        "observedUnit": "closed partitions",
    }
    if not closed:
        return check | {"status": "pass"}
    status = "fail" if closed == len(heads) or not started else "warn"
    return check | {"status": status, "output": "a worker has to open the closed partitions"}


async def _postgres(services: Services) -> Check:
    check: Check = {"componentType": "datastore"}

    async def ask() -> None:
        async with connection(services.pool) as database:
            await database.fetchval("SELECT 1")

    try:
        await read_soon(ask())
    except HoldfastError:
        return check | {"status": "warn", "output": "Postgres does not answer; holds and confirms go on"}
    return check | {"status": "pass"}


def _judge_drain(services: Services, heads: list[JournalId | None] | None) -> Check:
    lag = sum(
        _lag(head, services.progress.drained(i)) for i, head in enumerate(heads or []) if head is not None
    )
    check: Check = {"componentType": "system", "observedValue": lag, "observedUnit": "journal entries"}
    if lag > _LAG_WARNING:
        return check | {"status": "warn", "output": "the drain lags behind"}
    return check | {"status": "pass"}


def _lag(head: JournalId, drained: JournalId | None) -> int:
    if drained is None or drained.epoch < head.epoch:
        return head.sequence
    return max(head.sequence - drained.sequence, 0)
