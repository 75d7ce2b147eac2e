"""`holdfast serve` is told to stop, or to replace its processes, while requests come: none is lost."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import asyncpg
import httpx
import psutil
import pytest

from app.embedded.servers import EmbeddedServers
from app.lineage import Lineage
from app.migrate import upgrade
from app.settings import Settings
from app.workers.runner import STOP_SECONDS
from tests.conftest import ID_SECRET
from tests.http.conftest import STOREFRONT_KEY, Api
from tests.http.test_contention import environment

STOCK = 100_000
RESERVATIONS = "/v1/sales/sale/reservations"


@dataclass
class Serving:
    """A running `holdfast serve`."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> set[int]:
        """The ids of its processes that serve."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it has just been replaced
                if "spawn_main" in " ".join(child.cmdline()):
                    found.add(child.pid)
        return found


@contextmanager
def serve(settings: Settings, workers: int, grace: float) -> Iterator[Serving]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--workers", str(workers)]
    variables = environment(settings) | {"HOLDFAST_SHUTDOWN_GRACE_SECONDS": str(grace)}
    serving = Serving(subprocess.Popen(command, env=variables), port)
    try:
        until = time.monotonic() + 60
        while not is_ready(serving):
            assert serving.process.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
        yield serving
    finally:
        serving.process.terminate()
        serving.process.wait(30)


def wait_until_replaced(serving: Serving, before: set[int]) -> None:
    until = time.monotonic() + 60
    while serving.workers() & before or len(serving.workers()) != len(before):
        assert time.monotonic() < until, "the processes are the same as before"
        time.sleep(0.1)


def is_ready(serving: Serving) -> bool:
    try:
        return httpx.get(f"{serving.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
async def opened(settings: Settings, lineage: Lineage, pool: asyncpg.Pool, drain: None) -> Settings:
    return settings


async def open_sale(serving: Serving) -> None:
    async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        await Api(serving.url, client).sale(a=STOCK)


def reservation(customer: str, key: str | None) -> bytes:
    body = f'{{"customer_id":"{customer}","items":[{{"sku":"a","quantity":1}}]}}'
    named = f"Idempotency-Key: {key}\r\n" if key else ""
    return (
        f"POST {RESERVATIONS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {STOREFRONT_KEY}\r\n{named}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Shopper(threading.Thread):
    """Asks for one unit after the other, now and then pausing on its kept connection."""

    def __init__(self, port: int, name: str, keyed: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._customer = name
        self._keyed = keyed
        self._end = threading.Event()
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []
        """Requests that were sent and not answered."""
        self.turned_away = 0
        """Connections that were refused, before anything was sent."""

    def end(self) -> None:
        self._end.set()
        self.join(20)

    def run(self) -> None:
        number = 0
        while not self._end.is_set():
            if (connection := self._connect()) is None:
                continue
            with connection:
                closes = False
                while not (closes or self._end.is_set() or _was_closed(connection)):
                    number += 1
                    closes = self._ask(connection, f"{self._customer}-{number}")
                    self._end.wait(0.002 * (number % 5))

    def _ask(self, connection: socket.socket, name: str) -> bool:
        """One reservation; does the connection end with it?"""
        try:
            connection.sendall(reservation(name, name if self._keyed else None))
            status, closes = _read(connection)
        except (OSError, EOFError) as error:
            self.faults.append(repr(error))
            return True
        self.answers[status] += 1
        return closes

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self._port), timeout=20)
        except ConnectionRefusedError:
            self.turned_away += 1
            self._end.wait(0.01)
            return None


def _was_closed(connection: socket.socket) -> bool:
    """What every client looks at before it uses a kept connection again."""
    return bool(select.select([connection], [], [], 0)[0])


def _read(connection: socket.socket) -> tuple[int, bool]:
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (piece := connection.recv(65536)):
            raise EOFError(answer)
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head[9:12]), b"connection: close" in head


@contextmanager
def shoppers(serving: Serving, count: int) -> Iterator[list[Shopper]]:
    crowd = [Shopper(serving.port, f"shopper{n}", keyed=n % 2 == 0) for n in range(count)]
    for shopper in crowd:
        shopper.start()
    try:
        while any(sum(shopper.answers.values()) < 5 for shopper in crowd):
            time.sleep(0.01)
        yield crowd
    finally:
        for shopper in crowd:
            shopper.end()


async def drained(pool: asyncpg.Pool, at_least: int) -> int:
    """The reservations in Postgres, once there are as many as were answered."""
    async with asyncio.timeout(20):
        while (found := await pool.fetchval("SELECT count(*) FROM reservations")) < at_least:
            pass
    return int(found)


async def assert_nothing_was_lost(pool: asyncpg.Pool, crowd: list[Shopper]) -> None:
    assert [shopper.faults for shopper in crowd] == [[]] * len(crowd)
    answers = sum((shopper.answers for shopper in crowd), Counter())
    assert answers.keys() == {201}
    assert await drained(pool, answers[201]) == answers[201]


async def test_a_stop_leaves_no_request_without_an_answer(opened: Settings, pool: asyncpg.Pool) -> None:
    with serve(opened, 1, grace=0.3) as serving:
        await open_sale(serving)
        with shoppers(serving, 6) as crowd:
            serving.process.terminate()
            await asyncio.to_thread(serving.process.wait, 20)
    await assert_nothing_was_lost(pool, crowd)


async def test_a_rolling_restart_turns_nobody_away_and_a_stop_of_all_loses_nothing(
    opened: Settings, pool: asyncpg.Pool
) -> None:
    with serve(opened, 2, grace=0.1) as serving:
        await open_sale(serving)
        before = serving.workers()
        assert len(before) == 2
        with shoppers(serving, 6) as crowd:
            serving.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(wait_until_replaced, serving, before)
            assert [shopper.turned_away for shopper in crowd] == [0] * len(crowd)
            serving.process.terminate()
            await asyncio.to_thread(serving.process.wait, 20)
    await assert_nothing_was_lost(pool, crowd)


async def test_processes_that_hear_it_before_their_supervisor_leave_the_port_open(
    opened: Settings, pool: asyncpg.Pool
) -> None:
    """As with Ctrl-C, which reaches them all at once, on a machine that is busy."""
    with serve(opened, 2, grace=0.1) as serving:
        await open_sale(serving)
        processes = [psutil.Process(each) for each in serving.workers()]
        with shoppers(serving, 6) as crowd:
            serving.process.send_signal(signal.SIGSTOP)
            for process in processes:
                process.send_signal(signal.SIGINT)
            ended, _ = await asyncio.to_thread(psutil.wait_procs, processes, 1.0)
            serving.process.send_signal(signal.SIGINT)
            serving.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(serving.process.wait, 20)
    assert not ended
    await assert_nothing_was_lost(pool, crowd)


async def test_who_waits_and_who_has_only_connected_is_answered_too(
    settings: Settings, lineage: Lineage, pool: asyncpg.Pool
) -> None:
    """Nothing is drained here, so who asked to wait for that would wait for long."""
    with serve(settings, 1, grace=1.0) as serving, socket.socket() as idle, socket.socket() as late:
        await open_sale(serving)
        idle.connect(("127.0.0.1", serving.port))
        async with httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
            api = Api(serving.url, client)
            hold = await api.hold(a=1)
            waiting = asyncio.create_task(api.confirm(hold, headers={"Prefer": "wait=10"}))
            ready = asyncio.create_task(api.call("GET", "/readyz", by=None))
            assert (await ready).status_code == 200
            os.kill(serving.process.pid, signal.SIGSTOP)
            late.connect(("127.0.0.1", serving.port))
            late.sendall(reservation("late", None))
            serving.process.terminate()
            os.kill(serving.process.pid, signal.SIGCONT)
            assert (await waiting).status_code == 202
            assert waiting.result().headers["connection"] == "close"
            leaving = await api.call("GET", "/readyz", by=None)
            assert (leaving.status_code, leaving.json()["checks"]["process"][0]["status"]) == (503, "fail")
            assert leaving.headers["connection"] == "close"
        for connection in (idle, late):
            connection.settimeout(10)
        idle.sendall(reservation("idle", None) * 2)
        assert (await asyncio.to_thread(_read, late))[0] == 201
        assert (await asyncio.to_thread(_read, idle))[0] == 201
        assert (await asyncio.to_thread(serving.process.wait, 20)) in (0, -signal.SIGTERM)


def postgres_processes(servers: EmbeddedServers) -> list[psutil.Process]:
    postmaster = psutil.Process(servers.supervisor.pid("postgres"))
    return [postmaster, *postmaster.children()]


def test_a_postgres_that_hangs_keeps_no_process_that_should_stop(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with EmbeddedServers(tmp_path_factory.mktemp("hung"), fsync=False) as servers:
        settings = Settings(
            redis_url=servers.redis_url, database_url=servers.database_url, id_secret=ID_SECRET, partitions=2
        )  # fmt: skip
        upgrade(settings)
        worker = subprocess.Popen([sys.executable, "-m", "app.cli", "worker"], env=environment(settings))
        with serve(settings, 1, grace=0) as serving:
            hung = postgres_processes(servers)
            for each in hung:
                each.suspend()
            try:
                worker.terminate()
                serving.process.terminate()
                assert worker.wait(STOP_SECONDS + 5) is not None
                assert serving.process.wait(10) is not None
            finally:
                for each in hung:
                    each.resume()
                worker.kill()
