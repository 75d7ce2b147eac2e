"""One connection to the service, driven by bytes."""

import asyncio
from typing import cast

from tests.fuzz.answers import Answer, take_answer


class Connection(asyncio.Protocol):
    """Collects what comes; `closed` once nothing more can."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.closed = False
        self._something = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._something.set()

    def eof_received(self) -> bool:
        self.closed = True
        self._something.set()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._something.set()

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def leave(self) -> None:
        """Goes away at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def take(self) -> Answer | None:
        """The next whole answer. Raises Malformed."""
        return take_answer(self.buffer)

    async def wait(self, seconds: float) -> bool:
        """Waits for more to come, or for the end; False if neither did."""
        self._something.clear()
        if self.closed:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return False
        return True
