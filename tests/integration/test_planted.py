"""Every planted corruption is found, by the invariants that it breaks and no other, and mended where that
takes nothing from a buyer: a table of cases, by the store that is damaged."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from tests.integration.auditing import Auditing

MOVEMENTS, ALLOCATED, ADDS_UP = "movements_add_up", "allocated_equals_movements", "stock_adds_up"
HELD, SOLD, COUNTS = "held_equals_holds", "sold_equals_orders", "counts_equal_postgres"
OUTBOX, RULES, REJECTS, LISTED = (
    "orders_have_outbox_rows",
    "rules_equal_postgres",
    "no_rejects",
    "sale_is_listed",
)
DUE, CUSTOMERS = "due_list_equals_holds", "customer_counts_equal_holds"
HOLDS, MADE, ANSWERS = "holds_equal_postgres", "reservations_made_equal_postgres", "answers_equal_postgres"


class Case(NamedTuple):
    """`left`: what the repair can't mend; the same as `broken` where it can mend nothing."""

    what: str
    damage: Callable[[Auditing], Awaitable[object]]
    broken: set[str]
    left: set[str]


def mended(what: str, damage: Callable[[Auditing], Awaitable[object]], *broken: str) -> Case:
    return Case(what, damage, set(broken), set())


def reported(what: str, damage: Callable[[Auditing], Awaitable[object]], *broken: str) -> Case:
    return Case(what, damage, set(broken), set(broken))


def sets(kind: str, field: str, value: str) -> Callable[[Auditing], Awaitable[object]]:
    async def damage(a: Auditing) -> None:
        assert await a.redis.hget(a.key(kind), field) != value
        await a.redis.hset(a.key(kind), field, value)

    return damage


def loses(kind: str, field: str) -> Callable[[Auditing], Awaitable[object]]:
    async def damage(a: Auditing) -> None:
        assert await a.redis.hdel(a.key(kind), field) == 1

    return damage


def replaces(customer: str, old: str, new: str) -> Callable[[Auditing], Awaitable[object]]:
    """In the customer's hold."""

    async def damage(a: Auditing) -> None:
        id_, packed = await a.hold_of(customer)
        assert old in packed
        await a.redis.hset(a.key("holds"), id_, packed.replace(old, new))

    return damage


def executes(statement: str) -> Callable[[Auditing], Awaitable[object]]:
    """On Postgres, with the triggers off that would refuse it."""

    async def damage(a: Auditing) -> None:
        async with a.pool.acquire() as database, database.transaction():
            await database.execute("SET LOCAL session_replication_role = 'replica'")
            for each in statement.split("; "):
                assert not (await database.execute(each)).endswith(" 0"), each

    return damage


async def oversells(a: Auditing) -> None:
    await a.redis.hset(a.key("stock"), "a", "24 121 1 2 0 20 1")
    await a.shop.hold("c9", a=50)
    await a.redis.hset(a.key("stock"), "a", "24 0 51 2 0 20 1")


async def moves_due(a: Auditing) -> None:
    member = next(iter(await a.shop.due()))
    await a.redis.zincrby(a.keys.due(a.shop.partition), 1, member)


