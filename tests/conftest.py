"""Real stores for every test: one pair of servers per test process, a namespace and a database per test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.database import open_pool
from app.embedded.servers import EmbeddedServers
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.migrate import upgrade
from app.models import JournalId
from app.scripts import connect
from app.settings import Settings

ID_SECRET = "a secret for the tests only"
TEMPLATE = "holdfast_template"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """Redis and Postgres without fsync: what survives a crash is tested on servers of its own."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with EmbeddedServers(folder, fsync=False) as servers:
        yield servers


def database_url(servers: EmbeddedServers, name: str) -> str:
    return servers.database_url.replace("/holdfast?", f"/{name}?")


@pytest.fixture(scope="session")
def template(servers: EmbeddedServers) -> str:
    """The name of a migrated database to make others from."""
    import asyncio

    async def create() -> None:
        connection = await asyncpg.connect(servers.database_url)
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await connection.close()

    asyncio.run(create())
    upgrade(Settings(redis_url=servers.redis_url, database_url=database_url(servers, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def settings(servers: EmbeddedServers, request: pytest.FixtureRequest) -> Settings:
    """Settings of this test alone: its own namespace, and its own database where it uses `pool`."""
    name = f"t{uuid.uuid4().hex[:12]}"
    return Settings(
        redis_url=servers.redis_url,
        database_url=database_url(servers, name),
        namespace=name,
        partitions=4,
        id_secret=ID_SECRET,
        allow_volatile=True,
    )


@pytest.fixture
def keys(settings: Settings) -> Keys:
    return Keys(settings.namespace, settings.partitions)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    yield client
    await client.aclose()


@pytest.fixture
async def database(servers: EmbeddedServers, settings: Settings, template: str) -> AsyncIterator[str]:
    """A fresh migrated database; its URL."""
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute(f"CREATE DATABASE {settings.namespace} TEMPLATE {template}")
    yield settings.database_url.get_secret_value()
    await connection.execute(f"DROP DATABASE {settings.namespace} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def pool(settings: Settings, database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(settings)
    yield pool
    pool.terminate()


async def open_partitions(lineage: Lineage) -> None:
    """What the keeper does at the first start."""
    for partition in range(lineage.keys.partitions):
        await lineage.claim(partition, "test")
        await lineage.reopen(partition, "test", 1, JournalId(0, 0), 0)


@pytest.fixture
async def lineage(redis: Redis, keys: Keys) -> Lineage:
    """With every partition open."""
    lineage = Lineage(redis, keys)
    await open_partitions(lineage)
    return lineage


@pytest.fixture
def inventory(redis: Redis, keys: Keys, settings: Settings, lineage: Lineage) -> Inventory:
    return Inventory(redis, keys, settings)
