"""A primary with its replica, for a test that breaks them: real servers, and an address that can be moved."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from app.embedded.ports import free_port
from app.embedded.resolve import find_redis
from app.embedded.supervisor import Service

_PATIENCE_SECONDS = 30


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Servers don't tell: they are asked until it is so."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class RedisServer:
    """Clients reach it by its socket, other servers by its port. Its folder outlives kills."""

    def __init__(self, folder: Path, name: str) -> None:
        self.socket = folder / f"{name}.sock"
        self.port = free_port("127.0.0.1", 0)
        self._folder = folder
        self._data = folder / name
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Redis(unix_socket_path=str(self.socket), decode_responses=True)

    async def start(self) -> None:
        """Starts it on what its folder has, as a primary."""
        self._data.mkdir(exist_ok=True)
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "unixsocket": str(self.socket),
            "dir": str(self._data), "appendonly": "yes", "appendfsync": "no", "save": "",
            "repl-diskless-sync-delay": "0",
        }  # fmt: skip
        service = Service(
            name=self._name,
            command=[
                str(find_redis().path),
                *(word for key, value in options.items() for word in (f"--{key}", value)),
            ],
            environment={"LC_ALL": "C"},
            log=self._folder / f"{self._name}.log",
            prepare=lambda: self.socket.unlink(missing_ok=True),
        )
        self._process = service.spawn(self._folder / f"{self._name}.pid")
        await _until(self._answers)

    async def _answers(self) -> bool:
        try:
            return not (await self.client.info("persistence"))["loading"]
        except (ConnectionError, OSError):
            return False

    async def follow(self, master: "RedisServer") -> None:
        """Becomes a replica that has all that the other one has."""
        await self.client.config_set("masterauth", "")
        await self.client.replicaof("127.0.0.1", str(master.port))
        await _until(lambda: self._has_all_of(master))

    async def _has_all_of(self, master: "RedisServer") -> bool:
        told = await master.client.info("replication")
        heard = await self.client.info("replication")
        online = told["connected_slaves"] == 1 and told["slave0"]["state"] == "online"
        return bool(online and heard.get("slave_repl_offset") == told["master_repl_offset"])

    async def cut(self) -> None:
        """The replica hears no more of its primary, nor what is still under way."""
        await self.client.config_set("masterauth", "no such password")
        await self.client.client_kill_filter(_type="master")
        await _until(self._is_cut)

    async def _is_cut(self) -> bool:
        return bool((await self.client.info("replication"))["master_link_status"] == "down")

    async def promote(self) -> None:
        await self.client.replicaof("NO", "ONE")

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """-9, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def lose_data(self) -> None:
        """Its disk is gone. While it is down."""
        shutil.rmtree(self._data)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class RedisPair:
    """`url` leads to `primary` at first, and where `point_at` says then, as a name or an address does that a
    failover moves. Connections that are open stay where they are."""

    def __init__(self, folder: Path) -> None:
        self._address = folder / "address"
        self.primary, self.replica = RedisServer(folder, "primary"), RedisServer(folder, "replica")
        self.url = f"unix://{self._address}?db=0"

    def point_at(self, server: RedisServer) -> None:
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
