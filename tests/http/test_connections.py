"""What comes over a connection, byte by byte: odd heads, bodies that nobody reads, and clients that stop."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from app import http_protocol
from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, cart

RESERVATIONS = "/v1/sales/sale/reservations"
TOKEN = f"Authorization: Bearer {STOREFRONT_KEY}\r\n"
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
BODY = json.dumps(cart()).encode()


def request(method: str, path: str, headers: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n".encode() + body


@asynccontextmanager
async def connected(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_status(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is read whole."""
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split(b" ")[1])


async def statuses(api: Api, *pieces: bytes, pause: float = 0) -> list[int]:
    """Of the answers to these bytes and to a GET behind them, on one connection."""
    async with connected(api) as (reader, writer):
        for piece in (*pieces, request("GET", "/livez", "Connection: close\r\n")):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        found = []
        while not reader.at_eof():
            with contextlib.suppress(asyncio.IncompleteReadError):
                found.append(await read_status(reader))
        return found


IN_CHUNKS = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
CHUNKED = request("POST", RESERVATIONS, TOKEN + H2C + IN_CHUNKS)
RESERVE = request("POST", RESERVATIONS, TOKEN + H2C, BODY)


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([RESERVE], [201]),
        ([RESERVE * 3], [201] * 3),
        ([RESERVE[:-9], RESERVE[-9:]], [201]),
        ([RESERVE[:30], RESERVE[30:]], [201]),
        ([CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)], [201]),
        ([CHUNKED, b"%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(BODY), BODY)], [201]),
        ([request("POST", RESERVATIONS, TOKEN + H2C, request("GET", "/docs"))], [400]),
        ([request("GET", "/v1/sales/sale", TOKEN + WEBSOCKET)], [200]),
        ([request("GET", "/v1/sales/sale", TOKEN + "Upgrade: h2c\r\n")], [200]),
    ],
)  # fmt: skip
async def test_an_upgrade_is_ignored_and_the_body_kept(
    shop: Api, pieces: list[bytes], answers: list[int]
) -> None:
    assert await statuses(shop, *pieces, pause=0.05) == [*answers, 200]


@pytest.mark.parametrize("request_line", [b"CONNECT x:80 HTTP/1.1", b"PRI * HTTP/2.0", b"nonsense"])
async def test_what_is_no_request_gets_the_plain_400(api: Api, request_line: bytes) -> None:
    assert await statuses(api, request_line + b"\r\nHost: x:80\r\n\r\n") == [400]


async def test_a_length_of_any_length_is_read(shop: Api) -> None:
    head = request("POST", RESERVATIONS, TOKEN + "Content-Type: application/json\r\n")[:-2]
    for length, status in ((f"{len(BODY):0>5000}", 201), (f"{20_000:0>5000}", 413)):
        async with connected(shop) as (reader, writer):
            writer.write(head + f"Content-Length: {length}\r\n\r\n".encode() + BODY)
            assert await read_status(reader) == status


async def test_blanks_around_a_value_are_not_part_of_it(shop: Api) -> None:
    async with connected(shop) as (reader, writer):
        for key in ("Idempotency-Key: k \t\r\n", "Idempotency-Key: \t k\r\n"):
            head = request("POST", RESERVATIONS, TOKEN + key)[:-2]
            length = b"Content-Length: %d\r\n" % len(BODY)
            writer.write(head + length + b"Content-Type: application/json \t\r\n\r\n" + BODY)
            assert await read_status(reader) == 201
    assert (await shop.admin("GET", "/sale/stock")).json()["items"][0]["held"] == 1


