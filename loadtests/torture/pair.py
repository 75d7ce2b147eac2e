"""Two Redis servers of which one follows the other, behind one address that a failover turns round."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from app.embedded.ports import free_port
from app.embedded.resolve import find_redis
from loadtests.torture.stand import Stand, StandFailed, running, scratch_folder, words_of_pieces

READY_SECONDS = 20.0
_NOWHERE = 1
"""A port that no server has: who follows it stays as it is."""


class Server:
    """One of the two; for clients on a socket, for the other one on a port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"
        self.port = free_port("127.0.0.1", 0)
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True, socket_timeout=5)

    def start(self) -> None:
        """Starts it, with nothing in it at the first time. Raises StandFailed."""
        self._folder.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        options = {
            "dir": self._folder, "unixsocket": self.socket, "bind": "127.0.0.1", "port": self.port,
            "appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": 0,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([str(find_redis().path), *words], stdout=subprocess.DEVNULL)
        self.wait_until("loading", "0")

    def start_empty(self) -> None:
        """Raises StandFailed."""
        shutil.rmtree(self._folder)
        self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def follow(self, other: "Server") -> None:
        """Returns once it has all that the other one had. Raises StandFailed."""
        self.client.replicaof("127.0.0.1", str(other.port))
        self.wait_until("master_link_status", "up")

    def stop_following(self) -> None:
        """It hears of nothing any more, and stays a replica."""
        self.client.replicaof("127.0.0.1", str(_NOWHERE))

    def lead(self) -> None:
        self.client.replicaof("NO", "ONE")

    def wait_until(self, name: str, value: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError):
                if str(self.client.info().get(name)) == value:
                    return
            time.sleep(0.02)
        raise StandFailed(f"a Redis server did not come to {name} {value} in {READY_SECONDS:.0f} s")


class PairStand(Stand):
    """Its processes reach Redis through a link to the socket of the server that leads."""

    primary: Server
    replica: Server
    link: Path

    def point_to(self, server: Server) -> None:
        """New connections lead to `server`."""
        new = self.link.with_suffix(".new")
        new.symlink_to(server.socket)
        new.replace(self.link)

    def change_places(self) -> None:
        self.primary, self.replica = self.replica, self.primary


@contextlib.contextmanager
def stand_of_pair(replica_acks: int) -> Iterator[Stand]:
    """Raises StandFailed."""
    with scratch_folder() as folder:
        servers = Server(folder / "one"), Server(folder / "two")
        try:
            for server in servers:
                server.start()
            link = folder / "current.sock"
            ports = [free_port("127.0.0.1", 0)]
            stand = PairStand(
                folder / "data",
                words_of_pieces(folder / "data", ports, workers=1),
                ports,
                HOLDFAST_REDIS_URL=f"unix://{link}?db=0",
                HOLDFAST_REPLICA_ACKS=str(replica_acks),
            )
            stand.link = link
            stand.primary, stand.replica = servers
            stand.replica.follow(stand.primary)
            stand.point_to(stand.primary)
            with running(stand):
                yield stand
        finally:
            for server in servers:
                server.kill()
                server.client.close()
