"""What other work than the sweeper's takes of Redis in one go, on a sale with many holds and SKUs: drain,
auditor, rebuild, cleaner, and what reads or makes the whole sale."""

import random
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop
from redis.asyncio import Redis
from rich.console import Console

from app.auditor import audit
from app.database import open_pool
from app.embedded.servers import EmbeddedServers
from app.inventory import MAX_SKUS_PER_SALE, Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.migrate import upgrade
from app.models import Item, SaleRules
from app.progress import DrainProgress
from app.rebuild import Rebuilder
from app.scripts import Scripts, connect, script_names, script_source
from app.settings import Settings
from app.workers.cleaner import Cleaner
from app.workers.drain import Drain
from loadtests.bench.growth_lab import ENDLESS_MS, SlowLog, make_holds, without_syncs
from loadtests.bench.growth_meter import Meter, metered

HOLDS = 100_000
SKUS = MAX_SKUS_PER_SALE
_SALE = "background"
_READS = 50
SHORT_MS = 0.3
"""A call that never takes longer is not told of."""
_AUDIT_SECONDS = 60.0


@dataclass(frozen=True)
class Work:
    """`cpu`: milliseconds of each call, in order of size; `slowlog`: the longest one's by SLOWLOG."""

    of: str
    call: str
    cpu: list[float]
    slowlog: float


@dataclass(frozen=True)
class _Stage:
    """`direct`: past the meter."""

    direct: Redis
    redis: Redis
    pool: asyncpg.Pool
    keys: Keys
    meter: Meter
    inventory: Inventory
    drain: Drain
    rebuilder: Rebuilder

    async def measure(self, of: str, work: Awaitable[object]) -> list[Work]:
        log = SlowLog(self.direct)
        await log.start()
        await self.meter.take()
        await work
        calls, slowlog = await self.meter.take(), await log.take()
        await log.stop()
        return [
            Work(of, call, took, max(slowlog.get(call, [0.0])))
            for call, took in calls.items()
            if took[-1] >= SHORT_MS
        ]

    async def make_sale(self) -> None:
        items = tuple((f"sku-{number}", 10**9, None) for number in range(SKUS))
        await self.inventory.configure(_SALE, SaleRules(_SALE, 0, ENDLESS_MS, 86_400, 86_400, items))

    async def fill(self, holds: int) -> None:
        async with without_syncs(self.direct):
            await make_holds(Scripts(self.direct), self.keys, _SALE, range(holds), _any_sku)

    async def audit(self) -> None:
        async with DrainProgress(self.pool) as progress:
            await progress.listening()
            report = await audit(
                self.inventory, self.pool, self.redis, self.keys, progress, _SALE, _AUDIT_SECONDS,
                self.drain.run_partition,
            )  # fmt: skip
        if not report.ok:
            raise SystemExit(f"the audit found something: {report.as_dict()}")

    async def read(self) -> None:
        for _ in range(_READS):
            await self.inventory.snapshot(_SALE)

    async def end_all(self) -> None:
        """The holds expired and the sale is closed. Sweeping them is measured elsewhere, so Postgres is told
        that it has happened, and Redis is rebuilt from that."""
        await self.drain.run_partition(0)
        await self.pool.execute("UPDATE reservations SET status = 'expired', ended_at = expires_at")
        await self.inventory.steer(_SALE, "closed")
        await self.rebuilder.run_once(0)

    async def clean(self) -> None:
        await Cleaner(self.redis, self.pool, self.inventory, retention_seconds=0).run_once(0)
        if (left := await self.direct.hlen(self.keys.for_sale(_SALE)[2])) > 1:
            raise SystemExit(f"{left} holds were not forgotten")


def _any_sku(number: int) -> tuple[str, tuple[Item, ...]]:
    return f"c{number:09}", (Item(f"sku-{random.randrange(SKUS)}", 1),)


def background_work(quick: bool, console: Console) -> list[Work]:
    """On servers of its own, with Postgres."""
    holds = HOLDS // 10 if quick else HOLDS
    with tempfile.TemporaryDirectory(prefix="holdfast-growth-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)  # Postgres may run as another user
        with EmbeddedServers(Path(folder) / "data") as servers:
            settings = Settings(
                redis_url=servers.redis_url,
                database_url=servers.database_url,
                namespace="background",
                partitions=1,
                journal_retention_seconds=0,
            )
            upgrade(settings)
            works = uvloop.run(_measure(settings, holds))
    for work in works:
        console.print(f"{work.of}: {len(work.cpu):,} × {work.call}, at most {work.cpu[-1]:.2f} ms CPU")
    return works


async def _measure(settings: Settings, holds: int) -> list[Work]:
    async with _open_stage(settings) as stage:
        works = await stage.measure("making the sale", stage.make_sale())
        works += await stage.measure("reading the sale", stage.read())
        await stage.fill(holds)
        works += await stage.measure("drain", stage.drain.run_partition(0))
        works += await stage.measure("audit", stage.audit())
        works += await stage.measure("rebuild", stage.rebuilder.run_once(0))
        await stage.end_all()
        return works + await stage.measure("cleaner", stage.clean())


@asynccontextmanager
async def _open_stage(settings: Settings) -> AsyncIterator[_Stage]:
    keys = Keys(settings.namespace, settings.partitions)
    async with connect(settings) as direct, metered(direct) as (meter, url):
        await direct.config_set("auto-aof-rewrite-percentage", 0)
        for name in script_names():
            await direct.script_load(script_source(name))
        settings = settings.model_copy(update={"redis_url": url})
        async with connect(settings) as redis:
            pool = await open_pool(settings)
            try:
                drain = Drain(redis, pool, keys, settings)
                rebuilder = Rebuilder(Lineage(redis, keys), pool, drain.run_partition, keys.namespace)
                await rebuilder.run_once(0)
                inventory = Inventory(redis, keys, settings)
                yield _Stage(direct, redis, pool, keys, meter, inventory, drain, rebuilder)
            finally:
                await pool.close()
