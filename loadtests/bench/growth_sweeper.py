"""`python -m loadtests.bench.growth_sweeper URL`: the sweeper of the growth lab's partition, in a process of
its own as the worker is. Says `ready`, begins when it is told a line, and ends when nothing more is due."""

import asyncio
import sys

import uvloop

from app.garbage import collect_rarely
from app.inventory import Inventory
from app.keys import Keys
from app.scripts import connect
from app.workers.sweeper import Sweeper
from loadtests.bench.growth_lab import lab_settings


async def _sweep(url: str) -> None:
    settings = lab_settings(url)
    async with connect(settings) as redis:
        sweeper = Sweeper(Inventory(redis, Keys(settings.namespace, settings.partitions), settings))
        await redis.ping()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await sweeper.run_partition(0)


if __name__ == "__main__":
    collect_rarely()
    uvloop.run(_sweep(sys.argv[1]))
