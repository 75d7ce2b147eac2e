"""Checks every invariant of a sale across Redis and Postgres while it runs, and repairs on request."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.copy_checks import CopyChecks
from app.database import QUERIES, claim_installation, connection, open_pool
from app.errors import AuditNotReady, SaleNotFound, StoreUnavailable
from app.hold_checks import HoldChecks
from app.ids import ORDER_PREFIX
from app.invariants import Invariant, stored_audit
from app.inventory import Inventory
from app.journal import format_items
from app.keys import Keys
from app.migrate import require_current
from app.models import Item, JournalId
from app.outbox import describe, write_event
from app.progress import DrainProgress
from app.scripts import connect
from app.settings import Settings
from app.times import milliseconds_of, rfc3339
from app.workers.drain import Drain
from app.workers.runner import build_keeper

TIMEOUT_SECONDS = 10.0
"""A drain that keeps up reaches the mark in milliseconds; one that does not is the finding."""
_RETRY_AFTER_SECONDS = 5.0

RunDrain = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class AuditReport:
    sale_id: str
    invariants: list[Invariant]

    @property
    def ok(self) -> bool:
        return all(invariant.ok for invariant in self.invariants)

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "invariants": [invariant.as_dict() for invariant in self.invariants]}


async def audit(
    inventory: Inventory,
    pool: asyncpg.Pool,
    redis: Redis,
    keys: Keys,
    progress: DrainProgress,
    sale_id: str,
    timeout: float = TIMEOUT_SECONDS,
    run_drain: RunDrain | None = None,
) -> AuditReport:
    """Audits one sale. `run_drain` drains a partition, for where no worker does.

    Raises SaleNotFound, StoreUnavailable, or AuditNotReady if the journal was not drained within `timeout`
    seconds.
    """
    audit_id = secrets.token_hex(16)
    partition = keys.partition(sale_id)
    place = await inventory.mark(sale_id, audit_id)
    await _drained(progress, partition, place, timeout, run_drain)
    async with connection(pool) as database:
        exact = await stored_audit(database, audit_id)
    if exact is None:
        raise AuditNotReady("The audit's mark was rejected or lost.", retry_after=_RETRY_AFTER_SECONDS)

    async def catch_up() -> None:
        epoch, sequence = await redis.hmget(keys.meta(partition), "epoch", "sequence")
        if epoch is None or sequence is None:
            raise AuditNotReady(retry_after=_RETRY_AFTER_SECONDS)
        await _drained(progress, partition, JournalId(int(epoch), int(sequence)), timeout, run_drain)

    with _redis_errors():
        holds = await HoldChecks(redis, keys, sale_id).run()
        copies = await CopyChecks(redis, pool, keys, sale_id, catch_up).run()
    return AuditReport(sale_id, exact + holds + copies)


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable("Redis cannot be reached.", retry_after=_RETRY_AFTER_SECONDS) from error


async def _drained(
    progress: DrainProgress, partition: int, place: JournalId, timeout: float, run_drain: RunDrain | None
) -> None:
    """Returns once the drain has passed `place`. Raises AuditNotReady after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            if run_drain is not None:
                with _redis_errors():
                    await run_drain(partition)
            if await progress.wait(partition, place, timeout):
                return
    except TimeoutError:
        pass
    raise AuditNotReady(retry_after=_RETRY_AFTER_SECONDS)


async def audit_all(
    inventory: Inventory,
    pool: asyncpg.Pool,
    redis: Redis,
    keys: Keys,
    progress: DrainProgress,
    timeout: float = TIMEOUT_SECONDS,
    run_drain: RunDrain | None = None,
    only: str | None = None,
) -> list[AuditReport]:
    """Audits every sale that Redis or Postgres knows, or `only` this one, one after the other.

    Raises as `audit` does; SaleNotFound only where neither store knows the sale.
    """
    sale_ids = await _every_sale(pool, redis, keys)
    if only is not None:
        if only not in sale_ids:
            raise SaleNotFound
        sale_ids = [only]
    reports = []
    for sale_id in sale_ids:
        try:
            reports.append(await audit(inventory, pool, redis, keys, progress, sale_id, timeout, run_drain))
        except SaleNotFound:
            reports.append(AuditReport(sale_id, [Invariant("sale_is_in_redis", False, True, False)]))
    return reports


