"""Opens partitions: as they are, where Redis lacks nothing, else written anew from Postgres.

A partition is claimed under a token, and what its journal still holds goes to Postgres. Then Postgres gives
out the next epoch, in the transaction that has locked its position, and Redis opens the partition in it. Of
all servers that ever had the partition, Postgres so follows the one that was opened last. Each write says
whose claim it belongs to: of two workers only the later one gets anything written. What only a lost Redis
knew is lost.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
import orjson
import structlog

from app import audit_log
from app.database import LEASE_SECONDS, QUERIES, Database, connection
from app.ids import RESERVATION_PREFIX
from app.journal import format_items
from app.lineage import Lineage
from app.models import Actor, Item, JournalId
from app.packing import Customer
from app.position import has_rejects, read_position
from app.times import milliseconds_of as to_ms

log = structlog.get_logger(__name__)

CHUNK = 500
"""Words per write: less than a millisecond of Redis' time, as its other partitions go on selling."""


class Opened(StrEnum):
    """How a partition was opened."""

    ADOPTED = "adopted"
    REBUILT = "rebuilt"


class Rebuilder:
    """`drain` brings what a partition's journal still holds to Postgres; False where entries are missing."""

    def __init__(
        self, lineage: Lineage, pool: asyncpg.Pool, drain: Callable[[int], Awaitable[bool]], namespace: str
    ) -> None:
        self._lineage = lineage
        self._pool = pool
        self._drain = drain
        self._namespace = namespace

    async def open(self, partition: int) -> Opened | None:
        """Opens the partition if it is not open: as it is where a restarted or promoted server lacks nothing,
        else rebuilt. None and errors are as in `run_once`."""
        async with self._alone(partition) as database:
            if database is None:
                return None
            position = await read_position(database, "rebuild_read_position", partition)
            state = await self._lineage.inspect(partition)
            if state is not None and (state.has_gap or state.is_healthy(position.place)):
                return None
            keep = state is not None and state.is_open
            # Nobody writes there yet, so most of it can be drained before the claim: should this worker die
            # after that, only a rebuild opens the partition.
            if keep and not await self._drain(partition):
                return None
            return await self._open(database, partition, keep=keep, over_gap=False)

    async def run_once(
        self, partition: int, *, over_gap: bool = False, by: Actor | None = None
    ) -> Opened | None:
        """Rebuilds and opens the partition; None if another worker is at it.

        Nor where Redis knows what Postgres lacks, since that would be lost; the partition is then marked.
        Where journal entries are missing, a person may decide so by `over_gap`; rejected ones have to be
        settled first, or settling them later would sell their units again. `by`: who asked for it, for the
        audit log; no one where a worker does it.

        Raises StoreUnavailable or OutcomeUnknown where a store is away; the partition stays closed then.
        """
        async with self._alone(partition) as database:
            if database is None:
                return None
            return await self._open(database, partition, keep=False, over_gap=over_gap, by=by)

    @asynccontextmanager
    async def _alone(self, partition: int) -> AsyncIterator[Database | None]:
        """A connection, for as long as no other worker opens the partition; None if one does."""
        lease = str(int(LEASE_SECONDS * 1000))
        async with connection(self._pool) as database:
            locked = await database.fetchval(QUERIES["rebuild_try_lock"], self._namespace, partition, lease)
            yield database if locked else None

    async def _open(
        self, database: Database, partition: int, *, keep: bool, over_gap: bool, by: Actor | None = None
    ) -> Opened | None:
        token = secrets.token_hex(8)
        claim = await self._lineage.claim(partition, token)
        await database.execute(QUERIES["rebuild_add_position"], partition)
        drained = await self._drain(partition)
        async with database.transaction():
            position = await read_position(database, "rebuild_lock_position", partition)
            kept = keep and drained and claim.was_open and position.ends_at(claim.head)
            whole = kept or (drained and position.covers(claim.head))
            if not (whole or over_gap) or (not kept and await has_rejects(database, partition)):
                await self._lineage.report_gap(partition, token=token)
                log.error("Redis knows what Postgres lacks", partition=partition, head=str(claim.head))
                return None
            clock = 0
            if not kept:
                clock = await _PartitionRebuild(self._lineage, database, partition, token).run()
            previous = claim.head if kept else position.place
            epoch = max(claim.head.epoch, position.place.epoch) + 1
            await database.execute(
                QUERIES["rebuild_next_epoch"], partition, epoch, previous.epoch, previous.sequence
            )
            if by is not None:
                after = {"position": str(position.place), "epoch": epoch, "nothing_lost": whole}
                await audit_log.record(
                    database, by, "partition.rebuilt", subject=str(partition),
                    before={"head": str(claim.head)}, after=after,
                )  # fmt: skip
        # Postgres first: no other server is ever given an epoch that Redis sells in.
        await self._lineage.reopen(partition, token, epoch, previous, clock)
        _say_how(partition, claim.head, position.place, kept)
        return Opened.ADOPTED if kept else Opened.REBUILT


