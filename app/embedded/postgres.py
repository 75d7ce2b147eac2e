"""The embedded Postgres: a cluster with the database `holdfast`, on a socket of its own and no port."""

import contextlib
import os
import shutil
import signal
import sys
import time
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from app.embedded.accounts import unprivileged_account
from app.embedded.launch import identity
from app.embedded.resolve import Program, find_postgres
from app.embedded.supervisor import Service, Supervisor
from app.embedded.workspace import Workspace
from app.errors import ConfigurationError

_SOCKET = ".s.PGSQL.5432"
_READY_LINE = 7
"""The line of postmaster.pid, from 0, where the server says how far it is; pg_ctl reads the same."""
_ORPHAN_SECONDS = 5.0
"""Bounded, as meanwhile the supervisor starts nothing else."""
_ORPHAN_POLL_SECONDS = 0.02
_THROUGH_CWD = Path("/proc/self/cwd")
_THROUGH_CWD_VERSION = (16,)
"""Older ones change their working directory while they start."""


class Postgres:
    """Runs in `workspace`; `fsync=False` trades its safety in a crash of the machine for speed."""

    def __init__(self, workspace: Workspace, *, fsync: bool) -> None:
        self._workspace = workspace
        self._fsync = fsync
        self._data = workspace.data / "postgres"
        self._account = unprivileged_account()
        self._socket_folder = workspace.socket_folder("postgres", _SOCKET, self._account)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/holdfast?host={quote(str(self._socket_folder))}"

    def service(self, supervisor: Supervisor) -> Service:
        """Makes the cluster if there is none.

        Raises ConfigurationError if there is no program to run, or it cannot work here.
        """
        if not self._data.exists():
            self._make_cluster(supervisor)
        if self._account:
            self._account.own(self._data)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_folder),
            "wal_level": "logical",
            "max_connections": "200",
            "logging_collector": "off",
        }
        if not self._fsync:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return self._service(
            "postgres",
            self._data,
            [str(self._executable), "-D", str(self._seen_as(self._data)), *words],
            prepare=True,
        )

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this process id takes connections, after recovery."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"

    def _make_cluster(self, supervisor: Supervisor) -> None:
        """Appears under its name only once it is whole, with its database."""
        unfinished = self._data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account:
            self._account.own(unfinished)
        seen = str(self._seen_as(unfinished))
        initdb = str(self._executable.with_name("initdb"))
        command = [initdb, "-D", seen, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        if not self._fsync:
            command.append("--no-sync")
        supervisor.run(self._service("initdb", unfinished, command, needs_name=True))
        # Single-user mode needs no server. It reads statements from its standard input.
        script = ["/bin/sh", "-c", 'echo "CREATE DATABASE holdfast" | "$0" --single -D "$1" postgres']
        command = [*script, str(self._executable), seen]
        supervisor.run(self._service("createdb", unfinished, command, needs_name=True))
        unfinished.rename(self._data)

    def _service(
        self, name: str, folder: Path, command: list[str], *, needs_name: bool = False, prepare: bool = False
    ) -> Service:
        return Service(
            name=name,
            command=command,
            environment={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath},
            folder=folder,
            account=self._account,
            needs_name=needs_name,
            log=self._workspace.log("postgres"),
            stop_signal=signal.SIGINT,
            stop_seconds=30.0,
            prepare=self._make_way if prepare else lambda: None,
        )

    def _make_way(self) -> None:
        """Have what a killed server left end, and remove its pid files if they would stop a new one.

        Postgres takes a process with that id for a running server, also if it is another program by now, as
        happens in containers, or one that has ended and that nobody has waited for. In all other cases, and
        as long as anything of the killed one runs, the files serve it as an interlock.
        """
        if not self._has_orphans():
            for file in (self._data / "postmaster.pid", self._socket_folder / f"{_SOCKET}.lock"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
                    pid = int(file.read_text().split()[0])
                    named = Path(f"/proc/{pid}/comm").read_text().strip()
                    if named != "postgres" or identity(pid) is None:
                        file.unlink()

    def _has_orphans(self) -> bool:
        """Wait, bounded, for what a killed server left: its memory keeps a new one from starting.

        They end by themselves, one that writes a checkpoint not at once. Without a /proc nobody waits.
        """
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while _works_in(self._data):
            if time.monotonic() > deadline:
                return True
            time.sleep(_ORPHAN_POLL_SECONDS)
        return False

    @cached_property
    def _program(self) -> Program:
        try:
            major = int((self._data / "PG_VERSION").read_text())
        except FileNotFoundError:
            major = None
        return find_postgres(major)

    @cached_property
    def _executable(self) -> Path:
        """The program, or a copy of it where its user can run it."""
        program, account = self._program, self._account
        if account is None or account.can_run([str(program.path), "--version"]):
            return program.path
        if program.package is not None:
            copy = _copy_package(program, self._workspace.scratch / "bin")
            if account.can_run([str(copy), "--version"]):
                return copy
        raise ConfigurationError(
            f"{program} cannot be run by the user {account.name}, whom Postgres runs as when root starts it: "
            "make it readable, or start holdfast as another user"
        )

    def _seen_as(self, folder: Path) -> Path:
        """The folder's path as the server can use it.

        Where the folders above are closed to its user (a project below /root), it starts inside its folder
        and reaches it as its working directory, and no permission has to be widened.
        """
        if self._account is None or self._account.can_enter(folder):
            return folder
        if sys.platform == "linux" and self._program.version >= _THROUGH_CWD_VERSION:
            return _THROUGH_CWD
        raise ConfigurationError(
            f"{folder} cannot be reached by the user {self._account.name}, whom Postgres runs as when root "
            "starts it: choose another --data, or start holdfast as another user"
        )


def _works_in(folder: Path) -> bool:
    """Whether a process has `folder` as its working directory, as all of a Postgres have their data."""
    name = str(folder.resolve())
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if os.readlink(link) == name:
                return True
    return False


def _copy_package(program: Program, target: Path) -> Path:
    """Copy the wheel's installation of Postgres and the libraries it looks for beside it; 33 MB, 0.2 s."""
    package = program.package
    assert package is not None  # noqa: S101
    installation = program.path.parent.parent
    copied = target / package.name / installation.name
    shutil.copytree(installation, copied, symlinks=True)
    for libraries in (package / ".dylibs", package.with_name(f"{package.name}.libs")):
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    for folder in (target, target / package.name):
        folder.chmod(0o755)
    return copied / "bin" / "postgres"