ON_REDIS = [
    mended("available", sets("stock", "a", "24 22 1 2 0 20 1"), ADDS_UP),
    mended("held", sets("stock", "a", "24 20 2 2 0 20 1"), HELD),
    mended("sold", sets("stock", "a", "24 20 1 3 0 20 1"), SOLD),
    mended("allocated", sets("stock", "a", "25 22 1 2 0 20 1"), ALLOCATED),
    mended("below zero", sets("stock", "a", "24 24 -2 2 0 20 1"), ADDS_UP, HELD),
    reported("oversold", oversells, ADDS_UP),
    mended("limit", sets("stock", "a", "24 21 1 2 3 20 1"), RULES),
    mended("first quantity", sets("stock", "a", "24 21 1 2 0 21 1"), RULES),
    mended("opening", sets("sale", "opens_at", "1"), RULES),
    mended("pause", sets("sale", "paused", "1"), RULES),
    mended("name", sets("sale", "name", '"Another"'), RULES),
    mended("a count", lambda a: a.redis.hincrby(a.key("sale"), "confirmed", 1), COUNTS),
    mended("unlisted", lambda a: a.redis.srem(a.keys.sales(a.shop.partition), "sale"), LISTED),
    mended("no due list", lambda a: a.redis.delete(a.keys.due(a.shop.partition)), DUE),
    mended("a due stranger", lambda a: a.redis.zadd(a.keys.due(a.shop.partition), {"sale/x": 1}), DUE),
    mended("due later", moves_due, DUE),
    mended("a customer's units", sets("customers", "c1", "1 a=9 -"), CUSTOMERS),
    mended("a customer's holds", sets("customers", "c5", "1 b=1 -"), CUSTOMERS),
    mended("how often, lower", sets("customers", "c2", "0 - -"), CUSTOMERS, MADE),
    mended("how often, higher", sets("customers", "c2", "7 - -"), MADE),
    mended("no customer", loses("customers", "c0"), CUSTOMERS, MADE),
    mended("a strange customer", sets("customers", "eve", "1 a=9 -"), CUSTOMERS, MADE),
    mended("no hold", lambda a: a.forget("c0"), DUE, CUSTOMERS, HOLDS),
    mended("no order", lambda a: a.forget("c1"), CUSTOMERS, HOLDS),
    reported("holds in each other's place", lambda a: a.swap("c0", "c1"), DUE, CUSTOMERS, HOLDS),
    reported("a hold's items", replaces("c5", "b=1", "b=2"), CUSTOMERS, HOLDS),
    reported("an ended hold lives", replaces("c4", "expired ", "held "), DUE, CUSTOMERS, HOLDS),
    reported("an order's payment", replaces("c1", "pay-1", "pay-9"), HOLDS),
    reported("an order's metadata", replaces("c1", "{}", '{"a":1}'), HOLDS),
    reported("a strange hold", sets("holds", "x", "damaged"), HOLDS),
    mended("no answer to a restock", loses("answers", "key key"), ANSWERS),
    reported("another answer", sets("answers", "key key", "other 25 22 1 2"), ANSWERS),
    reported("a strange answer", sets("answers", "key new", "other 1 1 0 0"), ANSWERS),
    reported("a strange refund", sets("answers", "refund x pay", "1"), ANSWERS),
    reported("no sale", lambda a: a.redis.delete(*a.keys.for_sale("sale")), "sale_is_in_redis"),
]

NO_SALE = "DELETE FROM movements; DELETE FROM sale_skus; DELETE FROM sales"
REJECT = (
    "INSERT INTO rejects (partition, epoch, sequence, ordinal, sale_id, kind, record, error)"
    " SELECT partition, 1, 1, 0, id, 'held', '', '' FROM sales"
)

