"""Sales on the real scripts without HTTP, and what a call costs Redis."""

import asyncio
import itertools
import statistics
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from redis.asyncio import Redis

from app.ids import random_hold_id
from app.inventory import Inventory
from app.journal import format_items
from app.keys import Keys
from app.lineage import Lineage
from app.models import Item, JournalId, SaleRules
from app.reserving import Reserved, ReserveRequest
from app.scripts import Scripts, connect, script_names, script_source
from app.settings import Settings

ENDLESS_MS = 2**42
BATCH = 64
"""Requests that share a call, as with that many connections."""
LARGE = 500
"""The most that a call decides: quicker, but it leaves Lua a lot of garbage."""
DIGEST = 24 * "0"
MICROSECONDS = 1e6
TRIM_EVERY = 10_000

Cart = Callable[[int], tuple[str, tuple[Item, ...]]]
"""Customer and items of the n-th request."""


def one_unit(number: int) -> tuple[str, tuple[Item, ...]]:
    """Each by another customer."""
    return f"c{number:09}", (Item("sku-0", 1),)


async def make_holds(
    scripts: Scripts,
    keys: Keys,
    sale: str,
    numbers: Iterable[int],
    cart: Cart = one_unit,
    per_call: int = BATCH,
) -> None:
    """By the reserve script, in calls of which one is under way while another is built."""
    todo = iter(numbers)

    async def lane() -> None:
        while chunk := list(itertools.islice(todo, per_call)):
            args: list[Any] = ["0-0", 10**9, 2**50, 1, 10**6, 10**9, sale, len(chunk)]
            for number in chunk:
                customer, items = cart(number)
                args += (random_hold_id(), "", customer, DIGEST, format_items(items))
            reply = await scripts.run("reserve", keys.for_script(sale), args)
            answers = reply[3:]
            if len(answers) != len(chunk) or not all(answer.startswith("held ") for answer in answers):
                raise SystemExit(f"not every hold was given: {answers[-1]}")

    await asyncio.gather(lane(), lane())


@dataclass(frozen=True)
class Cost:
    """Microseconds per hold: of Redis' CPU, and of the script by its own command statistics (wall time)."""

    cpu: float
    script: float


@dataclass
class Lab:
    """One partition of a Redis that nothing else works on."""

    url: str
    redis: Redis
    inventory: Inventory
    scripts: Scripts
    keys: Keys
    numbers: Iterable[int] = field(default_factory=itertools.count)

    async def open_sale(self, sale: str, skus: int = 1, hold_seconds: int = 86_400) -> None:
        items = tuple((f"sku-{i}", 10**12, None) for i in range(skus))
        rules = SaleRules(sale, 0, ENDLESS_MS, hold_seconds, hold_seconds, items)
        await self.inventory.configure(sale, rules)

    async def fill(self, sale: str, count: int, cart: Cart = one_unit, per_call: int = BATCH) -> None:
        """Makes holds. There is no drain: the journal is cut off."""
        async with without_syncs(self.redis):
            for start in range(0, count, TRIM_EVERY):
                size = min(TRIM_EVERY, count - start)
                await make_holds(
                    self.scripts, self.keys, sale, itertools.islice(self.numbers, size), cart, per_call
                )
                await self.redis.xtrim(self.keys.journal(0), maxlen=0, approximate=False)

    async def cost(self, sales: list[str], batches: int, cart: Cart = one_unit) -> Cost:
        """Of one hold in batches of 64, whose requests go to the sales in turn."""
        cpu, script = await self.cpu_seconds(), await self._script_seconds()
        for _ in range(batches):
            numbers = itertools.islice(self.numbers, BATCH)
            requests = [self._request(sales[n % len(sales)], n, cart) for n in numbers]
            answers = await asyncio.gather(*map(self.inventory.reserve, requests))
            if refused := [answer for answer in answers if not isinstance(answer, Reserved)]:
                raise refused[0]
        holds = batches * BATCH / MICROSECONDS
        cpu, script = await self.cpu_seconds() - cpu, await self._script_seconds() - script
        return Cost(cpu / holds, script / holds)

    @staticmethod
    def _request(sale: str, number: int, cart: Cart) -> ReserveRequest:
        customer, items = cart(number)
        return ReserveRequest(sale, random_hold_id(), "", customer, DIGEST, items)

    async def median_cost(self, sales: list[str], batches: int, rounds: int, cart: Cart = one_unit) -> Cost:
        costs = [await self.cost(sales, batches, cart) for _ in range(rounds)]
        return Cost(
            statistics.median(cost.cpu for cost in costs), statistics.median(cost.script for cost in costs)
        )

    async def cpu_seconds(self) -> float:
        """User and system time of the thread that runs the commands."""
        return main_thread_seconds(await self.redis.info("cpu"))

    async def _script_seconds(self) -> float:
        statistics_ = await self.redis.info("commandstats")
        return float(statistics_.get("cmdstat_evalsha", {}).get("usec", 0)) / MICROSECONDS


