"""A Redis that answers, but late, or with a refusal."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from redis.asyncio import Redis

from app.embedded.ports import free_port
from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment
from loadtests.torture.scenarios.emptied import redis_of
from loadtests.torture.stand import stand_of_up

FAULT_SECONDS = (1.0, 3.0)
PAUSE_SECONDS = 0.4
"""Each; below the time that the service waits for Redis."""

Fault = Callable[[Redis], AbstractAsyncContextManager[None]]


async def inject(bench: Bench, fault: Fault, *, met: str | None = None, done: Sequence[str] = ()) -> None:
    """Rounds of it. Meanwhile clients must have met 503 with the code `met`, and had operations `done`."""
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        retries, acknowledged = bench.load.ledger.retries.copy(), bench.load.ledger.acknowledged.copy()
        async with redis_of(bench.stand) as redis, fault(redis):
            await asyncio.sleep(bench.rng.uniform(*FAULT_SECONDS))
            bench.expect_done(acknowledged, *done)
        told = bench.load.ledger.retries - retries
        if met is not None and not told[met]:
            bench.wrong.append(f"nobody was told {met}, but {dict(told)}")
        await bench.recover()


async def setting(redis: Redis, name: str) -> str:
    return (await redis.config_get(name))[name] or ""


@asynccontextmanager
async def slow(redis: Redis) -> AsyncIterator[None]:
    async def pause_again() -> None:
        while True:
            await redis.execute_command("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "ALL")
            await asyncio.sleep(PAUSE_SECONDS / 2)

    pausing = asyncio.create_task(pause_again())
    try:
        yield
    finally:
        pausing.cancel()
        await asyncio.gather(pausing, return_exceptions=True)


@asynccontextmanager
async def full(redis: Redis) -> AsyncIterator[None]:
    before = await setting(redis, "maxmemory")
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used * 0.8))
    try:
        yield
    finally:
        await redis.config_set("maxmemory", before)


@asynccontextmanager
async def read_only(redis: Redis) -> AsyncIterator[None]:
    await redis.replicaof("127.0.0.1", str(free_port("127.0.0.1", 0)))
    try:
        yield
    finally:
        await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def refusing(redis: Redis) -> AsyncIterator[None]:
    before = await setting(redis, "maxclients")
    await redis.config_set("maxclients", 1)
    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        await redis.config_set("maxclients", before)


def described(how: str) -> str:
    return f"{how}, for {FAULT_SECONDS[0]:.0f} to {FAULT_SECONDS[1]:.0f} s; back: after that"


@scenario(
    "slow-redis", "Redis is slow", described(f"CLIENT PAUSE of {PAUSE_SECONDS} s after another"), stand_of_up,
    rounds=2, seconds=11,
)  # fmt: skip
async def slow_redis(bench: Bench) -> None:
    await inject(bench, slow, done=("hold", "confirm"))


@scenario(
    "full-redis", "Redis is full", described("`maxmemory` below what it uses"), stand_of_up,
    rounds=2, seconds=11,
)  # fmt: skip
async def full_redis(bench: Bench) -> None:
    await inject(bench, full, met="store_unavailable", done=("confirm",))


@scenario(
    "refusing-redis", "Redis refuses connections", described("CLIENT KILL of all, and `maxclients 1`"),
    stand_of_up, rounds=2, seconds=11,
)  # fmt: skip
async def refusing_redis(bench: Bench) -> None:
    await inject(bench, refusing, met="store_unavailable")


@scenario(
    "read-only-redis", "Redis is read-only", described("REPLICAOF a port where nobody listens"), stand_of_up,
    rounds=2, seconds=11,
)  # fmt: skip
async def read_only_redis(bench: Bench) -> None:
    await inject(bench, read_only, met="store_unavailable")
