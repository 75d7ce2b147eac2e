"""The auditor: quiet while a healthy sale runs, and loud about each thing that may be wrong."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from app.auditor import AuditReport, audit, audit_all, audit_command
from app.errors import AuditNotReady, ReservationExpired, SaleNotFound
from app.inventory import Inventory
from app.keys import Keys
from app.progress import DrainProgress
from app.settings import Settings
from app.workers.cleaner import Cleaner
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from tests.shop import Shop

DAY_SECONDS = 86_400


@dataclass
class Auditing:
    """A sale with a bit of everything, and who audits it."""

    shop: Shop
    pool: asyncpg.Pool
    redis: Redis
    keys: Keys
    drain: Drain
    progress: DrainProgress

    async def look(self, sale_id: str = "sale") -> AuditReport:
        return await audit(
            self.shop.inventory, self.pool, self.redis, self.keys, self.progress, sale_id,
            run_drain=self.drain.run_partition,
        )  # fmt: skip

    async def broken(self) -> list[str]:
        return [invariant.name for invariant in (await self.look()).invariants if not invariant.ok]

    def key(self, kind: str) -> str:
        names = ("sale", "stock", "holds", "customers", "answers")
        return self.keys.for_sale("sale")[names.index(kind)]

    async def hold_of(self, customer: str) -> tuple[str, str]:
        """The id and the packed hold of a customer's only reservation."""
        holds: dict[str, str] = await self.shop.redis.hgetall(self.key("holds"))
        return next((id_, packed) for id_, packed in holds.items() if f" {customer} " in packed)

    async def swap(self, one: str, other: str) -> None:
        """Each of the two holds under the other's id."""
        (id_, packed), (other_id, other_packed) = await self.hold_of(one), await self.hold_of(other)
        await self.redis.hset(self.key("holds"), mapping={id_: other_packed, other_id: packed})

    async def forget(self, customer: str) -> None:
        await self.redis.hdel(self.key("holds"), (await self.hold_of(customer))[0])


@pytest.fixture
async def auditing(
    inventory: Inventory, pool: asyncpg.Pool, redis: Redis, keys: Keys, settings: Settings
) -> AsyncIterator[Auditing]:
    shop = Shop(inventory, redis)
    await shop.configure(a=20, b=20)
    living, bought, returned, gone = [await shop.hold(f"c{i}", a=1, b=2) for i in range(4)]
    await shop.inventory.extend("sale", living.hold_id, 500)
    await shop.confirm(bought, "pay-1")
    await shop.confirm(returned, "pay-2")
    await shop.inventory.cancel("sale", returned.hold_id, False, None)
    await shop.wait(100)
    await shop.sweep(gone)
    await shop.confirm(gone, "pay-3")
    refunded = await shop.hold("c4", b=12)
    await shop.wait(100)
    await shop.sweep(refunded)
    await shop.hold("c5", b=1)
    with pytest.raises(ReservationExpired):
        await shop.confirm(refunded, "pay-4")
    await shop.inventory.restock("sale", "a", 5, "key", "digest", None)
    async with DrainProgress(pool) as progress:
        await progress.listening()
        yield Auditing(shop, pool, redis, keys, Drain(redis, pool, keys, settings), progress)


