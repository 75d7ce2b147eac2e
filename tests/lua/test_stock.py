"""restock.lua, withdraw.lua and cancel.lua: how operators move stock."""

import pytest

from app import errors
from app.ids import random_hold_id
from app.inventory import MAX_ALLOCATED
from app.models import OrderStatus, StockRow
from tests.shop import Shop

KEY = "k" * 24


async def restock(
    shop: Shop, quantity: int, key: str = KEY, digest: str = "d", sku: str = "a"
) -> tuple[StockRow, bool]:
    return await shop.inventory.restock("sale", sku, quantity, key, digest, "why not")


async def withdraw(
    shop: Shop, quantity: int, key: str = KEY, digest: str = "d", sku: str = "a"
) -> tuple[StockRow, bool]:
    return await shop.inventory.withdraw("sale", sku, quantity, key, digest, None)


async def test_restocked_units_are_available(shop: Shop) -> None:
    await shop.configure(a=1)
    await shop.hold("c1", a=1)
    assert await restock(shop, 5) == (StockRow("a", 6, 5, 1, 0), False)
    assert await shop.stock() == {"a": (6, 5, 1, 0)}
    record = (await shop.journal())[-1]
    assert record.kind == "restocked"
    assert record.words() == {
        "sale": "sale",
        "sku": "a",
        "quantity": "5",
        "allocated": "6",
        "available": "5",
        "held": "1",
        "sold": "0",
        "key": KEY,
        "digest": "d",
        "reason": '"why not"',
    }


async def test_a_restock_is_done_once_per_key_and_answers_the_same(shop: Shop) -> None:
    await shop.configure(a=1)
    first = await restock(shop, 5)
    await shop.hold("c1", a=3)
    kinds = await shop.kinds()
    assert await restock(shop, 5) == (first[0], True)
    assert await shop.stock() == {"a": (6, 3, 3, 0)}
    assert await shop.kinds() == kinds


async def test_a_key_used_for_another_movement_is_refused(shop: Shop) -> None:
    await shop.configure(a=10)
    await restock(shop, 5)
    for other in (restock(shop, 5, digest="e"), withdraw(shop, 5, digest="w")):
        with pytest.raises(errors.IdempotencyKeyReused):
            await other
    assert await shop.stock() == {"a": (15, 15, 0, 0)}


async def test_withdrawn_units_leave_the_allocation(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.hold("c1", a=4)
    assert await withdraw(shop, 6) == (StockRow("a", 4, 0, 4, 0), False)
    assert await withdraw(shop, 6) == (StockRow("a", 4, 0, 4, 0), True)
    record = (await shop.journal())[-1]
    assert (record.kind, record.words()["quantity"]) == ("withdrawn", "6")


async def test_held_and_sold_units_cannot_be_withdrawn(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.confirm(await shop.hold("c1", a=4))
    await shop.hold("c2", a=4)
    with pytest.raises(errors.InsufficientStock) as refusal:
        await withdraw(shop, 3)
    assert refusal.value.extra["available"] == 2
    assert await shop.stock() == {"a": (10, 2, 4, 4)}
    # A refusal is not remembered.
    await restock(shop, 1, key="r" * 24)
    assert (await withdraw(shop, 3))[0].available == 0


async def test_an_unknown_sku_or_sale_moves_nothing(shop: Shop) -> None:
    await shop.configure(a=10)
    for move in (restock(shop, 1, sku="nope"), withdraw(shop, 1, sku="nope")):
        with pytest.raises(errors.SkuNotFound):
            await move
    with pytest.raises(errors.SaleNotFound):
        await shop.inventory.restock("other", "a", 1, KEY, "d", None)
    assert await shop.kinds() == ["configured"]


async def test_an_allocation_stays_where_lua_counts_exactly(shop: Shop) -> None:
    await shop.configure(a=10)
    row = shop.inventory.keys.for_sale("sale")[1]
    await shop.redis.hset(row, "a", f"{MAX_ALLOCATED - 1} {MAX_ALLOCATED - 1} 0 0 0 10 1")
    with pytest.raises(errors.ValidationFailed):
        await restock(shop, 2)
    assert (await restock(shop, 1))[0].allocated == MAX_ALLOCATED
    await shop.hold("c1", a=1)
    assert await shop.stock() == {"a": (MAX_ALLOCATED, MAX_ALLOCATED - 1, 1, 0)}


async def test_a_cancelled_order_returns_its_units_and_the_customers_limit(shop: Shop) -> None:
    await shop.configure(a=(10, 2), b=5)
    hold = await shop.hold("c1", a=2, b=1)
    await shop.confirm(hold)
    cancelled = await shop.inventory.cancel("sale", hold.hold_id, True, "a reason")
    assert cancelled.order is not None
    assert cancelled.order.status is OrderStatus.CANCELLED
    assert await shop.stock() == {"a": (10, 10, 0, 0), "b": (5, 5, 0, 0)}
    record = (await shop.journal())[-1]
    assert (record.kind, record.words()["restock"], record.words()["reason"]) == (
        "cancelled",
        "1",
        '"a reason"',
    )
    assert cancelled.order.journal_id == record.id
    await shop.hold("c1", a=2)


async def test_a_cancelled_order_may_leave_the_allocation_instead(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.confirm(hold)
    await shop.inventory.cancel("sale", hold.hold_id, False, None)
    assert await shop.stock() == {"a": (8, 8, 0, 0)}
    assert (await shop.journal())[-1].words()["restock"] == "0"


async def test_cancelling_again_answers_the_same_order(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.confirm(hold, "pay-1")
    first = await shop.inventory.cancel("sale", hold.hold_id, True, None)
    kinds = await shop.kinds()
    assert await shop.inventory.cancel("sale", hold.hold_id, False, None) == first
    assert await shop.confirm(hold, "pay-1") == first
    assert await shop.kinds() == kinds
    assert await shop.stock() == {"a": (10, 10, 0, 0)}


async def test_only_an_order_is_cancelled(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    for hold_id in (hold.hold_id, random_hold_id()):
        with pytest.raises(errors.OrderNotFound):
            await shop.inventory.cancel("sale", hold_id, True, None)
    assert await shop.stock() == {"a": (10, 8, 2, 0)}
