"""A script's words and its reply over a connection of the client's: who gets which reply, and what becomes of
the connection.

Time-outs are long here but where they are what is tested, so that nothing else can hide behind one.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis, UnixDomainSocketConnection
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError, TimeoutError

from app.errors import OutcomeUnknown, StoreUnavailable
from app.exchange import exchange
from app.scripts import Scripts, connect
from app.settings import Settings
from tests.redis_server import RedisServer, until

TIMEOUT_SECONDS = 30.0
SCRIPTS = {
    "echo": "return ARGV",
    "fail": "return redis.error_reply('ERR it failed')",
    "hang": "while true do end",
}
Run = Callable[..., Coroutine[Any, Any, list[Any]]]
Way = Callable[[RedisServer], Awaitable[None]]


@pytest.fixture
async def redis(store: RedisServer) -> AsyncIterator[Redis]:
    settings = Settings(redis_url=store.url, redis_timeout_seconds=TIMEOUT_SECONDS)
    client = connect(settings.model_copy(update={"redis_connections": 1}))
    yield client
    await client.aclose()


@pytest.fixture
async def connection(redis: Redis) -> AsyncIterator[Any]:
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    yield connection
    await pool.release(connection)


@pytest.fixture
async def run(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script of `SCRIPTS`, which the server knows."""
    for name, source in SCRIPTS.items():
        (tmp_path / f"{name}.lua").write_text(source)
        await redis.script_load(source)
    monkeypatch.setattr("app.scripts.data_folder", lambda _name: tmp_path)
    scripts = Scripts(redis)

    async def run(name: str, *words: str) -> list[Any]:
        async with asyncio.timeout(10):
            return await scripts.run(name, ["key"], list(words))

    return run


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[bytes]:
    """The scripts' commands, once they are on their way."""
    commands: asyncio.Queue[bytes] = asyncio.Queue()

    async def noted(connection: Any, command: bytes) -> Any:
        commands.put_nowait(command)  # whoever is told runs once this task waits for the reply
        return await exchange(connection, command)

    monkeypatch.setattr("app.scripts.exchange", noted)
    return commands


def packed(*words: Any) -> bytes:
    return bytes(hiredis.pack_command(words))


async def test_an_error_reply_leaves_the_connection_in_use(redis: Redis, run: Run) -> None:
    before = await redis.client_id()
    with pytest.raises(OutcomeUnknown):
        await run("fail")
    assert await run("echo", "mine") == ["mine"]
    assert await redis.client_id() == before


async def test_the_clients_own_commands_go_on_over_the_same_connection(redis: Redis, run: Run) -> None:
    before = await redis.client_id()
    for size in (1, 4_000_000):  # the transport takes the longer one in pieces, and the client waits for it
        assert await run("echo", "mine") == ["mine"]
        assert await redis.echo("x" * size) == "x" * size
    assert await redis.client_id() == before


async def test_many_exchanges_leave_one_go_between(connection: Any) -> None:
    protocols = set()
    for _ in range(3):
        assert await exchange(connection, packed("ECHO", "mine")) == "mine"
        protocols.add(connection._writer.transport.get_protocol())
    assert len(protocols) == 1


async def test_a_reply_in_pieces_is_put_together(run: Run) -> None:
    words = [f"{number:0100}" for number in range(20_000)]
    assert await run("echo", *words) == words
    assert await run("echo", "another") == ["another"]


async def killed_while_it_runs(store: RedisServer) -> None:
    async def is_busy() -> bool:
        try:
            await store.client.ping()
        except ResponseError:
            return True
        return False

    await until(is_busy)
    store.kill()


async def killed_before_it_runs(store: RedisServer) -> None:
    """What it has not read resets the connection."""
    store.kill()


async def closed_by_the_server(store: RedisServer) -> None:
    await store.client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("way", [killed_while_it_runs, killed_before_it_runs, closed_by_the_server])
async def test_a_lost_connection_is_an_unknown_outcome_at_once_and_the_next_call_gets_another(
    store: RedisServer, run: Run, sent: asyncio.Queue[bytes], way: Way
) -> None:
    await store.client.config_set("busy-reply-threshold", 1)
    if way is killed_before_it_runs:
        store.pause()
    elif way is closed_by_the_server:
        await store.client.client_pause(60_000, all=False)
    asked = asyncio.create_task(run("hang"))
    await sent.get()
    await way(store)
    with pytest.raises(OutcomeUnknown):
        await asked
    if way is closed_by_the_server:
        await store.client.client_unpause()
    else:
        await store.start()

    async def is_answered() -> bool:
        try:
            return await run("echo", "mine") == ["mine"]
        except StoreUnavailable:  # it is not known yet that the server is there again
            return False

    await until(is_answered)


