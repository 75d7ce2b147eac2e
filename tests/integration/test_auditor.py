"""The auditor: quiet while a healthy sale runs, and loud about each thing that may be wrong."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from app.auditor import audit, audit_all, audit_command
from app.errors import AuditNotReady, SaleNotFound
from app.keys import Keys
from app.settings import Settings
from app.workers.cleaner import Cleaner
from app.workers.drain_loop import DrainLoop
from tests.integration.auditing import Auditing

DAY_SECONDS = 86_400


async def test_a_healthy_sale_holds(auditing: Auditing) -> None:
    report = await auditing.look()
    assert report.ok, report
    assert [invariant.name for invariant in report.invariants] == [
        "movements_add_up",
        "allocated_equals_movements",
        "stock_adds_up",
        "held_equals_holds",
        "sold_equals_orders",
        "counts_equal_postgres",
        "orders_have_outbox_rows",
        "rules_equal_postgres",
        "no_rejects",
        "sale_is_listed",
        "due_list_equals_holds",
        "customer_counts_equal_holds",
        "holds_equal_postgres",
        "reservations_made_equal_postgres",
        "answers_equal_postgres",
    ]
    found = {invariant.name: invariant.found for invariant in report.invariants}
    assert (found["holds_equal_postgres"], found["answers_equal_postgres"]) == (6, 2)
    assert found["allocated_equals_movements"] == 42
    assert (found["held_equals_holds"], found["sold_equals_orders"]) == (4, 6)
    assert found["counts_equal_postgres"] == {
        "reserved": 6, "confirmed": 3, "released": 0, "expired": 2, "cancelled": 1,
    }  # fmt: skip


async def test_a_running_sale_holds_in_every_audit(
    auditing: Auditing, settings: Settings, keys: Keys, redis: Redis
) -> None:
    shop, stop = auditing.shop, asyncio.Event()
    await shop.inventory.restock("sale", "a", 1000, "more", "digest", None)
    loop = asyncio.create_task(DrainLoop(auditing.drain, redis, keys, settings).run(stop))

    async def shopper(number: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            hold = await shop.hold(f"shopper-{number}", a=1)
            await shop.inventory.extend("sale", hold.hold_id, 90)
            if number == 0 and turn < 300:
                await shop.confirm(hold, f"pay-{turn}")
            else:
                await shop.inventory.release("sale", hold.hold_id)

    running = asyncio.gather(*(shopper(number) for number in range(5)))
    reports = [
        await audit(shop.inventory, auditing.pool, redis, keys, auditing.progress, "sale") for _ in range(5)
    ]
    stop.set()
    await running
    await loop
    for report in reports:
        assert report.ok, report
        exact = [invariant.name for invariant in report.invariants if invariant.detail is None]
        assert len(exact) == 10


async def test_holds_that_redis_forgot_are_not_missed(auditing: Auditing, redis: Redis) -> None:
    shop, pool = auditing.shop, auditing.pool
    released = await shop.hold("c9", a=1)
    await shop.inventory.release("sale", released.hold_id)
    await auditing.drain.run_partition(shop.partition)
    await shop.wait(2 * DAY_SECONDS)
    await shop.inventory.expire("sale", [member.partition("/")[2] for member in await shop.due()])
    await auditing.drain.run_partition(shop.partition)
    assert await Cleaner(redis, pool, shop.inventory, DAY_SECONDS).run_once(shop.partition) == 4
    assert await auditing.broken() == set()


async def test_sales_that_redis_lost_are_reported(auditing: Auditing) -> None:
    await auditing.look()
    await auditing.redis.delete(*auditing.keys.for_sale("sale"))
    assert await auditing.broken() == {"sale_is_in_redis"}
    inventory, progress = auditing.shop.inventory, auditing.progress
    reports = await audit_all(inventory, auditing.pool, auditing.redis, auditing.keys, progress)
    assert [report.ok for report in reports] == [False]
    with pytest.raises(SaleNotFound):
        await auditing.look("stranger")


async def test_an_undrained_journal_is_no_verdict(auditing: Auditing) -> None:
    shop = auditing.shop
    with pytest.raises(AuditNotReady):
        await audit(
            shop.inventory, auditing.pool, auditing.redis, auditing.keys, auditing.progress, "sale",
            timeout=0.05,
        )  # fmt: skip


async def test_command_opens_partitions_after_a_restart_of_redis(
    auditing: Auditing, settings: Settings, keys: Keys, redis: Redis
) -> None:
    for partition in range(keys.partitions):
        await redis.hset(keys.meta(partition), "server", "0" * 40)
    assert await audit_command(settings, None, False, False) == 0
