"""The faults themselves: signals to processes of a stand, and waiting until a killed one is back."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterable

import psutil

from loadtests.torture.stand import Stand, StandFailed

BACK_SECONDS = 60.0
_POLL_SECONDS = 0.02


def kill(pids: Iterable[int]) -> int:
    """kill -9; returns how many were there."""
    killed = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def family(pid: int) -> list[int]:
    """A process and what it started, itself first."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def api_processes(pid: int) -> list[int]:
    """Those that answer requests, of a `serve` with several workers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child.pid for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
    return []


async def living(stand: Stand, service: str, other_than: int | None = None) -> int:
    """The process id of a service, once it runs. Raises StandFailed."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        pid = stand.pid(service)
        if pid is not None and pid != other_than:
            return pid
        if time.monotonic() > deadline:
            raise StandFailed(f"{service} is not back after {BACK_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def stopped(pids: Iterable[int]) -> AsyncIterator[float]:
    """SIGSTOP while it lasts; yields when."""
    frozen = list(pids)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield time.time()
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def a_moment(rng: random.Random, most: float) -> None:
    """So that no fault comes at a moment that the last one chose."""
    await asyncio.sleep(rng.uniform(0.0, most))
