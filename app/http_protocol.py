"""uvicorn's HTTP protocol, with what it lacks for a server that faces strangers.

An answer's head and body go out in one system call instead of two: uvicorn hands them to the transport one by
one, and uvloop sends each at once; for small answers these calls are a fifth of all the CPU that a request
costs. An Upgrade is ignored without harm to the request that carries it. And a client can send nothing for
ever: neither a head, nor a body that nobody reads; nor can it leave an answer unread for ever. What is no
HTTP gets its 400 after the answers to the requests before it, never in the place of one of them.
What the process has no room for is refused here, before there is a task for it (`app/http/gate.py`).
"""

import asyncio
import socket
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    RequestResponseCycle,
)

from app.http.gate import Answer, Gate
from app.http_keep_alive import KeepAliveProtocol
from app.http_listener import welcome
from app.http_transport import UNREAD_SECONDS, GatheringTransport

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, or of what frames a body: many times what browsers and proxies send."""
MAX_DISCARDED_BYTES = 64 * 1024
"""Of a body that comes after its answer: below this, reading it is cheaper than a new connection."""
UNFINISHED_SECONDS = 10.0
"""For a head, or the rest of a body that nobody reads: as long as a body gets by default."""
_TURNED_AWAY_AT_ONCE = 50
"""Connections beyond the bound that get an answer, and the time to read it."""
_LAST_CALL_SECONDS = 0.5
"""A request may be on its way while the process stops: idle connections are closed this much later."""


class HttpProtocol(KeepAliveProtocol):
    _in_body = False
    """Between a request's head and its end."""
    _broken = False
    """Something came that is no HTTP: nothing behind it is read."""
    _framing_bytes = 0
    """Received since the last thing that was whole: a head, a piece of a body, a message."""
    _discarded_bytes = 0
    _unfinished: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _sending: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None
    """A request for a hold whose body is not whole: it takes no place from others until it is."""
    _last: RequestResponseCycle | None = None
    """The request after which the connection is closed because the process stops."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gate: Gate = self.app_state["gate"]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._answers = GatheringTransport(transport)  # type: ignore[arg-type]
        super().connection_made(self._answers)  # type: ignore[arg-type]
        self._expect_end()
        if not self._gate.has_room_for(self):
            self._turn_away()
        elif self._gate.closing.is_set():
            welcome(transport.get_extra_info("socket"))
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.forget(self)
        self._reached_end()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._broken or self.transport.is_closing():
            return
        self._gate.heard(self)
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
        before = self.cycle
        super().on_headers_complete()  # raises where the target is none: then no request has begun
        self._in_body = True
        self._framing_bytes = self._discarded_bytes = 0
        self._reached_end()
        if self._gate.closing.is_set():
            if self._last is not None and self._last is before and not before.response_started:
                before.keep_alive = True  # another one came right behind it
            self.leave()

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
        if self._sending is not None and self._sending[0] is self.cycle:
            self._gate.begin(self._sending[1])
            self._sending = None

    # What uvicorn calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        is_hold = self._gate.is_hold(scope)
        if (why := self._gate.refusal(scope, is_hold, len(self.tasks))) is not None:
            self.loop.call_soon(self._shed, cycle, is_hold, why)
            return
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        if is_hold and cycle.more_body:
            self._sending = (cycle, task)
        elif is_hold:
            self._gate.begin(task)

    def on_response_complete(self) -> None:
        was_last = not self.pipeline
        super().on_response_complete()
        if self._broken and was_last and not self.transport.is_closing():
            self._send_400()

    def give_up_if_silent(self) -> bool:
        if self._answers.has_unsent and not self._is_answering():
            self.transport.abort()
            return True
        return self.close_if_idle()

    def shutdown(self) -> None:
        """The process stops: what has begun, or is on its way, is answered, then the connection closed."""
        if self._is_answering():
            self.leave()
        else:
            self.loop.call_later(_LAST_CALL_SECONDS, self.close_if_idle)

    def leave(self) -> None:
        if self._is_answering() and self.cycle.keep_alive:
            self._last = self.cycle
            self.cycle.keep_alive = False

    # Bounds

    def close_if_idle(self) -> bool:
        """Closes the connection, unless a request is on it or unread in the kernel, or an answer unsent."""
        if self._is_answering() or self._in_body or self._framing_bytes or self.transport.is_closing():
            return False
        if self._answers.has_unsent:
            return False
        with self.transport.get_extra_info("socket").dup() as connection:
            try:
                if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return False
            except OSError:
                # At once, so that nothing arrives in between: it would be lost without an answer.
                connection.shutdown(socket.SHUT_RDWR)
        self.transport.abort()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def wake(self) -> None:
        if not (self.pipeline or self.transport.is_closing()):
            self.flow.resume_reading()

    def _shed(self, cycle: RequestResponseCycle, is_hold: bool, why: str) -> None:
        """Answers that there is no room for the request."""
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            self.transport.abort()  # it goes on asking, and reads no answer
            return
        scope: Any = cycle.scope
        turn = self._gate.next_turn()
        self._write(self._gate.refuse(scope, is_hold, why, turn), cycle)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
        if cycle.keep_alive and not self.pipeline and self._gate.rests(self, turn):
            self.flow.pause_reading()

    def _turn_away(self) -> None:
        """Answers a connection for which there is no room, before it has asked for anything."""
        if len(self.connections) > self._gate.max_connections + _TURNED_AWAY_AT_ONCE:
            self.transport.abort()
            return
        self._broken = True
        self._write(self._gate.no_room(), None)
        self.transport.close()

    def _write(self, answer: Answer, cycle: RequestResponseCycle | None) -> None:
        """Sends an answer that no task has made."""
        status, headers, body = answer
        if cycle is None or not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        if cycle is not None and cycle.scope["method"] == "HEAD":
            body = b""
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self) -> None:
        self._broken = True
        self._reached_end()
        if self._in_body:
            # Whoever waits for the rest of this body waits no longer, and nobody hears the answer.
            broken = self.cycle
            broken.disconnected = True
            broken.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()  # the newest one; requests before it are not answered yet
            elif broken.response_started:
                self.transport.close()
            else:
                self._send_400()
        elif not self._is_answering():
            self._send_400()

    def _send_400(self) -> None:
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
        if not self._is_answering():
            self.transport.close()
        else:  # an answer is under way, and reading may pause for it
            self._expect_end()
