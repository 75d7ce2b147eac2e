"""The audit log in Postgres: one row per act, in the transaction of the change, and never another one."""

import getpass
from typing import Any

import asyncpg
import orjson
import pytest

from app import api_keys, audit_log
from app.models import Actor, SaleRules
from app.settings import Settings
from app.workers import acts
from app.workers.drain import Drain
from app.workers.runner import rebuild_command
from tests.shop import HOUR_MS, Shop, now_ms

ANN = Actor("key_0123456789ab", "request-1")


def rules(*items: tuple[str, int, int | None]) -> SaleRules:
    return SaleRules("A sale", now_ms() - HOUR_MS, now_ms() + HOUR_MS, 60, 600, items)


async def rows(pool: asyncpg.Pool) -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM audit_log ORDER BY id")]


async def busy(shop: Shop) -> None:
    inventory = shop.inventory
    await inventory.configure("sale", rules(("a", 10, None)), ANN)
    hold = await shop.hold("c1", a=2)
    await shop.confirm(hold)
    await inventory.steer("sale", "paused", ANN)
    await inventory.cancel("sale", hold.hold_id, False, "broken", ANN)
    await inventory.restock("sale", "a", 7, "k" * 24, "digest", "more", ANN)


async def test_acts_are_told_in_the_order_of_the_journal(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    await busy(shop)
    await drain.run_once(shop.partition)
    found = await rows(pool)
    assert [row["action"] for row in found] == [
        "sale.created", "sale.paused", "order.cancelled", "stock.restocked",
    ]  # fmt: skip
    assert {(row["actor"], row["request_id"], row["sale_id"]) for row in found} == {
        ("key_0123456789ab", "request-1", "sale")
    }
    changed = [(orjson.loads(row["before"]), orjson.loads(row["after"])) for row in found[1:]]
    assert changed == [
        ({"paused": False, "closed": False}, {"paused": True, "closed": False}),
        ({"status": "confirmed"}, {"status": "cancelled", "restocked": False, "reason": "broken"}),
        (
            {"allocated": 8, "available": 8, "held": 0, "sold": 0},
            {"allocated": 15, "available": 15, "held": 0, "sold": 0, "reason": "more"},
        ),
    ]
    records = {str(record.id): record.at for record in await shop.journal()}
    for row in found:
        assert round(row["at"].timestamp() * 1000) == records[f"{row['epoch']}-{row['sequence']}"]


async def test_a_journal_that_is_drained_again_tells_nothing_twice(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    await busy(shop)
    await drain.run_once(shop.partition)
    before = await rows(pool)
    await pool.execute("UPDATE positions SET epoch = 0, sequence = 0, outbox_position = 0")
    assert (await drain.run_once(shop.partition)).rejects == 0
    assert await rows(pool) == before


async def test_a_postgres_that_lost_commits_has_the_same_rows_again(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    await busy(shop)
    await drain.run_once(shop.partition)
    before = await rows(pool)
    await pool.execute("DROP TRIGGER audit_log_not_emptied ON audit_log")
    await pool.execute(
        "TRUNCATE sales, sale_skus, movements, reservations, orders, refunds, outbox, positions, audit_log"
        " RESTART IDENTITY"
    )
    await drain.run_partition(shop.partition)
    assert await rows(pool) == before


async def test_an_act_that_names_nobody_is_told_all_the_same(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    await shop.configure(a=1)
    await drain.run_once(shop.partition)
    assert [(row["actor"], row["action"]) for row in await rows(pool)] == [("unknown", "sale.created")]


async def test_of_many_skus_the_first_ones_are_shown(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> None:
    many: list[tuple[str, int, int | None]] = [(f"s{i}", 1, None) for i in range(acts._SHOWN + 20)]
    await shop.inventory.configure("sale", rules(*many), ANN)
    await shop.inventory.configure("sale", rules(("s7", 1, 3), *many[100:]), ANN)
    await drain.run_once(shop.partition)
    created, updated = [orjson.loads(row["after"]) for row in await rows(pool)]
    assert [item["sku"] for item in created["items"]] == [sku for sku, _, _ in many[: acts._SHOWN]]
    assert created["more_items"] == 20
    assert updated["items"] == [{"sku": "s7", "limit_per_customer": 3}]


async def test_a_rejected_act_has_its_row_once_it_is_applied(
    shop: Shop, drain: Drain, pool: asyncpg.Pool
) -> None:
    """Until then the reject keeps who it was: there is no row without its change."""
    await shop.configure(a=10)
    await drain.run_once(shop.partition)
    await pool.execute("ALTER TABLE movements ADD CONSTRAINT broken CHECK (quantity <> 7)")
    await shop.inventory.restock("sale", "a", 7, "k" * 24, "digest", "more", ANN)
    assert (await drain.run_once(shop.partition)).rejects == 1
    assert await pool.fetchval("SELECT actor FROM rejects") == str(ANN)
    assert [row["action"] for row in await rows(pool)] == ["sale.created"]


@pytest.mark.parametrize(
    "change", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_nothing_in_it_is_ever_changed(pool: asyncpg.Pool, change: str) -> None:
    async with pool.acquire() as database:
        await audit_log.record(database, ANN, "key.created", subject="key_1")
    with pytest.raises(asyncpg.RestrictViolationError):
        await pool.execute(change)
    assert len(await rows(pool)) == 1


async def test_commands_say_who_ran_them(
    shop: Shop, settings: Settings, pool: asyncpg.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    user = getpass.getuser()
    assert await api_keys.create_command(settings, "office", "admin") == 0
    key_id = await pool.fetchval("SELECT id FROM api_keys")
    for _ in range(2):
        assert await api_keys.revoke_command(settings, key_id) == 0
    assert await rebuild_command(settings) == 0
    created, revoked, again, *rebuilt = await rows(pool)
    assert (created["actor"], created["subject"]) == (f"holdfast keys create ({user})", key_id)
    assert (revoked["actor"], revoked["action"]) == (f"holdfast keys revoke ({user})", "key.revoked")
    key = {"name": "office", "scope": "admin"}
    assert orjson.loads(revoked["before"]) == key | {"revoked": False}
    assert again["before"] == again["after"] == revoked["after"]
    assert [(row["actor"], row["action"], row["subject"]) for row in rebuilt] == [
        (f"holdfast rebuild ({user})", "partition.rebuilt", str(partition))
        for partition in range(settings.partitions)
    ]
    assert not any(b"hf_" in orjson.dumps(str(row)) for row in await rows(pool))
