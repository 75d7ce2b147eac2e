"""Plain requests take a shorter way through the server. Nobody may be able to tell."""

import asyncio
import json
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.http.gate import Gate
from app.http.plain import read_plain
from app.http_plain import PlainProtocol
from app.partition_calls import PartitionCalls
from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, cart
from tests.http.conftest import token as jwt
from tests.http.test_connections import connected, read_status, request

RESERVATIONS = "/v1/sales/sale/reservations"
TOKEN = f"Authorization: Bearer {STOREFRONT_KEY}\r\n"
BODY = json.dumps(cart()).encode()
PLAIN = request("POST", RESERVATIONS, TOKEN, BODY)
ORDINARY = "TE: trailers\r\n"
"""What sends a request the ordinary way and changes nothing."""


def test_a_plain_request_is_read_as_it_was_sent() -> None:
    plain = read_plain(request("POST", RESERVATIONS, TOKEN + "Idempotency-Key: k: 1\r\nX-A: b  c\r\n", BODY))
    assert plain is not None
    assert (plain.sale_id, plain.hold_id, plain.body) == ("sale", None, BODY)
    assert plain.headers[b"idempotency-key"] == b"k: 1"
    assert plain.headers[b"x-a"] == b"b  c"
    hold = f"{RESERVATIONS}/res_{'0' * 26}/confirm"
    confirmation = read_plain(request("POST", hold, TOKEN, b"{}"))
    assert confirmation is not None
    assert confirmation.hold_id == "0" * 26


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN * 2,
        PLAIN.replace(b" HTTP/1.1", b" HTTP/1.0"),
        PLAIN.replace(b"POST", b"post"),
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"Host: x", b"Host:x"),
        PLAIN.replace(b"Host: x", b"Host : x"),
        PLAIN.replace(b"Host: x", b"Host: x "),
        PLAIN.replace(b"Host: x", b"Host: x\r\n y"),
        PLAIN.replace(b"Host: x", b"Host: \xe9"),
        PLAIN.replace(b"Host: x", b"Host: a\rb"),
        PLAIN.replace(b"Host: x", b"Host: a\0b"),
        PLAIN.replace(b"Host: x", b"Connection: close"),
        PLAIN.replace(b"Host: x", b"Proxy-Connection: close"),
        PLAIN.replace(b"Host: x", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Host: x", b"Expect: 100-continue"),
        PLAIN.replace(b"Host: x", b"Upgrade: h2c"),
        PLAIN.replace(b"Host: x", b"Prefer: wait=1"),
        PLAIN.replace(b"Host: x", b"Content-Encoding: gzip"),
        PLAIN.replace(b"Host: x", b"Content-Length: 1"),
        PLAIN.replace(b"Host: x", b"authorization: Bearer other"),
        PLAIN.replace(b"Content-Length: ", b"Content-Length: 0"),
        PLAIN.replace(b"Content-Length: ", b"Content-Length: +"),
        PLAIN.replace(b"application/json", b"text/plain"),
        PLAIN.replace(b"/sale/", b"/sa%6ce/"),
        PLAIN.replace(b"/sale/", b"/sale/?"),
        PLAIN.replace(b"reservations", b"reservations?a=b"),
        request("POST", RESERVATIONS, TOKEN, b" " * 5000),
        request("POST", f"{RESERVATIONS}/res_{'u' * 26}/confirm", TOKEN, b"{}"),
    ],
)
def test_whatever_is_not_quite_plain_is_left_to_the_parser(data: bytes) -> None:
    assert read_plain(data) is None


async def exchange(api: Api, data: bytes) -> tuple[int, list[bytes], dict[str, Any]]:
    """Status, header lines and JSON of the answer, without what differs from one answer to the next."""
    async with connected(api) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int((re.search(rb"content-length: (\d+)", head) or [b"", b"0"])[1])
            body = json.loads(await reader.readexactly(length))
    status, *lines = head[:-4].split(b"\r\n")
    lines = [re.sub(rb"^(date|x-request-id|location): .*", rb"\1", line) for line in lines]
    for member in ("created_at", "expires_at", "id", "reservation_id", "confirmed_at", "persisted"):
        if member in body:
            body[member] = member
    return int(status.split(b" ")[1]), sorted(lines), body


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (TOKEN, BODY),
        (TOKEN + "Idempotency-Key: once\r\n", BODY),
        (TOKEN + "Connection: keep-alive\r\n", BODY),
        (TOKEN + "Origin: https://shop.example\r\n", BODY),
        (TOKEN + "Idempotency-Key: a b\r\n", BODY),
        (TOKEN, json.dumps(cart(a=2, b=1)).encode()),
        (TOKEN, json.dumps(cart('quote"\\', a=1)).encode()),
        (TOKEN, json.dumps(cart(a=99)).encode()),
        (TOKEN, json.dumps(cart(unknown=1)).encode()),
        (TOKEN, b'{"customer_id": 1, "items": []}'),
        (TOKEN, b"{"),
        ("", BODY),
        ("Authorization: Bearer wrong\r\n", BODY),
        (f"Authorization: Bearer {jwt('ada')}\r\n", BODY),
        (f"Authorization: Bearer {jwt('eve')}\r\n", BODY),
    ],
)
async def test_a_reservation_is_answered_the_same_both_ways(shop: Api, headers: str, body: bytes) -> None:
    path = RESERVATIONS
    plain, ordinary = (request("POST", path, headers + more, body) for more in ("", ORDINARY))
    assert read_plain(plain)
    assert not read_plain(ordinary)
    first = await exchange(shop, ordinary)
    second = await exchange(shop, plain)
    if "once" in headers:  # the second one is the first one's replay
        first = await exchange(shop, ordinary)
    assert second == first


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (TOKEN, b'{"payment_reference": "pay", "metadata": {"a": [1.0, "\\u00e9"]}}'),
        (TOKEN, b'{"payment_reference": "another"}'),
        (TOKEN, b'{"payment_reference": ""}'),
        (TOKEN, b"[]"),
        (TOKEN + "Origin: https://shop.example\r\n", b'{"payment_reference": "pay"}'),
        ("", b"{}"),
        (f"Authorization: Bearer {jwt('ada')}\r\n", b'{"payment_reference": "pay"}'),
        (f"Authorization: Bearer {jwt('ada', holdfast_confirm=True)}\r\n", b'{"payment_reference": "pay"}'),
    ],
)
async def test_a_confirmation_is_answered_the_same_both_ways(shop: Api, headers: str, body: bytes) -> None:
    hold = await shop.hold()
    assert (await shop.confirm(hold)).status_code == 202
    path = f"{RESERVATIONS}/{hold['id']}/confirm"
    plain, ordinary = (request("POST", path, headers + more, body) for more in ("", ORDINARY))
    assert read_plain(plain)
    await shop.confirm(hold, headers={"Prefer": "wait=5"})  # so that both find it persisted
    assert await exchange(shop, plain) == await exchange(shop, ordinary)


