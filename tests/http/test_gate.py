"""What a process that does not keep up can afford to refuse follows what it serves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock

import pytest

from app.http.gate import REFUSALS_PER_SECOND, REFUSALS_PER_SERVED, Gate
from app.settings import Settings

SERVED = 4000


class Clock:
    """What the gate asks of its loop; time stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.due = callback

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        assert self.due is not None
        self.due()


async def nothing(_gate: Gate) -> None:
    pass


async def plain_holds(gate: Gate) -> None:
    for _ in range(SERVED):
        assert gate.begin_plain(True, 0)
        gate.end_plain(True)


async def plain_payments(gate: Gate) -> None:
    for _ in range(SERVED):
        assert gate.begin_plain(False, 0)
        gate.end_plain(False)


async def ordinary_holds(gate: Gate) -> None:
    for _ in range(SERVED):
        gate.begin(asyncio.create_task(nothing(gate)))
    for _ in range(2):
        await asyncio.sleep(0)  # the tasks run, then what they call when they have


@pytest.mark.parametrize(
    ("serve", "served"),
    [(nothing, 0), (plain_payments, 0), (plain_holds, SERVED), (ordinary_holds, SERVED)],
)
async def test_under_load_every_hold_that_is_served_earns_a_part_of_a_refusal(
    serve: Callable[[Gate], Awaitable[None]], served: int
) -> None:
    gate: Any = Gate(Settings(queue_limit=12, request_limit=12), lambda _given: b"id")
    gate._loop = clock = Clock()
    for _ in range(3):  # so many under way that nobody who was refused is woken
        assert gate.begin_plain(True, 0)
    assert gate.rests(Mock(), 5.0)
    await serve(gate)
    clock.go_on(1.0)  # instead of the hundredth of a second after which it is due
    pace = 1 / (gate.next_turn() - clock.now)
    assert pace == pytest.approx((REFUSALS_PER_SECOND + REFUSALS_PER_SERVED * served) / 2)
    clock.go_on(1.0)
    assert 1 / (gate.next_turn() - clock.now) == pytest.approx(pace / 2)  # nothing was served since
