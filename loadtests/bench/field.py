"""The contenders: who they are, how each is started, and how what it gave out is counted in its own store."""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import redis
from rich.console import Console

from app.demo.stage import Stage, running_stage
from app.embedded.ports import free_port
from app.embedded.redis import ENVIRONMENT
from app.embedded.resolve import find_redis
from app.embedded.supervisor import Service
from app.errors import ConfigurationError
from loadtests.admin import Admin
from loadtests.bench import processes

CATCH_UP_SECONDS = 60.0
START_SECONDS = 30.0
HOLDFAST = {"API": "serve", "Redis": "redis", "worker": "worker", "Postgres": "postgres"}
"""Processes as the report names them, and as the supervisor does."""
GIVEN = """
SELECT coalesce(sum((item ->> 'quantity')::bigint), 0)::bigint
FROM reservations, jsonb_array_elements(items) AS item
WHERE sale_id = $1 AND status IN ('held', 'confirmed')
"""


def nothing_to_settle() -> float:
    return 0.0


@dataclass(frozen=True)
class Contender:
    name: str
    url: str
    services: dict[str, str]
    """Its processes by role, as the supervisor names them."""
    prepare: Callable[[str, int], None] | None = None
    """Opens a sale of so many units. None: it has no stock."""
    given: Callable[[str], int] = lambda _: 0
    """Units of a sale that customers hold, as its store says."""
    settle: Callable[[], float] = nothing_to_settle
    """Waits until all of it is where it belongs; how many seconds that took."""
    refusals: dict[str, bool] = field(default_factory=lambda: {"": True})
    """Kinds of requests after the sell-out: suffix of the name, and whether each has an Idempotency-Key."""


@dataclass(frozen=True)
class Field:
    """All contenders, started."""

    stage: Stage
    contenders: list[Contender]
    redis_url: str
    """A second Redis, of the rivals, with `appendfsync always` unless one of them sets otherwise."""

    @property
    def token(self) -> str:
        return self.stage.variables["HOLDFAST_STOREFRONT_KEY"]

    def named(self, name: str) -> Contender:
        return next(contender for contender in self.contenders if contender.name == name)

    def cpu(self, contender: Contender) -> dict[str, float]:
        """Seconds that each process of the contender has used so far."""
        pid = self.stage.servers.supervisor.pid
        return {role: processes.cpu_seconds(pid(name)) for role, name in contender.services.items()}

    def memory(self, contender: Contender) -> float:
        """MiB of its API process."""
        return processes.memory_mib(self.stage.servers.supervisor.pid(contender.services["API"]))


EMPTY = "empty FastAPI endpoint"
ASGI = "plain ASGI callable"
ROW_LOCK = "row lock"
SKIP_LOCKED = "SKIP LOCKED"
SCRIPT_EVERYSEC = "EVALSHA, everysec"
SCRIPT_ALWAYS = "EVALSHA, always"
HOLDFAST_NAME = "Holdfast"


@contextmanager
def running_field(console: Console) -> Iterator[Field]:
    """Everything that is measured, on one core; this process keeps the other for the generator."""
    cores = processes.cores()
    with ExitStack() as stack:
        stack.enter_context(processes.unpinned_after())
        if cores:
            # The supervisor's thread inherits it, and starts everything else.
            processes.pin(cores[0])
        stage = stack.enter_context(running_stage(console))
        if cores:
            processes.pin(cores[1])
        console.print("starting the rivals")
        yield _with_rivals(stage)


def _with_rivals(stage: Stage) -> Field:
    store = _start_redis(stage)
    database = stage.servers.database_url
    urls = {
        module: _start_rival(stage, module, store if module == "script_per_request" else database)
        for module in ("empty_endpoint", "plain_asgi", "row_lock", "skip_locked", "script_per_request")
    }
    in_postgres, in_redis = {"Postgres": "postgres"}, {"Redis": "rivals-redis"}
    contenders = [
        Contender(EMPTY, urls["empty_endpoint"], {"API": "empty_endpoint"}),
        Contender(ASGI, urls["plain_asgi"], {"API": "plain_asgi"}),
        _rival(ROW_LOCK, "row_lock", urls, database, in_postgres),
        _rival(SKIP_LOCKED, "skip_locked", urls, database, in_postgres),
        _rival(SCRIPT_EVERYSEC, "script_per_request", urls, store, in_redis, "everysec"),
        _rival(SCRIPT_ALWAYS, "script_per_request", urls, store, in_redis, "always"),
        holdfast(stage),
    ]
    return Field(stage, contenders, store)


