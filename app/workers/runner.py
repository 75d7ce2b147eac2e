"""Runs the workers until the process is told to stop. Each has a `run_once`; here they only loop."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

import asyncpg
import structlog
from prometheus_client import start_http_server
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.progress import track

from app.audit_log import command_actor
from app.database import QUERIES, claim_installation, connection, open_pool, sleep_or_stop
from app.errors import ConfigurationError, HoldfastError
from app.garbage import collect_rarely
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.migrate import current_pool, require_current
from app.preflight import check_redis
from app.rebuild import Rebuilder
from app.scripts import connect
from app.settings import Settings
from app.workers.cleaner import Cleaner
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from app.workers.keeper import Keeper
from app.workers.sweeper import Sweeper

log = structlog.get_logger(__name__)

KEEPER_INTERVAL_SECONDS = 0.5
"""A restarted Redis is refused until the keeper has looked: this is the outage that a restart costs."""
CLEANER_INTERVAL_SECONDS = 600.0
BACKOFF_MAX_SECONDS = 5.0
STOP_SECONDS = 10
"""For the steps that have begun. Then the kernel ends the process, as a store that hangs might keep it for
ever; nothing is lost by that, since every step can end anywhere."""

_EXPECTED = (HoldfastError, RedisError, OSError)
"""Faults that say all in their message: a store is away, or a partition is not fit for the step."""


async def every(
    stop: asyncio.Event, seconds: float, partitions: int, step: Callable[[int], Awaitable[object]]
) -> None:
    """Steps through all partitions, again and again; a fault is logged and waited out, longer each time."""
    faults = 0
    while not stop.is_set():
        failed = [error for partition in range(partitions) if (error := await _fault(step, partition))]
        if expected := [error for error in failed if isinstance(error, _EXPECTED)]:
            # A store that is away fails every partition alike: that is one line.
            log.warning("will try again", step=step.__qualname__, times=len(expected), error=str(expected[0]))
        faults = faults + 1 if failed else 0
        pause = min(seconds * 2**faults, max(seconds, BACKOFF_MAX_SECONDS))
        # Jitter keeps several workers from stepping at the same moments.
        await sleep_or_stop(stop, pause * random.uniform(0.8, 1.2))  # noqa: S311


async def _fault(step: Callable[[int], Awaitable[object]], partition: int) -> Exception | None:
    """What the step failed with, if it did: one partition's fault keeps no other one waiting."""
    try:
        await step(partition)
    except _EXPECTED as error:
        return error
    except Exception as error:
        log.exception("will try again", step=step.__qualname__, partition=partition)
        return error
    return None


def build_keeper(redis: Redis, pool: asyncpg.Pool, keys: Keys, drain: Drain) -> Keeper:
    lineage = Lineage(redis, keys)
    return Keeper(lineage, pool, Rebuilder(lineage, pool, drain.run_partition, keys.namespace))


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT.

    Raises ConfigurationError or StoreUnavailable if it cannot start.
    """
    stop = asyncio.Event()

    def end() -> None:
        stop.set()
        signal.alarm(STOP_SECONDS)

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, end)
    async with connect(settings) as redis:
        await check_redis(redis, settings)
        pool = await open_pool(settings)
        try:
            await require_current(pool)
            await claim_installation(pool, settings)
            if settings.worker_metrics_port:
                start_http_server(settings.worker_metrics_port, settings.worker_metrics_host)
            collect_rarely()
            await work(settings, redis, pool, stop)
        finally:
            await pool.close()


async def work(settings: Settings, redis: Redis, pool: asyncpg.Pool, stop: asyncio.Event) -> None:
    """Keeper, sweeper, cleaner and drain side by side, until `stop` is set."""
    keys = Keys(settings.namespace, settings.partitions)
    drain = Drain(redis, pool, keys, settings)
    keeper = build_keeper(redis, pool, keys, drain)
    inventory = Inventory(redis, keys, settings)
    sweeper = Sweeper(inventory)
    cleaner = Cleaner(redis, pool, inventory, settings.hold_retention_seconds)
    log.info("worker runs", partitions=settings.partitions)
    async with asyncio.TaskGroup() as group:
        group.create_task(every(stop, KEEPER_INTERVAL_SECONDS, settings.partitions, keeper.run_once))
        group.create_task(every(stop, CLEANER_INTERVAL_SECONDS, settings.partitions, cleaner.run_once))
        group.create_task(
            every(stop, settings.sweep_interval_seconds, settings.partitions, sweeper.run_partition)
        )
        group.create_task(DrainLoop(drain, redis, keys, settings).run(stop))
    log.info("worker stopped")


async def rebuild_command(settings: Settings) -> int:
    """Closes, rebuilds and opens every partition; 1 if another rebuild was at one of them.

    Raises ConfigurationError, before anything is closed, where rejected records are unsettled, and
    StoreUnavailable where a store is away: the partition that was closed opens at the next try.
    """
    keys = Keys(settings.namespace, settings.partitions)
    busy, by = 0, command_actor("rebuild")
    async with connect(settings) as redis, current_pool(settings) as pool:
        await claim_installation(pool, settings)
        drain = Drain(redis, pool, keys, settings)
        for partition in range(settings.partitions):  # what is rejected now would be met too late
            await drain.run_partition(partition)
        await _require_settled(pool)
        rebuilder = Rebuilder(Lineage(redis, keys), pool, drain.run_partition, keys.namespace)
        for partition in track(range(settings.partitions), "rebuilding"):
            busy += not await rebuilder.run_once(partition, over_gap=True, by=by)
    if busy:
        print(f"{busy} partitions are being rebuilt by another process; look again in a moment")  # noqa: T201
    return 1 if busy else 0


async def _require_settled(pool: asyncpg.Pool) -> None:
    async with connection(pool) as database:
        waiting = await database.fetchval(QUERIES["rejects_count"])
    if waiting:
        raise ConfigurationError(
            f"{waiting} rejects wait, and a rebuild would drop them: "
            "`holdfast rejects retry` or `discard` them first"
        )
