"""The installation that a demo runs on: started in a temporary folder, gone afterwards."""

import asyncio
import os
import secrets
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from rich.console import Console

from app.embedded.installation import settings_from
from app.embedded.servers import EmbeddedServers
from app.embedded.supervisor import Service
from app.migrate import upgrade

_READY_SECONDS = 60.0
_CALL_SECONDS = 5.0
_LAST_WORDS = 15

_PERSISTED = """
SELECT (SELECT count(*) FROM orders WHERE sale_id = $1) AS orders,
       (SELECT count(DISTINCT o.id) FROM orders o JOIN outbox b ON b.aggregateid = o.id
        WHERE o.sale_id = $1) AS with_outbox_row,
       (SELECT count(*) FROM outbox WHERE type = 'reservation.expired') AS expired
"""


@dataclass(frozen=True, slots=True)
class Persisted:
    """Rows in Postgres: orders, those with their outbox row, and expiries, of which some were paid later."""

    orders: int = 0
    with_outbox_row: int = 0
    expired: int = 0


@dataclass(frozen=True)
class Stage:
    """A running Holdfast, and how to look at it."""

    url: str
    servers: EmbeddedServers
    variables: dict[str, str]

    async def stock(self, sale_id: str) -> list[dict[str, Any]]:
        """Per SKU, exact; empty as long as there is no such sale or no answer."""
        return await asyncio.to_thread(self._stock, sale_id)

    def _stock(self, sale_id: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(  # noqa: S310 (our own address)
            f"{self.url}/v1/admin/sales/{sale_id}/stock",
            headers={"Authorization": f"Bearer {self.variables['HOLDFAST_ADMIN_KEY']}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as answer:  # noqa: S310
                items: list[dict[str, Any]] = orjson.loads(answer.read())["items"]
                return items
        except OSError:
            return []

    async def persisted(self, sale_id: str) -> Persisted:
        connection = await asyncpg.connect(self.servers.database_url)
        try:
            row = await connection.fetchrow(_PERSISTED, sale_id)
            return Persisted(**row) if row else Persisted()
        finally:
            await connection.close()

    def last_words(self) -> str:
        """The ends of the logs, for when something went wrong."""
        texts = [
            f"{path.name}: {line}"
            for path in sorted(self.servers.workspace.logs.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
        ]
        return "\n".join(texts)


@contextmanager
def running_stage(console: Console) -> Iterator[Stage]:
    """Redis, Postgres, API and worker as child processes; nothing is left of them, however this ends.

    Raises ConfigurationError if one of them cannot start.
    """
    data = Path(tempfile.mkdtemp(prefix="holdfast-demo-", dir="/tmp"))
    try:
        # Postgres may have to run as another user than this process.
        data.chmod(0o711)
        console.print("starting Redis, Postgres, API and worker")
        with EmbeddedServers(data) as servers:
            yield _with_service(servers)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _with_service(servers: EmbeddedServers) -> Stage:
    urls = {"HOLDFAST_REDIS_URL": servers.redis_url, "HOLDFAST_DATABASE_URL": servers.database_url}
    names = ("HOLDFAST_ADMIN_KEY", "HOLDFAST_STOREFRONT_KEY", "HOLDFAST_ID_SECRET")
    variables = urls | {name: secrets.token_urlsafe(32) for name in names}
    upgrade(settings_from(variables))
    port = _free_port()
    stage = Stage(f"http://127.0.0.1:{port}", servers, variables)
    commands = {"worker": ["worker"], "serve": ["serve", "--port", str(port)]}
    for name, words in commands.items():
        servers.supervisor.start(
            Service(
                name=name,
                # -P: `app` is a common name, and must not be taken from the working directory.
                command=[sys.executable, "-P", "-m", "app.cli", *words],
                environment=without_settings() | variables,
                log=servers.workspace.log(name),
            )
        )
    servers.supervisor.wait_ready(dict.fromkeys(commands, lambda _: _is_ready(stage.url)), _READY_SECONDS)
    return stage


def without_settings() -> dict[str, str]:
    """The environment without the settings of another installation."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False
