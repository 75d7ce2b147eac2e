"""The embedded Redis: append-only, synced at every write, on a socket of its own and no port."""

import os
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.resolve import find_redis
from app.embedded.supervisor import Service
from app.embedded.workspace import Workspace

_SOCKET = "redis.sock"
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}
"""A script makes and frees thousands of short strings. The package's server has the C library's allocator,
which keeps no more than seven of a size at hand unless it is told to, and then takes a tenth of the time."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def _half_of_memory() -> int:
    """Bytes: of the machine, or of the container around this process. The other half is for Postgres, the API
    and the copy of Redis that rewrites its file."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return (min(memory, int(limit)) if limit.isdecimal() else memory) // 2


class Redis:
    """Runs in `workspace`; `fsync=False` trades its safety in a crash of the machine for speed."""

    def __init__(self, workspace: Workspace, *, fsync: bool) -> None:
        self._workspace = workspace
        self._fsync = fsync
        self._socket = workspace.socket_folder("redis", _SOCKET, None) / _SOCKET

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def service(self) -> Service:
        """Raises ConfigurationError if there is no program to run."""
        program = find_redis()
        data = self._workspace.data / "redis"
        data.mkdir(mode=0o700, exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "always" if self._fsync else "no",
            "save": "",
            "maxmemory": str(_half_of_memory()),
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return Service(
            name="redis",
            command=[
                str(program.path),
                *(word for key, value in options.items() for word in (f"--{key}", value)),
            ],
            environment=ENVIRONMENT,
            folder=data,
            log=self._workspace.log("redis"),
            # A socket left by a killed server would let clients wait instead of telling them.
            prepare=lambda: Path(self._socket).unlink(missing_ok=True),
        )

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this process id answers, and has read its file."""
        try:
            with redis.Redis(
                unix_socket_path=str(self._socket), socket_timeout=1.0, retry=Retry(NoBackoff(), 0)
            ) as client:
                # A server that still reads its file refuses commands, but answers this one.
                info = client.info()
                return bool(info["process_id"] == pid and not info["loading"])
        except redis.RedisError:
            return False
