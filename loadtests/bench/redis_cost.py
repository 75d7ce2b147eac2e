"""What the reserve script costs Redis, asked directly: CPU against an empty script, and memory per hold."""

import asyncio
import hashlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from app.ids import random_hold_id
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import Item, JournalId, SaleRules
from app.reserving import Reserved, ReserveRequest
from app.scripts import Scripts, connect
from app.settings import Settings
from loadtests.bench.processes import MICROSECONDS

EMPTY_SCRIPT = "#!lua\nreturn 1"
RESERVE, EMPTY = "reserve", "empty"
BARE_KEYS = [f"{{bare}}:{name}" for name in ("meta", "journal", "due", "sale", "stock", "holds", "customers")]
NAMESPACE = "direct"
SALE = "direct"
ENDLESS = 2**42


@dataclass(frozen=True)
class Cost:
    """Microseconds for one request of a batch: the time inside EVALSHA, and CPU of the whole process."""

    script_us: float
    process_us: float


class Recorder(Scripts):
    """Remembers the last call of `reserve`."""

    last: tuple[list[str], list[Any]] = ([], [])

    async def run(self, name: str, keys: list[str], args: list[Any], also: Sequence[str] = ()) -> list[Any]:
        if name == "reserve":
            self.last = (keys, args)
        return await super().run(name, keys, args, also)


@dataclass
class Direct:
    """The inventory on a Redis that nothing else uses, and which no worker drains."""

    url: str

    def __post_init__(self) -> None:
        self.settings = Settings(
            redis_url=self.url, namespace=NAMESPACE, partitions=1, max_journal_bytes=2**40,
            max_journal_entries=10**8,
        )  # fmt: skip
        self.keys = Keys(NAMESPACE, 1)
        self.server: Redis = Redis.from_url(self.url)

    async def open(self) -> Inventory:
        """An inventory with one open sale. Everything that the server had is gone."""
        self.server.execute_command(
            "FLUSHALL", "SYNC"
        )  # else memory is still being freed while it is measured
        self.server.config_set("appendfsync", "always")
        redis = connect(self.settings)
        inventory = Inventory(redis, self.keys, self.settings)
        lineage = Lineage(redis, self.keys)
        await lineage.claim(0, "benchmark")
        await lineage.reopen(0, "benchmark", 1, JournalId(0, 0), 0)
        await inventory.configure(SALE, SaleRules(SALE, 0, ENDLESS, 3600, 3600, (("a", 10**9, None),)))
        return inventory

    def cost(self, before: tuple[float, float], requests: int) -> Cost:
        script, process = (now - then for now, then in zip(self.spent(), before, strict=True))
        return Cost(script / requests, process / requests * MICROSECONDS)

    def spent(self) -> tuple[float, float]:
        """Microseconds in EVALSHA, seconds of CPU of the process."""
        stats: dict[str, Any] = self.server.info("commandstats").get("cmdstat_evalsha", {})
        # In microseconds, where /proc counts in ticks: an empty script takes less than one.
        cpu = self.server.info("cpu")
        return float(stats.get("usec", 0)), float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    def without_journal(self) -> int:
        """Bytes that the server uses for anything else."""
        journal = self.server.memory_usage(self.keys.journal(0), samples=0) or 0
        return int(self.server.info("memory")["used_memory"]) - int(journal)


async def hold(inventory: Inventory, customers: Iterator[int], count: int) -> None:
    """One batch of holds, each by another customer."""
    requests = [
        ReserveRequest(SALE, hold_id, "", f"customer-{number:09}", _digest(hold_id), (Item("a", 1),))
        for number, hold_id in ((next(customers), random_hold_id()) for _ in range(count))
    ]
    answers = await asyncio.gather(*map(inventory.reserve, requests))
    assert all(isinstance(answer, Reserved) for answer in answers), answers  # noqa: S101


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


async def script_costs(url: str, batch: int, batches: int, turns: int) -> dict[str, Cost]:
    """For one request in batches of `batch`: the reserve script, one that only reads and writes the same, and
    an empty one given the same words."""
    direct = Direct(url)
    inventory = await direct.open()
    recorder = Recorder(connect(direct.settings))
    inventory._scripts = recorder
    customers = iter(range(10**9))
    await hold(inventory, customers, batch)
    keys, args = recorder.last
    client = connect(direct.settings)
    empty = await client.script_load(EMPTY_SCRIPT)
    bare = await client.script_load(Path(__file__).with_name("bare_writes.lua").read_text())
    reserve: list[Cost] = []
    writes: list[Cost] = []
    nothing: list[Cost] = []
    entries = iter(range(1, 10**9))
    for _ in range(turns):
        prepared = [_bare_words(next(entries), customers, batch) for _ in range(batches)]
        before = direct.spent()
        for words in prepared:
            await client.evalsha(bare, len(BARE_KEYS), *BARE_KEYS, *words)
        writes.append(direct.cost(before, batch * batches))
        before = direct.spent()
        for _ in range(batches):
            await hold(inventory, customers, batch)
        reserve.append(direct.cost(before, batch * batches))
        before = direct.spent()
        for _ in range(batches):
            await client.evalsha(empty, len(keys), *keys, *args)
        nothing.append(direct.cost(before, batch * batches))
    await client.aclose()
    return {
        RESERVE: _median(reserve),
        "the same reads and writes, nothing decided": _median(writes),
        EMPTY: _median(nothing),
    }


def _bare_words(entry: int, customers: Iterator[int], count: int) -> list[str]:
    """What the bare script takes, as long as what the reserve script makes."""
    words, records = [], []
    time, expires = str(ENDLESS // 4), str(ENDLESS // 4 + 3_600_000)
    for _ in range(count):
        hold_id, customer = random_hold_id(), f"customer-{next(customers):09}"
        digest = _digest(hold_id)
        held = f"held {time} {expires} {digest} {customer} a=1"
        words += [hold_id, held, customer, f"1 a=1 {hold_id}", expires, f"{SALE}/{hold_id}"]
        records.append(f"held {SALE} {hold_id} {customer} {expires} {digest} a=1")
    return [f"1-{entry}", time, "1000000000 999999999 1 0 0 1000000000 1", "\n".join(records), *words]


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.script_us for cost in costs),
        statistics.median(cost.process_us for cost in costs),
    )


async def bytes_per_hold(url: str, holds: int, batch: int = 250) -> float:
    """Redis' memory for a living hold, its place in the due list and its customer; without the journal."""
    direct = Direct(url)
    inventory = await direct.open()
    customers = iter(range(10**9))
    await hold(inventory, customers, batch)
    before = direct.without_journal()
    for _ in range(holds // batch):
        await hold(inventory, customers, batch)
    return (direct.without_journal() - before) / (holds // batch * batch)
