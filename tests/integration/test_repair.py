"""`holdfast audit --repair`: what it does while the sale runs, what it says, and what it writes down."""

import asyncio
import getpass
import itertools
from typing import Any

import orjson
import pytest

from app.audit_log import command_actor
from app.auditor import audit_command
from app.database import connection
from app.invariants import AuditReport
from app.models import ReservationStatus
from app.repair import Repairer
from app.settings import Settings
from app.workers.drain_loop import DrainLoop
from app.workers.keeper import Action, Keeper
from tests.integration.auditing import Auditing
from tests.integration.conftest import lose_everything

TAMPER = """
local row = redis.call('HGET', KEYS[1], 'a')
local tampered = string.gsub(row, '^(%d+) (%d+)', function(a, b) return a .. ' ' .. b + 7 end)
redis.call('HSET', KEYS[1], 'a', tampered)
redis.call('HINCRBY', KEYS[2], 'reserved', 3)
"""


async def test_it_says_and_writes_down_what_it_did(
    auditing: Auditing, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    await auditing.drain.run_partition(auditing.shop.partition)
    events = "SELECT id, payload::text FROM outbox WHERE type = 'order.confirmed' ORDER BY id"
    before = await auditing.pool.fetch(events)
    await auditing.pool.execute(
        "ALTER TABLE outbox DISABLE TRIGGER USER; DELETE FROM outbox WHERE type = 'order.confirmed'"
    )
    await auditing.redis.hset(auditing.key("stock"), "a", "24 22 1 2 0 20 1")
    assert await audit_command(settings, "sale", True, False) == 1
    capsys.readouterr()
    assert await audit_command(settings, "sale", True, True) == 0
    out, said = capsys.readouterr()
    answer = orjson.loads(out)
    assert (answer["sale_id"], answer["ok"]) == ("sale", True)
    assert said.splitlines()[0].startswith("sale: repaired outbox (3): ord_")
    assert said.splitlines()[1] == "sale: repaired stock (1): a"
    assert await auditing.pool.fetch(events) == before
    rows = await auditing.pool.fetch("SELECT * FROM audit_log WHERE action LIKE 'repair.%' ORDER BY id")
    assert {row["actor"] for row in rows} == {f"holdfast audit --repair ({getpass.getuser()})"}
    outbox, stock = rows
    assert (outbox["action"], orjson.loads(outbox["after"])["count"]) == ("repair.outbox", 3)
    assert (stock["action"], stock["sale_id"]) == ("repair.stock", "sale")
    changed = orjson.loads(stock["before"]), orjson.loads(stock["after"])
    assert changed == ({"a": "24 22 1 2"}, {"a": "24 21 1 2"})


async def test_what_cannot_be_repaired_stays_reported(auditing: Auditing, settings: Settings) -> None:
    await auditing.redis.hset(auditing.key("answers"), "refund x pay", "1")
    await auditing.redis.delete(auditing.keys.due(auditing.shop.partition))
    assert await audit_command(settings, None, False, True) == 1
    assert await auditing.broken() == {"answers_equal_postgres"}


async def test_an_order_that_only_redis_had_outlives_redis(auditing: Auditing, keeper: Keeper) -> None:
    shop = auditing.shop
    await auditing.drain.run_partition(shop.partition)
    id_, _ = await auditing.hold_of("c1")
    for table in ("orders", "reservations"):
        await auditing.pool.execute(f"DELETE FROM {table} WHERE customer_id = 'c1'")  # noqa: S608
    events = await auditing.pool.fetchval("SELECT count(*) FROM outbox")
    assert (await auditing.broken_and_left())[1] == set()
    assert await auditing.pool.fetchval("SELECT count(*) FROM outbox") == events
    await lose_everything(shop)
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    found = await shop.inventory.reservation("sale", id_)
    assert found is not None
    assert found.status is ReservationStatus.CONFIRMED
    assert found.order is not None
    assert found.order.payment_reference == "pay-1"
    assert await auditing.broken() == set()


async def test_a_sale_is_repaired_while_it_runs(auditing: Auditing, settings: Settings) -> None:
    shop, redis, stop = auditing.shop, auditing.redis, asyncio.Event()
    await shop.inventory.restock("sale", "a", 1000, "more", "digest", None)
    loop = asyncio.create_task(DrainLoop(auditing.drain, redis, auditing.keys, settings).run(stop))

    async def shopper(number: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            # Another customer now and then: on no machine one makes more reservations than one may.
            hold = await shop.hold(f"shopper-{number}-{turn // 100}", a=1)
            if number == 0 and turn < 300:
                await shop.confirm(hold, f"pay-{turn}")
            else:
                await shop.inventory.release("sale", hold.hold_id)

    running = asyncio.gather(*(shopper(number) for number in range(3)))
    await redis.eval(TAMPER, 2, auditing.key("stock"), auditing.key("sale"))
    (living, _), member = await auditing.hold_of("c0"), "sale/"
    await redis.zrem(auditing.keys.due(shop.partition), member + living)
    await redis.hset(auditing.key("customers"), "c1", "1 a=9 -")
    repaired = await audit_command(settings, "sale", True, True)
    stop.set()
    await running
    await loop
    assert repaired == 0
    assert await auditing.broken() == set()
    stock = await shop.stock()
    assert stock["a"][0] == 1024
    kinds = await auditing.pool.fetch("SELECT DISTINCT action FROM audit_log WHERE action LIKE 'repair.%'")
    assert {row["action"] for row in kinds} == {
        f"repair.{k}" for k in ("stock", "counts", "due", "customers")
    }


async def repairs(auditing: Auditing, *reports: AuditReport) -> None:
    """Of what the reports found, by one repairer after the other."""
    for report in reports:
        by = command_actor("audit --repair")
        await Repairer(auditing.redis, auditing.pool, auditing.keys, auditing.settings, by).run(report)


async def test_two_repairs_of_the_same_find_mend_it_once(auditing: Auditing) -> None:
    await auditing.redis.hset(auditing.key("stock"), "a", "25 22 1 2 0 20 1")
    first, second = await auditing.look(), await auditing.look()
    await repairs(auditing, first, second, first)
    assert await auditing.broken() == set()


async def test_many_skus_are_repaired_in_one_round(auditing: Auditing) -> None:
    skus = [f"s{i}" for i in range(120)]
    stock: dict[str, Any] = dict.fromkeys(skus, 1)
    await auditing.shop.configure(**stock)
    for place, sku in enumerate(skus, 3):
        await auditing.redis.hset(auditing.key("stock"), sku, f"1 2 0 0 0 1 {place}")
    await repairs(auditing, await auditing.look())
    assert await auditing.broken() == set()


async def test_a_repair_of_what_was_found_before_a_rebuild_does_nothing(
    auditing: Auditing, keeper: Keeper
) -> None:
    await auditing.redis.hset(auditing.key("stock"), "a", "25 22 1 2 0 20 1")
    found = await auditing.look()
    await lose_everything(auditing.shop)
    assert await keeper.run_once(auditing.shop.partition) is Action.REBUILT
    await repairs(auditing, found)
    assert await auditing.broken() == set()


async def test_rows_are_not_restored_while_their_records_wait_as_rejects(auditing: Auditing) -> None:
    await auditing.drain.run_partition(auditing.shop.partition)
    async with connection(auditing.pool) as database:
        await database.execute("DELETE FROM reservations WHERE customer_id = 'c5'")
        await database.execute(
            "INSERT INTO rejects (partition, epoch, sequence, ordinal, sale_id, kind, record, error)"
            " SELECT partition, 1, 1, 0, id, 'held', '', '' FROM sales"
        )
    found, left = await auditing.broken_and_left()
    assert found == left
    assert await auditing.pool.fetchval("SELECT count(*) FROM reservations WHERE customer_id = 'c5'") == 0
