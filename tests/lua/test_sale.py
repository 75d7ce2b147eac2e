"""configure.lua, steer.lua, snapshot.lua and mark.lua: the sale itself."""

from typing import Any

import pytest

from app import errors
from app.inventory import MAX_SKUS_PER_SALE
from app.models import SaleState
from app.scripts import script_source
from tests.shop import HOUR_MS, Shop


async def test_a_new_sale_has_its_stock_available(shop: Shop) -> None:
    assert await shop.configure(b=5, a=(10, 2), name="Größe 😀", hold_seconds=30, max_hold_seconds=90)
    sale = await shop.sale()
    assert (sale.name, sale.hold_seconds, sale.max_hold_seconds) == ("Größe 😀", 30, 90)
    assert [(row.sku, row.limit_per_customer) for row in sale.stock] == [("b", None), ("a", 2)]
    assert await shop.stock() == {"a": (10, 10, 0, 0), "b": (5, 5, 0, 0)}
    record = (await shop.journal())[-1]
    assert record.kind == "configured"
    assert record.words()["skus"] == "b=5/0/1,a=10/2/2"
    assert (await shop.redis.smembers(shop.inventory.keys.sales(shop.partition))) == {"sale"}


async def test_an_existing_sale_takes_new_rules_and_new_skus(shop: Shop) -> None:
    await shop.configure(a=(10, 2))
    await shop.hold("c1", a=2)
    assert not await shop.configure(a=10, c=4, hold_seconds=5, name="Other")
    sale = await shop.sale()
    assert (sale.name, sale.hold_seconds) == ("Other", 5)
    assert [(row.sku, row.limit_per_customer) for row in sale.stock] == [("a", None), ("c", None)]
    assert await shop.stock() == {"a": (10, 8, 2, 0), "c": (4, 4, 0, 0)}
    await shop.hold("c1", a=2)


async def test_skus_that_are_not_named_stay_as_they_are(shop: Shop) -> None:
    await shop.configure(a=(10, 2), b=5)
    await shop.configure(b=5)
    assert [(row.sku, row.limit_per_customer) for row in (await shop.sale()).stock] == [("a", 2), ("b", None)]


async def test_a_known_quantity_is_the_first_or_the_present_one(shop: Shop) -> None:
    await shop.configure(a=10, b=5)
    await shop.inventory.restock("sale", "a", 3, "k" * 24, "d", None)
    await shop.configure(a=10)
    await shop.configure(a=13)
    kinds = await shop.kinds()
    with pytest.raises(errors.ValidationFailed) as refusal:
        await shop.configure(b=6, c=1, a=12, name="Other")
    assert [error["path"] for error in refusal.value.extra["errors"]] == [
        "/items/0/quantity",
        "/items/2/quantity",
    ]
    assert (await shop.sale()).name == "A sale"
    assert await shop.kinds() == kinds
    assert await shop.stock() == {"a": (13, 13, 0, 0), "b": (5, 5, 0, 0)}


@pytest.mark.parametrize("closed_by", ["verb", "clock"])
async def test_a_closed_sale_stays_closed(shop: Shop, closed_by: str) -> None:
    await shop.configure(a=10, closes_in=10_000)
    if closed_by == "verb":
        await shop.inventory.steer("sale", "closed")
    else:
        await shop.wait(11)
    with pytest.raises(errors.SaleClosed) as refusal:
        await shop.configure(a=10)
    assert refusal.value.extra["state"] == "closed"
    for verb in ("paused", "resumed"):
        with pytest.raises(errors.SaleClosed):
            await shop.inventory.steer("sale", verb)
    await shop.inventory.steer("sale", "closed")
    assert (await shop.sale()).state is SaleState.CLOSED


async def test_a_sale_has_a_bounded_number_of_skus(shop: Shop) -> None:
    skus: dict[str, Any] = {f"s{i}": 1 for i in range(MAX_SKUS_PER_SALE)}
    await shop.configure(**skus)
    assert len((await shop.sale()).stock) == MAX_SKUS_PER_SALE
    with pytest.raises(errors.ValidationFailed):
        await shop.configure(one_more=1)
    await shop.configure(s7=1)


async def test_pausing_resuming_and_closing_are_journalled_once(shop: Shop) -> None:
    await shop.configure(a=10)
    for verb, state in (
        ("resumed", SaleState.OPEN),
        ("paused", SaleState.PAUSED),
        ("paused", SaleState.PAUSED),
        ("resumed", SaleState.OPEN),
        ("resumed", SaleState.OPEN),
        ("closed", SaleState.CLOSED),
        ("closed", SaleState.CLOSED),
    ):
        await shop.inventory.steer("sale", verb)
        assert (await shop.sale()).state is state
    assert await shop.kinds() == ["configured", "paused", "resumed", "closed"]


async def test_closed_wins_then_scheduled_then_paused(shop: Shop) -> None:
    await shop.configure(a=1, opens_in=10_000, closes_in=HOUR_MS)
    await shop.inventory.steer("sale", "paused")
    assert (await shop.sale()).state is SaleState.SCHEDULED
    await shop.wait(11)
    assert (await shop.sale()).state is SaleState.PAUSED
    await shop.inventory.steer("sale", "closed")
    assert (await shop.sale()).state is SaleState.CLOSED


