"""Batches of reserve.lua and confirm.lua: several sales, thousands of requests, one after another."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app import errors
from app.ids import random_hold_id
from app.inventory import Inventory
from app.journal import format_items
from app.models import Reservation
from app.reserving import Reserved, ReserveRequest
from app.scripts import Scripts
from app.settings import Settings
from tests.shop import Shop

MANY = 4500
"""Requests whose words are more than one call of a Redis command may take from a script: 8,000."""


@pytest.fixture
def shops(shop: Shop) -> list[Shop]:
    """Three sales of one partition."""
    keys = shop.inventory.keys
    names = [name for name in (f"s{i}" for i in range(60)) if keys.partition(name) == 0][:3]
    return [Shop(shop.inventory, shop.redis, name) for name in names]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scripts that run from now on."""
    run, names = Scripts.run, []

    async def record(
        scripts: Scripts, name: str, keys: list[str], args: list[str | bytes | int], **also: Any
    ) -> list[Any]:
        names.append(name)
        return await run(scripts, name, keys, args, **also)

    monkeypatch.setattr(Scripts, "run", record)
    return names


async def reserve_at_once(shop: Shop, requests: Sequence[ReserveRequest]) -> list[str]:
    """The script's answers to one call, however many requests it is."""
    keys = shop.inventory.keys
    args: list[str | bytes | int] = ["0-0", 10**6, 10**9, "0.9", 10**6, 10**6, shop.sale_id, len(requests)]
    for one in requests:
        args += (one.hold_id, one.previous_hold_id, one.customer_id, one.digest, format_items(one.items))
    reply = await shop.inventory._scripts.run("reserve", keys.for_script(shop.sale_id), args)
    return reply[3:]


async def customer(shop: Shop, customer_id: str) -> str | None:
    """The packed customer."""
    found: str | None = await shop.redis.hget(shop.inventory.keys.for_sale(shop.sale_id)[3], customer_id)
    return found


async def test_thousands_of_requests_are_one_call_and_none_of_them_is_lost(shop: Shop) -> None:
    await shop.configure(a=10_000)
    requests = [shop.request(f"c{i}", a=1)._replace(previous_hold_id=random_hold_id()) for i in range(MANY)]
    answers = await reserve_at_once(shop, requests)
    assert {answer.split(" ")[0] for answer in answers} == {"held"}
    _, _, holds, customers, _ = shop.inventory.keys.for_sale("sale")
    ids = [request.hold_id for request in requests]
    packed = await shop.redis.hmget(holds, ids)
    assert [one and one.split(" ")[4] for one in packed] == [f"c{i}" for i in range(MANY)]
    assert await shop.redis.hmget(customers, [request.customer_id for request in requests]) == [
        f"1 a=1 {hold_id}" for hold_id in ids
    ]
    assert set(await shop.due()) == {f"sale/{hold_id}" for hold_id in ids}
    assert await shop.stock() == {"a": (10_000, 10_000 - MANY, MANY, 0)}


async def test_each_of_thousands_of_requests_finds_its_hold_again(shop: Shop) -> None:
    await shop.configure(a=10_000)
    requests = [shop.request(f"c{i}", a=1) for i in range(MANY)]
    await reserve_at_once(shop, requests)
    again = [request._replace(previous_hold_id=random_hold_id()) for request in requests]
    answers = await reserve_at_once(shop, again)
    assert [answer.split(" ")[:2] for answer in answers] == [
        ["replayed", request.hold_id] for request in requests
    ]
    assert await shop.stock() == {"a": (10_000, 10_000 - MANY, MANY, 0)}


async def test_each_of_thousands_of_customers_is_known_again(shop: Shop) -> None:
    await shop.configure(a=(10_000, 1))
    for word in ("held", "customer_limit_reached"):
        answers = await reserve_at_once(shop, [shop.request(f"c{i}", a=1) for i in range(MANY)])
        assert {answer.split(" ")[0] for answer in answers} == {word}


async def test_each_request_for_a_hold_is_answered_as_its_own_sale_decides(
    shops: list[Shop], calls: list[str]
) -> None:
    """The answers come by sale, and the requests did not."""
    for number, one in enumerate(shops):
        await one.configure(hold_seconds=60 + number, a=number)
    calls.clear()
    outcomes = await asyncio.gather(*(one.reserve(f"c{i}", a=1) for i in range(3) for one in shops))
    assert calls == ["reserve"]
    lasted = [
        outcome.reservation.expires_at - outcome.reservation.created_at
        if isinstance(outcome, Reserved)
        else type(outcome)
        for outcome in outcomes
    ]
    assert lasted == [
        errors.SoldOut, 61_000, 62_000,
        errors.SoldOut, errors.SoldOut, 62_000,
        errors.SoldOut, errors.SoldOut, errors.SoldOut,
    ]  # fmt: skip
    for number, one in enumerate(shops):
        assert await one.stock() == {"a": (number, 0, number, 0)}


