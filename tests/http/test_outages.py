"""Stores that are away, and starts that must not succeed. These break servers, so each has its own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from app.database import claim_installation, open_pool
from app.embedded.servers import EmbeddedServers
from app.errors import StoreUnavailable
from app.keys import Keys
from app.lineage import Lineage
from app.migrate import upgrade
from app.patience import read_soon
from app.scripts import connect
from app.settings import JwtAlgorithm, Settings
from app.workers.drain import Drain
from app.workers.drain_loop import DrainLoop
from tests.conftest import ID_SECRET, open_partitions
from tests.http.conftest import (
    ADMIN_KEY,
    AUDIENCE,
    ISSUER,
    JWT_SECRET,
    STOREFRONT_KEY,
    Api,
    assert_problem,
    cart,
    serving,
    token,
)


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    with EmbeddedServers(tmp_path_factory.mktemp("own"), fsync=False) as servers:
        yield servers


@pytest.fixture
async def outage(own_servers: EmbeddedServers) -> AsyncIterator[Api]:
    """An API with an open sale, on servers that a test may stop and let go on; no drain."""
    settings = Settings(
        redis_url=own_servers.redis_url, database_url=own_servers.database_url, id_secret=ID_SECRET,
        admin_key=ADMIN_KEY, storefront_key=STOREFRONT_KEY, partitions=2, redis_timeout_seconds=0.3,
        jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_algorithm=JwtAlgorithm.HS256,
        jwt_key=SecretStr(JWT_SECRET),
    )  # fmt: skip
    await asyncio.to_thread(upgrade, settings)
    database = await asyncpg.connect(own_servers.database_url)
    await database.execute("TRUNCATE positions, sales, installation CASCADE")
    await database.close()
    redis = connect(settings)
    await redis.flushall()
    await open_partitions(Lineage(redis, Keys(settings.namespace, settings.partitions)))
    await redis.aclose()
    with serving(settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            api = Api(url, client)
            await api.sale()
            yield api


async def redis_pid(url: str) -> int:
    redis = Redis.from_url(url)
    pid: int = (await redis.info("server"))["process_id"]
    await redis.aclose()
    return pid


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_hung_redis_makes_outcomes_unknown_and_a_retry_settles_them(
    outage: Api, own_servers: EmbeddedServers
) -> None:
    with stopped(await redis_pid(own_servers.redis_url)):
        response = await outage.reserve(key="k")
        assert_problem(response, 503, "outcome_unknown")
        for path in ("/v1/sales/sale", f"/v1/sales/sale/reservations/res_{'0' * 26}"):
            assert_problem(await outage.call("GET", path), 503, "store_unavailable")
        assert (await outage.call("GET", "/readyz", by=None)).status_code == 503
        assert (await outage.call("GET", "/livez", by=None)).status_code == 200
    async with asyncio.timeout(5):
        while (settled := await outage.reserve(key="k")).status_code != 201:
            assert_problem(settled, 503, "store_unavailable")
    stock = (await outage.admin("GET", "/sale/stock")).json()["items"][0]
    assert (stock["available"], stock["held"]) == (4, 1)


async def test_holds_and_confirms_go_on_while_postgres_hangs(
    outage: Api, own_servers: EmbeddedServers
) -> None:
    connection = await asyncpg.connect(own_servers.database_url)
    rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    postmaster = int((await connection.fetchval("SELECT pg_read_file('postmaster.pid')")).split()[0])
    await connection.close()
    pids = [postmaster, *(row["pid"] for row in rows)]
    with stopped(*pids):
        hold = (await outage.reserve(cart(a=1), key="k")).json()
        confirmed = await outage.confirm(hold, headers={"Prefer": "wait=1"})
        assert (confirmed.status_code, confirmed.json()["persisted"]) == (202, False)
        async with asyncio.timeout(15):
            ready = await outage.call("GET", "/readyz", by=None)
            assert (ready.status_code, ready.json()["status"]) == (200, "warn")
            order = await outage.call("GET", f"/v1/sales/sale/orders/{confirmed.json()['id']}")
            assert (order.status_code, order.json()["persisted"]) == (200, False)
            unknown = await outage.call("GET", f"/v1/sales/sale/reservations/res_{'0' * 26}")
            assert_problem(unknown, 503, "store_unavailable")
            by = token("bob")
            for name in (hold["id"], f"res_{'0' * 26}"):
                refused = await outage.call("GET", f"/v1/sales/sale/reservations/{name}", by=by)
                assert_problem(refused, 403, "forbidden")


@contextlib.asynccontextmanager
async def read_only(servers: EmbeddedServers) -> AsyncIterator[None]:
    """As after a failover to a standby, or with a full disk."""
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute("SET default_transaction_read_only = off")
    await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await admin.execute("SELECT pg_reload_conf()")
    yield
    await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()


@contextlib.asynccontextmanager
async def without_a_free_connection(servers: EmbeddedServers) -> AsyncIterator[None]:
    taken: list[asyncpg.Connection] = []
    strangers: list[asyncpg.Record] | None = None
    while strangers is None or strangers:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(servers.database_url))
        own = [connection.get_server_pid() for connection in taken]
        strangers = await taken[0].fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> ALL ($1::int[])",
            own,
        )
    yield
    for connection in taken:
        connection.terminate()


@contextlib.asynccontextmanager
async def killed(servers: EmbeddedServers) -> AsyncIterator[None]:
    """It refuses connections until the supervisor has started it again."""
    os.kill(servers.supervisor.pid("postgres"), signal.SIGKILL)
    yield


@pytest.mark.parametrize("fault", [read_only, without_a_free_connection, killed])
async def test_holds_and_confirms_go_on_whatever_ails_postgres_and_all_is_drained_after(
    outage: Api, own_servers: EmbeddedServers, fault: Callable[[EmbeddedServers], Any]
) -> None:
    settings = Settings(redis_url=own_servers.redis_url, database_url=own_servers.database_url, partitions=2)
    redis, pool = connect(settings), await open_pool(settings)
    keys, stop = Keys(settings.namespace, 2), asyncio.Event()
    drain = DrainLoop(Drain(redis, pool, keys, settings), redis, keys, settings)
    running = asyncio.create_task(drain.run(stop))
    async with fault(own_servers):
        hold = (await outage.reserve(cart("ada", a=1))).json()
        confirmed = await outage.confirm(hold)
        assert (confirmed.status_code, (await outage.reserve(cart("bob", a=1))).status_code) == (202, 201)
        started = time.monotonic()
        unknown = await outage.call("GET", f"/v1/sales/sale/reservations/res_{'0' * 26}")
        listed = await outage.admin("GET", "/sale/orders")
        assert time.monotonic() - started < 1
        assert {unknown.status_code, listed.status_code} <= {200, 404, 503}
        if fault is without_a_free_connection:
            assert_problem(unknown, 503, "store_unavailable")
            assert_problem(listed, 503, "store_unavailable")
    async with asyncio.timeout(30):
        path = f"/v1/sales/sale/orders/{confirmed.json()['id']}"
        while not (await outage.call("GET", path)).json()["persisted"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    stop.set()
    await running
    pool.terminate()
    await redis.aclose()


async def test_reads_that_wait_for_a_hung_postgres_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.patience._READS_AT_ONCE", 2)
    never = asyncio.Event()
    reads = [asyncio.create_task(read_soon(never.wait(), 5)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="Too many"):
        await read_soon(never.wait())
    never.set()
    assert await asyncio.gather(*reads) == [True, True]
    assert await read_soon(never.wait())


async def test_an_emptied_redis_is_rebuilding_never_sold_out(
    outage: Api, own_servers: EmbeddedServers
) -> None:
    redis = Redis.from_url(own_servers.redis_url)
    await redis.flushall()
    await redis.aclose()
    assert_problem(await outage.reserve(), 503, "sale_rebuilding")
    assert_problem(
        await outage.call("GET", "/v1/admin/sales/sale/stock", by=ADMIN_KEY), 503, "sale_rebuilding"
    )
    assert (await outage.call("GET", "/readyz", by=None)).status_code == 503


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--factory",
        "app.main:create_app",
        "--port",
        "0",
        "--lifespan",
        "on",
    ]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"HOLDFAST_ID_SECRET": ""}, "HOLDFAST_ID_SECRET is not set"),
        ({"HOLDFAST_PARTITIONS": "many"}, "HOLDFAST_PARTITIONS"),
        ({"HOLDFAST_JWT_ALGORITHM": "HS256"}, "belong together"),
        (
            {"HOLDFAST_REDIS_URL": "unix:///nowhere", "HOLDFAST_STARTUP_TIMEOUT_SECONDS": "0.2"},
            "HOLDFAST_REDIS_URL",
        ),
        ({"HOLDFAST_PARTITIONS": "3"}, "HOLDFAST_PARTITIONS is 3"),
    ],
)  # fmt: skip
async def test_a_wrong_start_is_one_sentence(
    servers: EmbeddedServers, settings: Settings, pool: asyncpg.Pool, change: dict[str, str], sentence: str
) -> None:
    await claim_installation(pool, settings)
    ended = await asyncio.to_thread(
        start,
        **{
            "HOLDFAST_REDIS_URL": servers.redis_url,
            "HOLDFAST_DATABASE_URL": settings.database_url.get_secret_value(),
            "HOLDFAST_NAMESPACE": settings.namespace,
            "HOLDFAST_PARTITIONS": "4",
            "HOLDFAST_ID_SECRET": ID_SECRET,
            "HOLDFAST_ALLOW_VOLATILE": "1",
        }
        | change,
    )
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_server_that_evicts_is_refused(own_servers: EmbeddedServers) -> None:
    redis = Redis.from_url(own_servers.redis_url)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        ended = await asyncio.to_thread(
            start,
            HOLDFAST_REDIS_URL=own_servers.redis_url,
            HOLDFAST_DATABASE_URL=own_servers.database_url,
            HOLDFAST_ID_SECRET=ID_SECRET,
        )
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.aclose()
    assert ended.returncode != 0
    assert "maxmemory-policy" in ended.stderr
    assert "Traceback" not in ended.stderr