async def _every_sale(pool: asyncpg.Pool, redis: Redis, keys: Keys) -> list[str]:
    async with connection(pool) as database:
        found = [row["id"] for row in await database.fetch(QUERIES["audit_sales"])]
    with _redis_errors():
        for partition in range(keys.partitions):
            found += sorted(await redis.smembers(keys.sales(partition)))
    return list(dict.fromkeys(found))


async def repair(pool: asyncpg.Pool, redis: Redis, keys: Keys, sale_id: str) -> None:
    """Puts right what takes no unit from a buyer: due list, customers' counts, missing outbox rows."""
    with _redis_errors():
        await HoldChecks(redis, keys, sale_id).repair()
    async with connection(pool) as database, database.transaction():
        partition = keys.partition(sale_id)
        counter = await database.fetchval(QUERIES["audit_lock_position"], partition)
        orders = await database.fetch(QUERIES["audit_orders_without_event"], sale_id)
        if not orders:
            return
        columns = list(zip(*map(_order_event, orders), strict=True))
        await database.execute(QUERIES["drain_insert_outbox"], *columns, partition, counter)
        await database.execute(QUERIES["audit_move_outbox_position"], partition, counter + len(orders))


def _order_event(order: asyncpg.Record) -> tuple[str, ...]:
    """The event that the drain wrote, or should have written, with this order."""
    words = {
        "sale": order["sale_id"],
        "hold": order["id"].removeprefix(ORDER_PREFIX),
        "customer": order["customer_id"],
        "items": format_items(Item(**item) for item in orjson.loads(order["items"])),
        "reacquired": "1" if order["reacquired"] else "0",
        "payment_reference": order["payment_reference"],
        "metadata": order["metadata"],
    }
    at = rfc3339(milliseconds_of(order["confirmed_at"]))
    return write_event(str(order["event_id"]), at, order["sale_id"], describe("confirmed", words)[-1])


# The command `holdfast audit`


async def audit_command(settings: Settings, sale: str | None, as_json: bool, repair_too: bool) -> int:
    """Prints a table, or JSON; the exit code is 1 where an invariant is broken.

    Where no worker runs it opens the partitions and drains them by itself. Raises ConfigurationError, and
    HoldfastError where there can be no verdict.
    """
    redis, pool = connect(settings), await open_pool(settings)
    try:
        await require_current(pool)
        await claim_installation(pool, settings)
        keys = Keys(settings.namespace, settings.partitions)
        inventory = Inventory(redis, keys, settings)
        drain = Drain(redis, pool, keys, settings)
        keeper = build_keeper(redis, pool, keys, drain)
        for partition in range(keys.partitions):
            await keeper.run_once(partition)
        async with DrainProgress(pool) as progress:
            await progress.listening()
            look = partial(
                audit_all, inventory, pool, redis, keys, progress, run_drain=drain.run_partition, only=sale
            )
            reports = await look()
            broken = [report.sale_id for report in reports if not report.ok]
            if repair_too and broken:
                for sale_id in broken:
                    await repair(pool, redis, keys, sale_id)
                reports = await look()
    finally:
        await redis.aclose()
        await pool.close()
    _print(reports, sale, as_json)
    return 0 if all(report.ok for report in reports) else 1


def _print(reports: list[AuditReport], sale: str | None, as_json: bool) -> None:
    console = Console()
    if as_json:
        by_sale = [{"sale_id": report.sale_id, **report.as_dict()} for report in reports]
        answer = by_sale[0] if sale else {"ok": all(report.ok for report in reports), "sales": by_sale}
        text = orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode()
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    for report in reports:
        console.print(audit_table(report))
    if not reports:
        console.print("There is no sale yet.")


def audit_table(report: AuditReport) -> Table:
    table = Table(title=f"Audit of {escape(report.sale_id)}")
    for heading in ("invariant", "", "expected", "found", ""):
        table.add_column(heading, overflow="fold")
    for invariant in report.invariants:
        verdict = "[green]holds[/green]" if invariant.ok else "[bold red]BROKEN[/bold red]"
        shown = (_short(invariant.expected), _short(invariant.found), escape(invariant.detail or ""))
        table.add_row(invariant.name, verdict, *shown)
    return table


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return escape("\n".join(f"{name} {content}" for name, content in value.items()))
    return f"{value:,}" if type(value) is int else escape(str(value))
