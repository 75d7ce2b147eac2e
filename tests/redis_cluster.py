"""A real cluster for a test that breaks it: three masters, each with a replica, on ports of this machine."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from tests.redis_pair import ReplicatedServer
from tests.redis_server import until
from tests.servers import quiet_port

MASTERS = 3
NODE_TIMEOUT_MS = 500
"""A master that is silent for this long is voted out: low, so that a test's failover takes seconds."""


class ClusterNode(ReplicatedServer):
    """`id`: what the cluster calls it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bus_port = quiet_port()
        self.id = ""

    async def start(self, **options: str) -> None:
        await super().start(
            cluster_enabled="yes",
            cluster_port=str(self.bus_port),
            cluster_announce_ip="127.0.0.1",
            cluster_node_timeout=str(NODE_TIMEOUT_MS),
            cluster_replica_validity_factor="0",
            cluster_allow_replica_migration="no",
            cluster_require_full_coverage="no",
            **options,
        )
        self.id = await self.say("CLUSTER MYID")

    async def say(self, *words: str | int) -> Any:
        return await self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def knows_all(self, count: int) -> bool:
        """Is the cluster whole for this node, with so many nodes?"""
        told = await self.say("CLUSTER INFO")
        return bool(told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == count)

    async def is_synced_replica(self) -> bool:
        told = await self.client.info("replication")
        return bool(told["role"] == "slave" and told["master_link_status"] == "up")


class RedisCluster:
    """`url` leads to the first master. The last three nodes are the replicas of the first three."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [ClusterNode(folder / str(number)) for number in range(2 * MASTERS)]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.nodes[0].port}/0"

    async def start(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes))
        first, masters, replicas = self.nodes[0], self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(self.nodes):
            await node.say("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                await first.say("CLUSTER MEET", "127.0.0.1", node.port, node.bus_port)
        share = REDIS_CLUSTER_HASH_SLOTS // MASTERS + 1
        for number, master in enumerate(masters):
            last = min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
            await master.say("CLUSTER ADDSLOTSRANGE", number * share, last)
        await self.are_whole()
        for master, replica in zip(masters, replicas, strict=True):
            await replica.say("CLUSTER REPLICATE", master.id)
        for replica in replicas:
            await until(replica.is_synced_replica)

    async def are_whole(self) -> None:
        for node in self.nodes:
            await until(lambda node=node: node.knows_all(len(self.nodes)))  # type: ignore[misc]

    def replica_of(self, master: ClusterNode) -> ClusterNode:
        return self.nodes[self.nodes.index(master) + MASTERS]

    async def owner(self, key: str) -> ClusterNode:
        """The master of the key's slot, as most nodes that answer say."""
        slot, votes = key_slot(key.encode()), []
        for node in self.nodes:
            with suppress(RedisError, OSError):
                votes += [
                    port
                    for first, last, (_, port, *_), *_ in await node.say("CLUSTER SLOTS")
                    if first <= slot <= last
                ]
        port = max(set(votes), key=votes.count)
        return next(node for node in self.nodes if node.port == port)

    async def begin_move(self, key: str, target: ClusterNode) -> None:
        """The key's slot is about to be the target's; keys go over one by one."""
        source, slot = await self.owner(key), key_slot(key.encode())
        await target.say("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        await source.say("CLUSTER SETSLOT", slot, "MIGRATING", target.id)

    async def move_keys(self, source: ClusterNode, target: ClusterNode, *keys: str) -> None:
        await source.say("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    async def move(self, key: str, target: ClusterNode, pause: float = 0.0) -> None:
        """The key's slot goes to the target, key by key, as tools do it; `pause` seconds between keys."""
        source, slot = await self.owner(key), key_slot(key.encode())
        await self.begin_move(key, target)
        while keys := await source.say("CLUSTER GETKEYSINSLOT", slot, 1):
            await self.move_keys(source, target, *keys)
            await asyncio.sleep(pause)
        for node in (target, source):
            await node.say("CLUSTER SETSLOT", slot, "NODE", target.id)

    async def move_at_once(self, key: str, target: ClusterNode) -> None:
        """As a whole, by Valkey 9."""
        source, slot = await self.owner(key), key_slot(key.encode())
        await source.say("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)

        async def has_moved() -> bool:
            return await self.owner(key) is target

        await until(has_moved)

    async def restart(self, node: ClusterNode) -> None:
        """It comes back as a replica of who took its place."""
        await node.start()
        await until(node.is_synced_replica)


@asynccontextmanager
async def redis_cluster() -> AsyncIterator[RedisCluster]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-cluster-", dir="/tmp"))
    cluster = RedisCluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()
            await node.client.aclose()
        shutil.rmtree(folder)