async def test_a_healthy_sale_holds(auditing: Auditing) -> None:
    report = await auditing.look()
    assert report.ok, report
    assert [invariant.name for invariant in report.invariants] == [
        "allocated_equals_movements",
        "stock_adds_up",
        "held_equals_holds",
        "sold_equals_orders",
        "counts_equal_postgres",
        "orders_have_outbox_rows",
        "no_rejects",
        "due_list_equals_holds",
        "customer_counts_equal_holds",
        "holds_equal_postgres",
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
        assert len(exact) == 7


async def test_holds_that_redis_forgot_are_not_missed(auditing: Auditing, redis: Redis) -> None:
    shop, pool = auditing.shop, auditing.pool
    released = await shop.hold("c9", a=1)
    await shop.inventory.release("sale", released.hold_id)
    await auditing.drain.run_partition(shop.partition)
    await shop.wait(2 * DAY_SECONDS)
    await shop.inventory.expire("sale", [member.partition("/")[2] for member in await shop.due()])
    await auditing.drain.run_partition(shop.partition)
    assert await Cleaner(redis, pool, shop.inventory, DAY_SECONDS).run_once(shop.partition) == 4
    assert await auditing.broken() == []


Damage = Callable[[Auditing], Awaitable[object]]

STOCK = "UPDATE reservations SET items = jsonb_set(items, '{0,quantity}', '5') WHERE status = 'held'"
ORDER = "UPDATE orders SET items = jsonb_set(items, '{0,quantity}', '5') WHERE status = 'confirmed'"
CONFIRMED_ITEMS = "UPDATE reservations SET items = items - 1 WHERE status = 'confirmed'"
CUSTOMER = "UPDATE reservations SET customer_id = 'other' WHERE status = 'held'"
EXPIRY = "UPDATE reservations SET expires_at = expires_at + interval '1 ms' WHERE status = 'held'"
REFERENCE = "UPDATE orders SET payment_reference = 'other' WHERE payment_reference = 'pay-1'"
CANCELLED = "UPDATE orders SET status = 'cancelled', cancelled_at = confirmed_at, restocked = true"
HISTORY = "ALTER TABLE movements DISABLE TRIGGER USER; DELETE FROM movements WHERE kind = 'restocked'"
EVENTS = "ALTER TABLE outbox DISABLE TRIGGER USER; DELETE FROM outbox WHERE type = 'order.confirmed'"
REJECT = (
    "INSERT INTO rejects (partition, epoch, sequence, ordinal, sale_id, kind, record, error)"
    " SELECT partition, 1, 1, 0, id, 'held', '', '' FROM sales"
)


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        (lambda a: a.pool.execute(HISTORY), ["allocated_equals_movements"]),
        (lambda a: a.redis.hset(a.key("stock"), "a", "24 20 2 2 0 20 1"), ["held_equals_holds"]),
        (lambda a: a.redis.hset(a.key("stock"), "a", "24 22 1 2 0 20 1"), ["stock_adds_up"]),
        (lambda a: a.redis.hset(a.key("stock"), "a", "24 24 -2 2 0 20 1"), ["stock_adds_up"]),
        (lambda a: a.pool.execute(STOCK), ["held_equals_holds", "holds_equal_postgres"]),
        (lambda a: a.pool.execute(ORDER), ["sold_equals_orders"]),
        (lambda a: a.redis.hincrby(a.key("sale"), "confirmed", 1), ["counts_equal_postgres"]),
        (lambda a: a.pool.execute(EVENTS), ["orders_have_outbox_rows"]),
        (
            lambda a: a.pool.execute("DELETE FROM orders WHERE payment_reference = 'pay-1'"),
            ["sold_equals_orders", "orders_have_outbox_rows"],
        ),
        (lambda a: a.pool.execute(REJECT), ["no_rejects"]),
        (lambda a: a.redis.delete(a.keys.due(a.shop.partition)), ["due_list_equals_holds"]),
        (
            lambda a: a.redis.zadd(a.keys.due(a.shop.partition), {"sale/stranger": 1}),
            ["due_list_equals_holds"],
        ),
        (lambda a: a.redis.hset(a.key("customers"), "c1", "1 a=9 -"), ["customer_counts_equal_holds"]),
        (lambda a: a.redis.hset(a.key("customers"), "c2", "0 - -"), ["customer_counts_equal_holds"]),
        (lambda a: a.redis.hdel(a.key("customers"), "c0"), ["customer_counts_equal_holds"]),
        (lambda a: a.pool.execute(CONFIRMED_ITEMS), ["orders_have_outbox_rows", "holds_equal_postgres"]),
        (lambda a: a.pool.execute(CUSTOMER), ["holds_equal_postgres"]),
        (lambda a: a.pool.execute(EXPIRY), ["holds_equal_postgres"]),
        (lambda a: a.pool.execute(REFERENCE), ["holds_equal_postgres"]),
        (lambda a: a.pool.execute(CANCELLED), ["holds_equal_postgres"]),
        (lambda a: a.swap("c0", "c1"), ["holds_equal_postgres"]),
        (lambda a: a.forget("c0"), ["holds_equal_postgres"]),
        (lambda a: a.redis.hset(a.key("holds"), "stranger", "damaged"), ["holds_equal_postgres"]),
        (lambda a: a.redis.hdel(a.key("answers"), "key key"), ["answers_equal_postgres"]),
        (lambda a: a.redis.hset(a.key("answers"), "key key", "other 25 22 1 2"), ["answers_equal_postgres"]),
        (lambda a: a.redis.hset(a.key("answers"), "key new", "other 1 1 0 0"), ["answers_equal_postgres"]),
        (lambda a: a.redis.hset(a.key("answers"), "refund x pay", "1"), ["answers_equal_postgres"]),
        (lambda a: a.pool.execute("DELETE FROM refunds"), ["answers_equal_postgres"]),
    ],
)
async def test_it_notices(auditing: Auditing, damage: Damage, broken: list[str]) -> None:
    assert await auditing.broken() == []
    await damage(auditing)
    assert set(broken) <= set(await auditing.broken())


