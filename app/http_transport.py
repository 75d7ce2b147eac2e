"""The transport between a connection's protocol and the event loop's own."""

import asyncio
from typing import Any

UNREAD_SECONDS = 30.0
"""A client that reads nothing for so long, while an answer waits for it, is cut off."""
_LINGER_SECONDS = 2.0
"""A client has this long to read its answer and to close: where it is still sending, a close at once would
reset the connection, and take what it has not read (RFC 9112, 9.6)."""


class GatheringTransport:
    """Gathers what is written in one turn of the event loop; lingers when it is closed: the client sees the
    end of the answer, not a reset."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._lingers = False

    def write(self, data: bytes) -> None:
        if self._lingers:
            return
        if not self._gathered:
            self._loop.call_soon(self._send)
        self._gathered.append(data)

    def send(self, data: bytes) -> None:
        """Writes a whole answer."""
        if self._gathered or self._lingers:
            self.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._send()
        if self.is_closing() or not self._transport.can_write_eof():
            self._finish()
            return
        self._lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self._finish)

    @property
    def has_unsent(self) -> bool:
        return bool(self._gathered or self._transport.get_write_buffer_size())

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def _finish(self) -> None:
        if self._transport.get_write_buffer_size():  # the close waits for the client to read it
            self._loop.call_later(UNREAD_SECONDS, self._transport.abort)
        self._transport.close()

    def _send(self) -> None:
        if self._gathered:
            data = b"".join(self._gathered)
            self._gathered.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