async def test_a_reservation_that_does_not_exist_is_not_confirmed_either_way(shop: Api) -> None:
    path = f"{RESERVATIONS}/res_{'0' * 26}/confirm"
    body = b'{"payment_reference": "pay"}'
    plain, ordinary = (request("POST", path, TOKEN + more, body) for more in ("", ORDINARY))
    answer = await exchange(shop, plain)
    assert answer[0] == 404
    assert answer == await exchange(shop, ordinary)


@dataclass
class HeldBack:
    """Batches wait until a second piece has come over the connection. `sent`: one waits; `heard`: it came."""

    sent: threading.Event = field(default_factory=threading.Event)
    heard: threading.Event = field(default_factory=threading.Event)
    pieces: list[bytes] = field(default_factory=list)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> HeldBack:
    seen = HeldBack()
    call, receive = PartitionCalls._call_batch, PlainProtocol.data_received

    async def slow(self: PartitionCalls, *arguments: Any) -> Any:
        seen.sent.set()
        await asyncio.to_thread(seen.heard.wait, 5)
        return await call(self, *arguments)

    def counted(self: PlainProtocol, data: bytes) -> None:
        receive(self, data)
        seen.pieces.append(data)
        if len(seen.pieces) == 2:
            seen.heard.set()

    monkeypatch.setattr(PartitionCalls, "_call_batch", slow)
    monkeypatch.setattr(PlainProtocol, "data_received", counted)
    return seen


async def test_a_request_behind_a_plain_one_is_answered_after_it(shop: Api, held_back: HeldBack) -> None:
    async with connected(shop) as (reader, writer):
        writer.write(PLAIN)
        assert await asyncio.to_thread(held_back.sent.wait, 5)
        writer.write(request("GET", "/livez"))
        assert [await read_status(reader), await read_status(reader)] == [201, 200]
    assert held_back.pieces[0] == PLAIN


async def test_an_admins_key_reserves_plainly(shop: Api) -> None:
    headers = f"Authorization: Bearer {ADMIN_KEY}\r\n"
    status, _, _ = await exchange(shop, request("POST", RESERVATIONS, headers, BODY))
    assert status == 201


async def test_what_follows_a_confirmation_that_redis_does_not_know_is_answered_after_it(
    shop: Api, held_back: HeldBack
) -> None:
    """Half of the next request is there while the first one is looked for in Postgres."""
    path = f"{RESERVATIONS}/res_{'0' * 26}/confirm"
    async with connected(shop) as (reader, writer):
        writer.write(request("POST", path, TOKEN, b'{"payment_reference": "pay"}'))
        assert await asyncio.to_thread(held_back.sent.wait, 5)
        writer.write(b"GET /livez HTTP/1.1\r\nX-Foo: ")
        assert await asyncio.to_thread(held_back.heard.wait, 5)
        assert await read_status(reader) == 404
        writer.write(b"x\r\n\r\n")
        assert await read_status(reader) == 200


async def test_what_nobody_foresaw_is_an_unknown_outcome_and_takes_no_place_for_ever(
    shop: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    ends: list[bool] = []
    end = Gate.end_plain

    def counted(self: Gate, is_hold: bool) -> None:
        ends.append(is_hold)
        end(self, is_hold)

    monkeypatch.setattr(Gate, "end_plain", counted)
    with monkeypatch.context() as patched:
        patched.setattr("app.http.hotpath.answer_of", broken)
        status, _, problem = await exchange(shop, PLAIN)
    assert (status, problem["code"]) == (503, "outcome_unknown")
    assert ends == [True]
    assert (await exchange(shop, PLAIN))[0] == 201