async def test_an_unknown_sale_is_neither_steered_nor_shown(shop: Shop) -> None:
    for call in (shop.inventory.steer("sale", "paused"), shop.inventory.snapshot("sale")):
        with pytest.raises(errors.SaleNotFound):
            await call
    with pytest.raises(errors.SaleNotFound):
        await shop.inventory.living_holds("sale", "c1")
    with pytest.raises(errors.SaleNotFound):
        await shop.inventory.mark("sale", "audit")


@pytest.mark.parametrize(
    "rule", ["opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "paused", "closed"]
)
async def test_a_sale_that_lost_a_rule_is_rebuilt_not_served(shop: Shop, rule: str) -> None:
    await shop.configure(a=10)
    await shop.redis.hdel(shop.inventory.keys.for_sale("sale")[0], rule)
    for _ in range(2):
        assert isinstance(await shop.refused("c1", a=1), errors.SaleRebuilding)
    assert await shop.redis.hget(shop.inventory.keys.meta(shop.partition), "state") == "closed"


async def test_the_auditors_mark_carries_every_counter(shop: Shop) -> None:
    await shop.configure(a=10, b=(5, 2))
    first, second, third, fourth = [await shop.hold(f"c{i}", a=1) for i in range(4)]
    await shop.confirm(first)
    await shop.confirm(second)
    await shop.inventory.cancel("sale", second.hold_id, True, None)
    await shop.inventory.release("sale", third.hold_id)
    await shop.wait(61)
    await shop.sweep(fourth)
    head = await shop.inventory.mark("sale", "audit-1")
    record = (await shop.journal())[-1]
    assert (record.kind, record.id) == ("audited", head)
    words = record.words()
    assert (words["sale"], words["audit"]) == ("sale", "audit-1")
    counts = ("reserved", "confirmed", "released", "expired", "cancelled")
    assert [words[name] for name in counts] == ["4", "2", "1", "1", "1"]
    assert sorted(words["stock"].split(",")) == ["a=10/9/0/1/0/10/1", "b=5/5/0/0/2/5/2"]


async def test_the_auditors_mark_carries_every_rule(shop: Shop) -> None:
    await shop.configure(a=1, name="a name of words", hold_seconds=30, max_hold_seconds=90)
    await shop.inventory.steer("sale", "paused")
    await shop.inventory.mark("sale", "audit-1")
    words, sale = (await shop.journal())[-1].words(), await shop.sale()
    assert words["name"] == '"a name of words"'
    assert [words[name] for name in ("hold_seconds", "max_hold_seconds", "paused", "closed")] == [
        "30", "90", "1", "0",
    ]  # fmt: skip
    times = ("opens_at", "closes_at", "created_at", "updated_at")
    assert [int(words[name]) for name in times] == [getattr(sale, name) for name in times]


async def test_a_limit_counts_the_units_of_its_sku_and_of_no_other(shop: Shop) -> None:
    skus: Any = {"x.a": (9, 2), "a": (9, 2), "aa": (9, 2)}
    carts: list[Any] = [{sku: 1} for sku in skus]
    await shop.configure(**skus)
    for cart in carts * 2:
        held = await shop.hold("c1", **cart)
    for cart in carts:
        assert isinstance(await shop.refused("c1", **cart), errors.CustomerLimitReached)
    await shop.inventory.release("sale", held.hold_id)
    await shop.hold("c1", aa=1)
    for cart in carts:
        assert isinstance(await shop.refused("c1", **cart), errors.CustomerLimitReached)


async def test_a_snapshot_takes_no_row_through_lua(shop: Shop) -> None:
    """There they take Redis five times as long, for every page that somebody looks at."""
    await shop.configure(**{f"s{i}": 1 for i in range(500)})  # type: ignore[arg-type]
    keys = shop.inventory.keys.for_script("sale")
    words: Any = await shop.redis.eval(script_source("snapshot"), len(keys), *keys, "0-0")
    word, _, _, state, rules = words
    assert (word, state) == ("ok", "open")
    assert len(rules) < 50
    assert len((await shop.sale()).stock) == 500


async def test_a_server_without_scripts_is_given_them_for_a_snapshot_too(shop: Shop) -> None:
    await shop.configure(a=7)
    await shop.redis.script_flush()
    assert await shop.stock() == {"a": (7, 7, 0, 0)}


@pytest.mark.parametrize("row", ["", "1 2 3", "10 10 0 0 0 10 1 1", "ten 10 0 0 0 10 1", "1 1 0 0 -1 1 1"])
async def test_a_damaged_row_is_not_marked(shop: Shop, row: str) -> None:
    await shop.configure(a=10)
    records = await shop.journal()
    await shop.redis.hset(shop.inventory.keys.for_sale("sale")[1], "a", row)
    with pytest.raises(errors.OutcomeUnknown):
        await shop.inventory.mark("sale", "audit-1")
    assert await shop.journal() == records


async def test_stock_below_zero_is_marked_for_the_auditor_to_tell(shop: Shop) -> None:
    await shop.configure(a=10)
    await shop.redis.hset(shop.inventory.keys.for_sale("sale")[1], "a", "10 -1 11 0 0 10 1")
    await shop.inventory.mark("sale", "audit-1")
    assert (await shop.journal())[-1].words()["stock"] == "a=10/-1/11/0/0/10/1"
