"""A Postgres that has lost its last commits, as after a failover or from a backup."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, family, kill, living, stopped
from loadtests.torture.scenarios.emptied import drained, positions
from loadtests.torture.stand import stand_of_up

LOST_SECONDS = 0.5
"""Of load, which Postgres has and then does not."""


def copy(folder: Path) -> Path:
    """As a snapshot of the disk: `-a` keeps the owner, which may be another user than this process'."""
    target = folder.with_name("postgres.before")
    subprocess.run(["/bin/cp", "-a", folder, target], check=True)
    return target


@scenario(
    "older-postgres",
    "Postgres comes back older",
    f"kill -9, and its folder as it was {LOST_SECONDS} s of load before",
    stand_of_up,
    rounds=3,
    seconds=18,
)
async def older_postgres(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        folder = bench.stand.data / "postgres"
        async with stopped(family(await living(bench.stand, "postgres"))):
            before = await asyncio.to_thread(copy, folder)
        await asyncio.sleep(LOST_SECONDS)
        known = await positions(bench.stand)
        since = time.time()
        pid = await living(bench.stand, "postgres")
        kill(family(pid))
        bench.kills += 1
        spoilt = folder.rename(folder.with_name("postgres.after"))
        before.rename(folder)
        await living(bench.stand, "postgres", other_than=pid)
        await asyncio.to_thread(shutil.rmtree, spoilt)
        await bench.recover(since)
        await drained(bench.stand)
        if not all(place >= known[number] for number, place in (await positions(bench.stand)).items()):
            bench.wrong.append("what Postgres had lost was not replayed")
