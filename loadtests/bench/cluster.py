"""What a hold costs on three masters of a Redis Cluster, held against one server: CPU, as cores are shared.

All servers sync every write to the disk. Shoppers ask the inventory directly, without HTTP, each again as
soon as it is answered, and go round the sales, of which each partition has one. What more hosts would give is
a projection from the CPU, and the section says so.
"""

import asyncio
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.retry import Retry
from rich.console import Console

from app.cluster import RoutedRedis
from app.embedded.ports import free_port
from app.embedded.resolve import find_redis
from app.ids import random_hold_id
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import Item, JournalId, SaleRules
from app.reserving import Reserved, ReserveRequest
from app.scripts import connect
from app.settings import Settings
from loadtests.bench.options import Options
from loadtests.bench.report import Section, Table

MASTERS = 3
PARTITIONS = 16
SHOPPERS = (64, 128)
NAMESPACE = "hold"
"""Its partitions' slots are on all masters: 6, 5 and 5 of them."""
STOCK = 100_000_000
ENDLESS = 2**42

_NAMES = {1: "one server", MASTERS: f"a cluster of {MASTERS} masters"}


@dataclass(frozen=True)
class Servers:
    """`url` leads to the first one; several are a cluster."""

    url: str
    pids: list[int]


@dataclass(frozen=True)
class Round:
    """CPU is in microseconds for each hold; the API side is this process with its shoppers."""

    rate: float
    p50_ms: float
    p99_ms: float
    redis_us: float
    api_us: float
    batch: float
    """Holds that shared a call."""


@contextmanager
def servers(folder: Path, count: int) -> Iterator[Servers]:
    processes, ports = [], [free_port("127.0.0.1", 0) for _ in range(count)]
    try:
        for port in ports:
            data = folder / f"{count}-{port}"
            data.mkdir()
            options = {
                "port": port, "bind": "127.0.0.1", "dir": data, "appendonly": "yes", "appendfsync": "always",
                "save": "",
            }  # fmt: skip
            if count > 1:
                options |= {"cluster-enabled": "yes", "cluster-port": free_port("127.0.0.1", 0)}
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            processes.append(subprocess.Popen([find_redis().path, *words], stdout=subprocess.DEVNULL))
        if count > 1:
            _form_cluster(ports)
        yield Servers(f"redis://127.0.0.1:{ports[0]}/0", [process.pid for process in processes])
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _form_cluster(ports: list[int]) -> None:
    """Returns once it serves every slot."""
    patience = Retry(ConstantBackoff(0.05), 200)
    nodes: list[Any] = [Redis(port=port, retry=patience, decode_responses=True) for port in ports]
    share = REDIS_CLUSTER_HASH_SLOTS // len(nodes) + 1
    for number, node in enumerate(nodes):
        last = min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
        node.execute_command("CLUSTER ADDSLOTSRANGE", number * share, last)
        node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        bus = int(node.config_get("cluster-port")["cluster-port"])
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number], bus)
    for node in nodes:
        while _state(node) != ("ok", len(nodes)):
            time.sleep(0.05)
        node.close()


def _state(node: Any) -> tuple[str, int]:
    told = node.execute_command("CLUSTER INFO")
    return told["cluster_state"], int(told["cluster_size"])


class Contender:
    """An inventory on its servers, with a sale of endless stock in each partition."""

    def __init__(self, servers: Servers) -> None:
        settings = Settings(redis_url=servers.url, namespace=NAMESPACE, partitions=PARTITIONS)
        self.servers = servers
        self.redis: RoutedRedis = connect(settings)
        self._keys = Keys(NAMESPACE, PARTITIONS)
        self._inventory = Inventory(self.redis, self._keys, settings)
        by_partition = {self._keys.partition(name): name for name in map("sale-{}".format, range(1000))}
        self._sales = [by_partition[partition] for partition in range(PARTITIONS)]

    async def open(self) -> None:
        lineage = Lineage(self.redis, self._keys)
        for partition, sale in enumerate(self._sales):
            await lineage.claim(partition, "bench")
            await lineage.reopen(partition, "bench", 1, JournalId(0, 0), 0)
            await self._inventory.configure(
                sale, SaleRules(sale, 0, ENDLESS, 3600, 3600, (("a", STOCK, None),))
            )

    async def round(self, shoppers: int, seconds: float) -> Round:
        await self._empty_journals()
        before = self._cpu()
        started = time.perf_counter()
        took = await self._shop(shoppers, started + seconds)
        elapsed = time.perf_counter() - started
        redis_us, api_us = (
            (now - then) * 1e6 / len(took) for now, then in zip(self._cpu(), before, strict=True)
        )
        entries = await self._empty_journals()
        quantiles = statistics.quantiles(took, n=100)
        return Round(
            len(took) / elapsed, quantiles[49], quantiles[98], redis_us, api_us, len(took) / max(entries, 1)
        )

    async def _empty_journals(self) -> int:
        """As a drain does; how many entries they had."""
        journals = [self._keys.journal(partition) for partition in range(PARTITIONS)]
        return sum([await self.redis.xtrim(journal, maxlen=0, approximate=False) for journal in journals])

    def _cpu(self) -> tuple[float, float]:
        """Seconds: of the servers, and of this process."""
        spent = [psutil.Process(pid).cpu_times() for pid in self.servers.pids]
        return sum(times.user + times.system for times in spent), time.process_time()

    async def _shop(self, shoppers: int, end: float) -> list[float]:
        """Milliseconds of each hold."""
        took: list[float] = []
        item = (Item("a", 1),)

        async def shop(number: int) -> None:
            for turn in itertools.count(number):
                sale = self._sales[turn % PARTITIONS]
                request = ReserveRequest(
                    sale, random_hold_id(), "", f"c{number}-{turn}-{end:.6f}", 24 * "0", item
                )
                started = time.perf_counter()
                answer = await self._inventory.reserve(request)
                if not isinstance(answer, Reserved):
                    raise answer
                now = time.perf_counter()
                took.append((now - started) * 1000)
                if now > end:
                    return

        await asyncio.gather(*(shop(number) for number in range(shoppers)))
        return took


