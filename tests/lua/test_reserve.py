"""reserve.lua: all items of a cart or none, in a documented precedence, in order of arrival."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from app import errors
from app.errors import HoldfastError
from app.ids import derived_hold_id
from app.inventory import Inventory
from app.models import ReservationStatus
from app.reserving import Reserved
from app.scripts import Scripts
from app.settings import Settings
from tests.shop import HOUR_MS, SHOP, Shop


async def test_a_hold_takes_units_from_available(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=3)
    assert hold.status is ReservationStatus.HELD
    assert hold.expires_at - hold.created_at == 60_000
    assert await shop.stock() == {"a": (10, 7, 3, 0)}


async def test_a_hold_is_journalled_and_due_in_the_same_step(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=3)
    record = (await shop.journal())[-1]
    assert record.kind == "held"
    words = record.words()
    assert (words["sale"], words["hold"], words["customer"], words["items"]) == (
        "sale",
        hold.hold_id,
        "c1",
        "a=3",
    )
    assert (record.at, int(words["expires_at"])) == (hold.created_at, hold.expires_at)
    assert await shop.due() == {f"sale/{hold.hold_id}": hold.expires_at}


async def test_a_cart_is_held_whole_or_not_at_all(shop: Shop) -> None:
    await shop.configure(a=10, b=1)
    await shop.hold("c1", b=1)
    before = await shop.kinds()
    error = await shop.refused("c2", a=1, b=1)
    assert isinstance(error, errors.SoldOut)
    assert error.extra == {"sku": "b", "requested": 1, "available": 0, "held": 1}
    assert await shop.stock() == {"a": (10, 10, 0, 0), "b": (1, 0, 1, 0)}
    assert await shop.kinds() == before


async def test_exactly_as_many_holds_as_units(shop: Shop) -> None:
    await shop.configure(a=100)
    outcomes = await asyncio.gather(*(shop.reserve(f"c{i}", f"k{i}", a=1) for i in range(1000)))
    assert Counter(type(outcome) for outcome in outcomes) == {Reserved: 100, errors.SoldOut: 900}
    assert await shop.stock() == {"a": (100, 0, 100, 0)}


async def test_the_first_to_arrive_win(shop: Shop) -> None:
    await shop.configure(a=3)
    outcomes = await asyncio.gather(*(shop.reserve(f"c{i}", a=1) for i in range(6)))
    assert [isinstance(outcome, Reserved) for outcome in outcomes] == [True] * 3 + [False] * 3


async def test_requests_that_wait_share_one_journal_entry(shop: Shop) -> None:
    await shop.configure(a=100)
    await asyncio.gather(*(shop.reserve(f"c{i}", a=1) for i in range(50)))
    held = [record for record in await shop.journal() if record.kind == "held"]
    assert len(held) == 50
    assert len({record.id for record in held}) < 5


async def test_a_replay_finds_the_same_hold_as_it_is_now(shop: Shop) -> None:
    await shop.configure(a=1)
    hold = await shop.hold("c1", "key", a=1)
    await shop.confirm(hold)
    again = await shop.reserve("c1", "key", a=1)
    assert isinstance(again, Reserved)
    assert again.replayed
    assert (again.reservation.hold_id, again.reservation.status) == (
        hold.hold_id,
        ReservationStatus.CONFIRMED,
    )
    assert await shop.stock() == {"a": (1, 0, 0, 1)}


async def test_two_tries_in_one_batch_are_one_hold(shop: Shop) -> None:
    await shop.configure(a=10)
    outcomes = await asyncio.gather(*(shop.reserve("c1", "key", a=1) for _ in range(5)))
    assert [outcome.replayed for outcome in outcomes if isinstance(outcome, Reserved)] == [False] + [True] * 4
    assert await shop.stock() == {"a": (10, 9, 1, 0)}


@pytest.mark.parametrize("then", ["sold out", "paused", "closed"])
async def test_a_replay_beats_every_refusal(shop: Shop, then: str) -> None:
    await shop.configure(a=1)
    await shop.hold("c1", "key", a=1)
    if then != "sold out":
        await shop.inventory.steer("sale", then)
    again = await shop.reserve("c1", "key", a=1)
    assert isinstance(again, Reserved)
    assert again.replayed


async def test_a_key_used_for_another_request_is_refused(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.hold("c1", "key", a=1)
    assert isinstance(await shop.refused("c1", "key", a=2), errors.IdempotencyKeyReused)
    assert await shop.stock() == {"a": (10, 9, 1, 0)}


async def test_a_refusal_is_not_remembered(shop: Shop) -> None:
    await shop.configure(a=1)
    first = await shop.hold("c1", a=1)
    assert isinstance(await shop.refused("c2", "key", a=1), errors.SoldOut)
    await shop.inventory.release("sale", first.hold_id)
    assert isinstance(await shop.reserve("c2", "key", a=1), Reserved)


async def test_an_id_under_the_secret_before_is_still_a_replay(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", "key", a=1)
    new = shop.request("c1", "key", a=1)._replace(
        hold_id=derived_hold_id(b"n" * 32, SHOP, "sale", "key"),
        previous_hold_id=hold.hold_id,
    )
    again = await shop.inventory.reserve(new)
    assert isinstance(again, Reserved)
    assert (again.replayed, again.reservation.hold_id) == (True, hold.hold_id)


@pytest.mark.parametrize(
    ("opens_in", "closes_in", "verb", "error", "state"),
    [
        (HOUR_MS, 2 * HOUR_MS, None, errors.SaleNotOpen, "scheduled"),
        (-HOUR_MS, HOUR_MS, "paused", errors.SalePaused, "paused"),
        (-HOUR_MS, HOUR_MS, "closed", errors.SaleClosed, "closed"),
        (-HOUR_MS, -1, None, errors.SaleClosed, "closed"),
        (HOUR_MS, 2 * HOUR_MS, "paused", errors.SaleNotOpen, "scheduled"),
        (HOUR_MS, 2 * HOUR_MS, "closed", errors.SaleClosed, "closed"),
    ],
)
async def test_a_sale_that_is_not_open_gives_no_holds(
    shop: Shop, opens_in: int, closes_in: int, verb: str | None, error: type[HoldfastError], state: str
) -> None:
    await shop.configure(a=10, opens_in=opens_in, closes_in=closes_in)
    if verb:
        await shop.inventory.steer("sale", verb)
    refusal = await shop.refused("c1", a=1)
    assert type(refusal) is error
    assert refusal.extra["state"] == state
    assert await shop.stock() == {"a": (10, 10, 0, 0)}


async def test_before_opening_the_wait_is_told(shop: Shop) -> None:
    await shop.configure(a=1, opens_in=90_000)
    refusal = await shop.refused("c1", a=1)
    assert refusal.retry_after is not None
    assert 80 < refusal.retry_after <= 90


async def test_a_sale_opens_and_closes_by_the_clock_of_redis(shop: Shop) -> None:
    await shop.configure(a=10, opens_in=5_000, closes_in=20_000)
    assert isinstance(await shop.refused("c1", a=1), errors.SaleNotOpen)
    await shop.wait(10)
    await shop.hold("c1", a=1)
    await shop.wait(15)
    assert isinstance(await shop.refused("c1", a=1), errors.SaleClosed)


async def test_refusals_come_in_their_documented_order(shop: Shop) -> None:
    """State, then unknown SKUs, then stock, then limits; of several SKUs the first in the request."""
    await shop.configure(a=(0, 1), b=(5, 1), c=(5, 1))
    assert isinstance(await shop.refused("c1", a=1, nope=1), errors.SkuNotFound)
    assert (await shop.refused("c1", nope=1, neither=1)).extra["sku"] == "nope"
    assert isinstance(await shop.refused("c1", b=2, a=1), errors.SoldOut)
    assert (await shop.refused("c1", c=9, b=9)).extra["sku"] == "c"
    assert (await shop.refused("c1", c=2, b=2)).extra["sku"] == "c"
    await shop.inventory.steer("sale", "paused")
    assert isinstance(await shop.refused("c1", nope=1), errors.SalePaused)


async def test_a_limit_counts_held_and_bought_units_across_requests(shop: Shop) -> None:
    await shop.configure(a=(10, 3))
    await shop.confirm(await shop.hold("c1", a=1))
    await shop.hold("c1", a=1)
    error = await shop.refused("c1", a=2)
    assert isinstance(error, errors.CustomerLimitReached)
    assert error.extra == {"sku": "a", "limit": 3, "taken": 2}
    await shop.hold("c1", a=1)
    await shop.hold("c2", a=3)
    assert await shop.stock() == {"a": (10, 4, 5, 1)}


async def test_a_limit_holds_under_a_race(shop: Shop) -> None:
    await shop.configure(a=(1000, 2))
    outcomes = await asyncio.gather(*(shop.reserve("c1", a=1) for _ in range(100)))
    assert Counter(type(outcome) for outcome in outcomes) == {Reserved: 2, errors.CustomerLimitReached: 98}


async def test_an_unknown_sale_is_not_a_sale_without_stock(shop: Shop) -> None:
    assert isinstance(await shop.refused("c1", a=1), errors.SaleNotFound)


@pytest.mark.parametrize("lost", ["sale", "stock", "holds", "customers", "answers"])
async def test_a_sale_that_is_not_whole_closes_its_partition(shop: Shop, lost: str) -> None:
    await shop.configure(a=10)
    names = ["sale", "stock", "holds", "customers", "answers"]
    await shop.redis.delete(shop.inventory.keys.for_sale("sale")[names.index(lost)])
    assert isinstance(await shop.refused("c1", a=1), errors.SaleRebuilding)
    assert await shop.redis.hget(shop.inventory.keys.meta(shop.partition), "state") == "closed"


async def test_one_batch_serves_several_sales_of_a_partition(shop: Shop, redis: object) -> None:
    names = [f"s{i}" for i in range(60)]
    together = [name for name in names if shop.inventory.keys.partition(name) == 0][:3]
    shops = [Shop(shop.inventory, shop.redis, name) for name in together]
    for one in shops:
        await one.configure(a=2)
    unknown = Shop(
        shop.inventory, shop.redis, next(n for n in names[30:] if shop.inventory.keys.partition(n) == 0)
    )
    outcomes = await asyncio.gather(
        *(one.reserve(f"c{i}", a=1) for i in range(3) for one in shops), unknown.reserve("c", a=1)
    )
    assert Counter(type(outcome) for outcome in outcomes) == {
        Reserved: 6, errors.SoldOut: 3, errors.SaleNotFound: 1
    }  # fmt: skip
    for one in shops:
        assert await one.stock() == {"a": (2, 0, 2, 0)}


async def test_loops_of_reserving_are_bounded_per_customer(shop: Shop, settings: Settings) -> None:
    bounded = settings.model_copy(update={"max_reservations_per_customer": 2})
    shop.inventory = Inventory(shop.redis, shop.inventory.keys, bounded)
    await shop.configure(a=10)
    for _ in range(2):
        await shop.inventory.release("sale", (await shop.hold("c1", a=1)).hold_id)
    error = await shop.refused("c1", a=1)
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after
    await shop.hold("c2", a=1)


@pytest.mark.parametrize("bound", ["max_reservations_per_sale", "max_journal_entries", "max_journal_bytes"])
async def test_past_a_bound_new_holds_are_refused_and_confirms_work(
    shop: Shop, settings: Settings, bound: str
) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", "key", a=1)
    bounded = settings.model_copy(update={bound: 1})
    full = Shop(Inventory(shop.redis, shop.inventory.keys, bounded), shop.redis)
    for i in range(2):
        await shop.hold(f"d{i}", a=1)
    assert isinstance(await full.refused("c2", a=1), errors.Overloaded)
    assert isinstance(await full.reserve("c1", "key", a=1), Reserved)
    assert (await full.confirm(hold)).status is ReservationStatus.CONFIRMED


async def test_a_batch_heavier_than_the_limit_is_split(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    skus: dict[str, Any] = {f"s{i}": 1000 for i in range(10)}
    one: dict[str, Any] = dict.fromkeys(skus, 1)
    small = settings.model_copy(update={"batch_lines": 25})
    shop.inventory = Inventory(shop.redis, shop.inventory.keys, small)
    await shop.configure(**skus)
    run, lines = Scripts.run, []

    async def record(
        scripts: Scripts, name: str, keys: list[str], args: list[str | bytes | int], **also: Any
    ) -> list[Any]:
        lines.append(sum(str(word).count("=") for word in args))
        return await run(scripts, name, keys, args, **also)

    monkeypatch.setattr(Scripts, "run", record)
    outcomes = await asyncio.gather(*(shop.reserve(f"c{i}", **one) for i in range(50)))
    assert all(isinstance(outcome, Reserved) for outcome in outcomes)
    assert lines == [20] * 25
    assert (await shop.stock())["s7"] == (1000, 950, 50, 0)


async def test_the_queue_is_bounded(shop: Shop, settings: Settings) -> None:
    await shop.configure(a=1000)
    shop.inventory = Inventory(
        shop.redis, shop.inventory.keys, settings.model_copy(update={"queue_limit": 5, "batch_lines": 20})
    )
    outcomes = await asyncio.gather(*(shop.reserve(f"c{i}", a=1) for i in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, errors.Overloaded)]
    assert 0 < len(refused) < 50
    assert (await shop.stock())["a"] == (1000, 950 + len(refused), 50 - len(refused), 0)
