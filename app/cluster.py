"""Redis Cluster: which master has a partition's slot, and a guarded pool for each of them.

A client starts with the one server of its URL, and only where that turns out to belong to a cluster it learns
of the others. Not with redis-py's RedisCluster: after a lost answer it executes the command once more, which
may by then have run. Here only MOVED is followed, as nothing ran where it came from. ASK is not: a slot that
is being moved is about to be another server's, on which every script answers `rebuilding` anyway.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import ceil
from typing import Any, cast

import structlog
from redis.asyncio import Connection, Redis, UnixDomainSocketConnection
from redis.asyncio.client import Pipeline
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError, MovedError, RedisError, TimeoutError

from app.breaker import GuardedPool, StoreAway

_ASK_SECONDS = 1.0
"""For one node to say who has which slots; the next one is asked then."""
_LOOK_SECONDS = 0.02
"""Between looks at a cluster's journals: short beside the wait of a confirm that asked for persistence."""
_LOOKS_PER_SECOND = 10_000
"""At single journals: where there are many, each is looked at more rarely."""

_LOST = (ConnectionError, TimeoutError, OSError)

Address = tuple[str, int]

log = structlog.get_logger(__name__)


class ClusterIncomplete(StoreAway):
    """Nobody serves the key, or nobody says who does; nothing was sent."""