def measure(options: Options, console: Console) -> Section:
    with tempfile.TemporaryDirectory(prefix="holdfast-cluster-") as folder:
        place = Path(folder)
        with servers(place, 1) as one, servers(place, MASTERS) as several:
            found = uvloop.run(_measure([one, several], options, console))
    return _section(found, options)


async def _measure(
    stands: list[Servers], options: Options, console: Console
) -> dict[tuple[int, int], list[Round]]:
    """Rounds by count of shoppers and of masters."""
    contenders = [Contender(stand) for stand in stands]
    found: dict[tuple[int, int], list[Round]] = {}
    for contender in contenders:
        await contender.open()
        await contender.round(SHOPPERS[0], 0.5)  # connections, scripts and caches are warm from here on
    for number, shoppers in itertools.product(range(options.rounds), SHOPPERS):
        console.print(f"cluster: round {number + 1} of {options.rounds}, {shoppers} shoppers")
        for contender in contenders:
            one = await contender.round(shoppers, options.seconds)
            found.setdefault((shoppers, len(contender.servers.pids)), []).append(one)
    for contender in contenders:
        await contender.redis.aclose()
    return found


def _section(found: dict[tuple[int, int], list[Round]], options: Options) -> Section:
    measured: list[tuple[str, ...]] = []
    projected: list[tuple[str, ...]] = []
    for (shoppers, masters), rounds in found.items():
        rate, p50, p99, redis_us, api_us, batch = (
            statistics.median(getattr(one, name) for one in rounds)
            for name in ("rate", "p50_ms", "p99_ms", "redis_us", "api_us", "batch")
        )
        who = (str(shoppers), _NAMES[masters])
        measured.append(
            (
                *who,
                f"{rate:,.0f}",
                f"{p50:.1f}",
                f"{p99:.1f}",
                f"{batch:.1f}",
                f"{redis_us:.1f}",
                f"{api_us:.1f}",
            )
        )
        projected.append(
            (
                *who,
                f"{masters * 1e6 / redis_us:,.0f}",
                f"{1e6 / api_us:,.0f}",
                f"{masters * api_us / redis_us:.1f}",
            )
        )
    return Section("cluster", _intro(options), [_measured(measured), _projected(projected)], [])


def _intro(options: Options) -> str:
    return (
        f"{PARTITIONS} sales, one in each partition, on one server and on a cluster of {MASTERS} masters, "
        "all on this machine with `appendfsync always` and without replicas; shoppers ask the inventory "
        f"directly, without HTTP. {options.rounds} rounds of {options.seconds:g} s of each, in turn; "
        "medians. Servers and shoppers share the machine's cores, so the rate says little; what compares is "
        "the CPU for each hold. The API side's includes the shoppers' own loop."
    )


def _measured(rows: list[tuple[str, ...]]) -> Table:
    columns = (
        "shoppers",
        "Redis",
        "holds/s",
        "p50 ms",
        "p99 ms",
        "holds in a call",
        "Redis µs",
        "API side µs",
    )
    return Table(columns, rows)


def _projected(rows: list[tuple[str, ...]]) -> Table:
    columns = (
        "shoppers", "Redis", "all servers, holds/s", "one API process, holds/s", "API processes to keep up"
    )  # fmt: skip
    return Table(
        columns,
        rows,
        "A projection, not a measurement: 1 s divided by the CPU for each hold, times the servers, as if "
        "each had a core of its own, sales were spread evenly, and neither disk nor network took any time. "
        "A server serves nothing while it syncs to its disk, so a real host stays below that; under more "
        "load more holds share a call, which raises it.",
    )
