"""What a worker's loop says and does when its steps fail."""

import asyncio

import pytest
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs

from app.errors import StoreUnavailable
from app.workers.runner import every

PARTITIONS = 8


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConnectionError("away"), OSError("away")])
async def test_a_store_that_is_away_is_one_line_a_round(error: Exception) -> None:
    stop, seen = asyncio.Event(), []

    async def step(partition: int) -> None:
        seen.append(partition)
        if len(seen) == 2 * PARTITIONS:
            stop.set()
        raise error

    with capture_logs() as lines:
        await asyncio.wait_for(every(stop, 0.01, PARTITIONS, step), 10)
    assert seen == [*range(PARTITIONS)] * 2
    assert [(line["log_level"], line["times"], line["error"]) for line in lines] == [
        ("warning", PARTITIONS, "away")
    ] * 2
    assert not any("exc_info" in line for line in lines)


async def test_a_fault_of_the_program_shows_where_and_keeps_no_other_partition_waiting() -> None:
    stop, seen = asyncio.Event(), []

    async def step(partition: int) -> None:
        seen.append(partition)
        if partition == PARTITIONS - 1:
            stop.set()
        if partition == 3:
            raise ZeroDivisionError

    with capture_logs() as lines:
        await asyncio.wait_for(every(stop, 0.01, PARTITIONS, step), 10)
    assert seen == [*range(PARTITIONS)]
    assert [(line["log_level"], line["partition"], line["exc_info"]) for line in lines] == [
        ("error", 3, True)
    ]
