"""A short round of `make fuzz` in every run of the tests."""

import asyncio
import time
from pathlib import Path

import pytest

from app.embedded.servers import EmbeddedServers
from app.settings import Settings
from tests.fuzz.answers import Malformed, fault_of, take_answer
from tests.fuzz.round import Round
from tests.fuzz.service import running_service
from tests.fuzz.stage import prepare, verify

SEED = 1
INPUTS = 2500


@pytest.mark.timeout(90)
async def test_no_bytes_break_the_service_or_move_stock_without_an_answer(
    servers: EmbeddedServers, settings: Settings, database: str, tmp_path: Path
) -> None:
    with running_service(servers.redis_url, database, settings.namespace, tmp_path) as service:
        numbers = list(range(INPUTS))
        deadline = time.monotonic() + 60
        done = Round(
            service, prepare(service), SEED, numbers, connections=32, deadline=deadline, silent=False
        )
        await done.run()
        faults = await asyncio.to_thread(verify, done, database)
    assert faults == []
    assert done.sent == INPUTS
    answered = {status for tally in done.tallies.values() for status in tally.statuses}
    assert {200, 201, 202, 204, 400, 401, 404, 405, 409, 413, 415, 422} <= answered


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nX-Request-Id: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Request-Id: a\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-Request-Id: a\r\n\r\n{}",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 30\r\n\r\nInvalid HTTP request received.",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: a\r\nX: a\0b\r\n\r\n",
        b"{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: a\r\n\r\n",
    ],
)
def test_the_fuzzer_knows_a_bad_answer(sent: bytes) -> None:
    try:
        answer = take_answer(bytearray(sent))
    except Malformed:
        return
    assert answer is not None
    assert fault_of(answer)
