"""Redis without what it knew: emptied, or without its folder."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from redis.asyncio import Redis

from app.journal import Record, parse_entry
from app.keys import Keys
from app.models import JournalId
from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, kill, living, stopped
from loadtests.torture.stand import PARTITIONS, Stand, StandFailed, stand_of_up
from loadtests.torture.verdict import Operation

KEYS = Keys("holdfast", PARTITIONS)
DRAINED_SECONDS = 30.0
UNDRAINED_SECONDS = 0.5
"""Of load, which only Redis knows when it is emptied."""


async def positions(stand: Stand) -> dict[int, JournalId]:
    """How far Postgres is, of each partition."""
    connection = await asyncpg.connect(stand.variables["HOLDFAST_DATABASE_URL"])
    try:
        rows = await connection.fetch("SELECT partition, epoch, sequence FROM positions")
    finally:
        await connection.close()
    return {row["partition"]: JournalId(row["epoch"], row["sequence"]) for row in rows}


@asynccontextmanager
async def redis_of(stand: Stand) -> AsyncIterator[Redis]:
    client = Redis.from_url(stand.variables["HOLDFAST_REDIS_URL"], decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def heads(stand: Stand) -> dict[int, JournalId]:
    """How far Redis is, of each partition."""
    async with redis_of(stand) as redis:
        metas = {number: await redis.hgetall(KEYS.meta(number)) for number in range(PARTITIONS)}
    return {number: JournalId(int(meta["epoch"]), int(meta["sequence"])) for number, meta in metas.items()}


async def drained(stand: Stand) -> None:
    """Returns once Postgres has all that Redis knows now. Raises StandFailed."""
    deadline = time.monotonic() + DRAINED_SECONDS
    known = await heads(stand)
    while any(place < known[number] for number, place in (await positions(stand)).items()):
        if time.monotonic() > deadline:
            raise StandFailed(f"not drained after {DRAINED_SECONDS:.0f} s")
        await asyncio.sleep(0.02)


async def empty_and_tell(stand: Stand) -> list[Record]:
    """FLUSHALL, and in the same transaction what had not been drained: exactly that is lost.

    The worker must be stopped.
    """
    at = await positions(stand)
    async with redis_of(stand) as redis, redis.pipeline(transaction=True) as pipe:
        for number, position in at.items():
            pipe.xrange(KEYS.journal(number), min=f"({position}")
        pipe.flushall()
        *journals, _ = await pipe.execute()
    return records_of(journals)


def records_of(journals: Iterable[Any]) -> list[Record]:
    """Of several journals, each read as a range of entries."""
    return [record for entries in journals for entry in entries for record in parse_entry(*entry)]


def operations(records: list[Record]) -> set[Operation]:
    """As the verdict names them: a movement by its key, all else by its reservation's id."""
    found: set[Operation] = set()
    for record in records:
        words = record.words()
        if "hold" in words:
            found.add((record.kind, f"res_{words['hold']}"))
        elif record.kind in ("restocked", "withdrawn"):
            # The key is stored as a digest or as it is; the reason, which is the same text, always as it is.
            found.add((record.kind, words["reason"].strip('"')))
    return found


@scenario(
    "empty-drained",
    "Redis emptied, all drained",
    "FLUSHALL in a pause of the load",
    stand_of_up,
    rounds=4,
    seconds=20,
)
async def empty_drained(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with bench.load.paused():
            await drained(bench.stand)
            since = time.time()
            async with redis_of(bench.stand) as redis:
                await redis.flushall()
        await bench.recover(since)


@scenario(
    "empty-undrained",
    "Redis emptied, not all drained",
    "worker stopped, load goes on, FLUSHALL, worker goes on",
    stand_of_up,
    rounds=4,
    seconds=18,
)
async def empty_undrained(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with stopped([await living(bench.stand, "worker")]):
            await asyncio.sleep(UNDRAINED_SECONDS)
            bench.only_in_redis |= operations(await empty_and_tell(bench.stand))
            since = time.time()
        await bench.recover(since)


@scenario(
    "lose-folder",
    "Redis' folder lost, all drained",
    "kill -9 and its files removed, load paused",
    stand_of_up,
    rounds=4,
    seconds=22,
)
async def lose_folder(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with bench.load.paused():
            await drained(bench.stand)
            since = time.time()
            bench.kills += kill([await living(bench.stand, "redis")])
            for file in (bench.stand.data / "redis").iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        await bench.recover(since)
