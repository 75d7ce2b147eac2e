"""How long holds take while the sweeper ends 100,000 of them, beside the same without sweeping."""

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from subprocess import PIPE

from rich.console import Console

from app.ids import random_hold_id
from app.models import Item
from app.reserving import Reserved, ReserveRequest
from loadtests.bench.growth_lab import DIGEST, LARGE, Lab, quantile

RATE = 500.0
"""Holds a second: far from what Redis can take, so that waiting is for the sweeper and the disk."""
DUE = 100_000
QUIET_SECONDS = 8.0
"""About half as long as the sweep takes on an idle machine."""
_SALE = "meanwhile"
_ALL_DUE_SECONDS = 2.0
"""More than the holds last: at the end of the measurement without sweeping, all of them are due."""


@dataclass(frozen=True)
class Waits:
    """Milliseconds of each hold, in order of size, from when it was due to its answer."""

    during: str
    seconds: float
    took: list[float]


async def holds_meanwhile(lab: Lab, quick: bool, console: Console) -> list[Waits]:
    """Without sweeping, then while it goes on. The sweeper is a process of its own, as the worker is."""
    due = DUE // 10 if quick else DUE
    await lab.open_sale(_SALE, hold_seconds=1)
    await lab.fill(_SALE, due, per_call=LARGE)
    await lab.open_sale(_SALE)  # the holds that are measured last for longer
    async with _sweeper(lab.url) as sweep:
        quiet = asyncio.sleep(max(QUIET_SECONDS * due / DUE, _ALL_DUE_SECONDS))
        runs = [
            await _measure(lab, "nothing else", quiet),
            await _measure(lab, f"{due:,} due holds are swept", sweep()),
        ]
    if left := await lab.redis.zcount(lab.keys.due(0), "-inf", time.time() * 1000):
        raise SystemExit(f"{left} holds were due and not swept")
    for run in runs:
        p99, longest = quantile(run.took, 0.99), run.took[-1]
        console.print(
            f"holds while {run.during}: p99 {p99:.1f} ms, max {longest:.1f} ms in {run.seconds:.1f} s"
        )
    return runs


async def _measure(lab: Lab, during: str, until: Awaitable[None]) -> Waits:
    """Holds at the rate until what is awaited ends."""
    loop, took = asyncio.get_running_loop(), list[float]()
    numbers, running = itertools.count(), set[asyncio.Task[None]]()

    async def hold(due: float) -> None:
        request = ReserveRequest(
            _SALE, random_hold_id(), "", f"m{next(numbers):09}", DIGEST, (Item("sku-0", 1),)
        )
        answer = await lab.inventory.reserve(request)
        if not isinstance(answer, Reserved):
            raise answer
        took.append((time.perf_counter() - due) * 1000)

    def arrive(due: float) -> None:
        running.add(asyncio.create_task(hold(due)))

    started, ended = time.perf_counter(), threading.Event()
    # In a thread: the loop's own timers are up to a millisecond late.
    arrivals = asyncio.create_task(
        asyncio.to_thread(_tick, started, ended, lambda due: loop.call_soon_threadsafe(arrive, due))
    )
    await until
    ended.set()
    await arrivals
    seconds = time.perf_counter() - started
    await asyncio.gather(*running)
    return Waits(during, seconds, sorted(took))


def _tick(started: float, ended: threading.Event, arrive: Callable[[float], object]) -> None:
    """Tells of each arrival at the moment when it is due, on `perf_counter`'s clock."""
    for number in itertools.count():
        due = started + number / RATE
        if ended.wait(max(due - time.perf_counter(), 0)):
            return
        arrive(due)


@asynccontextmanager
async def _sweeper(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Starts the process, which has connected then; what is given has it sweep, and returns at its end."""
    command = (sys.executable, "-P", "-m", "loadtests.bench.growth_sweeper", url)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    told, says = process.stdin, process.stdout
    if told is None or says is None:
        raise AssertionError("both are pipes")

    async def sweep() -> None:
        told.write(b"\n")
        if await process.wait():
            raise SystemExit("the sweeper failed")

    try:
        await says.readline()
        yield sweep
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
