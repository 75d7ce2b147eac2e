"""extend.lua, release.lua, expire.lua and lookup.lua: the life of a hold."""

from collections import Counter
from typing import Any

import pytest

from app import errors
from app.ids import random_hold_id
from app.inventory import EXPIRE_WORK
from app.models import ReservationStatus
from app.scripts import script_source
from tests.shop import Shop


async def test_extending_moves_the_time_on_and_is_harmless_to_repeat(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    extended = await shop.inventory.extend("sale", hold.hold_id, 120)
    assert extended.expires_at >= hold.created_at + 120_000
    assert await shop.due() == {f"sale/{hold.hold_id}": extended.expires_at}
    record = (await shop.journal())[-1]
    assert (record.kind, int(record.words()["expires_at"])) == ("extended", extended.expires_at)
    kinds = await shop.kinds()
    shorter = await shop.inventory.extend("sale", hold.hold_id, 10)
    assert shorter.expires_at == extended.expires_at
    assert await shop.kinds() == kinds
    await shop.wait(90)
    assert len(await shop.inventory.living_holds("sale", "c1")) == 1


async def test_extending_past_the_longest_hold_is_refused_and_not_clamped(shop: Shop) -> None:
    await shop.configure(a=10, hold_seconds=60, max_hold_seconds=100)
    hold = await shop.hold("c1", a=1)
    with pytest.raises(errors.ExtensionLimitReached):
        await shop.inventory.extend("sale", hold.hold_id, 101)
    assert await shop.due() == {f"sale/{hold.hold_id}": hold.expires_at}


async def test_only_a_living_hold_is_extended(shop: Shop) -> None:
    await shop.configure(a=10)
    confirmed, released, expired = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    await shop.confirm(confirmed)
    await shop.inventory.release("sale", released.hold_id)
    await shop.wait(61)
    for hold, error in (
        (confirmed, errors.ReservationConfirmed),
        (released, errors.ReservationReleased),
        (expired, errors.ReservationExpired),
    ):
        with pytest.raises(error):
            await shop.inventory.extend("sale", hold.hold_id, 120)
    await shop.sweep(expired)
    with pytest.raises(errors.ReservationExpired):
        await shop.inventory.extend("sale", expired.hold_id, 120)
    with pytest.raises(errors.ReservationNotFound):
        await shop.inventory.extend("sale", random_hold_id(), 120)


async def test_a_released_hold_gives_everything_back(shop: Shop) -> None:
    await shop.configure(a=(10, 2), b=3)
    hold = await shop.hold("c1", a=2, b=1)
    released = await shop.inventory.release("sale", hold.hold_id)
    assert released.status is ReservationStatus.RELEASED
    assert await shop.stock() == {"a": (10, 10, 0, 0), "b": (3, 3, 0, 0)}
    assert await shop.due() == {}
    assert await shop.inventory.living_holds("sale", "c1") == []
    record = (await shop.journal())[-1]
    assert (record.kind, record.words()["items"]) == ("released", "a=2,b=1")
    await shop.hold("c1", a=2)


async def test_releasing_twice_gives_back_once(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.inventory.release("sale", hold.hold_id)
    kinds = await shop.kinds()
    assert (await shop.inventory.release("sale", hold.hold_id)).status is ReservationStatus.RELEASED
    assert await shop.stock() == {"a": (10, 10, 0, 0)}
    assert await shop.kinds() == kinds


async def test_an_order_is_not_released(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.confirm(hold)
    with pytest.raises(errors.ReservationConfirmed):
        await shop.inventory.release("sale", hold.hold_id)
    with pytest.raises(errors.ReservationNotFound):
        await shop.inventory.release("sale", random_hold_id())
    assert await shop.stock() == {"a": (10, 8, 0, 2)}


@pytest.mark.parametrize("swept", [False, True])
async def test_releasing_an_expired_hold_answers_it_as_it_is(shop: Shop, swept: bool) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=2)
    await shop.wait(61)
    if swept:
        await shop.sweep(hold)
    assert (await shop.inventory.release("sale", hold.hold_id)).status is ReservationStatus.EXPIRED
    assert "released" not in await shop.kinds()


async def test_a_hold_past_its_time_is_expired_for_every_caller_before_it_is_swept(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", "key", a=2)
    await shop.wait(61)
    seen = await shop.inventory.reservation("sale", hold.hold_id)
    assert seen is not None
    assert seen.status is ReservationStatus.EXPIRED
    assert await shop.inventory.living_holds("sale", "c1") == []
    assert (await shop.stock())["a"] == (10, 8, 2, 0)


async def test_the_sweeper_gives_back_what_is_due_and_only_that(shop: Shop) -> None:
    await shop.configure(a=(10, 2), b=5)
    due = await shop.hold("c1", a=2, b=1)
    await shop.wait(30)
    living = await shop.hold("c2", a=1)
    confirmed = await shop.hold("c3", a=1)
    await shop.confirm(confirmed)
    await shop.wait(31)
    assert await shop.sweep(due, living, confirmed) == 1
    assert await shop.stock() == {"a": (10, 8, 1, 1), "b": (5, 5, 0, 0)}
    assert await shop.due() == {f"sale/{living.hold_id}": living.expires_at}
    record = (await shop.journal())[-1]
    assert (record.kind, record.words()["hold"]) == ("expired", due.hold_id)
    assert await shop.sweep(due) == 0
    assert await shop.stock() == {"a": (10, 8, 1, 1), "b": (5, 5, 0, 0)}
    await shop.hold("c1", a=2)


async def test_a_sweep_of_many_is_one_journal_entry(shop: Shop) -> None:
    await shop.configure(a=100)
    count = EXPIRE_WORK // 2
    holds = [await shop.hold(f"c{i}", a=1) for i in range(count)]
    await shop.wait(61)
    assert await shop.sweep(*holds) == count
    expired = [record for record in await shop.journal() if record.kind == "expired"]
    assert len(expired) == count
    assert len({record.id for record in expired}) == 1
    assert await shop.stock() == {"a": (100, 100, 0, 0)}


@pytest.mark.parametrize("lines", [1, 7, 20])
async def test_no_call_of_the_sweeper_ends_more_than_its_work(shop: Shop, lines: int) -> None:
    cart: Any = {f"sku-{i}": 1 for i in range(lines)}
    stock: Any = dict.fromkeys(cart, 1000)
    await shop.configure(**stock)
    per_call = EXPIRE_WORK // (1 + lines)
    count = 2 * per_call + 1
    holds = [await shop.hold(f"c{i}", **cart) for i in range(count)]
    await shop.wait(61)
    assert await shop.sweep(*holds) == count
    calls = Counter(record.id for record in await shop.journal() if record.kind == "expired")
    assert list(calls.values()) == [per_call, per_call, 1]
    assert await shop.due() == {}


async def test_a_cart_that_is_more_than_the_work_of_a_call_is_ended_all_the_same(shop: Shop) -> None:
    await shop.configure(a=10, b=10)
    holds = [await shop.hold("c1", a=1, b=1) for _ in range(3)]
    await shop.wait(61)
    keys = shop.inventory.keys.for_script("sale")
    arguments = ["0-0", "sale", 1, *(hold.hold_id for hold in holds)]
    reply = await shop.redis.eval(script_source("expire"), len(keys), *keys, *arguments)
    assert reply[3:] == ["1", "1"]
    assert await shop.stock() == {"a": (10, 8, 2, 0), "b": (10, 8, 2, 0)}


@pytest.mark.parametrize(
    ("work", "expired", "seen_to"),
    [(1, 1, 1), (3, 1, 2), (4, 1, 2), (5, 2, 3), (6, 2, 4), (7, 2, 4), (8, 3, 5)],
)
async def test_each_hold_and_each_line_that_is_given_back_is_a_step_of_the_sweepers_work(
    shop: Shop, work: int, expired: int, seen_to: int
) -> None:
    await shop.configure(a=10)
    due = [await shop.hold("c1", a=1) for _ in range(3)]
    await shop.wait(61)
    living = await shop.hold("c2", a=1)
    ids = [due[0].hold_id, living.hold_id, due[1].hold_id, random_hold_id(), due[2].hold_id]
    keys = shop.inventory.keys.for_script("sale")
    reply = await shop.redis.eval(script_source("expire"), len(keys), *keys, "0-0", "sale", work, *ids)
    assert reply[3:] == [str(expired), str(seen_to)]
    assert await shop.stock() == {"a": (10, 6 + expired, 4 - expired, 0)}


async def test_sweeping_a_sale_that_is_not_there_closes_nothing(shop: Shop) -> None:
    stray = random_hold_id()
    await shop.redis.zadd(shop.inventory.keys.due(shop.partition), {f"sale/{stray}": 1})
    assert await shop.inventory.expire("sale", [stray]) == 0
    assert await shop.due() == {}
    await shop.configure(a=1)


async def test_sweeping_a_sale_that_is_not_whole_closes_its_partition(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await shop.wait(61)
    await shop.redis.delete(shop.inventory.keys.for_sale("sale")[4])
    with pytest.raises(errors.SaleRebuilding):
        await shop.sweep(hold)
    assert await shop.redis.hget(shop.inventory.keys.meta(shop.partition), "state") == "closed"


async def test_a_stray_member_of_the_due_list_is_dropped_without_effect(shop: Shop) -> None:
    await shop.configure(a=10)
    stray = random_hold_id()
    await shop.redis.zadd(shop.inventory.keys.due(shop.partition), {f"sale/{stray}": 1, f"gone/{stray}": 1})
    assert await shop.inventory.expire("sale", [stray]) == 0
    assert await shop.due() == {f"gone/{stray}": 1}
    assert await shop.stock() == {"a": (10, 10, 0, 0)}


async def test_due_holds_come_by_sale_and_only_past_their_time(shop: Shop) -> None:
    await shop.configure(a=10, hold_seconds=1)
    first = await shop.hold("c1", a=1)
    key = shop.inventory.keys.due(shop.partition)
    assert await shop.inventory.due_holds(shop.partition, 10) == {}
    await shop.redis.zadd(key, {f"sale/{first.hold_id}": 1, "other/x": 2, "third/y": 3})
    assert await shop.inventory.due_holds(shop.partition, 2) == {"sale": [first.hold_id], "other": ["x"]}


async def test_a_customer_sees_their_own_living_holds_newest_first(shop: Shop) -> None:
    await shop.configure(a=10)
    first = await shop.hold("c1", a=1)
    await shop.wait(1)
    second = await shop.hold("c1", a=2)
    await shop.hold("c2", a=1)
    holds = await shop.inventory.living_holds("sale", "c1")
    assert [hold.hold_id for hold in holds] == [second.hold_id, first.hold_id]
    assert await shop.inventory.reservation("sale", random_hold_id()) is None


async def test_an_expired_hold_is_no_longer_listed_after_the_sweep(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    await shop.wait(61)
    await shop.sweep(hold)
    field = await shop.redis.hget(shop.inventory.keys.for_sale("sale")[3], "c1")
    assert field == "1 - -"


async def test_only_holds_without_an_order_are_forgotten_and_only_long_after_the_closing(shop: Shop) -> None:
    await shop.configure(a=10, closes_in=100_000)
    held, released, bought = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    await shop.inventory.release("sale", released.hold_id)
    await shop.confirm(bought)
    ids = [held.hold_id, released.hold_id, bought.hold_id]
    await shop.wait(101)
    assert await shop.inventory.forget("sale", ids, 60) is None
    await shop.wait(61)
    assert await shop.inventory.forget("sale", ids, 60) == 1
    assert [await shop.inventory.reservation("sale", hold_id) is None for hold_id in ids] == [
        False,
        True,
        False,
    ]
    assert await shop.stock() == {"a": (10, 8, 1, 1)}


async def test_a_hold_is_taken_back_only_where_there_is_none(shop: Shop) -> None:
    await shop.configure(a=10)
    hold = await shop.hold("c1", a=1)
    packed = "expired 1 2 digest c1 a=1"
    await shop.inventory.recall("sale", hold.hold_id, packed)
    await shop.inventory.recall("sale", "0" * 26, packed)
    statuses = [await shop.inventory.reservation("sale", hold_id) for hold_id in (hold.hold_id, "0" * 26)]
    assert [one and one.status for one in statuses] == [ReservationStatus.HELD, ReservationStatus.EXPIRED]


async def test_a_customer_keeps_the_holds_that_have_not_ended(shop: Shop) -> None:
    await shop.configure(a=10)
    holds = [await shop.hold("c1", a=1) for _ in range(4)]
    left = {hold.hold_id for hold in holds}
    for ended in (holds[1], holds[3], holds[0], holds[2]):
        await shop.inventory.release("sale", ended.hold_id)
        left.remove(ended.hold_id)
        assert {hold.hold_id for hold in await shop.inventory.living_holds("sale", "c1")} == left
    again = await shop.hold("c1", a=1)
    assert [hold.hold_id for hold in await shop.inventory.living_holds("sale", "c1")] == [again.hold_id]
    customers_key = shop.inventory.keys.for_sale("sale")[3]
    assert await shop.redis.hget(customers_key, "c1") == f"5 a=1 {again.hold_id}"
