"""mend.lua: a repair changes what it was told is wrong, if it still is, and nothing that is in use."""

from typing import Any

import orjson
import pytest

from app import errors
from app.models import Actor
from tests.shop import Shop

ANN = Actor("holdfast audit --repair (ann)")


async def mend(
    shop: Shop, kind: str, *entries: tuple[str, str, str], epoch: int = 1, repairs: int = 0
) -> list[Any]:
    """The word, and the names of what was repaired."""
    keys = shop.inventory.keys
    every = [*keys.for_script("sale"), keys.sales(shop.partition)]
    words = [word for entry in entries for word in entry]
    args = ["sale", str(ANN), kind, epoch, repairs, *words]
    reply = await shop.inventory._call("mend", shop.partition, every, args)
    return [reply.word, *reply.details]


async def set_row(shop: Shop, row: str, sku: str = "a") -> None:
    await shop.redis.hset(shop.inventory.keys.for_sale("sale")[1], sku, row)


async def value(shop: Shop, key: int, field: str) -> str | None:
    found: str | None = await shop.redis.hget(shop.inventory.keys.for_sale("sale")[key], field)
    return found


async def test_counters_move_by_what_they_are_wrong_by(shop: Shop) -> None:
    await shop.configure(a=10, b=5)
    await shop.confirm(await shop.hold("c1", a=3))
    await shop.hold("c2", a=1)
    await set_row(shop, "12 4 2 4 0 10 1")
    assert await mend(shop, "stock", ("a", "", "-2 -1 -1"), ("b", "", "0 0 0")) == ["mended", "a"]
    assert await shop.stock() == {"a": (10, 6, 1, 3), "b": (5, 5, 0, 0)}
    record = (await shop.journal())[-1]
    assert (record.kind, record.by) == ("repaired", ANN)
    assert (record.words()["sale"], record.words()["kind"]) == ("sale", "stock")
    change = {"before": {"a": "12 4 2 4"}, "after": {"a": "10 6 1 3"}}
    assert orjson.loads(record.words()["change"]) == change


@pytest.mark.parametrize(
    "differences", ["-5 0 0", "0 9 0", "0 0 9", "0 -2 0", "0 0 -4"], ids=lambda text: text.replace(" ", "_")
)
async def test_no_counter_is_repaired_to_below_zero(shop: Shop, differences: str) -> None:
    await shop.configure(a=10)
    await shop.confirm(await shop.hold("c1", a=3))
    await shop.hold("c2", a=1)
    await shop.inventory.withdraw("sale", "a", 2, "k" * 24, "d", None)
    before = await shop.kinds()
    assert await mend(shop, "stock", ("a", "", differences), ("nope", "", "0 0 0")) == ["mended"]
    assert await shop.stock() == {"a": (8, 4, 1, 3)}
    assert await shop.kinds() == before


async def test_differences_hold_for_one_repair_and_one_epoch(shop: Shop) -> None:
    await shop.configure(a=10)
    assert await mend(shop, "stock", ("a", "", "5 0 0"), epoch=2) == ["changed"]
    assert await mend(shop, "stock", ("a", "", "5 0 0"), repairs=1) == ["changed"]
    assert await mend(shop, "stock", ("a", "", "5 0 0")) == ["mended", "a"]
    assert await mend(shop, "stock", ("a", "", "5 0 0")) == ["changed"]
    assert await mend(shop, "counts", ("reserved", "", "2")) == ["changed"]
    assert await mend(shop, "counts", ("reserved", "", "2"), repairs=1) == ["mended", "reserved"]
    assert (await value(shop, 0, "reserved"), await value(shop, 0, "repairs")) == ("2", "2")
    assert await shop.stock() == {"a": (15, 15, 0, 0)}


@pytest.mark.parametrize(
    ("kind", "key", "field"),
    [("rules", 0, "name"), ("holds", 2, "x"), ("customers", 3, "c"), ("answers", 4, "k")],
)
async def test_a_value_is_replaced_if_it_is_what_was_found(
    shop: Shop, kind: str, key: int, field: str
) -> None:
    await shop.configure(a=10)
    found = await value(shop, key, field) or ""
    assert await mend(shop, kind, (field, "other", "wrong")) == ["mended"]
    assert (await value(shop, key, field) or "") == found
    assert await shop.kinds() == ["configured"]
    assert await mend(shop, kind, (field, found, "right"), repairs=7, epoch=9) == ["mended", field]
    assert await value(shop, key, field) == "right"
    assert await shop.kinds() == ["configured", "repaired"]


async def test_the_rules_of_a_sku_change_and_its_stock_stays(shop: Shop) -> None:
    await shop.configure(a=(10, 2))
    await shop.hold("c1", a=1)
    assert await mend(shop, "skus", ("a", "3 10 1", "9 10 1"), ("nope", "2 10 1", "9 10 1")) == ["mended"]
    assert await mend(shop, "skus", ("a", "2 10 1", "5 11 2")) == ["mended", "a"]
    assert await value(shop, 1, "a") == "10 9 1 0 5 11 2"


async def test_the_due_list_follows_the_hold(shop: Shop) -> None:
    await shop.configure(a=10)
    living, ended, fine = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    await shop.inventory.release("sale", ended.hold_id)
    right = await shop.due()
    due = shop.inventory.keys.due(shop.partition)
    await shop.redis.zadd(due, {f"sale/{ended.hold_id}": 1, "sale/stranger": 1})
    await shop.redis.zrem(due, f"sale/{living.hold_id}")
    ids = (living.hold_id, ended.hold_id, "stranger", "unknown", fine.hold_id)
    mended = await mend(shop, "due", *((id_, "", "") for id_ in ids))
    assert mended == ["mended", living.hold_id, ended.hold_id, "stranger"]
    assert await shop.due() == right


async def test_a_sale_is_listed_again_once(shop: Shop) -> None:
    await shop.configure(a=10)
    sales = shop.inventory.keys.sales(shop.partition)
    await shop.redis.srem(sales, "sale")
    assert await mend(shop, "listed", ("sale", "", "")) == ["mended", "sale"]
    assert await shop.redis.smembers(sales) == {"sale"}
    assert await mend(shop, "listed", ("sale", "", "")) == ["mended"]


async def test_an_unknown_sale_is_not_made_by_a_repair(shop: Shop) -> None:
    with pytest.raises(errors.SaleNotFound):
        await shop.inventory._call_sale("mend", "sale", "sale", str(ANN), "listed", 1, 0, "sale", "", "")
