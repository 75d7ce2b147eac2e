"""A migration beside running processes: nobody fails, nobody waits for long."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import httpx
import pytest

from app import migrate
from app.errors import ConfigurationError, StoreUnavailable
from app.paths import data_folder
from app.settings import Settings
from tests.http.conftest import Api, cart, serving

NEXT = "9001"
MIGRATION = f'''
"""As a test would have it."""

from alembic import op

revision = "{NEXT}"
down_revision = "{{down}}"


def upgrade() -> None:
    op.execute("ALTER TABLE reservations ADD COLUMN note text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE outbox ADD COLUMN note text")
'''


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of a release that has one more, on tables that the drain writes."""
    folder = tmp_path / "migrations"
    shutil.copytree(data_folder("migrations"), folder)
    newest = max(path.name for path in (folder / "versions").glob("[0-9]*.py"))
    (folder / "versions" / f"{NEXT}_note.py").write_text(MIGRATION.format(down=newest.partition("_")[0]))
    return folder


@pytest.fixture
def release(next_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this code knows the next release's migrations. What runs already has looked before."""
    monkeypatch.setattr(migrate, "data_folder", lambda _: next_release)


class Buyers:
    """Hold and pay, one after the other, until told to end."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._end = asyncio.Event()
        self._another = asyncio.Event()
        self.paid = 0

    async def run(self, name: str) -> None:
        while not self._end.is_set():
            hold = await self._api.hold(f"{name}-{self.paid}", a=1)
            answer = await self._api.confirm(hold, headers={"Prefer": "wait=10"})
            assert answer.status_code == 200, answer.text  # so the drain goes on, too
            self.paid += 1
            self._another.set()

    async def paid_more(self, count: int) -> None:
        goal = self.paid + count
        async with asyncio.timeout(20):
            while self.paid < goal:
                self._another.clear()
                await self._another.wait()

    def end(self) -> None:
        self._end.set()


async def test_a_migration_runs_beside_the_processes_of_both_releases(
    api: Api, settings: Settings, pool: asyncpg.Pool, release: None
) -> None:
    await api.sale(a=100_000)
    buyers = Buyers(api)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(buyers.run(f"buyer{number}"))
        await buyers.paid_more(20)
        with pytest.raises(ConfigurationError, match=NEXT):
            await migrate.require_current(pool)
        await asyncio.to_thread(migrate.upgrade, settings)
        assert await pool.fetchval("SELECT count(note) FROM reservations") >= 20
        await buyers.paid_more(20)
        with serving(settings) as url:
            async with httpx.AsyncClient(base_url=url) as client:
                newer = Api(url, client)
                assert (await newer.reserve(cart("newer", a=1))).status_code == 201
                await buyers.paid_more(20)
        buyers.end()
    assert (await api.admin("GET", "/sale/audit", timeout=20)).json()["ok"]


async def test_a_migration_that_waits_for_a_table_lets_the_drain_go_first(
    shop: Api, settings: Settings, pool: asyncpg.Pool, release: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_SECONDS", 0.3)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT count(*) FROM reservations")  # a long report, say
        upgrading = asyncio.create_task(asyncio.to_thread(migrate.upgrade, settings))
        await blocked(pool)
        confirmed = await shop.confirm(await shop.hold(), headers={"Prefer": "wait=5"})
        assert confirmed.json()["persisted"]
        assert not upgrading.done()
    await upgrading
    assert await migrate.pending(pool) == []


async def test_a_table_that_stays_locked_ends_a_migration_without_a_trace(
    settings: Settings, pool: asyncpg.Pool, release: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "_PATIENCE_SECONDS", 0.3)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT count(*) FROM outbox")
        with pytest.raises(StoreUnavailable, match="locked"):
            await asyncio.to_thread(migrate.upgrade, settings)
        assert await migrate.pending(pool) == [NEXT]


async def blocked(pool: asyncpg.Pool) -> None:
    """Returns once the migration waits for a table."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    async with asyncio.timeout(10):
        while not await pool.fetchval(waiting):
            pass
