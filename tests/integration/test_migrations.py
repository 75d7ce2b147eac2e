"""The schema: applied once, safely at the same time, and every named query fits it."""

import asyncio

import asyncpg
import pytest

from app.database import QUERIES, claim_installation
from app.errors import ConfigurationError
from app.migrate import pending, require_current, upgrade
from app.settings import Settings


@pytest.mark.parametrize("name", sorted(QUERIES))
async def test_query_fits_the_schema(pool: asyncpg.Pool, name: str) -> None:
    async with pool.acquire() as database:
        await database.prepare(QUERIES[name])


async def test_nothing_is_pending_on_a_migrated_database(pool: asyncpg.Pool, settings: Settings) -> None:
    await asyncio.to_thread(upgrade, settings)
    assert await pending(pool) == []
    await require_current(pool)


async def test_two_upgrades_of_an_empty_database_at_once(pool: asyncpg.Pool, settings: Settings) -> None:
    await pool.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert (await pending(pool))[0] == "0001"
    with pytest.raises(ConfigurationError, match="holdfast migrate"):
        await require_current(pool)
    await asyncio.gather(*(asyncio.to_thread(upgrade, settings) for _ in range(2)))
    assert await pending(pool) == []


async def test_a_newer_schema_is_accepted(pool: asyncpg.Pool) -> None:
    await pool.execute("UPDATE alembic_version SET version_num = '9999'")
    await require_current(pool)


async def test_partitions_and_namespace_are_fixed_at_the_first_start(
    pool: asyncpg.Pool, settings: Settings
) -> None:
    await claim_installation(pool, settings)
    await claim_installation(pool, settings)
    with pytest.raises(ConfigurationError, match="HOLDFAST_PARTITIONS is 8"):
        await claim_installation(pool, settings.model_copy(update={"partitions": 8}))
    with pytest.raises(ConfigurationError, match="HOLDFAST_NAMESPACE is other"):
        await claim_installation(pool, settings.model_copy(update={"namespace": "other"}))


@pytest.fixture
async def rows(pool: asyncpg.Pool) -> asyncpg.Pool:
    """One row in each table that has triggers or checks."""
    await pool.execute("""
        INSERT INTO sales (id, partition, name, opens_at, closes_at, hold_seconds, max_hold_seconds,
                           created_at, updated_at)
        VALUES ('s', 0, 'Sale', now(), now() + interval '1 h', 60, 600, now(), now());
        INSERT INTO sale_skus (sale_id, sku, position, first_quantity) VALUES ('s', 'a', 1, 5);
        INSERT INTO movements (sale_id, sku, kind, quantity, partition, epoch, sequence, ordinal, at)
        VALUES ('s', 'a', 'allocated', 5, 0, 1, 1, 0, now());
        INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, partition, position)
        VALUES (gen_random_uuid(), 'sale', 's', 'sale.configured', '{}', 0, 1);
        INSERT INTO reservations (id, sale_id, customer_id, status, items, digest, created_at, expires_at)
        VALUES ('res_00000000000000000000000000', 's', 'c', 'held', '[{"sku": "a", "quantity": 1}]', 'd',
                now(), now());
    """)
    return pool


@pytest.mark.parametrize("table", ["movements", "outbox"])
@pytest.mark.parametrize("change", ["UPDATE {} SET partition = 1", "DELETE FROM {}"])
async def test_history_is_never_changed(rows: asyncpg.Pool, table: str, change: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError):
        await rows.execute(change.format(table))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE reservations SET expires_at = created_at - interval '1 s'",
        "UPDATE reservations SET items = '[]'",
        """UPDATE reservations SET items = '[{"sku": "a", "quantity": 0}]'""",
        "UPDATE reservations SET status = 'lost'",
        "UPDATE reservations SET status = 'expired'",
        "UPDATE reservations SET ended_at = now()",
        "UPDATE sales SET closes_at = opens_at",
        "UPDATE sales SET hold_seconds = max_hold_seconds + 1",
        "UPDATE sale_skus SET limit_per_customer = 0",
        "INSERT INTO movements (sale_id, sku, kind, quantity, partition, epoch, sequence, ordinal, at)"
        " VALUES ('s', 'a', 'restocked', 1, 0, 1, 2, 0, now())",
        "INSERT INTO movements (sale_id, sku, kind, quantity, allocated, available, held, sold, key, digest,"
        " partition, epoch, sequence, ordinal, at)"
        " VALUES ('s', 'a', 'restocked', 1, 6, 6, 1, 0, 'k', 'd', 0, 1, 2, 0, now())",
        "INSERT INTO movements (sale_id, sku, kind, quantity, partition, epoch, sequence, ordinal, at)"
        " VALUES ('s', 'a', 'written_off', 1, 0, 1, 2, 0, now())",
        "INSERT INTO orders (id, reservation_id, sale_id, customer_id, status, items, payment_reference,"
        " metadata, reacquired, confirmed_at, event_id)"
        " SELECT 'ord_x', id, sale_id, customer_id, 'confirmed',"
        " items, 'p', '{}', false, now(), gen_random_uuid() FROM reservations",
    ],
)
async def test_checks_refuse(rows: asyncpg.Pool, change: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await rows.execute(change)