async def test_each_payment_is_answered_as_its_own_sale_decides(shops: list[Shop], calls: list[str]) -> None:
    for one in shops:
        await one.configure(a=2)
    holds = [(one, await one.hold(f"c{i}", a=1)) for i in range(2) for one in shops]
    await shops[1].inventory.release(shops[1].sale_id, holds[1][1].hold_id)
    calls.clear()
    outcomes = await asyncio.gather(*(one.confirm(hold) for one, hold in holds), return_exceptions=True)
    assert calls == ["confirm"]
    told = [(one.sale_id, one.hold_id) if isinstance(one, Reservation) else type(one) for one in outcomes]
    expected: list[Any] = [(one.sale_id, hold.hold_id) for one, hold in holds]
    expected[1] = errors.ReservationReleased
    assert told == expected
    assert [await one.stock() for one in shops] == [
        {"a": (2, 0, 0, 2)},
        {"a": (2, 1, 0, 1)},
        {"a": (2, 0, 0, 2)},
    ]


async def test_a_sale_that_is_not_there_does_not_disturb_a_batch(shops: list[Shop], calls: list[str]) -> None:
    first, unknown, last = shops
    for one in (first, last):
        await one.configure(a=1)
    calls.clear()
    outcomes = await asyncio.gather(*(one.reserve("c", a=1) for one in (first, unknown, last)))
    assert [type(outcome) for outcome in outcomes] == [Reserved, errors.SaleNotFound, Reserved]
    holds = [outcome.reservation.hold_id for outcome in outcomes if isinstance(outcome, Reserved)]
    payments = await asyncio.gather(
        first.inventory.confirm(first.sale_id, holds[0], "pay", b"{}"),
        first.inventory.confirm(unknown.sale_id, holds[0], "pay", b"{}"),
        first.inventory.confirm(last.sale_id, holds[1], "pay", b"{}"),
        return_exceptions=True,
    )
    assert [type(payment) for payment in payments] == [Reservation, errors.SaleNotFound, Reservation]
    assert calls == ["reserve", "confirm"]


async def test_within_a_batch_every_cart_is_decided_as_it_is(shop: Shop) -> None:
    await shop.configure(a=100, b=100)
    carts: list[Any] = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 3}, {"a": 1}]
    await asyncio.gather(*(shop.reserve(f"c{i}", **cart) for i, cart in enumerate(carts)))
    assert await shop.stock() == {"a": (100, 95, 5, 0), "b": (100, 96, 4, 0)}


async def test_within_a_batch_sold_out_names_what_was_asked_for(shop: Shop) -> None:
    await shop.configure(a=1, b=0)
    carts: list[Any] = [{"a": 2}, {"b": 2}, {"a": 3}, {"b": 1}, {"a": 2}]
    outcomes = await asyncio.gather(*(shop.reserve(f"c{i}", **cart) for i, cart in enumerate(carts)))
    told = [
        {outcome.extra["sku"]: outcome.extra["requested"]}
        for outcome in outcomes
        if isinstance(outcome, errors.SoldOut)
    ]
    assert told == carts


async def test_a_customer_who_is_known_stays_so_beside_others_in_a_batch(shop: Shop) -> None:
    await shop.configure(a=(100, 3), b=100)
    names = ["c1", "c2", "c3"]
    before = [await shop.hold(name, a=1) for name in names]
    after = await asyncio.gather(*(shop.reserve(name, a=1, b=1) for name in [*names, "c4", "c4"]))
    ids = [outcome.reservation.hold_id for outcome in after if isinstance(outcome, Reserved)]
    for name, first, second in zip(names, before, ids, strict=False):
        made, units, living = (await customer(shop, name) or "").split(" ")
        assert (made, set(units.split(","))) == ("2", {"a=2", "b=1"})
        assert living == f"{first.hold_id},{second}"
    made, units, living = (await customer(shop, "c4") or "").split(" ")
    assert (made, set(units.split(",")), living) == ("2", {"a=2", "b=2"}, f"{ids[3]},{ids[4]}")


