"""What a scenario is, and what it works on. Modules of loadtests.torture.scenarios register theirs."""

import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from loadtests.torture.load import Load
from loadtests.torture.stand import Stand
from loadtests.torture.verdict import Operation

BACKOFF_SECONDS_MAX = 5.0


@dataclass
class Bench:
    """A stand under load, and what came of the faults so far.

    `planned`: rounds to do, if there is time until `deadline`, by the monotonic clock; `share`: of the full
    times.
    """

    stand: Stand
    load: Load
    rng: random.Random
    planned: int
    share: float
    deadline: float
    rounds: int = 0
    kills: int = 0
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each fault to the first hold after it."""
    only_in_redis: set[Operation] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._said = len(self.stand.log())

    def turns(self, planned: int | None = None) -> Iterator[int]:
        """The rounds to do, from 1: those planned, and after the first one only as long as there is time."""
        for number in range(1, 1 + (self.planned if planned is None else planned)):
            if number > 1 and time.monotonic() > self.deadline:
                return
            yield number

    async def recover(self, since: float | None = None) -> None:
        """Waits for the first hold after a fault, which was `since` or is now, and counts a round."""
        self.rounds += 1
        self.recoveries.append(await self.load.recovered(time.time() if since is None else since))

    def expect_done(self, before: Counter[str], *names: str) -> None:
        """Operations that must have been acknowledged in spite of a fault, since there were so many."""
        done = self.load.ledger.acknowledged - before
        self.wrong += [f"no {name} was acknowledged meanwhile" for name in names if not done[name]]

    def expect_said(self, service: str, times: int) -> None:
        """The supervisor must have told each restart after a kill, and how long it waits."""
        said = re.findall(
            rf"{service} was killed by SIGKILL; starting it again.*?in_seconds\S*?=\S*?([\d.]+)",
            self.stand.log()[self._said :],
        )
        if len(said) < times or any(float(seconds) > BACKOFF_SECONDS_MAX for seconds in said):
            self.wrong.append(f"{service} was killed {times} times, its supervisor told of pauses {said}")


@dataclass(frozen=True)
class Scenario:
    """`how`: how the fault is injected, for the table. Scenarios in a row with one `stand` share it.

    `seconds`: what all rounds take on two idle cores, by which the time of a run is shared out.
    """

    name: str
    fault: str
    how: str
    stand: Callable[[], AbstractContextManager[Stand]]
    rounds: int
    seconds: float
    inject: Callable[[Bench], Awaitable[None]]


SCENARIOS: dict[str, Scenario] = {}
"""By name, in the order of the table."""


def scenario(
    name: str,
    fault: str,
    how: str,
    stand: Callable[[], AbstractContextManager[Stand]],
    *,
    rounds: int,
    seconds: float,
) -> Callable[[Callable[[Bench], Awaitable[None]]], Callable[[Bench], Awaitable[None]]]:
    """Registers the function that injects the faults."""

    def register(inject: Callable[[Bench], Awaitable[None]]) -> Callable[[Bench], Awaitable[None]]:
        SCENARIOS[name] = Scenario(name, fault, how, stand, rounds, seconds, inject)
        return inject

    return register