ON_POSTGRES = [
    reported("no restock", executes("DELETE FROM movements WHERE kind = 'restocked'"), ALLOCATED, ANSWERS),
    reported(
        "no write-off", executes("DELETE FROM movements WHERE kind = 'written_off' AND sku = 'b'"),
        MOVEMENTS, ALLOCATED,
    ),
    reported(
        "a restock", executes("UPDATE movements SET quantity = 6 WHERE kind = 'restocked'"),
        MOVEMENTS, ALLOCATED,
    ),
    reported(
        "the first movement", executes("UPDATE movements SET quantity = 21 WHERE kind = 'allocated'"),
        MOVEMENTS, ALLOCATED,
    ),
    reported(
        "a movement's stock",
        executes("UPDATE movements SET allocated = 25, available = available + 1 WHERE kind = 'restocked'"),
        MOVEMENTS, ANSWERS,
    ),
    reported(
        "a hold's items", executes("UPDATE reservations SET items = items || items WHERE status = 'held'"),
        HELD, HOLDS,
    ),
    reported(
        "a hold's customer", executes("UPDATE reservations SET customer_id = 'x' WHERE customer_id = 'c0'"),
        HOLDS, MADE,
    ),
    reported(
        "a hold's end", executes("UPDATE reservations SET expires_at = expires_at + interval '1 ms'"), HOLDS
    ),
    mended(
        "no hold", executes("DELETE FROM reservations WHERE customer_id = 'c5'"), HELD, COUNTS, HOLDS, MADE
    ),
    reported(
        "no ended hold", executes("DELETE FROM reservations WHERE customer_id = 'c4'"),
        COUNTS, HOLDS, MADE, ANSWERS,
    ),
    mended(
        "no order", executes("DELETE FROM orders WHERE payment_reference = 'pay-1'"), SOLD, OUTBOX, HOLDS
    ),
    mended(
        "no order nor hold",
        executes(
            "DELETE FROM orders WHERE customer_id = 'c1'; DELETE FROM reservations WHERE customer_id = 'c1'"
        ),
        SOLD, COUNTS, HOLDS, MADE,
    ),
    reported(
        "no cancelled order", executes("DELETE FROM orders WHERE status = 'cancelled'"),
        MOVEMENTS, COUNTS, OUTBOX, HOLDS,
    ),
    reported(
        "an order's items", executes("UPDATE orders SET items = items || items WHERE status = 'confirmed'"),
        SOLD, OUTBOX,
    ),
    reported(
        "an order's payment",
        executes("UPDATE orders SET payment_reference = 'x' WHERE payment_reference = 'pay-1'"), HOLDS,
    ),
    reported("an order's metadata", executes("UPDATE orders SET metadata = '{\"a\":1}'"), HOLDS),
    reported(
        "an order is cancelled",
        executes(
            "UPDATE orders SET status = 'cancelled', cancelled_at = confirmed_at, restocked = true"
            " WHERE status = 'confirmed'"
        ),
        SOLD, COUNTS, HOLDS,
    ),
    mended("no event", executes("DELETE FROM outbox WHERE type = 'order.confirmed'"), OUTBOX),
    reported(
        "an event of another order",
        executes("UPDATE outbox SET aggregateid = 'ord_x' WHERE type = 'order.confirmed'"), OUTBOX,
    ),
    reported("a reject", executes(REJECT), REJECTS),
    reported("no refund", executes("DELETE FROM refunds"), ANSWERS),
    mended("the opening", executes("UPDATE sales SET opens_at = opens_at - interval '1 s'"), RULES),
    mended("a limit", executes("UPDATE sale_skus SET limit_per_customer = 3 WHERE sku = 'a'"), RULES),
    reported(
        "a first quantity", executes("UPDATE sale_skus SET first_quantity = 21 WHERE sku = 'a'"),
        MOVEMENTS, RULES,
    ),
    reported("no sale", executes(NO_SALE), ALLOCATED, RULES, ANSWERS),
]  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{store}: {case.what}")
        for store, cases in (("redis", ON_REDIS), ("postgres", ON_POSTGRES))
        for case in cases
    ],
)
async def test_a_planted_corruption_is_found_and_mended_where_it_can_be(
    auditing: Auditing, case: Case
) -> None:
    await auditing.drain.run_partition(auditing.shop.partition)
    stock = await auditing.shop.stock()
    await case.damage(auditing)
    assert await auditing.broken_and_left() == (case.broken, case.left)
    await auditing.drain.run_partition(auditing.shop.partition)
    acts = await auditing.pool.fetch("SELECT actor FROM audit_log WHERE action LIKE 'repair.%'")
    assert bool(acts) == (case.left != case.broken)
    assert all(row["actor"].startswith("holdfast audit --repair (") for row in acts)
    if not case.left:
        assert await auditing.shop.stock() == stock


def test_every_invariant_has_a_case_on_each_store_that_can_break_it() -> None:
    """Some are of one store alone."""
    redis, postgres = ({name for case in cases for name in case.broken} for cases in (ON_REDIS, ON_POSTGRES))
    assert redis >= {
        ALLOCATED, ADDS_UP, HELD, SOLD, COUNTS, RULES, LISTED, DUE, CUSTOMERS, HOLDS, MADE, ANSWERS,
        "sale_is_in_redis",
    }  # fmt: skip
    assert postgres >= {
        MOVEMENTS, ALLOCATED, HELD, SOLD, COUNTS, OUTBOX, RULES, REJECTS, HOLDS, MADE, ANSWERS,
    }  # fmt: skip
