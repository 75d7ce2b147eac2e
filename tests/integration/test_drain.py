"""The drain: from the scripts' journals to Postgres, exactly once, past bad records, never past a gap."""

import asyncio
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.keys import Keys
from app.models import JournalId
from app.outbox import event_id
from app.settings import Settings
from app.workers.drain import READ_RECORDS, Drain, Outcome
from tests.shop import Shop


@pytest.fixture
def shop(inventory: Inventory, redis: Redis) -> Shop:
    return Shop(inventory, redis)


@pytest.fixture
def drain(redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings) -> Drain:
    return Drain(redis, pool, keys, settings)


async def add_entry(redis: Redis, keys: Keys, partition: int, id_: str, *records: str) -> None:
    fields: dict[Any, Any] = {"at": time.time_ns() // 1_000_000, "records": "\n".join(records)}
    await redis.xadd(keys.journal(partition), fields, id=id_)


async def statuses(pool: asyncpg.Pool) -> dict[str, str]:
    rows = await pool.fetch("SELECT customer_id, status FROM reservations")
    return {row["customer_id"]: row["status"] for row in rows}


async def event_types(pool: asyncpg.Pool) -> list[str]:
    return [row["type"] for row in await pool.fetch("SELECT type FROM outbox ORDER BY partition, position")]


async def everything(pool: asyncpg.Pool) -> dict[str, Any]:
    tables = (
        "sales", "sale_skus", "movements", "reservations", "orders", "refunds", "outbox", "positions",
        "audit_log",
    )  # fmt: skip
    found = {}
    for table in tables:
        rows = await pool.fetch(f"SELECT * FROM {table}")  # noqa: S608
        found[table] = {str([item for item in row.items() if item[0] != "updated_at"]) for row in rows}
    return found


async def one_of_each(shop: Shop) -> None:
    """Every kind of record, in one journal."""
    await shop.configure(a=10, b=(5, 2), hold_seconds=60)
    released = await shop.hold("released", a=1)
    extended = await shop.hold("extended", a=1, b=2)
    expired, late, refused = [await shop.hold(name, b=1) for name in ("expired", "late", "refused")]
    await shop.inventory.release("sale", released.hold_id)
    await shop.inventory.extend("sale", extended.hold_id, 500)
    await shop.confirm(extended, "pay-1", b'{"n":123456789012345678901234567890,"x":1e999999}')
    await shop.wait(100)
    assert await shop.sweep(expired, late, refused) == 3
    await shop.confirm(late, "pay-2")
    await shop.inventory.withdraw("sale", "b", 2, "key-1", "digest", None)
    with pytest.raises(Exception, match="refunded"):
        await shop.confirm(refused, "pay-3")
    await shop.inventory.cancel("sale", extended.hold_id, False, "broken")
    await shop.inventory.restock("sale", "a", 7, "key-2", "digest", "found more")
    for verb in ("paused", "resumed", "closed"):
        await shop.inventory.steer("sale", verb)


async def test_every_kind_reaches_its_table(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    await one_of_each(shop)
    count = await drain.run_once(shop.partition)
    assert (count.outcome, count.rejects) == (Outcome.DRAINED, 0)
    assert await statuses(pool) == {
        "released": "released",
        "extended": "confirmed",
        "expired": "expired",
        "late": "confirmed",
        "refused": "expired",
    }
    orders = {row["customer_id"]: row for row in await pool.fetch("SELECT * FROM orders")}
    assert orders["extended"]["metadata"] == '{"n":123456789012345678901234567890,"x":1e999999}'
    assert (orders["extended"]["status"], orders["extended"]["restocked"]) == ("cancelled", False)
    assert orders["extended"]["cancel_reason"] == "broken"
    assert (orders["late"]["status"], orders["late"]["reacquired"]) == ("confirmed", True)
    movements = await pool.fetch("SELECT sku, kind, quantity, allocated FROM movements ORDER BY id")
    assert [tuple(row) for row in movements] == [
        ("a", "allocated", 10, None),
        ("b", "allocated", 5, None),
        ("b", "withdrawn", -2, 3),
        ("a", "written_off", -1, None),
        ("b", "written_off", -2, None),
        ("a", "restocked", 7, 16),
    ]
    assert await pool.fetchval("SELECT payment_reference FROM refunds") == "pay-3"
    assert await pool.fetchval("SELECT closed AND NOT paused FROM sales")
    assert (await drain.run_once(shop.partition)).outcome is Outcome.IDLE


async def test_outbox_tells_what_happened_in_order(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    await one_of_each(shop)
    await drain.run_once(shop.partition)
    assert await event_types(pool) == [
        "sale.configured",
        *["reservation.held"] * 5,
        "reservation.released",
        "reservation.extended",
        "reservation.confirmed",
        "order.confirmed",
        *["reservation.expired"] * 3,
        "reservation.confirmed",
        "order.confirmed",
        "stock.withdrawn",
        "reservation.refund_required",
        "order.cancelled",
        "stock.restocked",
        "sale.paused",
        "sale.resumed",
        "sale.closed",
    ]
    rows = await pool.fetch("SELECT * FROM outbox ORDER BY position")
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    confirmed = next(row for row in rows if row["type"] == "order.confirmed")
    assert '"metadata":{"n":123456789012345678901234567890,"x":1e999999}' in confirmed["payload"]
    assert confirmed["id"] == await pool.fetchval(
        "SELECT event_id FROM orders WHERE payment_reference = 'pay-1'"
    )
    for row in rows:
        if row is not confirmed:
            payload = orjson.loads(row["payload"])
            assert (payload["id"], payload["type"]) == (str(row["id"]), row["type"])
            assert payload["sale_id"] == "sale"


async def test_every_event_is_documented(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    await one_of_each(shop)
    await drain.run_once(shop.partition)
    documentation = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    for row in await pool.fetch("SELECT DISTINCT ON (type) type, payload FROM outbox"):
        assert f"`{row['type']}`" in documentation
        for field in re.findall(r'"(\w+)":', row["payload"].replace('"n":', "").replace('"x":', "")):
            assert f'"{field}"' in documentation, (row["type"], field)


def test_event_ids_are_uuid5() -> None:
    namespace = UUID("6c1f4a52-5b0e-5d0e-9a53-7b1f0c9c7a10")
    for name in ("ns:0/1-2/0/0", "ns:3/7-99/31/1"):
        assert event_id(name) == str(uuid5(namespace, name))


async def test_draining_again_from_the_start_changes_nothing(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    await one_of_each(shop)
    await drain.run_once(shop.partition)
    before = await everything(pool)
    await pool.execute("UPDATE positions SET epoch = 0, sequence = 0, outbox_position = 0")
    count = await drain.run_once(shop.partition)
    assert (count.outcome, count.rejects) == (Outcome.DRAINED, 0)
    assert await everything(pool) == before


async def test_batches_of_any_cut_give_the_same_rows(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one_of_each(shop)
    await drain.run_once(shop.partition)
    whole = await everything(pool)
    await pool.execute(
        "TRUNCATE sales, sale_skus, movements, reservations, orders, refunds, outbox, positions"
        " RESTART IDENTITY"
    )
    monkeypatch.setattr("app.workers.drain.MAX_ENTRIES", 1)
    await drain.run_partition(shop.partition)
    cut = await everything(pool)
    for table in ("sales", "movements", "reservations", "orders", "refunds"):
        assert cut[table] == whole[table]


@pytest.mark.parametrize(
    ("id_", "record"),
    [("1-3", "paused sale"), ("2-1", "opened 1-7"), ("2-1", "paused sale"), ("2-2", "opened 1-1")],
)
async def test_a_gap_closes_the_partition(
    drain: Drain, pool: asyncpg.Pool, redis: Redis, keys: Keys, inventory: Inventory, id_: str, record: str
) -> None:
    await drain.run_once(0)
    await add_entry(redis, keys, 0, id_, record)
    for _ in range(2):
        count = await drain.run_once(0)
        assert count.outcome is Outcome.GAP
        assert count.position == JournalId(1, 1)
    assert await redis.hget(keys.meta(0), "state") == "gap"
    assert await pool.fetchval("SELECT sequence FROM positions WHERE partition = 0") == 1


async def test_the_next_epoch_goes_on(
    drain: Drain, redis: Redis, keys: Keys, inventory: Inventory, pool: asyncpg.Pool
) -> None:
    await drain.run_once(0)
    await add_entry(redis, keys, 0, "4-1", "opened 1-1")
    count = await drain.run_once(0)
    assert (count.outcome, count.position) == (Outcome.DRAINED, JournalId(4, 1))
    (row,) = await pool.fetch("SELECT previous_epoch, previous_sequence FROM positions WHERE partition = 0")
    assert tuple(row) == (1, 1)


async def test_another_worker_holds_the_partition(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    await drain.prepare()
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM positions WHERE partition = $1 FOR UPDATE", shop.partition)
        assert (await drain.run_once(shop.partition)).outcome is Outcome.LOCKED
    assert (await drain.run_once(shop.partition)).outcome is Outcome.DRAINED


async def test_drains_at_once_write_everything_once(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings
) -> None:
    await shop.configure(a=1000)
    await asyncio.gather(*(shop.hold(f"c{i}", a=1) for i in range(300)))
    others = [Drain(redis, pool, keys, settings) for _ in range(3)]
    await asyncio.gather(*(worker.run_partition(shop.partition) for worker in (drain, *others)))
    assert await pool.fetchval("SELECT count(*) FROM reservations") == 300
    assert len(await event_types(pool)) == 301


async def test_a_lagging_drain_reads_large_entries_a_few_at_a_time(
    shop: Shop, drain: Drain, redis: Redis, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read of many blocks Redis, and what is past the end of the batch is read in vain."""
    calls, size = 12, 300
    await shop.configure(a=calls * size)
    for call in range(calls):
        await asyncio.gather(*(shop.hold(f"c{call}-{i}", a=1) for i in range(size)))
    sizes: list[int] = []
    xrange: Any = redis.xrange

    async def counted(*args: Any, **options: Any) -> Any:
        reply: Any = await xrange(*args, **options)
        sizes.append(sum(fields["records"].count("\n") + 1 for _, fields in reply))
        return reply

    monkeypatch.setattr(redis, "xrange", counted)
    await drain.run_partition(shop.partition)
    assert await pool.fetchval("SELECT count(*) FROM reservations") == calls * size
    assert max(sizes) <= READ_RECORDS


async def test_a_rush_behind_a_quiet_time_is_read_a_few_entries_at_a_time(
    shop: Shop, drain: Drain, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read so far says nothing of how large the next entries are."""
    small, calls, size = 4, 24, 20
    await shop.configure(a=small + calls * size)
    for number in range(small):
        await shop.hold(f"quiet-{number}", a=1)
    for call in range(calls):
        await asyncio.gather(*(shop.hold(f"c{call}-{i}", a=1) for i in range(size)))
    entries: list[int] = []
    xrange: Any = redis.xrange

    async def counted(*args: Any, **options: Any) -> Any:
        reply: Any = await xrange(*args, **options)
        entries.append(len(reply))
        return reply

    monkeypatch.setattr(redis, "xrange", counted)
    await drain.run_partition(shop.partition)
    assert sum(entries) >= small + calls
    for before, now in pairwise(entries):
        assert now <= 4 * before