async def test_a_customer_who_is_refused_is_left_as_is(shop: Shop) -> None:
    await shop.configure(a=(100, 1), b=0)
    hold = await shop.hold("c1", a=1)
    await asyncio.gather(shop.reserve("c1", a=1), shop.reserve("c2", b=1), shop.reserve("c3", a=1))
    assert await customer(shop, "c1") == f"1 a=1 {hold.hold_id}"
    assert await customer(shop, "c2") is None


async def test_the_holds_of_a_batch_are_all_counted(shop: Shop) -> None:
    await shop.configure(a=100)
    await asyncio.gather(*(shop.reserve(f"c{i}", a=1) for i in range(7)))
    assert await shop.redis.hget(shop.inventory.keys.for_sale("sale")[0], "reserved") == "7"


async def test_each_order_of_a_batch_knows_its_place_in_the_journal(shops: list[Shop]) -> None:
    """Also behind another sale's orders and refunds: by it a rebuilt Redis tells whose record it is."""
    first, second, _ = shops
    await first.configure(a=2)
    await second.configure(a=2)
    gone, late = await first.hold("c1", a=1), await first.hold("c2", a=1)
    await first.wait(61)
    await first.sweep(gone)
    await first.hold("c3", a=1)
    others = [await second.hold(f"d{i}", a=1) for i in range(2)]
    payments: list[Any] = [
        first.confirm(gone),
        first.confirm(late),
        *(second.confirm(hold) for hold in others),
    ]
    await asyncio.gather(*payments, return_exceptions=True)
    records = (await first.journal())[-4:]
    assert [record.kind for record in records] == ["refund_required", *["confirmed"] * 3]
    assert len({record.id for record in records}) == 1
    for one, hold, record in zip((first, second, second), (late, *others), records[1:], strict=True):
        packed = await one.redis.hget(one.inventory.keys.for_sale(one.sale_id)[2], hold.hold_id)
        assert packed.split(" ")[9] == f"{record.id}/{record.ordinal}"


async def test_a_late_payment_that_comes_twice_in_a_batch_is_refunded_once(
    shop: Shop, calls: list[str]
) -> None:
    await shop.configure(a=1)
    hold = await shop.hold("c1", a=1)
    await shop.wait(61)
    await shop.sweep(hold)
    await shop.hold("c2", a=1)
    calls.clear()
    payments = [shop.confirm(hold, reference) for reference in ("pay-1", "pay-1", "pay-2")]
    outcomes = await asyncio.gather(*payments, return_exceptions=True)
    assert calls == ["confirm"]
    assert [type(outcome) for outcome in outcomes] == [errors.ReservationExpired] * 3
    refunds = [record.words() for record in await shop.journal() if record.kind == "refund_required"]
    assert [words["payment_reference"] for words in refunds] == ["pay-1", "pay-2"]


async def test_an_order_is_no_longer_in_the_list_of_its_customers_holds(shop: Shop) -> None:
    await shop.configure(a=10)
    holds = [await shop.hold("c1", a=1) for _ in range(3)]
    await asyncio.gather(shop.confirm(holds[0]), shop.confirm(holds[2]))
    assert await customer(shop, "c1") == f"3 a=3 {holds[1].hold_id}"


async def test_the_head_that_is_answered_has_the_batch_in_it(shop: Shop) -> None:
    """What was seen after it must have it, or a server that lost it would be believed."""
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    assert shop.inventory.seen(shop.partition) == (await shop.journal())[-1].id
    await shop.confirm(hold)
    assert shop.inventory.seen(shop.partition) == (await shop.journal())[-1].id


async def test_a_customer_past_the_bound_is_told_so_even_where_the_store_is_full(
    shop: Shop, settings: Settings
) -> None:
    await shop.configure(a=10)
    await shop.hold("c1", a=1)
    bounds = {"max_reservations_per_customer": 1, "max_reservations_per_sale": 1}
    shop.inventory = Inventory(shop.redis, shop.inventory.keys, settings.model_copy(update=bounds))
    assert isinstance(await shop.refused("c1", a=1), errors.RateLimited)
    assert isinstance(await shop.refused("c2", a=1), errors.Overloaded)


async def test_a_sale_takes_exactly_as_many_reservations_as_it_may(shop: Shop, settings: Settings) -> None:
    await shop.configure(a=10)
    bounded = settings.model_copy(update={"max_reservations_per_sale": 3})
    shop.inventory = Inventory(shop.redis, shop.inventory.keys, bounded)
    for i in range(3):
        await shop.hold(f"c{i}", a=1)
    assert isinstance(await shop.refused("c4", a=1), errors.Overloaded)