def _say_how(partition: int, head: JournalId, place: JournalId, kept: bool) -> None:
    if kept:
        log.info("went on after a restart of Redis", partition=partition, head=str(head))
    elif head.epoch or place.epoch:
        log.warning("rebuilt from Postgres", partition=partition, head=str(head), position=str(place))


class _PartitionRebuild:
    """The writes of one rebuild, inside the transaction that keeps the position from moving."""

    def __init__(self, lineage: Lineage, database: Database, partition: int, token: str) -> None:
        self._lineage = lineage
        self._keys = lineage.keys
        self._database = database
        self._partition = partition
        self._token = token

    async def run(self) -> int:
        """Returns the latest moment that Postgres knows of, in milliseconds, or 0."""
        sales = await self._database.fetch(QUERIES["rebuild_sales"], self._partition)
        strangers = await self._lineage.sale_ids(self._partition)
        await self._restore("delete", self._keys.due(self._partition))
        await self._restore("delete", self._keys.sales(self._partition))
        # What Postgres does not know must not go on selling, either.
        for sale_id in strangers - {sale["id"] for sale in sales}:
            for key in self._keys.for_sale(sale_id):
                await self._restore("delete", key)
        for sale in sales:
            await self._sale(sale)
        await self._write("set", self._keys.sales(self._partition), [sale["id"] for sale in sales])
        clock = await self._database.fetchval(QUERIES["rebuild_clock"], self._partition)
        return to_ms(clock) if clock else 0

    async def _restore(self, verb: str, key: str, words: list[str | bytes] | None = None) -> None:
        await self._lineage.restore(self._partition, self._token, verb, key, words or [])

    async def _write(self, verb: str, key: str, words: list[str | bytes]) -> None:
        for start in range(0, len(words), CHUNK):
            await self._restore(verb, key, words[start : start + CHUNK])

    async def _sale(self, sale: asyncpg.Record) -> None:
        sale_key, stock_key, holds_key, customers_key, answers_key = self._keys.for_sale(sale["id"])
        for key in (sale_key, stock_key, holds_key, customers_key, answers_key):
            await self._restore("delete", key)
        await self._write("hash", stock_key, ["", "", *await self._stock_rows(sale["id"])])
        await self._holds(sale["id"], holds_key, customers_key)
        await self._write("hash", answers_key, ["", "", *await self._answers(sale["id"])])
        # The sale's own key comes last: until then its scripts see a sale that is not whole.
        await self._write("hash", sale_key, _sale_fields(sale))

    async def _stock_rows(self, sale_id: str) -> list[str | bytes]:
        words: list[str | bytes] = []
        for row in await self._database.fetch(QUERIES["rebuild_stock"], sale_id):
            available = row["allocated"] - row["held"] - row["sold"]
            words += (
                row["sku"],
                f"{row['allocated']} {available} {row['held']} {row['sold']} {row['limit_per_customer']} "
                f"{row['first_quantity']} {row['position']}",
            )
        return words

    async def _holds(self, sale_id: str, holds_key: str, customers_key: str) -> None:
        await self._restore("hash", holds_key, ["", ""])
        await self._restore("hash", customers_key, ["", ""])
        holds: list[str | bytes] = []
        due: list[str | bytes] = []
        customers: list[str | bytes] = []
        customer = Customer("")
        async for row in self._database.cursor(QUERIES["rebuild_holds"], sale_id, prefetch=CHUNK):
            hold_id = row["id"].removeprefix(RESERVATION_PREFIX)
            items = _items(row)
            if row["customer_id"] != customer.id:
                customers += customer.fields()
                customer = Customer(row["customer_id"])
            customer.add(hold_id, items, row["status"], row["order_status"])
            holds += (hold_id, _packed_hold(row, items))
            if row["status"] == "held":
                due += (str(to_ms(row["expires_at"])), f"{sale_id}/{hold_id}")
            if len(holds) >= CHUNK:
                await self._write("hash", holds_key, holds)
                holds.clear()
            if len(customers) >= CHUNK:
                await self._write("hash", customers_key, customers)
                customers.clear()
        await self._write("hash", holds_key, holds)
        await self._write("hash", customers_key, [*customers, *customer.fields()])
        await self._write("sorted", self._keys.due(self._partition), due)

    async def _answers(self, sale_id: str) -> list[str | bytes]:
        words: list[str | bytes] = []
        for row in await self._database.fetch(QUERIES["rebuild_movements"], sale_id):
            stock = f"{row['allocated']} {row['available']} {row['held']} {row['sold']}"
            words += (f"key {row['key']}", f"{row['digest']} {stock}")
        for row in await self._database.fetch(QUERIES["rebuild_refunds"], sale_id):
            hold_id = row["reservation_id"].removeprefix(RESERVATION_PREFIX)
            words += (f"refund {hold_id} {row['payment_reference']}", str(to_ms(row["at"])))
        return words


