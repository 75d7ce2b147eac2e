"""The shop's stored keys: let in on every process soon after they are made, refused soon after their end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from hashlib import sha256

import asyncpg
import httpx
import pytest
from structlog.testing import capture_logs

from app import api_keys
from app.http.auth import Authenticator
from app.http.key_watch import KeyWatch
from app.settings import Settings
from tests.http.conftest import Api, assert_problem, serving, until

LET_IN = 404  # by a path that is none: the token is judged first, and no store is asked


async def status(client: httpx.AsyncClient, secret: str) -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    return (await client.get("/v1/none", headers=headers)).status_code


async def seconds_until(wanted: int, secret: str, *clients: httpx.AsyncClient) -> float:
    """How long until every process answers so."""
    started = time.monotonic()
    for client in clients:
        await until(partial(_answers, client, secret, wanted))
    return time.monotonic() - started


async def _answers(client: httpx.AsyncClient, secret: str, wanted: int) -> bool:
    return await status(client, secret) == wanted


@pytest.fixture
async def two(settings: Settings, lineage: object, pool: asyncpg.Pool) -> AsyncIterator[list[Api]]:
    """Two processes' worth of the API, each with one connection that is kept."""
    once = httpx.Limits(max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        urls = [stack.enter_context(serving(settings)) for _ in range(2)]
        yield [
            Api(url, await stack.enter_async_context(httpx.AsyncClient(base_url=url, limits=once)))
            for url in urls
        ]


async def test_a_revoked_key_is_refused_within_a_second_by_every_process(
    two: list[Api], pool: asyncpg.Pool
) -> None:
    clients = [api.client for api in two]
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    other, other_secret = await api_keys.create(pool, "app", "storefront")
    assert await seconds_until(LET_IN, other_secret, *clients) < 1
    for client in clients:
        assert await status(client, secret) == LET_IN
    # The keys were read just now, and the next change follows at once.
    await api_keys.revoke(pool, key.id)
    assert await seconds_until(401, secret, *clients) < 1
    # Now with every connection to Postgres killed, also those on which the processes listen.
    async with pool.acquire() as database:
        killed = await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert len(killed) >= 2
        await database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", other.id)
    assert await seconds_until(401, other_secret, *clients) < 1


async def test_a_key_that_was_revoked_before_the_start_is_refused(
    settings: Settings, lineage: object, pool: asyncpg.Pool
) -> None:
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    await api_keys.revoke(pool, key.id)
    with serving(settings) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            assert await status(client, secret) == 401


async def test_a_stored_key_has_its_scope_and_is_kept_as_a_hash(two: list[Api], pool: asyncpg.Pool) -> None:
    api = two[0]
    keys = {scope: (await api_keys.create(pool, scope, scope))[1] for scope in api_keys.SCOPES}
    await seconds_until(LET_IN, keys["admin"], api.client)
    assert (await api.call("GET", "/v1/admin/sales", by=keys["admin"])).status_code == 200
    assert_problem(await api.call("GET", "/v1/admin/sales", by=keys["storefront"]), 403, "forbidden")
    rows = await pool.fetch("SELECT k.hash, to_jsonb(k)::text AS row FROM api_keys k")
    assert {row["hash"] for row in rows} == {sha256(secret.encode()).digest() for secret in keys.values()}
    assert not [secret for secret in keys.values() for row in rows if secret in row["row"]]
    for hashed in (row["hash"] for row in rows):
        assert await status(api.client, hashed.hex()) == 401, "a hash lets nobody in"


async def test_the_last_known_keys_hold_while_postgres_does_not_answer(
    two: list[Api], pool: asyncpg.Pool
) -> None:
    client = two[0].client
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    await seconds_until(LET_IN, secret, client)
    async with pool.acquire() as database, database.transaction():
        await database.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        await until(lambda: database.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        await database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.id)
        assert await status(client, secret) == LET_IN
    assert await seconds_until(401, secret, client) < 5


async def test_the_watch_outlives_whatever_goes_wrong(settings: Settings, pool: asyncpg.Pool) -> None:
    _, secret = await api_keys.create(pool, "webshop", "storefront")
    authenticator = Authenticator(settings)
    await pool.execute("ALTER TABLE api_keys RENAME TO hidden")
    with capture_logs() as logs:
        task = asyncio.create_task(KeyWatch(pool, authenticator).run())
        await until(lambda: asyncio.sleep(0, bool(logs)))
        await pool.execute("ALTER TABLE hidden RENAME TO api_keys")
        await until(lambda: asyncio.sleep(0, len(authenticator._keys) == 3))  # two are in the settings
        task.cancel()
    assert [entry["error"] for entry in logs] == ["UndefinedTableError"]
    assert authenticator.authenticate(f"Bearer {secret}".encode()).key is not None