async def send_until_cut(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes, pause: float = 0
) -> tuple[int, bytes]:
    """Sends `piece` until the server has ended the connection; how many bytes went out, and its answer."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(pause)

    sending = asyncio.create_task(send())
    answer = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            answer = await reader.read()
    sending.cancel()
    return sent, answer


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: ", b"\r\n", b"GET /"])
async def test_a_head_has_a_bound(api: Api, start: bytes) -> None:
    piece = {b"\r\n": b"X: y\r\n" * 2000, b"\r\n\r\n": b"\r\n"}.get(start[-2:], b"x" * 10_000)
    piece = b"\r\n" * 5000 if start == b"\r\n" else piece
    async with connected(api) as (reader, writer):
        writer.write(start)
        sent, answer = await send_until_cut(reader, writer, piece)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert sent < 20_000_000


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), (TOKEN, 413), (TOKEN + 'Idempotency-Key: "\r\n', 400)]
)
async def test_a_body_without_end_is_cut_after_its_answer(shop: Api, token: str, status: int) -> None:
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    async with connected(shop) as (reader, writer):
        writer.write(request("POST", RESERVATIONS, token + "Transfer-Encoding: chunked\r\n"))
        _, answer = await send_until_cut(reader, writer, chunk)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"connection: close" in answer) == (status == 413)


async def test_a_small_body_that_nobody_reads_costs_no_connection(shop: Api) -> None:
    refused = request("POST", RESERVATIONS, "", b"x" * 30_000)
    assert await statuses(shop, refused, refused, refused, pause=0.05) == [401, 401, 401, 200]


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"GET /livez HT", request("GET", "/livez") + b"GET ", request("GET", "/livez") + b"\r\n",
        request("POST", RESERVATIONS, "Content-Length: 100\r\n") + b"x",
    ],
)  # fmt: skip
async def test_a_client_that_stops_halfway_is_cut_off(
    api: Api, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "UNFINISHED_SECONDS", 0.3)
    async with connected(api) as (reader, writer), asyncio.timeout(5):
        writer.write(sent[:-1])
        await asyncio.sleep(0.1)
        writer.write(sent[-1:])
        await reader.read()


async def test_an_idle_connection_is_left_alone(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "UNFINISHED_SECONDS", 0.1)
    async with connected(shop) as (reader, writer):
        for _ in range(2):
            writer.write(request("GET", "/livez"))
            assert await read_status(reader) == 200
            await asyncio.sleep(0.3)


async def test_half_a_head_does_not_cut_the_answer_before_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> tuple[bool, dict[str, object]]:
        await asyncio.sleep(0.4)
        return True, {}

    monkeypatch.setattr(http_protocol, "UNFINISHED_SECONDS", 0.1)
    monkeypatch.setattr("app.http.health.check", slow)
    async with connected(api) as (reader, writer), asyncio.timeout(5):
        writer.write(request("GET", "/readyz") + b"GET ")
        assert await read_status(reader) == 200
        assert await reader.read() == b""


GARBAGE = b"\0\r\n\r\n"
BROKEN_BODY = "Transfer-Encoding: chunked\r\n"


async def heard(api: Api, *pieces: bytes) -> list[int]:
    """The statuses of all answers to these bytes, up to the end of the connection."""
    async with connected(api) as (reader, writer), asyncio.timeout(5):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)
        answers = await reader.read()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize(
    "garbage",
    [
        GARBAGE,
        request("POST", RESERVATIONS, TOKEN + BROKEN_BODY) + GARBAGE,
        request("GET", "http://[::1/"),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40_000,
    ],
    ids=["no request", "a broken body", "no target", "a head without end"],
)
async def test_garbage_takes_the_answer_from_no_request_before_it(shop: Api, garbage: bytes) -> None:
    """A buyer who is told 400 would not know of the hold."""
    whole = request("POST", RESERVATIONS, TOKEN, BODY)
    assert await heard(shop, whole * 2 + garbage) == [201, 201, 400]
    assert (await shop.admin("GET", "/sale/stock")).json()["items"][0]["held"] == 2


async def test_nothing_behind_garbage_is_a_request(shop: Api) -> None:
    whole = request("POST", RESERVATIONS, TOKEN, BODY)
    assert await heard(shop, whole + GARBAGE, whole) == [201, 400]


async def test_a_broken_body_behind_its_answer_gets_no_second_one(shop: Api) -> None:
    refused = request("POST", RESERVATIONS, BROKEN_BODY)
    assert await heard(shop, refused, GARBAGE) == [401]


async def test_a_request_whose_body_breaks_has_changed_nothing(shop: Api) -> None:
    hold = await shop.hold("ada", a=1)
    by_admin = TOKEN.replace(STOREFRONT_KEY, ADMIN_KEY) + BROKEN_BODY
    for sent in (
        request("DELETE", f"{RESERVATIONS}/{hold['id']}", by_admin),
        *(request("POST", f"/v1/admin/sales/sale/{verb}", by_admin) for verb in ("pause", "resume", "close")),
    ):
        assert await heard(shop, sent + GARBAGE) == [400]
    assert (await shop.admin("GET", "/sale")).json()["state"] == "open"
    assert (await shop.admin("GET", "/sale/stock")).json()["items"][0]["held"] == 1


async def test_bytes_behind_the_last_request_do_not_cut_its_answer(api: Api) -> None:
    """They come when the server has closed: a reset would take what the client has not read yet."""
    address = urlsplit(api.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.hostname, address.port))
        await loop.sock_sendall(client, b"GET /openapi.json HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = await loop.sock_recv(client, 1000)
        async with asyncio.timeout(5):
            for _ in range(3):
                await loop.sock_sendall(client, b"more bytes")
                await asyncio.sleep(0.05)
            while piece := await loop.sock_recv(client, 1000):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    assert len(body) == int(length[1])