async def test_sales_that_redis_lost_are_reported(auditing: Auditing) -> None:
    await auditing.look()
    await auditing.redis.delete(*auditing.keys.for_sale("sale"))
    with pytest.raises(SaleNotFound):
        await auditing.look()
    inventory, progress = auditing.shop.inventory, auditing.progress
    reports = await audit_all(inventory, auditing.pool, auditing.redis, auditing.keys, progress)
    assert [report.ok for report in reports] == [False]


async def test_an_undrained_journal_is_no_verdict(auditing: Auditing) -> None:
    shop = auditing.shop
    with pytest.raises(AuditNotReady):
        await audit(
            shop.inventory, auditing.pool, auditing.redis, auditing.keys, auditing.progress, "sale",
            timeout=0.05,
        )  # fmt: skip


async def test_command_repairs_what_takes_nothing_from_a_buyer(
    auditing: Auditing, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await audit_command(settings, None, False, False) == 0
    await auditing.pool.execute(EVENTS)
    await auditing.redis.delete(auditing.keys.due(auditing.shop.partition))
    await auditing.redis.hset(auditing.key("customers"), "c1", "1 a=9 -")
    assert await audit_command(settings, "sale", True, False) == 1
    capsys.readouterr()
    assert await audit_command(settings, "sale", True, True) == 0
    answer = orjson.loads(capsys.readouterr().out)
    assert (answer["sale_id"], answer["ok"]) == ("sale", True)
    rows = await auditing.pool.fetch("SELECT payload FROM outbox WHERE type = 'order.confirmed'")
    payloads = {payload["payment_reference"]: payload for payload in (orjson.loads(row[0]) for row in rows)}
    assert payloads.keys() == {"pay-1", "pay-2", "pay-3"}
    payload = payloads["pay-1"]
    assert payload["items"] == [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}]


async def test_repair_keeps_the_count_of_reservations_ever_made(
    auditing: Auditing, settings: Settings
) -> None:
    redis, customers = auditing.shop.redis, auditing.key("customers")
    await redis.hset(customers, "c0", "7 a=9 -")
    assert await audit_command(settings, "sale", False, True) == 0
    made, units, _ = (await redis.hget(customers, "c0")).split(" ")
    assert (made, set(units.split(","))) == ("7", {"a=1", "b=2"})


async def test_command_opens_partitions_after_a_restart_of_redis(
    auditing: Auditing, settings: Settings, keys: Keys, redis: Redis
) -> None:
    for partition in range(keys.partitions):
        await redis.hset(keys.meta(partition), "server", "0" * 40)
    assert await audit_command(settings, None, False, False) == 0


async def test_command_does_not_repair_stock(auditing: Auditing, settings: Settings) -> None:
    await auditing.redis.hset(auditing.key("stock"), "a", "24 22 1 2 0 20 1")
    assert await audit_command(settings, None, False, True) == 1
