"""A Redis and a Postgres for a whole test session; under pytest-xdist each worker has its own pair."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.embedded.ports import free_port
from app.embedded.servers import EmbeddedServers
from app.errors import ConfigurationError


def quiet_port() -> int:
    """A free port below those that the kernel gives to outgoing connections, which take one at any moment."""
    while True:
        with suppress(ConfigurationError):
            return free_port("127.0.0.1", 12_000 + secrets.randbelow(20_000))


@contextmanager
def temporary_servers(*, fsync: bool = False) -> Iterator[EmbeddedServers]:
    """Servers on a temporary folder, removed at the end; use `redis_url` and `database_url`.

    Without fsync by default: most tests kill nothing.
    """
    data = Path(tempfile.mkdtemp(prefix="holdfast-test-", dir="/tmp"))
    # Postgres may run as another user than root, who runs the tests in a container.
    data.chmod(0o711)
    try:
        with EmbeddedServers(data, fsync=fsync) as servers:
            yield servers
    finally:
        shutil.rmtree(data, ignore_errors=True)
