"""Clients that are slow, silent, or too many."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx
import pytest

from app import http_protocol
from app.http_protocol import HttpProtocol
from app.lineage import Lineage
from app.settings import Settings
from tests.http.conftest import Api, serving
from tests.http.test_connections import (
    RESERVATIONS,
    TOKEN,
    connected,
    read_status,
    request,
    send_until_cut,
    statuses,
)


async def test_a_head_that_comes_byte_by_byte_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "UNFINISHED_SECONDS", 0.3)
    async with connected(api) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nX: ")
        sent, answer = await send_until_cut(reader, writer, b"y", pause=0.01)
    assert answer == b""
    assert sent < http_protocol.MAX_HEAD_BYTES


async def test_a_body_that_comes_byte_by_byte_is_cut_off(shop: Api) -> None:
    async with connected(shop) as (reader, writer):
        writer.write(request("POST", RESERVATIONS, TOKEN + "Content-Length: 9000\r\n"))
        _, answer = await send_until_cut(reader, writer, b" ", pause=0.01)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_reads_nothing_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 0.3)
    async with connected(api) as (_, writer), asyncio.timeout(10):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("GET", "/openapi.json") * 200)
        with contextlib.suppress(ConnectionResetError):
            while not writer.is_closing():
                writer.write(b"\r\n")  # else the end would not be noticed
                await writer.drain()
                await asyncio.sleep(0.02)


async def test_a_client_that_leaves_little_unread_is_cut_off_as_an_idle_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little for the server to stop writing."""
    made, lost, ended = HttpProtocol.connection_made, HttpProtocol.connection_lost, threading.Event()

    def with_small_buffer(self: HttpProtocol, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.timeout_keep_alive = 1
        made(self, transport)

    def noted(self: HttpProtocol, error: Exception | None) -> None:
        lost(self, error)
        ended.set()

    monkeypatch.setattr(HttpProtocol, "connection_made", with_small_buffer)
    monkeypatch.setattr(HttpProtocol, "connection_lost", noted)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", httpx.URL(api.url).port))
        client.sendall(request("GET", "/problems/") * 8)  # 44 KB
        assert await asyncio.to_thread(ended.wait, 5)


@asynccontextmanager
async def bounded(settings: Settings, connections: int) -> AsyncIterator[Api]:
    with serving(settings.model_copy(update={"max_connections": connections})) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield Api(url, client)


async def test_past_the_bound_the_connection_that_was_idle_for_longest_makes_room(
    settings: Settings, lineage: Lineage, pool: asyncpg.Pool
) -> None:
    async with bounded(settings, 3) as api, AsyncExitStack() as stack, asyncio.timeout(10):
        busy, oldest, newer = [await stack.enter_async_context(connected(api)) for _ in range(3)]
        for reader, writer in (oldest, newer):
            writer.write(request("GET", "/livez"))
            assert await read_status(reader) == 200
        busy[1].write(b"GET /livez HT")
        await busy[1].drain()
        assert await statuses(api) == [200]
        assert await oldest[0].read() == b""
        for reader, writer in (busy, newer):
            writer.write(b"TP/1.1\r\nHost: x\r\n\r\n" if writer is busy[1] else request("GET", "/livez"))
            assert await read_status(reader) == 200


async def test_where_none_is_idle_a_new_connection_is_refused(
    settings: Settings, lineage: Lineage, pool: asyncpg.Pool
) -> None:
    async with bounded(settings, 2) as api, AsyncExitStack() as stack, asyncio.timeout(10):
        for _ in range(2):
            _, writer = await stack.enter_async_context(connected(api))
            writer.write(b"GET /livez HT")
            await writer.drain()
        async with connected(api) as (reader, writer):
            writer.write(request("GET", "/livez"))
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
        assert b"connection: close" in answer
        assert b"retry-after: 1" in answer


async def test_a_thousand_idle_connections_are_in_nobodys_way(shop: Api) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(10):
            await asyncio.gather(*(stack.enter_async_context(connected(shop)) for _ in range(100)))
        assert (await shop.reserve()).status_code == 201