def _sale_fields(sale: asyncpg.Record) -> list[str | bytes]:
    fields: dict[str, str | bytes] = {
        "name": orjson.dumps(sale["name"]),
        "opens_at": str(to_ms(sale["opens_at"])),
        "closes_at": str(to_ms(sale["closes_at"])),
        "hold_seconds": str(sale["hold_seconds"]),
        "max_hold_seconds": str(sale["max_hold_seconds"]),
        "paused": "1" if sale["paused"] else "0",
        "closed": "1" if sale["closed"] else "0",
        "created_at": str(to_ms(sale["created_at"])),
        "updated_at": str(to_ms(sale["updated_at"])),
    }
    for counter in ("reserved", "confirmed", "released", "expired", "cancelled"):
        fields[counter] = str(sale[counter])
    return [word for pair in fields.items() for word in pair]


async def forgotten_hold(pool: asyncpg.Pool, sale_id: str, hold_id: str) -> str | None:
    """A hold that ended without an order, packed as the scripts keep it; None if Postgres has none."""
    async with connection(pool) as database:
        row = await database.fetchrow(QUERIES["rebuild_hold"], sale_id, RESERVATION_PREFIX + hold_id)
    return _packed_hold(row, _items(row)) if row else None


async def kept_holds(database: Database, sale_id: str, hold_ids: list[str]) -> dict[str, str]:
    """Those of the sale's holds, packed as the scripts keep them, by id."""
    ids = [RESERVATION_PREFIX + hold_id for hold_id in hold_ids]
    rows = await database.fetch(QUERIES["rebuild_kept_holds"], sale_id, ids)
    return {row["id"].removeprefix(RESERVATION_PREFIX): _packed_hold(row, _items(row)) for row in rows}


def _items(row: asyncpg.Record) -> tuple[Item, ...]:
    return tuple(Item(item["sku"], item["quantity"]) for item in orjson.loads(row["items"]))


def _packed_hold(row: asyncpg.Record, items: tuple[Item, ...]) -> str:
    packed = (
        f"{row['status']} {to_ms(row['created_at'])} {to_ms(row['expires_at'])} {row['digest']} "
        f"{row['customer_id']} {format_items(items)}"
    )
    if row["order_status"] is None:
        return packed
    # Its journal entry is drained, whichever it was: 0-0 is before every position.
    return (
        f"{packed} {row['order_status']} {to_ms(row['confirmed_at'])} {int(row['reacquired'])} 0-0 "
        f"{row['payment_reference']} {row['metadata']}"
    )
