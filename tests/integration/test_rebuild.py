"""The keeper and the rebuild: a partition opens again, and everything persisted is there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from app import errors
from app.keys import Keys
from app.lineage import Lineage
from app.models import ReservationStatus
from app.reserving import Reserved
from app.workers.drain import Drain
from app.workers.keeper import Action, Keeper
from app.workers.runner import build_keeper
from tests.integration.conftest import lose_everything
from tests.shop import Shop


async def busy_sale(shop: Shop) -> dict[str, str]:
    """A sale in which everything has happened; hold ids by what became of them."""
    await shop.configure(a=(50, 5), b=20, name="Räumung", hold_seconds=60)
    holds = {
        name: await shop.hold(name, name, a=2, b=1) for name in ("held", "bought", "released", "expired")
    }
    cancelled = await shop.hold("cancelled", a=1)
    refunded = await shop.hold("refunded", b=13)
    written_off = await shop.hold("written-off", a=1)
    await shop.confirm(holds["bought"], "pay-1", b'{"n":12345678901234567890123,"l":[]}')
    await shop.confirm(cancelled, "pay-2")
    await shop.inventory.cancel("sale", cancelled.hold_id, True, None)
    await shop.confirm(written_off, "pay-3")
    await shop.inventory.cancel("sale", written_off.hold_id, False, "broken")
    await shop.inventory.release("sale", holds["released"].hold_id)
    await shop.inventory.extend("sale", holds["held"].hold_id, 500)
    await shop.wait(61)
    await shop.sweep(holds["expired"], refunded)
    taker = await shop.hold("taker", b=17)
    with pytest.raises(errors.ReservationExpired):
        await shop.confirm(refunded, "pay-4")
    await shop.inventory.release("sale", taker.hold_id)
    await shop.inventory.restock("sale", "a", 7, "k" * 24, "digest", "more")
    await shop.inventory.withdraw("sale", "b", 2, "w" * 24, "digest", None)
    await shop.inventory.steer("sale", "paused")
    return {name: hold.hold_id for name, hold in holds.items()} | {"refunded": refunded.hold_id}


async def dump(shop: Shop) -> dict[str, object]:
    """Everything that Redis keeps of the sale, in a form that does not depend on the order of lists."""
    keys = shop.inventory.keys
    names = ("sale", "stock", "holds", "customers", "answers")
    content: dict[str, object] = {"due": await shop.due()}
    for name, key in zip(names, keys.for_sale("sale"), strict=True):
        fields: dict[str, Any] = await shop.redis.hgetall(key)
        if name == "customers":
            fields = {
                customer: [sorted(word.split(",")) for word in packed.split(" ")]
                for customer, packed in fields.items()
            }
        if name == "sale":
            for counter in ("reserved", "confirmed", "released", "expired", "cancelled"):
                fields.setdefault(counter, "0")
        if name == "holds":
            # The journal id of an order is not kept: what Postgres knows is persisted.
            fields = {hold: packed.split(" ")[:9] + packed.split(" ")[10:] for hold, packed in fields.items()}
        content[name] = fields
    return content


async def test_the_first_start_opens_every_partition(shop: Shop, keeper: Keeper, keys: Keys) -> None:
    assert await shop.configure(a=1)
    for partition in range(keys.partitions):
        assert await keeper.run_once(partition) is Action.NONE


async def test_an_emptied_redis_is_rebuilt_to_the_last_field(
    shop: Shop, drain: Drain, keeper: Keeper
) -> None:
    await busy_sale(shop)
    await drain.run_partition(shop.partition)
    before = await dump(shop)
    await lose_everything(shop)
    with pytest.raises(errors.SaleRebuilding):
        await shop.sale()
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    assert await dump(shop) == before


async def test_after_a_rebuild_every_promise_still_holds(shop: Shop, drain: Drain, keeper: Keeper) -> None:
    holds = await busy_sale(shop)
    await drain.run_partition(shop.partition)
    await lose_everything(shop)
    await keeper.run_once(shop.partition)
    inventory = shop.inventory
    assert (await shop.inventory.restock("sale", "a", 7, "k" * 24, "digest", "more"))[1]
    with pytest.raises(errors.IdempotencyKeyReused):
        await inventory.withdraw("sale", "b", 2, "w" * 24, "another", None)
    replay = await shop.reserve("bought", "bought", a=2, b=1)
    assert isinstance(replay, Reserved)
    assert (replay.replayed, replay.reservation.status) == (True, ReservationStatus.CONFIRMED)
    assert replay.reservation.order is not None
    assert replay.reservation.order.metadata == b'{"n":12345678901234567890123,"l":[]}'
    with pytest.raises(errors.ReservationExpired):
        await inventory.confirm("sale", holds["refunded"], "pay-4", b"{}")
    assert (await inventory.confirm("sale", holds["held"], "pay-9", b"{}")).order is not None
    await inventory.steer("sale", "resumed")
    assert isinstance(await shop.refused("bought", a=4), errors.CustomerLimitReached)
    count = await drain.run_once(shop.partition)
    assert count.records >= 2
    assert count.rejects == 0


async def test_the_undrained_journal_survives_a_rebuild_on_request(shop: Shop, keeper: Keeper) -> None:
    await busy_sale(shop)
    before = await dump(shop)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "state", "closed")
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    assert await dump(shop) == before


async def test_a_restarted_redis_is_adopted_without_a_rebuild(
    shop: Shop, drain: Drain, keeper: Keeper
) -> None:
    await shop.configure(a=10)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "server", "f" * 40)
    with pytest.raises(errors.SaleRebuilding):
        await shop.sale()
    assert await keeper.run_once(shop.partition) is Action.ADOPTED
    await shop.hold("c1", a=1)
    await drain.run_partition(shop.partition)
    assert (await drain.run_once(shop.partition)).position == shop.inventory.seen(shop.partition)


async def test_a_redis_that_is_behind_postgres_is_rebuilt(shop: Shop, drain: Drain, keeper: Keeper) -> None:
    """As a promoted replica that lacked the last writes: what was drained is there again."""
    await shop.configure(a=10)
    key = shop.inventory.keys
    state = {
        name: await shop.redis.dump(name)
        for name in [*key.for_partition(shop.partition), *key.for_sale("sale")]
    }
    hold = await shop.hold("c1", "key", a=3)
    await drain.run_partition(shop.partition)
    for name, packed in state.items():
        await shop.redis.delete(name)
        if packed is not None:
            await shop.redis.restore(name, 0, packed)
    await shop.redis.hset(key.meta(shop.partition), "server", "f" * 40)
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    replay = await shop.reserve("c1", "key", a=3)
    assert isinstance(replay, Reserved)
    assert (replay.replayed, replay.reservation.hold_id) == (True, hold.hold_id)
    assert await shop.stock() == {"a": (10, 7, 3, 0)}
    await shop.hold("c2", a=1)
    assert (await drain.run_once(shop.partition)).entries == 1


async def test_a_rebuild_writes_in_small_steps(
    shop: Shop, drain: Drain, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other partitions go on selling on the same server meanwhile."""
    await shop.configure(**{f"s{i}": 1 for i in range(1200)})  # type: ignore[arg-type]
    await drain.run_partition(shop.partition)
    await lose_everything(shop)
    restore, sizes = Lineage.restore, []

    async def recorded(*args: Any) -> None:
        sizes.append(len(args[5]))
        await restore(*args)

    monkeypatch.setattr(Lineage, "restore", recorded)
    assert await keeper.run_once(shop.partition) is Action.REBUILT
    assert max(sizes) == 500
    assert len((await shop.sale()).stock) == 1200


async def test_two_rebuilders_do_the_work_once(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool
) -> None:
    await busy_sale(shop)
    await drain.run_partition(shop.partition)
    await lose_everything(shop)
    other = build_keeper(shop.redis, pool, shop.inventory.keys, drain)
    steps: list[Callable[[int], Awaitable[Action]]] = [keeper.run_once, other.run_once]
    actions = await asyncio.gather(*(step(shop.partition) for step in steps))
    assert sorted(actions) in ([Action.BUSY, Action.REBUILT], [Action.NONE, Action.REBUILT])
