"""The protocol of a connection, with a way of their own for plain requests for holds.

They take neither the parser nor the application: their bytes are read by one expression, decided in a batch,
and answered in one write. Everything else goes the ordinary way, and both share a connection.
"""

import asyncio
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.http.hotpath import Answer
from app.http.plain import START, PlainHolds, read_plain
from app.http_protocol import HttpProtocol


class _Deaf(asyncio.Event):
    """Nobody waits for a piece of a body that is there as a whole."""

    def set(self) -> None:
        pass


class _PlainCycle:
    """What the protocol asks of a request that is under way."""

    __slots__ = ("disconnected", "keep_alive", "response_complete", "response_started")
    message_event = _Deaf()

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.response_started = False
        self.response_complete = False


class HoldProtocol(HttpProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plain_holds: PlainHolds | None = self.app_state.get("plain_holds")

    def data_received(self, data: bytes) -> None:
        if data.startswith(START) and self._plain_holds is not None and self._is_quiet():
            plain = read_plain(data)
            if plain is not None and self._gate.begin_plain(len(self.tasks)):
                self._gate.heard(self)
                self._reached_end()
                cycle: Any = _PlainCycle()
                self.cycle = cycle
                self._plain_holds.begin(plain, self.client, partial(self._finish, cycle))
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
        self._gate.end_plain()
        if cycle.disconnected or self.transport.is_closing():
            cycle.response_complete = True
            return
        (_, date), *_ = self.server_state.default_headers
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        self._answers.send(
            b"%bdate: %b\r\n%b%b%b\r\n%b"
            % (STATUS_LINE[answer.status], date, answer.head, common, close, answer.body)
        )
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
