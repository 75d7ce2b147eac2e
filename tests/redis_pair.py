"""A primary with its replica, for a test that breaks them: real servers, and an address that can be moved."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.redis_server import RedisServer, until
from tests.servers import quiet_port


class ReplicatedServer(RedisServer):
    """Clients reach it by its socket, other servers by its port."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = quiet_port()

    async def start(self, **options: str) -> None:
        """Starts it on what its folder has, as a primary."""
        self.folder.mkdir(exist_ok=True)
        port = {"port": str(self.port), "bind": "127.0.0.1", "repl_diskless_sync_delay": "0"}
        await super().start(**port, **options)
        await until(self._has_loaded)

    async def _has_loaded(self) -> bool:
        return not (await self.client.info("persistence"))["loading"]

    async def follow(self, master: "ReplicatedServer") -> None:
        """Becomes a replica that has all that the other one has."""
        await self.client.config_set("masterauth", "")
        await self.client.replicaof("127.0.0.1", str(master.port))
        await until(lambda: self._has_all_of(master))

    async def _has_all_of(self, master: "ReplicatedServer") -> bool:
        told = await master.client.info("replication")
        heard = await self.client.info("replication")
        online = told["connected_slaves"] == 1 and told["slave0"]["state"] == "online"
        return bool(online and heard.get("slave_repl_offset") == told["master_repl_offset"])

    async def cut(self) -> None:
        """The replica hears no more of its primary, nor what is still under way."""
        await self.client.config_set("masterauth", "no such password")
        await self.client.client_kill_filter(_type="master")
        await until(self._is_cut)

    async def _is_cut(self) -> bool:
        return bool((await self.client.info("replication"))["master_link_status"] == "down")

    async def promote(self) -> None:
        await self.client.replicaof("NO", "ONE")

    def lose_data(self) -> None:
        """Its disk is gone. While it is down."""
        shutil.rmtree(self.folder)


class RedisPair:
    """`url` leads to `primary` at first, and where `point_at` says then, as a name or an address does that a
    failover moves. Connections that are open stay where they are."""

    def __init__(self, folder: Path) -> None:
        self._address = folder / "address"
        self.primary, self.replica = (ReplicatedServer(folder / name) for name in ("primary", "replica"))
        self.url = f"unix://{self._address}?db=0"

    def point_at(self, server: ReplicatedServer) -> None:
        self._address.unlink(missing_ok=True)
        self._address.symlink_to(server.socket)

    async def fail_over(self) -> None:
        """The primary dies, the replica takes its place with what it has."""
        self.primary.kill()
        self.replica.resume()
        await self.replica.promote()
        self.point_at(self.replica)


@asynccontextmanager
async def redis_pair() -> AsyncIterator[RedisPair]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-pair-", dir="/tmp"))
    pair = RedisPair(folder)
    servers = (pair.primary, pair.replica)
    try:
        await asyncio.gather(*(server.start() for server in servers))
        await pair.replica.follow(pair.primary)
        pair.point_at(pair.primary)
        yield pair
    finally:
        for server in servers:
            server.kill()
            await server.client.aclose()
        shutil.rmtree(folder)


async def drop_connections(redis: Redis) -> None:
    """As after a broken network: the client connects anew, to wherever the address leads."""
    pool: Any = redis.connection_pool
    await pool.disconnect()
