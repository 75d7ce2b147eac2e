"""Two workers at once, of which one sleeps and wakes up at any moment."""

import asyncio
from functools import partial

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, living, stopped
from loadtests.torture.stand import stand_of_pieces

_TWO = partial(stand_of_pieces, serves=1, workers=2)
WORKERS = ("worker-1", "worker-2")
ASLEEP_SECONDS = 15.0


@scenario(
    "sleeping-worker",
    "A worker sleeps and wakes up",
    "SIGSTOP beside a second worker",
    _TWO,
    rounds=1,
    seconds=22,
)
async def sleeping_worker(bench: Bench) -> None:
    for _ in bench.turns():
        async with stopped([await living(bench.stand, bench.rng.choice(WORKERS))]) as since:
            await bench.recover(since)
            await asyncio.sleep(ASLEEP_SECONDS * bench.share)


@scenario(
    "two-workers",
    "Two workers, each stopped at any moment",
    "SIGSTOP for up to 1 s",
    _TWO,
    rounds=16,
    seconds=15,
)
async def two_workers(bench: Bench) -> None:
    """Both may be stopped at the same time."""

    async def disturb(name: str) -> None:
        for _ in bench.turns(bench.planned // 2):
            await a_moment(bench.rng, 0.3)
            async with stopped([await living(bench.stand, name)]) as since:
                await bench.recover(since)
                await a_moment(bench.rng, 1.0)

    await asyncio.gather(*(disturb(name) for name in WORKERS))
