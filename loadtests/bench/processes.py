"""On which core what runs, and what each process used."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil

from app.embedded.resolve import find_postgres, find_redis

MICROSECONDS = 1_000_000


def cores() -> tuple[int, int] | None:
    """One for the servers and one for the generator, or None where they cannot be kept apart."""
    usable = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    return (usable[0], usable[1]) if len(usable) > 1 else None


def pin(core: int) -> None:
    """Keeps this thread, and what it starts from now on, on one core."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})


@contextmanager
def unpinned_after() -> Iterator[None]:
    """This thread may then run where it might before: the next section looks for its cores itself."""
    before = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    try:
        yield
    finally:
        if sys.platform == "linux":
            os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children, ended ones included."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:4]) for member in family if member.is_running())


def memory_mib(pid: int) -> float:
    """What is resident of a process and its children, in MiB."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_info().rss for member in family)) / 2**20


def machine() -> str:
    """One sentence: hardware, versions and date."""
    redis, postgres = find_redis(), find_postgres(None)
    versions = [f"{each.name} {'.'.join(map(str, each.version))}" for each in (redis, postgres)]
    return (
        f"{os.cpu_count()} cores ({_cpu_model()}), {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, {', '.join(versions)}, {datetime.now(UTC):%Y-%m-%d}"
    )


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")