def _start_redis(stage: Stage) -> str:
    """The rivals' own Redis, started as Holdfast's is; its URL."""
    workspace = stage.servers.workspace
    folder = workspace.data / "rivals"
    folder.mkdir()
    path = workspace.socket_folder("rivals", "redis.sock", None) / "redis.sock"
    options = {
        "port": "0", "unixsocket": str(path), "dir": str(folder), "appendonly": "yes",
        "appendfsync": "always", "save": "",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    _start(stage, "rivals-redis", [str(find_redis().path), *words], ENVIRONMENT, lambda _: path.exists())
    return f"unix://{path}?db=0"


def _start_rival(stage: Stage, module: str, store: str) -> str:
    """One uvicorn process on uvloop and httptools, as Holdfast's; its URL."""
    port = free_port("127.0.0.1", 0)
    command = [
        sys.executable, "-P", "-m", "uvicorn", f"loadtests.bench.rivals.{module}:app", "--port", str(port),
        "--no-access-log", "--loop", "uvloop", "--http", "httptools", "--log-level", "warning",
    ]  # fmt: skip
    project = str(Path(__file__).resolve().parents[2])
    url = f"http://127.0.0.1:{port}"
    _start(stage, module, command, {"RIVAL_STORE": store, "PYTHONPATH": project}, lambda _: _answers(url))
    return url


def _start(
    stage: Stage, name: str, command: list[str], variables: dict[str, str], ready: Callable[[int], bool]
) -> None:
    supervisor = stage.servers.supervisor
    environment = {**os.environ, **variables}
    log = stage.servers.workspace.log(name)
    supervisor.start(Service(name=name, command=command, environment=environment, log=log))
    supervisor.wait_ready({name: ready}, START_SECONDS)


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True


def _rival(
    name: str, module: str, urls: dict[str, str], store: str, uses: dict[str, str], appendfsync: str = ""
) -> Contender:
    rival = importlib.import_module(f"loadtests.bench.rivals.{module}")

    def prepare(sale: str, units: int) -> None:
        if appendfsync:
            with redis.Redis.from_url(store) as client:
                client.config_set("appendfsync", appendfsync)
        asyncio.run(rival.prepare(store, sale, units))

    def given(sale: str) -> int:
        units: int = asyncio.run(rival.given(store, sale))
        return units

    return Contender(name, urls[module], {"API": module, **uses}, prepare, given)


def holdfast(stage: Stage) -> Contender:
    """What is on the stage."""

    def given(sale: str) -> int:
        units = asyncio.run(_held_in_postgres(stage.servers.database_url, sale))
        row = asyncio.run(stage.stock(sale))[0]
        return max(units, int(row["held"] + row["sold"]))

    return Contender(
        HOLDFAST_NAME,
        stage.url,
        HOLDFAST,
        lambda sale, units: create_sale(stage, sale, units),
        given,
        lambda: wait_for_drain(stage),
        {", with key": True, ", keyless": False},
    )


def create_sale(stage: Stage, sale: str, quantity: int) -> None:
    now = datetime.now(UTC)
    body = {
        "name": sale,
        "opens_at": (now - timedelta(hours=1)).isoformat(),
        "closes_at": (now + timedelta(hours=1)).isoformat(),
        "hold_seconds": 3600,
        "max_hold_seconds": 3600,
        "items": [{"sku": "a", "quantity": quantity}],
    }
    headers = {"Authorization": f"Bearer {stage.variables['HOLDFAST_ADMIN_KEY']}"}
    httpx.put(f"{stage.url}/v1/admin/sales/{sale}", json=body, headers=headers, timeout=10).raise_for_status()


async def _held_in_postgres(database: str, sale: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        return int(await connection.fetchval(GIVEN, sale))
    finally:
        await connection.close()


def lag(stage: Stage) -> float:
    """Journal entries that are not in Postgres."""
    checks = Admin(stage.url, "").call("GET", "/readyz")["checks"]
    return float(checks["drain:lag"][0]["observedValue"])


def wait_for_drain(stage: Stage) -> float:
    """Seconds until the worker has caught up."""
    started = time.perf_counter()
    while lag(stage) > 0:
        if time.perf_counter() - started > CATCH_UP_SECONDS:
            raise ConfigurationError(
                f"the drain did not catch up within {CATCH_UP_SECONDS:.0f} s: try again on an idle "
                f"machine, or with fewer --seconds. The ends of the logs:\n{stage.last_words()}"
            )
        time.sleep(0.02)
    return time.perf_counter() - started
