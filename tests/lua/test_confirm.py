"""confirm.lua: one order per reservation, and the late payment."""

import asyncio
from typing import Any

import pytest

from app import errors
from app.models import OrderStatus, Reservation, ReservationStatus
from app.reserving import Reserved
from tests.shop import Shop


async def expired(shop: Shop, *, swept: bool, **items: int) -> Reservation:
    cart: dict[str, Any] = items or {"a": 1}
    hold = await shop.hold("late", **cart)
    await shop.wait(61)
    if swept:
        assert await shop.sweep(hold) == 1
    return hold


async def test_a_confirmed_hold_is_an_order_and_its_units_are_sold(shop: Shop) -> None:
    await shop.configure(a=10, b=5)
    hold = await shop.hold("c1", a=2, b=1)
    confirmed = await shop.confirm(hold, "pay-1", b'{"n": 12345678901234567890123, "l": []}')
    assert confirmed.status is ReservationStatus.CONFIRMED
    order = confirmed.order
    assert order is not None
    assert (order.status, order.payment_reference, order.reacquired) == (
        OrderStatus.CONFIRMED,
        "pay-1",
        False,
    )
    assert order.metadata == b'{"n": 12345678901234567890123, "l": []}'
    assert await shop.stock() == {"a": (10, 8, 0, 2), "b": (5, 4, 0, 1)}
    assert await shop.due() == {}
    assert await shop.inventory.living_holds("sale", "c1") == []


