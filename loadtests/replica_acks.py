"""What HOLDFAST_REPLICA_ACKS=1 costs: holds with and without it, in turn, on one primary with one replica.

Both servers sync every write to the disk, and replicate in either case; what differs is the waiting. Shoppers
ask the inventory directly, without HTTP, each again as soon as it is answered.
"""

import argparse
import asyncio
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rich.console import Console
from rich.table import Table

from app.embedded.ports import free_port
from app.embedded.resolve import find_redis
from app.errors import SoldOut
from app.ids import random_hold_id
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import Item, JournalId, SaleRules
from app.reserving import Reserved, ReserveRequest
from app.scripts import connect
from app.settings import Settings

ENDLESS = 2**42
SALES = {"held": 1_000_000, "sold-out": 0}


@contextmanager
def primary_with_replica(folder: Path) -> Iterator[str]:
    """The primary's URL."""
    ports = [free_port("127.0.0.1", 0) for _ in range(2)]
    processes = []
    try:
        for port in ports:
            data = folder / str(port)
            data.mkdir()
            options = {
                "port": port, "bind": "127.0.0.1", "dir": data, "appendonly": "yes", "appendfsync": "always",
                "save": "", "repl-diskless-sync-delay": 0,
            }  # fmt: skip
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            command = [str(find_redis().path), *words]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        _replicate(*ports)
        yield f"redis://127.0.0.1:{ports[0]}"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _replicate(primary: int, replica: int) -> None:
    """Returns once the server at the one port has all that the other one has."""
    patience = Retry(ConstantBackoff(0.05), 200)
    with Redis(port=replica, retry=patience) as follower, Redis(port=primary, retry=patience) as leader:
        follower.replicaof("127.0.0.1", str(primary))
        while leader.info("replication").get("slave0", {}).get("state") != "online":
            time.sleep(0.05)


async def measure(inventory: Inventory, sale: str, shoppers: int, seconds: float) -> list[float]:
    """Milliseconds of each answer."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    item = (Item("a", 1),)

    async def shop(name: str) -> None:
        for number in itertools.count():
            request = ReserveRequest(sale, random_hold_id(), "", f"{name}-{number}", 24 * "0", item)
            started = time.perf_counter()
            answer = await inventory.reserve(request)
            took.append((time.perf_counter() - started) * 1000)
            if not isinstance(answer, Reserved | SoldOut):
                raise answer
            if time.perf_counter() > end:
                return

    await asyncio.gather(*(shop(f"c{i}") for i in range(shoppers)))
    return took


def summary(rounds: list[list[float]], seconds: float) -> tuple[float, float, float]:
    """Answers per second, p50 and p99 in milliseconds: medians of the rounds."""
    quantiles = [statistics.quantiles(took, n=100) for took in rounds]
    rate = statistics.median(len(took) / seconds for took in rounds)
    return rate, statistics.median(q[49] for q in quantiles), statistics.median(q[98] for q in quantiles)


async def open_sales(redis: Any, keys: Keys, settings: Settings) -> None:
    """One with more than anybody can buy, and one with nothing."""
    lineage = Lineage(redis, keys)
    await lineage.claim(0, "benchmark")
    await lineage.reopen(0, "benchmark", 1, JournalId(0, 0), 0)
    for sale, stock in SALES.items():
        rules = SaleRules(sale, 0, ENDLESS, 3600, 3600, (("a", stock, None),))
        await Inventory(redis, keys, settings).configure(sale, rules)


async def run(url: str, arguments: argparse.Namespace) -> Table:
    settings = [Settings(redis_url=url, partitions=1, replica_acks=acks) for acks in (0, 1)]
    redis, keys = connect(settings[0]), Keys("holdfast", 1)
    await open_sales(redis, keys, settings[0])
    inventories = [Inventory(redis, keys, each) for each in settings]
    table = Table("answer", "shoppers", "acks", "answers/s", "p50 ms", "p99 ms", "rate ÷ acks 0")
    for sale, shoppers in itertools.product(SALES, arguments.shoppers):
        found: list[list[list[float]]] = [[], []]
        for _ in range(arguments.rounds):
            for inventory, rounds in zip(inventories, found, strict=True):
                rounds.append(await measure(inventory, sale, shoppers, arguments.seconds))
        rates = [summary(rounds, arguments.seconds) for rounds in found]
        for acks, (rate, p50, p99) in enumerate(rates):
            row = (f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{rate / rates[0][0]:.2f}")
            table.add_row(sale, str(shoppers), str(acks), *row)
    await redis.aclose()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.replica_acks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="per round (default: 1.5)")
    parser.add_argument("--rounds", type=int, default=4, help="of each, in turn (default: 4)")
    parser.add_argument("--shoppers", type=int, nargs="+", default=[1, 64], help="at once (default: 1 64)")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-acks-") as folder,
        primary_with_replica(Path(folder)) as url,
    ):
        Console(width=100).print(uvloop.run(run(url, arguments)))


if __name__ == "__main__":
    main()
