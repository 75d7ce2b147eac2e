"""A Postgres that lets nobody in any more is away like any other, not a failure that nobody foresaw."""

import asyncpg
import pytest

from app.database import connection
from app.embedded.servers import EmbeddedServers
from app.errors import StoreUnavailable
from app.settings import Settings


@pytest.mark.parametrize(
    "shut", ["ALTER DATABASE {0} ALLOW_CONNECTIONS false", "ALTER DATABASE {0} RENAME TO {0}_away"]
)
async def test_a_database_that_takes_no_logins_is_away(
    servers: EmbeddedServers, settings: Settings, pool: asyncpg.Pool, shut: str
) -> None:
    name = settings.namespace
    async with connection(pool) as database:
        assert await database.fetchval("SELECT 1") == 1
    await pool.expire_connections()
    operator = await asyncpg.connect(servers.database_url)
    try:
        await operator.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await operator.execute(shut.format(name))
        with pytest.raises(StoreUnavailable):
            async with connection(pool):
                pass
        if "RENAME" in shut:
            await operator.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
    finally:
        await operator.close()
