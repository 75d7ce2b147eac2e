"""What a hold costs over HTTP, by connections and by API processes."""

import asyncio
import itertools
import sys
import time
from dataclasses import dataclass
from functools import partial

import httpx
from redis import Redis
from rich.console import Console

from app.demo.stage import Stage, running_stage, without_settings
from app.embedded.ports import free_port
from app.embedded.supervisor import Service
from loadtests.bench.field import create_sale
from loadtests.bench.processes import cpu_seconds
from loadtests.generator import drive

CONNECTIONS = (1, 8, 64, 256, 512)
PROCESSES = (1, 2, 4)
PROCESS_CONNECTIONS = 256
_READY_SECONDS = 60.0
_CATCH_UP_SECONDS = 60.0
_SALE = "growth"
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class HttpCost:
    """`api`, `redis`: microseconds of CPU per hold; `batch`: holds that shared a call of the script."""

    rate: float
    p50_ms: float
    p99_ms: float
    api: float
    redis: float
    batch: float


class _Run:
    def __init__(self, stage: Stage, seconds: float) -> None:
        self._stage = stage
        self._seconds = seconds
        self._redis = Redis.from_url(stage.servers.redis_url)
        self._numbers = itertools.count()

    def _request(self, _number: int) -> bytes:
        number = next(self._numbers)
        body = f'{{"customer_id":"c{number:09}","items":[{{"sku":"a","quantity":1}}]}}'
        return (
            f"POST /v1/sales/{_SALE}/reservations HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self._stage.variables['HOLDFAST_STOREFRONT_KEY']}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: key-{number:09}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def measure(self, url: str, service: str, connections: int) -> HttpCost:
        supervisor = self._stage.servers.supervisor
        pids = [supervisor.pid(service), supervisor.pid("redis")]
        cpu, calls = [cpu_seconds(pid) for pid in pids], self._calls()
        result = asyncio.run(drive(url, self._request, connections=connections, seconds=self._seconds))
        calls = self._calls() - calls
        api, redis = (
            (cpu_seconds(pid) - before) / result.answers * _MICROSECONDS
            for pid, before in zip(pids, cpu, strict=True)
        )
        if set(result.statuses) != {201}:
            raise SystemExit(f"not every request was given a hold: {dict(result.statuses)}")
        self._catch_up()
        return HttpCost(
            result.answers / result.seconds, result.latency_ms(0.5), result.latency_ms(0.99), api, redis,
            result.answers / max(calls, 1),
        )  # fmt: skip

    def _calls(self) -> int:
        return int(self._redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def _catch_up(self) -> None:
        """Until the drain has written all of it: it is no part of the next round."""
        until = time.monotonic() + _CATCH_UP_SECONDS
        while time.monotonic() < until:
            checks = httpx.get(f"{self._stage.url}/readyz", timeout=10).json()["checks"]
            if not float(checks["drain:lag"][0]["observedValue"]):
                return
            time.sleep(0.05)
        raise SystemExit("the drain did not catch up")


def _serve(stage: Stage, workers: int) -> tuple[str, str]:
    """URL and service of that many API processes on one port."""
    name, port = f"serve-{workers}", free_port("127.0.0.1", 0)
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--port", str(port), "--workers", str(workers)]
    stage.servers.supervisor.start(
        Service(
            name=name,
            command=command,
            environment=without_settings() | stage.variables,
            log=stage.servers.workspace.log(name),
        )
    )
    url = f"http://127.0.0.1:{port}"
    stage.servers.supervisor.wait_ready({name: partial(_is_ready, url)}, _READY_SECONDS)
    return url, name


def _is_ready(url: str, _pid: int) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.HTTPError:
        return False


def measure_http(
    seconds: float, quick: bool, console: Console
) -> tuple[dict[int, HttpCost], dict[int, HttpCost]]:
    """By connections to one process, and by processes."""
    by_connections, by_processes = {}, {}
    with running_stage(console) as stage:
        create_sale(stage, _SALE, 10**9)
        run = _Run(stage, seconds)
        for connections in CONNECTIONS[1:3] if quick else CONNECTIONS:
            cost = by_connections[connections] = run.measure(stage.url, "serve", connections)
            console.print(f"{connections} connections: {cost.rate:,.0f}/s, {cost.api:.0f} µs of the API")
        for processes in PROCESSES[:2] if quick else PROCESSES:
            url, service = (stage.url, "serve") if processes == 1 else _serve(stage, processes)
            cost = by_processes[processes] = run.measure(url, service, PROCESS_CONNECTIONS)
            console.print(f"{processes} processes: {cost.rate:,.0f}/s, {cost.api:.0f} µs of the API")
    return by_connections, by_processes
