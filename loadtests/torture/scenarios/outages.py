"""Stores that are away for a while: stopped, so that they neither answer nor refuse."""

import asyncio

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, family, living, stopped
from loadtests.torture.scenarios.emptied import drained
from loadtests.torture.stand import stand_of_up

AWAY_SECONDS = 60.0
HUNG_SECONDS = (1.0, 5.0)


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