class RoutedRedis(Redis):
    """One Redis, or the masters of its cluster. A command goes to the server of the first key among its
    words; a key is known by the hash tag in front."""

    def __init__(self, pool: GuardedPool) -> None:
        super().__init__(connection_pool=pool)
        self._pool = pool
        self._seed: Redis = Redis.from_pool(pool)
        self._nodes: dict[Address, Redis] = {}
        self._owners: list[Redis | None] = []
        """By slot; empty unless the server is known to belong to a cluster."""
        self._connections_each = pool.max_connections
        self._learning: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def is_cluster(self) -> bool:
        return bool(self._owners)

    @property
    def is_whole(self) -> bool:
        """Has every slot a master?"""
        return None not in self._owners

    @property
    def masters(self) -> list[Redis]:
        """Those that have slots; without a cluster the one server."""
        return list(dict.fromkeys(filter(None, self._owners))) or [self._seed]

    def node_of(self, key: str) -> Redis:
        """The client of the server that has the key. Raises ClusterIncomplete where none has."""
        if not self._owners:
            return self._seed
        owner = self._owners[key_slot(key.encode())]
        if owner is None:
            self._learn_soon()
            raise ClusterIncomplete("No master has the key's slot.")
        return owner

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        for _ in range(2):
            node = self._node_for(args)
            try:
                return await node.execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except MovedError as error:
                moved = error
                await self.follow(error)
            except _LOST:
                self.report_lost(node)
                raise
        raise moved

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _RoutedPipeline(self, transaction)

    def _node_for(self, words: Iterable[Any]) -> Redis:
        if not self._owners:
            return self._seed
        key = next((word for word in words if isinstance(word, str) and word.startswith("{")), None)
        if key is not None:
            return self.node_of(key)
        masters = self.masters
        return next((node for node in masters if not _pool(node).is_away), masters[0])

    def report_lost(self, node: Redis) -> None:
        """So that nobody waits for a master that hangs while its partitions go on elsewhere."""
        if self._owners:
            _pool(node).report_lost()

    # Who has which slot

    async def follow(self, moved: MovedError) -> None:
        """What the error tells is known from here on. Raises ClusterIncomplete if no node can be asked."""
        if not self._owners or moved.host in ("", "?"):
            await self.learn()
        else:
            self._owners[moved.slot_id] = first = self._node(moved.host, moved.port)
            self._learn_soon(first)

    async def learn(self) -> None:
        """Asks who has which slots. Raises ClusterIncomplete if no node says."""
        await asyncio.shield(self._learn_soon())

    def _learn_soon(self, first: Redis | None = None) -> "asyncio.Task[None]":
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn(first))
            # Who waits hears of it; the others ask again.
            self._learning.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._learning

    async def _learn(self, first: Redis | None) -> None:
        known = list(self._nodes.values())
        random.shuffle(known)
        known.sort(key=lambda node: (node is not first, _pool(node).is_away))
        for node in [*known, self._seed]:
            with suppress(RedisError, OSError):
                async with asyncio.timeout(_ASK_SECONDS):
                    slots = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
                self._take(slots, _pool(node).connection_kwargs.get("host", "127.0.0.1"))
                await self._pool.disconnect(inuse_connections=False)
                return
        raise ClusterIncomplete("No node of the cluster says who has which slots.")

    def _take(self, slots: Iterable[Any], asked: str) -> None:
        """`asked`: the host that said so, which stands for itself without a name."""
        ranges = [(first, last, (host or asked, int(port))) for first, last, (host, port, *_), *_ in slots]
        addresses = {address for _, _, address in ranges}
        self._connections_each = max(2, ceil(self._pool.max_connections / max(1, len(addresses))))
        owners: list[Redis | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in ranges:
            owners[first : last + 1] = [self._node(*address)] * (last + 1 - first)
        for address in self._nodes.keys() - addresses:
            self._retire(self._nodes.pop(address))
        if self.is_cluster and set(filter(None, owners)) != set(filter(None, self._owners)):
            log.info(
                "the cluster has other masters now", masters=[f"{host}:{port}" for host, port in addresses]
            )
        self._owners = owners

    def _node(self, host: str, port: int) -> Redis:
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes[host, port] = Redis.from_pool(self._pool_of(host, port))
        return node

    def _pool_of(self, host: str, port: int) -> GuardedPool:
        options = {name: value for name, value in self._pool.connection_kwargs.items() if name != "path"}
        kind = self._pool.connection_class
        pool = GuardedPool(
            timeout=self._pool.timeout,
            max_connections=self._connections_each,
            connection_class=Connection if kind is UnixDomainSocketConnection else kind,
            **options | {"host": host, "port": port},
        )
        # While a master is silent its replica may take over.
        pool.on_silence = self._learn_soon
        return pool

    def _retire(self, node: Redis) -> None:
        """Calls that are under way may end."""

        async def close() -> None:
            try:
                await asyncio.sleep(self._pool.timeout * 2)
            finally:
                await node.aclose()

        task = asyncio.create_task(close())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        tasks = [*self._retiring, *filter(None, [self._learning])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in (*self._nodes.values(), self._seed):
            await node.aclose()


class _RoutedPipeline(Pipeline):
    """For reads from one server: where the first key's partition has moved, all are sent once more."""

    def __init__(self, cluster: RoutedRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = list(self.command_stack)
        for _ in range(2):
            node = self._cluster._node_for(word for words, _ in stack for word in words)
            self.connection_pool, self.command_stack = node.connection_pool, list(stack)
            try:
                replies = await super().execute(raise_on_error)
            except MovedError as error:
                moved = error
                await self._cluster.follow(error)
            except _LOST:
                self._cluster.report_lost(node)
                raise
            else:
                for reply in replies:
                    if isinstance(reply, MovedError):
                        await self._cluster.follow(reply)
                return replies
        raise moved


def _pool(node: Redis) -> GuardedPool:
    return cast(GuardedPool, node.connection_pool)


def node_of(redis: Redis, key: str) -> Redis:
    """The client of the server that has the key."""
    return redis.node_of(key) if isinstance(redis, RoutedRedis) else redis


async def grown(redis: Redis, places: Mapping[str, str], seconds: float) -> list[str]:
    """Keys of the streams that have entries after their places; waits up to `seconds` for the first one."""
    if not (isinstance(redis, RoutedRedis) and redis.is_cluster):
        streams: Any = places
        reply: Any = await redis.xread(streams, count=1, block=max(1, int(seconds * 1000)))
        return list(dict(reply)) if reply else []
    # One command may not name several slots, and a connection of its own for each would be hundreds.
    until = time.monotonic() + seconds
    while True:
        found = await _look(redis, places)
        if found or time.monotonic() >= until:
            return found
        await asyncio.sleep(max(_LOOK_SECONDS, len(places) / _LOOKS_PER_SECOND))


async def _look(redis: RoutedRedis, places: Mapping[str, str]) -> list[str]:
    """Raises the client's error if no partition can be read at all: one that is away stops no other one."""
    by_node: dict[Redis, dict[str, str]] = {}
    for key, place in places.items():
        with suppress(ClusterIncomplete):
            by_node.setdefault(redis.node_of(key), {})[key] = place
    looks = [_look_at(redis, theirs) for theirs in by_node.values()]
    replies = {key: reply for look in await asyncio.gather(*looks) for key, reply in look.items()}
    failed = [reply for reply in replies.values() if isinstance(reply, Exception)]
    if len(failed) == len(replies):
        raise failed[0] if failed else ClusterIncomplete("No master has the journals' slots.")
    return [key for key, reply in replies.items() if reply and not isinstance(reply, Exception)]


async def _look_at(redis: RoutedRedis, places: Mapping[str, str]) -> dict[str, Any]:
    """What each stream of one server has after its place, or why that is not known."""
    async with redis.pipeline(transaction=False) as pipe:
        for key, place in places.items():
            streams: Any = {key: place}
            pipe.xread(streams, count=1)
        try:
            replies = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            replies = [error] * len(places)
    return dict(zip(places, replies, strict=True))
