"""Sold out without asking Redis: who may be told so, and how soon units that came back are seen."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app import errors
from app.inventory import Inventory
from app.keys import Keys
from app.reserving import Reserved
from app.settings import Settings
from app.shield import BOUND_SECONDS
from tests.shop import Shop


@pytest.fixture
async def other(redis: Redis, keys: Keys, settings: Settings) -> Shop:
    """The same sale through another process' eyes."""
    return Shop(Inventory(redis, keys, settings), redis)


async def test_keyless_requests_are_refused_without_a_call(shop: Shop) -> None:
    await shop.configure(a=0)
    first = await shop.refused("c0", a=1)
    run = shop.inventory._scripts.run
    calls: list[str] = []

    async def counted(name: str, *arguments: list[str], **also: Any) -> object:
        calls.append(name)
        return await run(name, *arguments, **also)  # type: ignore[arg-type]

    shop.inventory._scripts.run = counted  # type: ignore[assignment,method-assign]
    refused = [await shop.refused(f"c{number}", a=2) for number in range(20)]
    assert calls == []
    assert {type(error) for error in refused} == {errors.SoldOut}
    assert refused[0].extra == first.extra | {"requested": 2}


async def test_a_winner_who_comes_back_with_its_key_is_never_told_sold_out(shop: Shop) -> None:
    await shop.configure(a=1)
    assert isinstance(await shop.reserve("winner", "key", a=1), Reserved)
    await shop.refused("late", a=1)
    again = await shop.reserve("winner", "key", a=1)
    assert isinstance(again, Reserved)
    assert again.replayed


async def test_a_cart_of_several_skus_is_always_asked_for(shop: Shop) -> None:
    """Its first SKU that fails is named, and that may be another one."""
    await shop.configure(a=0, b=5)
    await shop.refused("c", a=1)
    assert isinstance(await shop.refused("c", unknown=1, a=1), errors.SkuNotFound)


async def test_within_a_batch_everybody_is_told_what_is_left_at_their_turn(shop: Shop) -> None:
    await shop.configure(a=2)
    first, taken, last = await asyncio.gather(
        shop.reserve("c1", a=3), shop.reserve("c2", a=1), shop.reserve("c3", a=3)
    )
    assert isinstance(taken, Reserved)
    told = [outcome.extra for outcome in (first, last) if isinstance(outcome, errors.SoldOut)]
    assert [(extra["available"], extra["held"]) for extra in told] == [(2, 0), (1, 1)]


async def give_back_by_restock(shop: Shop) -> None:
    await shop.inventory.restock("sale", "a", 1, "restock", "d", None)


async def give_back_by_release(shop: Shop) -> None:
    await shop.inventory.release("sale", (await shop.journal())[-1].text.split(" ")[1])


async def give_back_by_expiry(shop: Shop) -> None:
    await shop.wait(61)
    hold_id = (await shop.journal())[-1].text.split(" ")[1]
    assert await shop.inventory.expire("sale", [hold_id]) == 1


@pytest.mark.parametrize("give_back", [give_back_by_restock, give_back_by_release, give_back_by_expiry])
async def test_units_that_another_process_gave_back_are_seen_within_the_bound(
    shop: Shop, other: Shop, give_back: Callable[[Shop], Awaitable[None]]
) -> None:
    await shop.configure(a=1)
    await shop.hold("winner", a=1)
    clock = FrozenClock(time.monotonic())
    other.inventory._shield.clock = clock
    await other.refused("early", a=1)
    await give_back(shop)
    clock.now += BOUND_SECONDS - 0.001
    assert isinstance(await other.refused("meanwhile", a=1), errors.SoldOut)  # asked nobody: still shielded
    clock.now += 0.001
    assert isinstance(await other.reserve("after", a=1), Reserved)


@pytest.mark.parametrize("give_back", [give_back_by_restock, give_back_by_release, give_back_by_expiry])
async def test_units_that_the_process_itself_gave_back_are_seen_at_once(
    shop: Shop, give_back: Callable[[Shop], Awaitable[None]]
) -> None:
    await shop.configure(a=1)
    await shop.hold("winner", a=1)
    shop.inventory._shield.clock = FrozenClock(time.monotonic())
    await shop.refused("early", a=1)
    await give_back(shop)
    assert isinstance(await shop.reserve("after", a=1), Reserved)


class FrozenClock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
