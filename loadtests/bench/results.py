"""What one run measured of all contenders, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtests.bench.constant_rate import Arrivals
from loadtests.bench.redis_cost import Cost
from loadtests.bench.runs import Case, Run
from loadtests.bench.steady import Steady


@dataclass
class Measured:
    """One case: its rounds."""

    case: Case
    runs: list[Run] = field(default_factory=list)
    arrivals: list[Arrivals] = field(default_factory=list)

    def median(self, of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, self.runs))

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.median(lambda run: run.rate)

    def cpu_us(self, role: str) -> float:
        return self.median(lambda run: run.cpu_us.get(role, 0.0))

    @property
    def oversold(self) -> int:
        return max(run.oversold for run in self.runs)

    def latency_ms(self, quantile: float) -> float:
        """Median of the rounds."""
        return statistics.median(each.latency_ms(self.status, quantile) for each in self.arrivals)

    def tail(self, quantile: float) -> float:
        """How many times the median request's latency a request at this rank takes."""
        return self.latency_ms(quantile) / self.latency_ms(0.5)

    @property
    def status(self) -> int:
        return 201 if self.case.accepted else 409


@dataclass
class Results:
    holds: dict[str, Measured]
    """By the contender's name."""
    refusals: dict[str, Measured]
    order_us: dict[str, float] = field(default_factory=dict)
    """CPU of each of Holdfast's processes for a whole order."""
    lone_ms: tuple[float, float] = (0.0, 0.0)
    """Over HTTP, and one EVALSHA."""
    script: dict[int, dict[str, Cost]] = field(default_factory=dict)
    """By the size of the batch and what ran."""
    hold_bytes: float = 0.0
    steady: Steady | None = None

    @property
    def all(self) -> list[Measured]:
        return [*self.holds.values(), *self.refusals.values()]
