"""uvicorn's HTTP protocol, with what it lacks for a server that faces strangers.

An answer's head and body go out in one system call instead of two: uvicorn hands them to the transport one by
one, and uvloop sends each at once; for small answers these calls are a fifth of all the CPU that a request
costs. An Upgrade is ignored without harm to the request that carries it. And a client can send nothing for
ever: neither a head, nor a body that nobody reads.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, or of what frames a body: many times what browsers and proxies send."""
MAX_DISCARDED_BYTES = 64 * 1024
"""Of a body that comes after its answer: below this, reading it is cheaper than a new connection."""
UNFINISHED_SECONDS = 10.0
"""For a head, or the rest of a body that nobody reads: as long as a body gets by default."""
_LINGER_SECONDS = 2.0
"""A client that is still sending has this long to read its answer: a close at once would reset the
connection, and the answer with it (RFC 9112, 9.6)."""


class _Gathering:
    """A transport that gathers what is written in one turn of the event loop.

    When it is closed while `is_unread()`, it lingers: the client sees the end of the answer, not a reset.
    """

    def __init__(self, transport: asyncio.Transport, is_unread: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_unread = is_unread
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._lingers = False

    def write(self, data: bytes) -> None:
        if self._lingers:
            return
        if not self._gathered:
            self._loop.call_soon(self._send)
        self._gathered.append(data)

    def close(self) -> None:
        self._send()
        if self.is_closing() or not self._is_unread() or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self._transport.close)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def _send(self) -> None:
        if self._gathered:
            data = b"".join(self._gathered)
            self._gathered.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    _in_body = False
    """Between a request's head and its end."""
    _broken = False
    _framing_bytes = 0
    """Received since the last thing that was whole: a head, a piece of a body, a message."""
    _discarded_bytes = 0
    _unfinished: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(_Gathering(transport, self._is_unread))  # type: ignore[arg-type]
        self._expect_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reached_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._framing_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse()
            return
        if self._framing_bytes > MAX_HEAD_BYTES:
            self._refuse()
        elif self._in_body and self.cycle.response_complete:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()
            self._expect_end()
        elif self._framing_bytes and not self._in_body:
            self._expect_end()

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("CONNECT") from None
                rest = rest[upgrade.args[0] :]
            self._feed_without_upgrade()

    def _feed_without_upgrade(self) -> None:
        """Parses the head once more. An Upgrade that is not made is ignored (RFC 9110, 7.8), but the parser
        would drop the body, or take it for another request."""
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [b"\r\n", name, b": ", value]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"".join(head) + b"\r\n\r\n")

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing_bytes += 1  # of a request that may have begun behind another one's end

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else a trailer: nothing here may come that late
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = True
        self._framing_bytes = self._discarded_bytes = 0
        self._reached_end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._framing_bytes = 0
        self._reached_end()
        super().on_message_complete()

    # Bounds

    def _is_unread(self) -> bool:
        return self._in_body or self._broken

    def _refuse(self) -> None:
        self._broken = True
        self.send_400_response("Invalid HTTP request received.")

    def _expect_end(self) -> None:
        if self._unfinished is None:
            self._unfinished = self.loop.call_later(UNFINISHED_SECONDS, self._give_up)

    def _reached_end(self) -> None:
        if self._unfinished is not None:
            self._unfinished.cancel()
            self._unfinished = None

    def _give_up(self) -> None:
        self._unfinished = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # an answer is under way, and reading may pause for it
            self._expect_end()
