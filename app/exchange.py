"""A command and its reply over one of the client's connections, at a third of what the client itself takes.

redis-py makes a task for each write, and a timer and a stream's waiter for each read. Here the bytes go
straight between the transport and hiredis. How the connection is opened, logged in, pooled and closed stays
the client's.
"""

import asyncio
from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError


async def exchange(connection: Any, command: bytes) -> Any:
    """The reply to a packed command, on a connection that owes no other. Raises as the client does: also the
    error that Redis answers with; after any other the connection is closed."""
    if not connection.is_connected:
        await connection.connect()
    try:
        reply = await _wire_of(connection).ask(command, connection.socket_timeout)
        if isinstance(reply, RedisError):
            raise reply
    except ResponseError:
        raise
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return reply


def _wire_of(connection: Any) -> "_Wire":
    transport = connection._writer.transport
    protocol = transport.get_protocol()
    return protocol if isinstance(protocol, _Wire) else _Wire(transport, protocol, connection._parser._reader)


class _Wire(asyncio.Protocol):
    """Stands between a transport and the client's own protocol, which gets whatever nobody waits for here."""

    def __init__(self, transport: Any, protocol: Any, reader: Any) -> None:
        self._transport = transport
        self._protocol = protocol
        self._reader = reader
        """hiredis', with the client's settings."""
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Any] | None = None
        transport.set_protocol(self)

    async def ask(self, command: bytes, seconds: float) -> Any:
        """Raises TimeoutError or ConnectionError."""
        if self._transport.is_closing():  # it would drop what is written without a word
            raise ConnectionError("The connection to Redis was lost.")
        self._reply = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._fail, TimeoutError("Redis did not answer in time."))
        try:
            self._transport.write(command)
            return await self._reply
        finally:
            timer.cancel()
            self._reply = None

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self._protocol.data_received(data)
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except Exception as error:  # not of the protocol
            self._fail(error)
            return
        if reply is not NOT_ENOUGH_DATA and not self._reply.done():
            self._reply.set_result(reply)

    def eof_received(self) -> Any:
        self._fail(ConnectionError("Redis closed the connection."))
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"The connection to Redis was lost: {exc}"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