@asynccontextmanager
async def without_syncs(redis: Redis) -> AsyncIterator[None]:
    """For what is only made to be measured on."""
    await redis.config_set("appendfsync", "no")
    try:
        yield
    finally:
        await redis.config_set("appendfsync", "always")


def main_thread_seconds(cpu: dict[str, Any]) -> float:
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])


def lab_settings(url: str) -> Settings:
    """A namespace of its own; bounds that no fill reaches."""
    return Settings(
        redis_url=url,
        namespace="growth",
        partitions=1,
        max_journal_entries=100_000_000,
        max_journal_bytes=2**40,
        max_reservations_per_sale=50_000_000,
        memory_watermark=1,
        batch_lines=1500,
    )


@asynccontextmanager
async def open_lab(url: str) -> AsyncIterator[Lab]:
    """On the Redis at `url`."""
    settings = lab_settings(url)
    async with connect(settings) as redis:
        # A copy of the process for rewriting the file would be in the figures of whoever runs then.
        await redis.config_set("auto-aof-rewrite-percentage", 0)
        keys = Keys(settings.namespace, settings.partitions)
        lineage = Lineage(redis, keys)
        await lineage.claim(0, "growth")
        await lineage.reopen(0, "growth", 1, JournalId(0, 0), 0)
        yield Lab(url, redis, Inventory(redis, keys, settings), Scripts(redis), keys)


class SlowLog:
    """How long each command blocked Redis: wall time, so it counts whatever else the core had to do."""

    _THRESHOLD_MICROSECONDS = 50
    """Below it are the commands inside a script, of which there are very many."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = scripts_by_sha()

    async def start(self) -> None:
        await self._redis.config_set("slowlog-max-len", 200_000)
        await self._redis.config_set("slowlog-log-slower-than", self._THRESHOLD_MICROSECONDS)
        await self._redis.slowlog_reset()

    async def take(self) -> dict[str, list[float]]:
        """Milliseconds of each call, by script or command, in order of size; begins anew."""
        calls: dict[str, list[float]] = {}
        for entry in await self._redis.slowlog_get(200_000):
            words = entry["command"].decode(errors="replace").split(" ", 2)
            name = self._scripts.get(words[1], "?") if words[0] == "EVALSHA" else words[0]
            calls.setdefault(name, []).append(entry["duration"] / 1000)
        await self._redis.slowlog_reset()
        return {name: sorted(took) for name, took in calls.items()}

    async def stop(self) -> None:
        await self._redis.config_set("slowlog-log-slower-than", -1)


def scripts_by_sha() -> dict[str, str]:
    """Their names, by what EVALSHA calls them."""
    sources = {name: script_source(name).encode() for name in script_names()}
    return {sha1(source, usedforsecurity=False).hexdigest(): name for name, source in sources.items()}


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
