"""Rejected records: applied again as if Postgres had never refused them, or given up with a reason."""

import asyncio

import asyncpg
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from typer.testing import CliRunner

from app.cli import app as holdfast
from app.errors import ConfigurationError, SaleRebuilding, SoldOut
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import Actor, JournalId
from app.outbox import events_of
from app.rebuild import Rebuilder
from app.rejects import RejectId, Rejects, discard_command, list_command, retry_command
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action, Keeper
from app.workers.runner import rebuild_command
from tests.integration.conftest import lose_everything
from tests.integration.test_drain import add_entry
from tests.shop import Shop

NOT_BOB = "ALTER TABLE {} ADD CONSTRAINT not_bob CHECK (customer_id <> 'bob')"
ALLOW_BOB = "ALTER TABLE {} DROP CONSTRAINT not_bob"

ME = Actor("holdfast rejects (me)")


@pytest.fixture
async def shop(inventory: Inventory, redis: Redis) -> Shop:
    shop = Shop(inventory, redis)
    await shop.configure(a=10)
    return shop


@pytest.fixture
def rejects(pool: asyncpg.Pool, settings: Settings) -> Rejects:
    return Rejects(pool, settings.namespace)


@pytest.fixture
async def refused(shop: Shop, drain: Drain, pool: asyncpg.Pool) -> list[RejectId]:
    """Bob's hold, order and cancellation, which Postgres took for nothing; Ada's hold, which it has."""
    await pool.execute(NOT_BOB.format("reservations"))
    bob = await shop.hold("bob", a=2)
    await shop.hold("ada", a=1)
    await shop.confirm(bob)
    await shop.inventory.cancel("sale", bob.hold_id, True, "changed his mind")
    await drain.run_partition(shop.partition)
    rows = await pool.fetch("SELECT * FROM rejects ORDER BY sequence, ordinal")
    assert [row["kind"] for row in rows] == ["held", "confirmed", "cancelled"]
    return [RejectId.of(row) for row in rows]


async def events(pool: asyncpg.Pool) -> list[tuple[str, str, int]]:
    rows = await pool.fetch("SELECT id, payload, position FROM outbox ORDER BY position")
    return [(str(row["id"]), row["payload"], row["position"]) for row in rows]


async def test_retried_in_journal_order_everything_is_as_if_it_had_never_been_refused(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, settings: Settings, refused: list[RejectId]
) -> None:
    before = await events(pool)
    await pool.execute(ALLOW_BOB.format("reservations"))
    assert await retry_command(settings, None) == 0
    assert await pool.fetchval("SELECT count(*) FROM rejects WHERE resolved_at IS NULL") == 0
    order = await pool.fetchrow("SELECT status, cancel_reason FROM orders")
    assert tuple(order or ()) == ("cancelled", "changed his mind")
    reservation = await pool.fetchrow("SELECT * FROM reservations WHERE customer_id = 'bob'")
    assert reservation is not None
    records = {(r.id, r.ordinal): r for r in await shop.journal()}
    chosen = [records[one.place, one.ordinal] for one in refused]
    assert reservation["created_at"].timestamp() * 1000 == pytest.approx(chosen[0].at, abs=0.5)
    source = f"{settings.namespace}:{shop.partition}"
    late = [event for record in chosen for event in events_of(source, record, record.words())]
    after = await events(pool)
    assert after[: len(before)] == before
    assert [event[:2] for event in after[len(before) :]] == [(event.id, event.payload) for event in late]
    await shop.hold("eve", a=1)
    await drain.run_partition(shop.partition)
    assert [position for *_, position in await events(pool)] == list(range(1, len(after) + 2))


async def test_what_is_still_refused_says_why_and_changes_nothing(
    pool: asyncpg.Pool, settings: Settings, refused: list[RejectId], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (
        await events(pool),
        await pool.fetch("SELECT * FROM rejects"),
        await pool.fetch("TABLE positions"),
    )
    assert await retry_command(settings, str(refused[0])) == 1
    assert "not_bob" in capsys.readouterr().err
    assert await retry_command(settings, str(refused[1])) == 1
    assert "nothing to change" in capsys.readouterr().err
    assert before == (
        await events(pool), await pool.fetch("SELECT * FROM rejects"), await pool.fetch("TABLE positions")
    )  # fmt: skip


async def test_one_that_is_refused_keeps_no_other_one_from_being_applied(
    pool: asyncpg.Pool, settings: Settings, shop: Shop, drain: Drain, refused: list[RejectId]
) -> None:
    await pool.execute(NOT_BOB.replace("bob'", "eve'").replace("not_bob", "not_eve").format("reservations"))
    await shop.hold("eve", a=1)
    await drain.run_partition(shop.partition)
    await pool.execute(ALLOW_BOB.format("reservations"))
    assert await retry_command(settings, None) == 1
    rows = await pool.fetch("SELECT record FROM rejects WHERE resolved_at IS NULL")
    assert [" eve " in row["record"] for row in rows] == [True]


async def test_discarded_ones_are_listed_with_their_reason(
    pool: asyncpg.Pool, settings: Settings, refused: list[RejectId], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "2000")  # nothing is wrapped, whoever runs this
    await list_command(settings, False)
    listed = capsys.readouterr().out
    assert all(str(one) in listed for one in refused)
    assert "not_bob" in listed
    await discard_command(settings, str(refused[0]), "refunded [by hand]")
    await list_command(settings, False)
    assert str(refused[0]) not in capsys.readouterr().out
    await list_command(settings, True)
    assert "discarded" in (listed := capsys.readouterr().out)
    assert "refunded [by hand]" in listed
    assert await pool.fetchval("SELECT count(*) FROM reservations") == 1
    for command in (discard_command(settings, str(refused[0]), "again"), retry_command(settings, "7/1-1/0")):
        with pytest.raises(ConfigurationError, match="no unsettled reject"):
            await command


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "1/2-3", "a/1-2/0", "1/1-2/0/0", "-1/1-2/0", "1/1-2/0\n"])
def test_an_id_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not the id of a reject"):
        RejectId.parse(text)
    assert str(RejectId.parse("3/1-42/0")) == "3/1-42/0"


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "3/1-42/0", "--all"], ["discard", "3/1-42/0"]])
def test_a_command_that_leaves_open_what_is_meant_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(holdfast, ["rejects", *arguments]).exit_code == 2


