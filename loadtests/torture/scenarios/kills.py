"""kill -9 of everything that `holdfast up` runs, and of itself."""

import asyncio
import time
from functools import partial

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, api_processes, family, kill, living
from loadtests.torture.stand import stand_of_up

_UP = partial(stand_of_up, 2)
_SERVICES = ("redis", "postgres", "serve", "worker")
_AT_ONCE = (5, 2, 3)


async def _kill_again_and_again(bench: Bench, service: str, planned: int) -> None:
    times = 0
    for _ in bench.turns(planned):
        await a_moment(bench.rng, 1.0)
        pid = await living(bench.stand, service)
        bench.kills += kill([pid])
        await bench.recover()
        await living(bench.stand, service, other_than=pid)
        times += 1
    bench.expect_said(service, times)


@scenario("kill-redis", "Redis killed", "kill -9 at random moments", _UP, rounds=8, seconds=45)
async def kill_redis(bench: Bench) -> None:
    await _kill_again_and_again(bench, "redis", bench.planned)


@scenario("kill-postgres", "Postgres killed", "kill -9 of its first process", _UP, rounds=8, seconds=32)
async def kill_postgres(bench: Bench) -> None:
    await _kill_again_and_again(bench, "postgres", bench.planned)


@scenario(
    "kill-api",
    "API killed",
    "kill -9, of the parent and of one of its two workers in turn",
    _UP,
    rounds=14,
    seconds=40,
)
async def kill_api(bench: Bench) -> None:
    parents = bench.planned // 2
    await _kill_again_and_again(bench, "serve", parents)
    for _ in bench.turns(bench.planned - parents):
        await a_moment(bench.rng, 1.0)
        victim = bench.rng.choice(await _two_api_processes(bench))
        bench.kills += kill([victim])
        await bench.recover()


async def _two_api_processes(bench: Bench) -> list[int]:
    while True:
        pids = api_processes(await living(bench.stand, "serve"))
        if len(pids) == 2:
            return pids
        await asyncio.sleep(0.05)


@scenario("kill-worker", "Worker killed", "kill -9 at random moments", _UP, rounds=8, seconds=28)
async def kill_worker(bench: Bench) -> None:
    await _kill_again_and_again(bench, "worker", bench.planned)


@scenario(
    "kill-up",
    "Supervisor killed",
    "kill -9 of `holdfast up`, started again on its folder",
    _UP,
    rounds=5,
    seconds=40,
)
async def kill_up(bench: Bench) -> None:
    for _ in bench.turns():
        await a_moment(bench.rng, 1.0)
        since = time.time()
        bench.stand.kill()
        bench.kills += 1
        await asyncio.to_thread(bench.stand.start)
        await bench.recover(since)


@scenario(
    "kill-several",
    "Several killed at once",
    "kill -9 of two, three or all five of them",
    _UP,
    rounds=18,
    seconds=60,
)
async def kill_several(bench: Bench) -> None:
    """All five, with all that they started, is what a power cut leaves, except for the machine's caches."""
    for number in bench.turns():
        await a_moment(bench.rng, 1.0)
        count = _AT_ONCE[number % len(_AT_ONCE)]
        victims = bench.rng.sample(_SERVICES, min(count, len(_SERVICES)))
        pids = [pid for name in victims for pid in family(await living(bench.stand, name))]
        since = time.time()
        with_up = count > len(_SERVICES)
        if with_up:
            bench.stand.kill()
        kill(pids)
        bench.kills += count
        if with_up:
            await asyncio.to_thread(bench.stand.start)
        await bench.recover(since)
