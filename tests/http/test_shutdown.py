"""`holdfast serve` is told to stop, or to replace its processes, while requests come: none is lost."""

import asyncio
import os
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
from app.http_listener import refuse_new
from app.http_protocol import HttpProtocol
from app.lineage import Lineage
from app.migrate import upgrade
from app.settings import Settings
from app.workers.runner import STOP_SECONDS
from tests.conftest import ID_SECRET
from tests.http.conftest import Api
from tests.http.crowd import Shopper, read, reservation, shoppers
from tests.http.test_connections import connected, read_status, request
from tests.http.test_contention import environment

STOCK = 100_000


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
        with shoppers(serving.port, 6) as crowd:
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
        with shoppers(serving.port, 6) as crowd:
            serving.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(wait_until_replaced, serving, before)
            assert [shopper.turned_away for shopper in crowd] == [0] * len(crowd)
            serving.process.terminate()
            await asyncio.to_thread(serving.process.wait, 20)
    await assert_nothing_was_lost(pool, crowd)


async def test_a_process_that_is_stopped_alone_turns_nobody_away_from_the_others(
    opened: Settings, pool: asyncpg.Pool
) -> None:
    with serve(opened, 2, grace=0.1) as serving:
        await open_sale(serving)
        alone = psutil.Process(serving.workers().pop())
        with shoppers(serving.port, 6) as crowd:
            alone.terminate()
            await asyncio.to_thread(alone.wait, 20)
            assert [shopper.turned_away for shopper in crowd] == [0] * len(crowd)
        with socket.create_connection(("127.0.0.1", serving.port), timeout=5) as late:
            late.sendall(reservation("shopper0-1", "shopper0-1"))
            assert (await asyncio.to_thread(read, late))[0] == 201
    await assert_nothing_was_lost(pool, crowd)


async def test_processes_that_hear_it_before_their_supervisor_leave_the_port_open(
    opened: Settings, pool: asyncpg.Pool
) -> None:
    """As with Ctrl-C, which reaches them all at once, on a machine that is busy."""
    with serve(opened, 2, grace=0.1) as serving:
        await open_sale(serving)
        processes = [psutil.Process(each) for each in serving.workers()]
        with shoppers(serving.port, 6) as crowd:
            serving.process.send_signal(signal.SIGSTOP)
            for process in processes:
                process.send_signal(signal.SIGINT)
            ended, _ = await asyncio.to_thread(psutil.wait_procs, processes, 1.0)
            serving.process.send_signal(signal.SIGINT)
            serving.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(serving.process.wait, 20)
    assert not ended
    await assert_nothing_was_lost(pool, crowd)


async def test_whom_a_closing_port_has_let_in_is_heard(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that ends after the port began to refuse others: the connection has what the port has."""
    made, accepted = HttpProtocol.connection_made, threading.Event()

    def made_at_a_closing_port(self: HttpProtocol, transport: asyncio.BaseTransport) -> None:
        refuse_new([transport.get_extra_info("socket")])
        self._gate.closing.set()
        made(self, transport)
        accepted.set()

    monkeypatch.setattr(HttpProtocol, "connection_made", made_at_a_closing_port)
    async with connected(api) as (reader, writer):
        assert await asyncio.to_thread(accepted.wait, 5)
        writer.write(request("GET", "/livez"))
        assert await read_status(reader) == 200


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
        assert (await asyncio.to_thread(read, late))[0] == 201
        assert (await asyncio.to_thread(read, idle))[0] == 201
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