async def test_the_journal_carries_the_order(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    confirmed = await shop.confirm(hold, "pay-1", b'{"a": "b c"}')
    record = (await shop.journal())[-1]
    assert record.words() == {
        "sale": "sale", "hold": hold.hold_id, "customer": "c1", "items": "a=2", "reacquired": "0",
        "payment_reference": "pay-1", "metadata": '{"a": "b c"}',
    }  # fmt: skip
    assert record.kind == "confirmed"
    assert confirmed.order is not None
    assert confirmed.order.journal_id == record.id
    assert confirmed.order.confirmed_at == record.at


async def test_the_first_metadata_wins_and_a_repeat_changes_nothing(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    first = await shop.confirm(hold, "pay-1", b'{"first":1}')
    kinds = await shop.kinds()
    assert await shop.confirm(hold, "pay-1", b'{"second":2}') == first
    assert await shop.kinds() == kinds


async def test_another_payment_for_a_confirmed_hold_is_refused(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.confirm(hold, "pay-1")
    with pytest.raises(errors.ReservationConfirmed):
        await shop.confirm(hold, "pay-2")
    assert await shop.stock() == {"a": (10, 8, 0, 2)}


async def test_a_released_hold_is_not_confirmed(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.inventory.release("sale", hold.hold_id)
    with pytest.raises(errors.ReservationReleased):
        await shop.confirm(hold)
    assert await shop.stock() == {"a": (10, 10, 0, 0)}


async def test_an_unknown_hold_and_an_unknown_sale(shop: Shop) -> None:
    await shop.configure(a=10)
    with pytest.raises(errors.ReservationNotFound):
        await shop.inventory.confirm("sale", "0" * 26, "pay", b"{}")
    with pytest.raises(errors.SaleNotFound):
        await shop.inventory.confirm("other", "0" * 26, "pay", b"{}")


@pytest.mark.parametrize("verb", ["paused", "closed"])
async def test_living_holds_are_confirmed_while_the_sale_is_paused_or_closed(shop: Shop, verb: str) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await shop.inventory.steer("sale", verb)
    assert (await shop.confirm(hold)).status is ReservationStatus.CONFIRMED


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("verb", [None, "paused", "closed"])
async def test_a_late_payment_takes_the_units_again(shop: Shop, swept: bool, verb: str | None) -> None:
    await shop.configure(a=3, b=3)
    hold = await expired(shop, swept=swept, a=2, b=1)
    if verb:
        await shop.inventory.steer("sale", verb)
    confirmed = await shop.confirm(hold)
    assert confirmed.order is not None
    assert confirmed.order.reacquired
    assert await shop.stock() == {"a": (3, 1, 0, 2), "b": (3, 2, 0, 1)}
    assert (await shop.journal())[-1].words()["reacquired"] == "1"
    assert await shop.sweep(hold) == 0
    assert await shop.due() == {}


async def test_an_unswept_hold_keeps_its_own_units_for_a_late_payment(shop: Shop) -> None:
    await shop.configure(a=1)
    hold = await expired(shop, swept=False)
    assert isinstance(await shop.refused("c2", a=1), errors.SoldOut)
    assert (await shop.confirm(hold)).order is not None


async def test_a_late_payment_whose_units_are_gone_is_refunded_once_and_for_all(shop: Shop) -> None:
    await shop.configure(a=1, b=5)
    hold = await expired(shop, swept=True, b=1, a=1)
    other = await shop.hold("c2", a=1)
    with pytest.raises(errors.ReservationExpired) as refusal:
        await shop.confirm(hold, "pay-1")
    assert refusal.value.extra == {"refund_required": True}
    assert await shop.stock() == {"a": (1, 0, 1, 0), "b": (5, 5, 0, 0)}
    record = (await shop.journal())[-1]
    assert (record.kind, record.words()["payment_reference"]) == ("refund_required", "pay-1")
    # Final, also when the stock returns: the shop may have refunded.
    await shop.inventory.release("sale", other.hold_id)
    with pytest.raises(errors.ReservationExpired):
        await shop.confirm(hold, "pay-1")
    assert (await shop.kinds()).count("refund_required") == 1
    # Another payment may take the units again.
    assert (await shop.confirm(hold, "pay-2")).order is not None


@pytest.mark.parametrize("swept", [False, True])
async def test_a_late_payment_stays_within_the_customers_limit(shop: Shop, swept: bool) -> None:
    await shop.configure(a=(10, 2))
    hold = await shop.hold("c1", a=2)
    await shop.wait(61)
    if swept:
        await shop.sweep(hold)
        await shop.hold("c1", a=1)
    else:
        await shop.configure(a=(10, 1))
    with pytest.raises(errors.ReservationExpired):
        await shop.confirm(hold)


async def test_a_reacquired_order_counts_towards_the_limit(shop: Shop) -> None:
    await shop.configure(a=(10, 2))
    hold = await shop.hold("c1", a=2)
    await shop.wait(61)
    await shop.sweep(hold)
    await shop.confirm(hold)
    assert isinstance(await shop.refused("c1", a=1), errors.CustomerLimitReached)


async def test_confirm_racing_expiry_racing_release_has_one_winner(shop: Shop) -> None:
    """Whoever comes first, the units are counted once."""
    rounds = 100
    await shop.configure(a=rounds)
    for i in range(rounds):
        hold = await shop.hold(f"c{i}", a=1)
        if i % 2:
            await shop.wait(61)
        await asyncio.gather(
            shop.confirm(hold),
            shop.sweep(hold),
            shop.inventory.release("sale", hold.hold_id),
            return_exceptions=True,
        )
        after = await shop.inventory.reservation("sale", hold.hold_id)
        assert after is not None
        sold = sum(1 for record in await shop.journal() if record.kind == "confirmed")
        allocated, available, held, sold_units = (await shop.stock())["a"]
        assert (allocated, held, sold_units) == (rounds, 0, sold)
        assert available == rounds - sold
        assert (after.status is ReservationStatus.CONFIRMED) == (after.order is not None)


async def test_a_swept_hold_of_another_customer_can_be_held_again(shop: Shop) -> None:
    await shop.configure(a=1)
    await expired(shop, swept=True)
    assert isinstance(await shop.reserve("c2", a=1), Reserved)


async def test_a_damaged_hold_fails_nobody_elses_payment(shop: Shop) -> None:
    await shop.configure(a=10)
    holds = [await shop.hold(f"c{number}", a=1) for number in range(4)]
    holds_key = shop.inventory.keys.for_sale("sale")[2]
    await shop.redis.hset(holds_key, holds[1].hold_id, "nonsense")
    outcomes = await asyncio.gather(*(shop.confirm(hold) for hold in holds), return_exceptions=True)
    assert [isinstance(outcome, errors.OutcomeUnknown) for outcome in outcomes] == [False, True, False, False]
    assert (await shop.stock())["a"] == (10, 6, 1, 3)


async def test_a_late_payment_for_an_unswept_hold_may_fill_the_customers_limit(shop: Shop) -> None:
    await shop.configure(a=(10, 2))
    hold = await shop.hold("c1", a=2)
    await shop.wait(61)
    confirmed = await shop.confirm(hold)
    assert confirmed.order is not None
    assert confirmed.order.reacquired
