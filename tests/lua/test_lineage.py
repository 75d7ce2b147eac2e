"""partition.lua, claim.lua, restore.lua, reopen.lua, touch.lua: who may go on with a partition."""

from collections.abc import Awaitable, Callable

import pytest

from app import errors
from app.inventory import Inventory
from app.lineage import Claim, Lineage
from app.models import JournalId
from app.reserving import Reserved
from app.scripts import Scripts
from tests.shop import Shop, now_ms

CALLS = [
    "reserve",
    "confirm",
    "extend",
    "release",
    "expire",
    "restock",
    "withdraw",
    "cancel",
    "steer",
    "configure",
    "snapshot",
    "lookup",
    "mark",
    "mend",
]


async def call(shop: Shop, name: str) -> object:
    inventory, hold_id = shop.inventory, "0" * 26
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "reserve": lambda: shop.reserve("c1", a=1),
        "confirm": lambda: inventory.confirm("sale", hold_id, "pay", b"{}"),
        "extend": lambda: inventory.extend("sale", hold_id, 10),
        "release": lambda: inventory.release("sale", hold_id),
        "expire": lambda: inventory.expire("sale", [hold_id]),
        "restock": lambda: inventory.restock("sale", "a", 1, "k" * 24, "d", None),
        "withdraw": lambda: inventory.withdraw("sale", "a", 1, "k" * 24, "d", None),
        "cancel": lambda: inventory.cancel("sale", hold_id, True, None),
        "steer": lambda: inventory.steer("sale", "paused"),
        "configure": lambda: shop.configure(a=10),
        "snapshot": lambda: inventory.snapshot("sale"),
        "lookup": lambda: inventory.living_holds("sale", "c1"),
        "mark": lambda: inventory.mark("sale", "audit"),
        "mend": lambda: inventory._call_sale("mend", "sale", "sale", "- ann", "due", 1, 0, hold_id, "", ""),
    }
    result = await calls[name]()
    if isinstance(result, errors.HoldfastError):
        raise result
    return result


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("state", ["emptied", "closed", "restarted", "older"])
async def test_every_script_refuses_a_server_that_is_not_the_partitions(
    shop: Shop, name: str, state: str
) -> None:
    """An emptied Redis is "rebuilding", never "unknown sale" and never "sold out"."""
    await shop.configure(a=10)
    keys = shop.inventory.keys
    meta = keys.meta(shop.partition)
    if state == "emptied":
        await shop.redis.delete(meta, keys.journal(shop.partition), *keys.for_sale("sale"))
    elif state == "closed":
        await shop.redis.hset(meta, "state", "closed")
    elif state == "restarted":
        await shop.redis.hset(meta, "server", "f" * 40)
    else:
        await shop.redis.hincrby(meta, "sequence", -1)
    with pytest.raises(errors.SaleRebuilding):
        await call(shop, name)
    assert await shop.redis.exists(*keys.for_sale("sale")) == (0 if state == "emptied" else 5)


async def test_a_head_older_than_what_was_seen_closes_the_partition_for_all(shop: Shop) -> None:
    await shop.configure(a=10)
    meta = shop.inventory.keys.meta(shop.partition)
    await shop.redis.hincrby(meta, "sequence", -1)
    with pytest.raises(errors.SaleRebuilding):
        await call(shop, "reserve")
    await shop.redis.hincrby(meta, "sequence", 1)
    fresh = Shop(shop.inventory, shop.redis)
    with pytest.raises(errors.SaleRebuilding):
        await call(fresh, "confirm")