async def test_a_retry_waits_for_the_drain_and_two_retries_apply_once(
    pool: asyncpg.Pool, rejects: Rejects, shop: Shop, refused: list[RejectId]
) -> None:
    await pool.execute(ALLOW_BOB.format("reservations"))
    counter = await pool.fetchval(
        "SELECT outbox_position FROM positions WHERE partition = $1", shop.partition
    )
    async with pool.acquire() as drain, drain.transaction():
        await drain.execute(
            "UPDATE positions SET outbox_position = $2 WHERE partition = $1", shop.partition, counter + 5
        )
        tries = [asyncio.create_task(rejects.retry(refused[0], ME)) for _ in range(2)]
        done, _ = await asyncio.wait(tries, timeout=0.1)
        assert not done
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [ConfigurationError]
    assert await pool.fetchval("SELECT count(*) FROM reservations WHERE customer_id = 'bob'") == 1
    assert await pool.fetchval("SELECT max(position) FROM outbox") == counter + 6


async def test_old_rules_do_not_replace_newer_ones_and_a_mark_is_not_compared_late(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, redis: Redis, keys: Keys, rejects: Rejects
) -> None:
    await pool.execute("ALTER TABLE sales ADD CONSTRAINT brief CHECK (length(name) < 20)")
    await shop.configure(a=10, name="A name that is too long")
    await shop.configure(a=10, name="A short name")
    place = f"1-{shop.inventory.seen(shop.partition).sequence + 1}"
    await add_entry(redis, keys, shop.partition, place, "audited sale id x x x x x x")
    await drain.run_partition(shop.partition)
    await pool.execute("ALTER TABLE sales DROP CONSTRAINT brief")
    configured, audited = [RejectId.of(row) for row in await rejects.list()]
    assert "undo" in (await rejects.retry(configured, ME) or "")
    assert audited.place == JournalId.parse(place)
    assert "mark" in (await rejects.retry(audited, ME) or "")
    assert await pool.fetchval("SELECT name FROM sales") == "A short name"


async def test_the_unsettled_ones_are_counted(
    drain: Drain, rejects: Rejects, refused: list[RejectId]
) -> None:
    for left in (3, 2):
        await drain.measure_rejects()
        assert REGISTRY.get_sample_value("holdfast_rejects_unsettled") == left
        if left == 3:
            await rejects.discard(refused[2], "reason", ME)


async def test_no_rebuild_gives_away_what_a_reject_still_tells_of(
    shop: Shop, drain: Drain, keeper: Keeper, pool: asyncpg.Pool, keys: Keys, settings: Settings
) -> None:
    """A paid order is in the rejects alone: its units are not for sale before a person has settled it."""
    await drain.run_partition(shop.partition)
    await pool.execute(NOT_BOB.format("reservations"))
    await shop.confirm(await shop.hold("bob", a=10))
    for lose in (False, True):
        if lose:
            await lose_everything(shop)
            assert await keeper.run_once(shop.partition) is Action.BUSY
            # One that is refused while a rebuild drains is met there, too.
            rebuilder = Rebuilder(Lineage(shop.redis, keys), pool, drain.run_partition, keys.namespace)
            assert await rebuilder.run_once(shop.partition, over_gap=True) is None
        with pytest.raises(ConfigurationError, match="rejects"):
            await rebuild_command(settings)
        refusal = await shop.refused("eve", f"key-{lose}", a=1)
        assert isinstance(refusal, SaleRebuilding if lose else SoldOut)
    await pool.execute(ALLOW_BOB.format("reservations"))
    assert await retry_command(settings, None) == 0
    assert await rebuild_command(settings) == 0
    assert await shop.stock() == {"a": (10, 0, 0, 10)}
    assert isinstance(await shop.refused("eve", "key", a=1), SoldOut)
