"""What a scenario is, and what it works on. Modules of loadtests.torture.scenarios register theirs."""

import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from loadtests.torture.load import Load
from loadtests.torture.stand import Stand
from loadtests.torture.verdict import Operation

BACKOFF_SECONDS_MAX = 5.0


@dataclass
class Bench:
    """A stand under load, and what came of the faults so far.

    `planned`: rounds to do; `share`: of the full times.
    """

    stand: Stand
    load: Load
    rng: random.Random
    planned: int
    share: float
    rounds: int = 0
    kills: int = 0
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each fault to the first hold after it."""
    only_in_redis: set[Operation] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    async def recover(self, since: float | None = None) -> None:
        """Waits for the first hold after a fault, which was `since` or is now, and counts a round."""
        self.rounds += 1
        self.recoveries.append(await self.load.recovered(time.time() if since is None else since))

    def expect_said(self, service: str, times: int) -> None:
        """The supervisor must have told each restart after a kill, and how long it waits."""
        said = re.findall(
            rf"{service} was killed by SIGKILL; starting it again.*?in_seconds\S*?=\S*?([\d.]+)",
            self.stand.log(),
        )
        if len(said) < times or any(float(seconds) > BACKOFF_SECONDS_MAX for seconds in said):
            self.wrong.append(f"{service} was killed {times} times, its supervisor told of pauses {said}")


@dataclass(frozen=True)
class Scenario:
    """`how`: how the fault is injected, for the table. Scenarios in a row with one `stand` share it."""

    name: str
    fault: str
    how: str
    stand: Callable[[], AbstractContextManager[Stand]]
    rounds: int
    inject: Callable[[Bench], Awaitable[None]]


SCENARIOS: dict[str, Scenario] = {}
"""By name, in the order of the table."""


def scenario(
    name: str, fault: str, how: str, stand: Callable[[], AbstractContextManager[Stand]], rounds: int
) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[Bench], Awaitable[None]]]:
    """Registers the function that injects the faults."""

    def register(inject: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
        SCENARIOS[name] = Scenario(name, fault, how, stand, rounds, inject)
        return inject

    return register
