"""Stores that are away for a while: stopped, so that they neither answer nor refuse."""

import asyncio
import time

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, family, living, stopped
from loadtests.torture.scenarios.emptied import drained
from loadtests.torture.stand import stand_of_up

AWAY_SECONDS = 60.0
HUNG_SECONDS = (1.0, 5.0)
SLOW_SECONDS = 3.0
HALT_SECONDS, GO_SECONDS = 0.3, 0.1


@scenario(
    "postgres-away",
    "Postgres away for a minute",
    "SIGSTOP of all its processes",
    stand_of_up,
    rounds=1,
    seconds=72,
)
async def postgres_away(bench: Bench) -> None:
    """Holds and orders go on meanwhile, and everything is drained afterwards."""
    for _ in bench.turns():
        async with stopped(family(await living(bench.stand, "postgres"))) as since:
            await bench.recover(since)
            before = bench.load.ledger.acknowledged.copy()
            await asyncio.sleep(AWAY_SECONDS * bench.share)
            bench.expect_done(before, "hold", "confirm", "release", "restock")
        await drained(bench.stand)


@scenario(
    "hang-redis",
    "Redis hangs",
    "SIGSTOP for 1 to 5 s; back: after it goes on",
    stand_of_up,
    rounds=4,
    seconds=25,
)
async def hang_redis(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with stopped(family(await living(bench.stand, "redis"))):
            await asyncio.sleep(bench.rng.uniform(*HUNG_SECONDS))
        await bench.recover()


@scenario(
    "hang-postgres",
    "Postgres hangs",
    "SIGSTOP of all its processes for 1 to 5 s",
    stand_of_up,
    rounds=3,
    seconds=20,
)
async def hang_postgres(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with stopped(family(await living(bench.stand, "postgres"))) as since:
            await bench.recover(since)
            await asyncio.sleep(bench.rng.uniform(*HUNG_SECONDS))


@scenario(
    "slow-postgres",
    "Postgres is slow",
    f"SIGSTOP of all its processes for {HALT_SECONDS} s again and again, {SLOW_SECONDS:.0f} s long",
    stand_of_up,
    rounds=2,
    seconds=10,
)
async def slow_postgres(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 1.0)
        before, until = bench.load.ledger.acknowledged.copy(), time.time() + SLOW_SECONDS
        recovering = asyncio.create_task(bench.recover())
        while time.time() < until:
            async with stopped(family(await living(bench.stand, "postgres"))):
                await asyncio.sleep(HALT_SECONDS)
            await asyncio.sleep(GO_SECONDS)
        bench.expect_done(before, "hold", "confirm", "release", "restock")
        await recovering
        await drained(bench.stand)