async def test_a_connection_that_was_closed_meanwhile_is_replaced_before_anything_is_sent(
    store: RedisServer, redis: Redis, run: Run
) -> None:
    before = await redis.client_id()
    assert await run("echo", "mine") == ["mine"]
    await closed_by_the_server(store)
    assert await run("echo", "mine") == ["mine"]
    assert await redis.client_id() != before


async def test_a_caller_who_leaves_does_not_leave_the_reply_to_the_next_one(
    store: RedisServer, run: Run, sent: asyncio.Queue[bytes]
) -> None:
    await store.client.client_pause(60_000, all=False)
    first = asyncio.create_task(run("echo", "first"))
    await sent.get()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(run("echo", "second"))
    await sent.get()
    await store.client.client_unpause()
    assert await second == ["second"]


async def test_a_reply_that_does_not_come_in_time_is_an_unknown_outcome(
    store: RedisServer, redis: Redis, run: Run
) -> None:
    for connection in redis.connection_pool._available_connections:
        connection.socket_timeout = 0.02
    with store.paused(), pytest.raises(OutcomeUnknown):
        await run("echo", "first")


async def test_after_a_time_out_the_connection_is_not_used_again(store: RedisServer, connection: Any) -> None:
    connection.socket_timeout = 0.02
    with store.paused(), pytest.raises(TimeoutError):
        await exchange(connection, packed("ECHO", "late"))
    assert not connection.is_connected
    connection.socket_timeout = TIMEOUT_SECONDS
    await connection.connect()
    assert await exchange(connection, packed("ECHO", "mine")) == "mine"


async def test_a_time_out_ends_with_its_own_reply(store: RedisServer, connection: Any) -> None:
    """It would end a later caller's wait."""
    connection.socket_timeout = 0.25
    assert await exchange(connection, packed("ECHO", "first")) == "first"
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.26, passed.set)
    connection.socket_timeout = TIMEOUT_SECONDS
    with store.paused():
        second = asyncio.create_task(exchange(connection, packed("ECHO", "second")))
        await passed.wait()
    assert await second == "second"


@pytest.mark.parametrize(
    ("first", "error"),
    [(b"*2\r\n$1\r\na", ConnectionError), (b"$9\r\nno", ConnectionError), (b"nonsense\r\n", InvalidResponse)],
)
async def test_what_is_no_whole_reply_ends_the_connection_and_is_no_part_of_the_next(
    first: bytes, error: type[Exception]
) -> None:
    replies = iter([first, b"+OK\r\n"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(next(replies))
        writer.close()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/socket"
        async with await asyncio.start_unix_server(answer, path):
            connection: Any = UnixDomainSocketConnection(
                path=path, protocol=2, decode_responses=True, socket_timeout=TIMEOUT_SECONDS, driver_info=None
            )
            await connection.connect()
            with pytest.raises(error):
                await exchange(connection, packed("PING"))
            assert not connection.is_connected
            await connection.connect()
            assert await exchange(connection, packed("PING")) == "OK"
            await connection.disconnect()


async def test_what_is_no_protocol_of_redis_is_an_unknown_outcome() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(b"nonsense\r\n" if b"EVALSHA" in data else b"+OK\r\n" * data.count(b"*"))
        writer.close()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        settings = Settings(redis_url=f"unix://{folder}/socket", redis_timeout_seconds=TIMEOUT_SECONDS)
        async with await asyncio.start_unix_server(answer, f"{folder}/socket"), connect(settings) as redis:
            with pytest.raises(OutcomeUnknown):
                await Scripts(redis).run("release", list("abcdefgh"), ["0-0", "sale", "hold"])


async def test_a_connection_that_was_closed_before_its_turn_is_opened_again(connection: Any) -> None:
    await connection.disconnect(nowait=True)
    assert await exchange(connection, packed("ECHO", "mine")) == "mine"


async def test_nothing_is_written_to_a_connection_that_is_lost(connection: Any) -> None:
    connection._writer.transport.abort()
    await connection._reader.read()  # until the client has heard of it
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError):
            await exchange(connection, packed("ECHO", "mine"))


async def test_the_url_cannot_choose_a_protocol_in_which_servers_push(
    store: RedisServer, redis: Redis, run: Run
) -> None:
    await redis.hset("hash", "field", "value")
    async with connect(Settings(redis_url=f"{store.url}&protocol=3")) as chosen:
        replies = await Scripts(chosen).run("echo", ["key"], ["mine"], also=("HGETALL", "hash"))
    assert replies == ["mine", ["field", "value"]]
