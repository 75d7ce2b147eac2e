"""A Redis of a test's own, to be paused, killed and started again."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded.resolve import find_redis
from app.embedded.supervisor import Service

_PATIENCE_SECONDS = 30


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Servers don't tell: they are asked until it is so."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class RedisServer:
    """Its folder outlives kills. `client` is the test's own, apart from what is tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self.socket}?db=0"
        self.client = Redis.from_url(self.url, decode_responses=True)

    async def start(self, **options: str) -> None:
        """Returns when it answers anything, be it an error. `options`: with _ for -."""
        defaults = {
            "port": "0", "unixsocket": str(self.socket), "dir": str(self.folder), "appendonly": "yes",
            "appendfsync": "no", "save": "",
        }  # fmt: skip
        words = (defaults | options).items()
        service = Service(
            name="redis",
            command=[
                str(find_redis().path),
                *(part for name, value in words for part in (f"--{name.replace('_', '-')}", value)),
            ],
            environment={"LC_ALL": "C"},
            log=self.folder / "redis.log",
            prepare=lambda: self.socket.unlink(missing_ok=True),
        )
        self._process = service.spawn(self.folder / "redis.pid")
        await until(self._answers)

    async def _answers(self) -> bool:
        try:
            await self.client.info("server")
        except (RedisError, OSError):
            return False
        return True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It hangs: connections are made, and nothing is answered."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """-9, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@asynccontextmanager
async def redis_server(**options: str) -> AsyncIterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-redis-", dir="/tmp"))
    server = RedisServer(folder)
    try:
        await server.start(**options)
        yield server
    finally:
        server.kill()
        await server.client.aclose()
        shutil.rmtree(folder)