async def test_journal_ids_are_dense_and_in_the_epoch(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.hold("c1", a=1)
    await shop.refused("c1", a=100)
    await shop.hold("c2", a=1)
    assert [str(record.id) for record in await shop.journal()] == ["1-1", "1-2", "1-3", "1-4"]
    assert shop.inventory.seen(shop.partition) == JournalId(1, 4)


async def test_time_never_runs_backwards(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.wait(1000)
    first = await shop.hold("c1", a=1)
    second = await shop.hold("c2", a=1)
    assert now_ms() + 990_000 < first.created_at <= second.created_at


async def test_a_claimed_server_goes_on_in_the_epoch_it_is_given(shop: Shop, lineage: Lineage) -> None:
    await shop.configure(a=10)
    await shop.redis.hset(shop.inventory.keys.meta(shop.partition), "server", "f" * 40)
    state = await lineage.inspect(shop.partition)
    assert state is not None
    assert (state.is_open, state.same_server, state.head) == (True, False, JournalId(1, 2))
    assert await lineage.claim(shop.partition, "mine") == Claim(state.head, was_open=True)
    await lineage.reopen(shop.partition, "mine", 3, state.head, 0)
    assert isinstance(await shop.reserve("c1", a=1), Reserved)
    records = await shop.journal()
    assert [(str(record.id), record.kind, record.text) for record in records[-2:-1]] == [
        ("3-1", "opened", "1-2")
    ]
    assert str(records[-1].id) == "3-2"


async def test_a_claim_tells_whether_the_partition_was_whole(shop: Shop, lineage: Lineage) -> None:
    """What is closed may be half rebuilt, or damaged."""
    await shop.configure(a=10)
    assert (await lineage.claim(shop.partition, "one")).was_open
    assert not (await lineage.claim(shop.partition, "two")).was_open
    await lineage.report_gap(shop.partition, token="two")
    assert not (await lineage.claim(shop.partition, "three")).was_open
    await shop.redis.delete(shop.inventory.keys.meta(shop.partition))
    assert await lineage.claim(shop.partition, "four") == Claim(JournalId(0, 0), was_open=False)


async def test_only_the_holder_of_the_last_claim_writes_and_opens(shop: Shop, lineage: Lineage) -> None:
    await shop.configure(a=10)
    partition = shop.partition
    target = shop.inventory.keys.for_sale("sale")[0]
    with pytest.raises(errors.SaleRebuilding):  # open: nobody's
        await lineage.restore(partition, "", "delete", target)
    assert await lineage.claim(partition, "one") == Claim(JournalId(1, 2), was_open=True)
    await lineage.claim(partition, "two")
    for refused in (
        lineage.restore(partition, "one", "delete", target),
        lineage.reopen(partition, "one", 2, JournalId(1, 2), 0),
    ):
        with pytest.raises(errors.SaleRebuilding):
            await refused
    assert await shop.redis.exists(target)
    await lineage.restore(partition, "two", "delete", target)
    await lineage.restore(partition, "two", "hash", target, ["f", "v"])
    assert await shop.redis.hgetall(target) == {"f": "v"}
    await lineage.reopen(partition, "two", 2, JournalId(1, 2), 0)
    state = await lineage.inspect(partition)
    assert state is not None
    assert (state.is_open, state.same_server, state.head) == (True, True, JournalId(2, 1))
    assert not await shop.redis.hexists(shop.inventory.keys.meta(partition), "token")
    with pytest.raises(errors.SaleRebuilding):
        await lineage.restore(partition, "two", "delete", target)


async def test_reopening_drops_what_could_not_be_drained(shop: Shop, lineage: Lineage) -> None:
    await shop.configure(a=10)
    await lineage.claim(shop.partition, "one")
    await lineage.reopen(shop.partition, "one", 2, JournalId(1, 1), 0)
    assert [(str(record.id), record.text) for record in await shop.journal()] == [("2-1", "1-1")]


async def test_reopening_keeps_what_was_drained_and_starts_no_earlier(shop: Shop, lineage: Lineage) -> None:
    await shop.configure(a=10)
    later = now_ms() + 5_000_000
    await lineage.claim(shop.partition, "one")
    await lineage.reopen(shop.partition, "one", 2, JournalId(1, 2), later)
    records = await shop.journal()
    assert [str(record.id) for record in records] == ["1-1", "1-2", "2-1"]
    assert records[-1].at == later
    assert (await shop.sale()).server_time >= later


async def test_a_script_that_was_flushed_is_loaded_again(shop: Shop, inventory: Inventory) -> None:
    await shop.configure(a=10)
    await shop.redis.script_flush()
    await shop.hold("c1", a=1)
    assert len(Scripts(shop.redis)._sources) >= 17


async def test_a_touch_is_a_write_that_changes_nothing(shop: Shop) -> None:
    """So that WAIT has something to wait for; on an emptied server it leaves nothing behind."""
    meta, scripts = shop.inventory.keys.meta(shop.partition), Scripts(shop.redis)
    before = await shop.redis.hgetall(meta)
    for _ in range(2):
        changes = (await shop.redis.info("persistence"))["rdb_changes_since_last_save"]
        assert await scripts.run("touch", [meta], []) == ["touched"]
        assert (await shop.redis.info("persistence"))["rdb_changes_since_last_save"] > changes
    assert await shop.redis.hgetall(meta) == {**before, "touched": ""}
    await shop.redis.delete(meta)
    assert await scripts.run("touch", [meta], []) == ["rebuilding"]
    assert not await shop.redis.exists(meta)


async def test_a_gap_is_reported_only_by_who_still_may(shop: Shop, lineage: Lineage) -> None:
    """A late report must not close what was rebuilt, nor disturb a rebuild."""
    await lineage.claim(shop.partition, "mine")
    assert not await lineage.report_gap(shop.partition, epoch=1)
    assert not await lineage.report_gap(shop.partition, token="another")
    await lineage.reopen(shop.partition, "mine", 2, JournalId(1, 1), 0)
    assert not await lineage.report_gap(shop.partition, epoch=1)
    assert not await lineage.report_gap(shop.partition, token="mine")
    assert await lineage.report_gap(shop.partition, epoch=2)
    state = await lineage.inspect(shop.partition)
    assert state is not None
    assert state.has_gap
    await lineage.claim(shop.partition, "again")
    assert await lineage.report_gap(shop.partition, token="again")
