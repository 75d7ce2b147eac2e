"""Redis and Postgres for as long as a `with` lasts."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded.postgres import Postgres
from app.embedded.redis import Redis
from app.embedded.supervisor import Supervisor
from app.embedded.workspace import Workspace

_READY_SECONDS = 120.0
"""Both read their logs first, which takes time after a crash under load."""


class EmbeddedServers:
    """A Redis and a Postgres that keep what they acknowledged in `data`, and are started again when they die.

        with EmbeddedServers(Path("data")) as servers:
            connect(servers.redis_url, servers.database_url)

    A server whose URL is given is not started. `fsync=False` is for tests and trials: a crash of the
    machine, or a kill at the wrong moment, may then cost data.
    """

    def __init__(
        self, data: Path, *, fsync: bool = True, redis_url: str | None = None, database_url: str | None = None
    ) -> None:
        self.workspace = Workspace(data)
        self.redis_url = redis_url or ""
        self.database_url = database_url or ""
        self._fsync = fsync
        self._supervisor: Supervisor | None = None

    @property
    def supervisor(self) -> Supervisor:
        """Takes more services, which stop before the servers do. Only while they run."""
        assert self._supervisor is not None, "the servers are not started"  # noqa: S101
        return self._supervisor

    def start(self) -> Self:
        """Returns once both answer.

        Raises ConfigurationError if `data` is in use or cannot be used, or a program is missing or fails.
        """
        self.workspace.open()
        self._supervisor = Supervisor(self.workspace.run)
        try:
            self._start_servers(self._supervisor)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop both, Redis last, and give `data` back. Calling it again does nothing."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        self.workspace.close()

    def _start_servers(self, supervisor: Supervisor) -> None:
        ready: dict[str, Callable[[int], bool]] = {}
        if not self.redis_url:
            redis = Redis(self.workspace, fsync=self._fsync)
            supervisor.start(redis.service())
            self.redis_url = redis.url
            ready["redis"] = redis.is_ready
        if not self.database_url:
            postgres = Postgres(self.workspace, fsync=self._fsync)
            supervisor.start(postgres.service(supervisor))
            self.database_url = postgres.url
            ready["postgres"] = postgres.is_ready
        supervisor.wait_ready(ready, _READY_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
