"""What one run measured of all contenders, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from loadtests.bench.constant_rate import Arrivals
from loadtests.bench.field import HOLDFAST
from loadtests.bench.redis_cost import Cost
from loadtests.bench.runs import Case, Run
from loadtests.bench.steady import Steady


@dataclass
class Measured:
    """One case: its rounds."""

    case: Case
    runs: list[Run] = field(default_factory=list)
    arrivals: list[Arrivals] = field(default_factory=list)
    beside: list[Run] = field(default_factory=list)
    """The empty endpoint's runs, each right before one of `runs`; only of what is compared with it."""

    def median(self, of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, self.runs))

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.median(lambda run: run.rate)

    def ratio(self, of: Callable[[Run], float]) -> float:
        """To the empty endpoint: of each run to the one beside it, as the machine's pace changes; the median
        of these."""
        return statistics.median(of(run) / of(base) for run, base in zip(self.runs, self.beside, strict=True))

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
        return statistics.median(
            each.latency_ms(self.status, quantile) / each.latency_ms(self.status, 0.5)
            for each in self.arrivals
        )

    @property
    def status(self) -> int:
        return 201 if self.case.accepted else 409


@dataclass(frozen=True)
class Order:
    """Microseconds of CPU of each of Holdfast's processes for a whole order, and of the empty endpoint for
    one request right before."""

    cpu_us: dict[str, float]
    beside_us: float

    @property
    def ratio(self) -> float:
        return sum(self.cpu_us.values()) / self.beside_us


@dataclass
class Results:
    holds: dict[str, Measured]
    """By the contender's name."""
    refusals: dict[str, Measured]
    orders: list[Order] = field(default_factory=list)
    lone_ms: dict[str, float] = field(default_factory=dict)
    """Medians, by what was asked alone."""
    script: dict[int, dict[str, Cost]] = field(default_factory=dict)
    """By the size of the batch and what ran."""
    hold_bytes: float = 0.0
    steady: Steady | None = None

    @property
    def order_us(self) -> dict[str, float]:
        """Medians."""
        return {role: statistics.median(order.cpu_us[role] for order in self.orders) for role in HOLDFAST}

    @property
    def all(self) -> list[Measured]:
        return [*self.holds.values(), *self.refusals.values()]
