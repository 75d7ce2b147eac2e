"""The protocol of a connection, with a way of their own for plain reservations and confirmations.

They take neither the parser nor the application: their bytes are read by one expression, decided in a batch,
and answered in one write. Everything else goes the ordinary way, and both share a connection.
"""

import asyncio
from functools import partial
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.http.hotpath import Answer, lines_of
from app.http.plain import START, PlainRequests, read_plain
from app.http_protocol import HttpProtocol


class _Deaf(asyncio.Event):
    """What uvicorn sets when the connection is lost: nobody waits for more of a body that is there."""

    def set(self) -> None:
        pass


class _PlainCycle:
    """What the protocol asks of a request that is under way."""

    __slots__ = ("disconnected", "is_hold", "keep_alive", "response_complete", "response_started")
    message_event = _Deaf()

    def __init__(self, is_hold: bool) -> None:
        self.is_hold = is_hold
        self.disconnected = False
        self.keep_alive = True
        self.response_started = False
        self.response_complete = False


class PlainProtocol(HttpProtocol):
    _rendered: ClassVar[tuple[object, bytes]] = (None, b"")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plain_requests: PlainRequests | None = self.app_state.get("plain_requests")

    def data_received(self, data: bytes) -> None:
        if data.startswith(START) and self._plain_requests is not None and self._is_quiet():
            plain = read_plain(data)
            if (
                plain is not None
                and self._plain_requests.takes(plain)
                and self._gate.begin_plain(plain.hold_id is None, len(self.tasks))
            ):
                self._gate.heard(self)
                self._reached_end()
                cycle = _PlainCycle(plain.hold_id is None)
                self.cycle = cycle  # type: ignore[assignment]
                self._plain_requests.begin(plain, self.client, partial(self._finish, cycle))
                return
        super().data_received(data)

    def _is_quiet(self) -> bool:
        """Is there nothing of another request on the connection, and nothing in the way of an answer?"""
        return not (
            self._broken
            or self._in_body
            or self._framing_bytes
            or self.pipeline
            or self._is_answering()
            or self.flow.write_paused
            or self.transport.is_closing()
        )

    def _finish(self, cycle: _PlainCycle, answer: Answer, common: bytes) -> None:
        """Sends the answer; by now the connection may be at another request's."""
        self._gate.end_plain(cycle.is_hold)
        cycle.response_started = cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        self._answers.send(
            b"%b%b%b%b%b\r\n%b"
            % (STATUS_LINE[answer.status], self._default_lines(), answer.head, common, close, answer.body)
        )
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _default_lines(self) -> bytes:
        """The date, which uvicorn writes anew each second, and what else every answer has."""
        headers = self.server_state.default_headers
        if PlainProtocol._rendered[0] is not headers:
            PlainProtocol._rendered = headers, lines_of(headers)
        return PlainProtocol._rendered[1]
