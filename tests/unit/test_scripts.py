"""What a caller is told when Redis answers with an error: did nothing happen, or may something have?"""

import asyncio

import pytest
from redis.asyncio import Redis

from app.errors import HoldfastError, OutcomeUnknown, StoreUnavailable
from app.scripts import Scripts


async def call(script: str, reply: bytes) -> HoldfastError:
    """The error of one call to a server that answers every command with `reply`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(reply)
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    redis = Redis(port=server.sockets[0].getsockname()[1], protocol=2, lib_name=None, lib_version=None)
    try:
        with pytest.raises(HoldfastError) as raised:
            await Scripts(redis).run(script, ["k"], ["a"])
        return raised.value
    finally:
        await redis.aclose()
        await ended.wait()
        server.close()
        await server.wait_closed()


NOT_RUN = (
    "LOADING", "MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "TRYAGAIN", "BUSY", "OOM", "READONLY",
    "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS",
)  # fmt: skip


@pytest.mark.parametrize("word", NOT_RUN)
async def test_an_error_from_before_the_script_ran_says_that_nothing_was_changed(word: str) -> None:
    assert type(await call("reserve", f"-{word} because\r\n".encode())) is StoreUnavailable


async def test_any_other_error_is_an_unknown_outcome_for_a_script_that_writes() -> None:
    assert type(await call("reserve", b"-ERR Error running script\r\n")) is OutcomeUnknown
    assert type(await call("lookup", b"-ERR Error running script\r\n")) is StoreUnavailable
