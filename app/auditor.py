"""Checks every invariant of a sale across Redis and Postgres while it runs; has repairs made on request."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncpg
import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.audit_log import command_actor
from app.copy_checks import CopyChecks
from app.database import QUERIES, claim_installation, connection
from app.errors import AuditNotReady, SaleNotFound, StoreUnavailable
from app.hold_checks import HoldChecks
from app.invariants import AuditReport, equal, stored_audit
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.migrate import current_pool
from app.models import JournalId
from app.progress import DrainProgress
from app.repair import Repairer
from app.scripts import connect
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.runner import build_keeper

TIMEOUT_SECONDS = 10.0
"""A drain that keeps up reaches the mark in milliseconds; one that does not is the finding."""
_RETRY_AFTER_SECONDS = 5.0
_ROUNDS = 5
"""A repair may show what it had hidden: counters are only right once the holds are; it never takes more."""
_NAMED = 20
"""Of what was repaired, what is printed; the audit log has more."""

RunDrain = Callable[[int], Awaitable[object]]


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

    Raises SaleNotFound where neither store knows the sale, StoreUnavailable, or AuditNotReady if the journal
    was not drained within `timeout` seconds.
    """
    audit_id = secrets.token_hex(16)
    partition, sale_key = keys.partition(sale_id), keys.for_sale(sale_id)[0]
    with _redis_errors():
        # Before the mark: a repair after it makes the differences that it shows those of yesterday.
        repairs = int(await redis.hget(sale_key, "repairs") or 0)
    try:
        place = await inventory.mark(sale_id, audit_id)
    except SaleNotFound:
        if not await _is_in_postgres(pool, sale_id):
            raise
        return AuditReport(sale_id, [equal("sale_is_in_redis", True, False)])
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
        listed = equal("sale_is_listed", True, bool(await redis.sismember(keys.sales(partition), sale_id)))
        compared = await HoldChecks(redis, keys, sale_id).run()
        compared += await CopyChecks(redis, pool, keys, sale_id, catch_up).run()
    invariants = [*exact, listed, *(comparison.invariant() for comparison in compared)]
    differing = {comparison.name: comparison.differing for comparison in compared}
    return AuditReport(sale_id, invariants, place, repairs, differing)


async def _is_in_postgres(pool: asyncpg.Pool, sale_id: str) -> bool:
    async with connection(pool) as database:
        return await database.fetchrow(QUERIES["audit_rules"], sale_id) is not None


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
    return [
        await audit(inventory, pool, redis, keys, progress, sale_id, timeout, run_drain)
        for sale_id in sale_ids
    ]


async def _every_sale(pool: asyncpg.Pool, redis: Redis, keys: Keys) -> list[str]:
    async with connection(pool) as database:
        found = [row["id"] for row in await database.fetch(QUERIES["audit_sales"])]
    lineage = Lineage(redis, keys)
    for partition in range(keys.partitions):
        found += sorted(await lineage.sale_ids(partition))
    return list(dict.fromkeys(found))


# The command `holdfast audit`


async def audit_command(settings: Settings, sale: str | None, as_json: bool, repair_too: bool) -> int:
    """Prints a table, or JSON; the exit code is 1 where an invariant is broken.

    Where no worker runs it opens the partitions and drains them by itself. Raises ConfigurationError, and
    HoldfastError where there can be no verdict.
    """
    async with connect(settings) as redis, current_pool(settings) as pool:
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
            repairer = Repairer(redis, pool, keys, settings, command_actor("audit --repair"))
            if repair_too:
                reports = await repaired(repairer, reports, look)
    _print(reports, sale, as_json)
    return 0 if all(report.ok for report in reports) else 1


async def repaired(
    repairer: Repairer, reports: list[AuditReport], look: Callable[[], Awaitable[list[AuditReport]]]
) -> list[AuditReport]:
    """Repairs what can be of what is broken, and says so on standard error; what the last look found."""
    for _ in range(_ROUNDS):
        if not await _repair_once(repairer, reports):
            break
        reports = await look()
    return reports


async def _repair_once(repairer: Repairer, reports: list[AuditReport]) -> bool:
    """False where nothing was to be repaired."""
    console, any_done = Console(stderr=True), False
    for report in reports:
        with _redis_errors():
            done = [] if report.ok else await repairer.run(report)
        for repair in done:
            shown = ", ".join(repair.names[:_NAMED]) + (", …" if len(repair.names) > _NAMED else "")
            line = f"{repair.sale_id}: repaired {repair.kind} ({len(repair.names)}): {shown}"
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        any_done = any_done or bool(done)
    return any_done


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
