"""What a reservation costs, against an empty FastAPI endpoint with the same body, in one run.

Both are served by one uvicorn process on uvloop and httptools, and asked in turn, round by round, over as
many connections by the same generator. The figure to compare is CPU per request: it depends less on how busy
the rest of the machine is than throughput does.
"""

import argparse
import asyncio
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from app.demo.stage import Stage, running_stage
from app.embedded.installation import settings_from
from app.ids import random_hold_id, request_digest
from app.inventory import Inventory
from app.keys import Keys
from app.models import Item
from app.reserving import Reserved, ReserveRequest
from app.scripts import connect
from app.settings import Settings
from loadtests.generator import Result, drive

PATH = "/v1/sales/{sale}/reservations"
SERVICES = ("serve", "redis", "worker", "postgres")
MICROSECONDS = 1_000_000
CATCH_UP_SECONDS = 60
WAVE_SECONDS = 0.01


class Requests:
    """Reservation requests as bytes, each by another customer and with a key of its own."""

    def __init__(self, sale: str, token: str) -> None:
        self._head = (
            f"POST {PATH.format(sale=sale)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._numbers = itertools.count()

    def __call__(self, _number: int) -> bytes:
        number = next(self._numbers)
        body = f'{{"customer_id":"c{number:09}","items":[{{"sku":"a","quantity":1}}]}}'
        return (
            f"{self._head}Idempotency-Key: key-{number:09}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family if member.is_running())


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


@contextmanager
def empty_endpoint() -> Iterator[tuple[str, int]]:
    """URL and pid of the rival."""
    command = [
        sys.executable, "-m", "uvicorn", "loadtests.empty_endpoint:app", "--port", "8299", "--no-access-log",
        "--loop", "uvloop", "--http", "httptools", "--log-level", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    url = "http://127.0.0.1:8299"
    try:
        for _ in range(100):
            try:
                httpx.get(url)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(10)


class Bench:
    def __init__(self, stage: Stage, connections: int, seconds: float) -> None:
        self.stage = stage
        self.connections = connections
        self.seconds = seconds
        self.token = stage.variables["HOLDFAST_STOREFRONT_KEY"]

    def pids(self) -> dict[str, int]:
        supervisor = self.stage.servers.supervisor
        return {name: supervisor.pid(name) or 0 for name in SERVICES}

    def measure(
        self,
        url: str,
        requests: Requests,
        pids: dict[str, int],
        rate: float | None = None,
        seconds: float = 0,
    ) -> tuple[Result, dict[str, float]]:
        """The answers, and the CPU that each process spent on one of them, in microseconds."""
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        result = asyncio.run(drive(url, requests, connections=self.connections, seconds=self.seconds))
        self.wait_for_drain()
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        return result, {name: value / result.answers * MICROSECONDS for name, value in spent.items()}

    def lag(self) -> float:
        """Journal entries that are not in Postgres."""
        checks = httpx.get(f"{self.stage.url}/readyz", timeout=10).json()["checks"]
        return float(checks["drain:lag"][0]["observedValue"])

    def wait_for_drain(self) -> float:
        """Seconds until the worker has caught up."""
        started = time.perf_counter()
        while self.lag() > 0:
            if time.perf_counter() - started > CATCH_UP_SECONDS:
                raise SystemExit(f"the drain did not catch up within {CATCH_UP_SECONDS} s")
            time.sleep(0.05)
        return time.perf_counter() - started


def compare(bench: Bench, rounds: int, console: Console) -> None:
    """Accepted holds, refusals after the sell-out, and the empty endpoint, in turn."""
    rows: dict[str, list[tuple[Result, dict[str, float]]]] = {"empty": [], "hold": [], "sold out": []}
    create_sale(bench.stage, "gone", 0)
    with empty_endpoint() as (empty_url, empty_pid):
        for number in range(rounds):
            create_sale(bench.stage, f"bench-{number}", 10**9)
            for name, url, sale, pids in (
                ("empty", empty_url, "bench", {"serve": empty_pid}),
                ("hold", bench.stage.url, f"bench-{number}", bench.pids()),
                ("sold out", bench.stage.url, "gone", bench.pids()),
            ):
                rows[name].append(bench.measure(url, Requests(sale, bench.token), pids))
                console.print(f"round {number + 1}/{rounds}: {name}: {dict(rows[name][-1][0].statuses)}")
    table = Table(
        "request", "answers/s", "p50 ms", "p99 ms", *(f"{name} µs" for name in SERVICES), "API CPU ÷ empty"
    )
    base = statistics.median(cost["serve"] for _, cost in rows["empty"])
    for name, measured in rows.items():
        costs = {
            service: statistics.median(cost.get(service, 0.0) for _, cost in measured) for service in SERVICES
        }
        table.add_row(
            name,
            f"{statistics.median(result.answers / result.seconds for result, _ in measured):,.0f}",
            f"{statistics.median(result.latency_ms(0.5) for result, _ in measured):.1f}",
            f"{statistics.median(result.latency_ms(0.99) for result, _ in measured):.1f}",
            *(f"{costs[service]:.0f}" if costs[service] else "-" for service in SERVICES),
            f"{costs['serve'] / base:.2f}",
        )
    console.print(table)


async def accept(settings: Settings, rate: float, seconds: float) -> tuple[int, float]:
    """Holds by the reserve script at a constant rate, without HTTP before it; how many, and in how long."""
    redis = connect(settings)
    inventory = Inventory(redis, Keys(settings.namespace, settings.partitions), settings)
    items = (Item("a", 1),)

    async def reserve(number: int) -> bool:
        hold_id = random_hold_id()
        request = ReserveRequest("steady", hold_id, "", f"c{number:09}", request_digest(hold_id), items)
        return isinstance(await inventory.reserve(request), Reserved)

    started = time.perf_counter()
    waves: list[asyncio.Task[list[bool]]] = []
    sent = 0
    while (elapsed := time.perf_counter() - started) < seconds:
        due = int(elapsed * rate)
        waves.append(asyncio.ensure_future(asyncio.gather(*(reserve(number) for number in range(sent, due)))))
        sent = due
        await asyncio.sleep(WAVE_SECONDS)
    accepted = sum([sum(await wave) for wave in waves])
    took = time.perf_counter() - started
    await redis.aclose()
    return accepted, took


def keep_up(bench: Bench, rate: float, seconds: float, console: Console) -> None:
    """Does the drain keep up with holds that are accepted at a constant rate?"""
    create_sale(bench.stage, "steady", 10**9)
    settings = settings_from(bench.stage.variables)
    pids = bench.pids()
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    accepted, took = asyncio.run(accept(settings, rate, seconds))
    lag = bench.lag()
    behind = bench.wait_for_drain()
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    memory = psutil.Process(pids["serve"]).memory_info().rss / 2**20
    table = Table(
        "offered/s", "accepted/s", "entries behind at the end", "caught up after",
        *(f"{name} µs" for name in SERVICES[1:]), "API memory",
    )  # fmt: skip
    table.add_row(
        f"{rate:,.0f}", f"{accepted / took:,.0f}", f"{lag:,.0f}", f"{behind:.2f} s",
        *(f"{spent[name] / accepted * MICROSECONDS:.0f}" for name in SERVICES[1:]), f"{memory:.0f} MiB",
    )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmark",
        description=__doc__,
        epilog="example: python -m loadtests.benchmark --rounds 5 --seconds 5",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each contender, in turn (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="per round (default: 4)")
    parser.add_argument("--connections", type=int, default=64, help="default: 64")
    parser.add_argument("--rate", type=float, default=5000.0, help="holds per second to keep up with")
    parser.add_argument("--steady-seconds", type=float, default=15.0, help="of that rate (default: 15)")
    arguments = parser.parse_args()
    uvloop.install()
    console = Console(width=110)
    console.print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}, "
        f"{arguments.connections} connections, Redis appendfsync always, Postgres fsync on"
    )
    with running_stage(console) as stage:
        bench = Bench(stage, arguments.connections, arguments.seconds)
        compare(bench, arguments.rounds, console)
        keep_up(bench, arguments.rate, arguments.steady_seconds, console)


if __name__ == "__main__":
    main()
