"""What is aimed at, and whether this run reached it."""

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.bench.field import HOLDFAST_NAME
from loadtests.bench.lone import EVALSHA, HELD
from loadtests.bench.redis_cost import EMPTY as EMPTY_SCRIPT
from loadtests.bench.redis_cost import RESERVE
from loadtests.bench.report import Table
from loadtests.bench.results import Measured, Results
from loadtests.bench.runs import Run

WITH_KEY, KEYLESS = f"{HOLDFAST_NAME}, with key", f"{HOLDFAST_NAME}, keyless"
ORDER_TARGET, SCRIPT_TARGET, BYTES_TARGET, LONE_TARGET = 3.0, 4.0, 350.0, 1.3
P99_TARGET, P999_TARGET = 5.0, 10.0


@dataclass(frozen=True)
class Target:
    what: str
    bound: float
    """At least it, or at most."""
    measured: float
    goal: float | None = None
    at_least: bool = False
    unit: str = "×"

    @property
    def met(self) -> bool:
        compare: Callable[[float, float], bool] = operator.ge if self.at_least else operator.le
        return compare(self.measured, self.bound)

    def cells(self) -> tuple[str, ...]:
        sign = "≥" if self.at_least else "≤"
        goal = f"{sign} {self.goal:g} {self.unit}" if self.goal is not None else ""
        digits = f"{self.measured:.0f}" if self.measured >= 100 else f"{self.measured:.2f}"
        met = "yes" if self.met else "**no**"
        return self.what, f"{sign} {self.bound:g} {self.unit}", goal, f"{digits} {self.unit}", met


def targets(results: Results) -> list[Target]:
    holds = results.holds[HOLDFAST_NAME]
    found = [
        Target("accepted holds/s, until drained ÷ empty endpoint's answers/s", 1.2, holds.ratio(_rate),
               1.5, at_least=True),
    ]  # fmt: skip
    for name in (WITH_KEY, KEYLESS):
        refusals, kind = results.refusals[name], name.removeprefix(f"{HOLDFAST_NAME}, ")
        found += [
            Target(f"sold-out answers/s, {kind} ÷ empty endpoint's", 2.5, refusals.ratio(_rate),
                   at_least=True),
            Target(f"API CPU per sold-out answer, {kind} ÷ empty endpoint's", 0.35,
                   refusals.ratio(_api_us)),
        ]  # fmt: skip
    found += [
        Target("API CPU per accepted hold ÷ empty endpoint's", 0.4, holds.ratio(_api_us)),
        Target("CPU of a whole order in all processes ÷ one empty request", ORDER_TARGET,
               statistics.median(order.ratio for order in results.orders)),
        *_script_targets(results),
        Target("Redis memory of a living hold with its index entries", BYTES_TARGET, results.hold_bytes,
               unit="bytes"),
        *_tail_targets("holds", holds),
        *(_tail_targets(f"sold out, {name}", results.refusals[f"{HOLDFAST_NAME}, {name}"])[i]
          for name in ("with key", "keyless") for i in (0, 1)),
        Target("median of a lone hold over HTTP ÷ one durable EVALSHA through redis-py", LONE_TARGET,
               results.lone_ms[HELD] / results.lone_ms[EVALSHA]),
    ]  # fmt: skip
    return found


def _rate(run: Run) -> float:
    return run.rate


def _api_us(run: Run) -> float:
    return run.cpu_us["API"]


def _script_targets(results: Results) -> list[Target]:
    return [
        Target(f"Redis per hold at batch {batch} ÷ an empty script's, {what}", SCRIPT_TARGET, ratio)
        for batch, costs in results.script.items()
        for what, ratio in (
            ("time in EVALSHA", costs[RESERVE].script_us / costs[EMPTY_SCRIPT].script_us),
            ("CPU of the process", costs[RESERVE].process_us / costs[EMPTY_SCRIPT].process_us),
        )
    ]


def _tail_targets(what: str, measured: Measured) -> list[Target]:
    return [
        Target(f"p99 ÷ p50 at 70 % of saturation, {what}", P99_TARGET, measured.tail(0.99)),
        Target(f"p99.9 ÷ p50 at 70 % of saturation, {what}", P999_TARGET, measured.tail(0.999)),
    ]


def table(found: list[Target]) -> Table:
    missed = sum(not target.met for target in found)
    return Table(
        ("what", "target", "goal", "measured", "met"),
        [target.cells() for target in found],
        "### Targets\n\nFor 64 connections, one API process and durable holds. Ratios to the empty endpoint "
        "are medians of each round's own: it runs right before each of Holdfast's. "
        f"{len(found) - missed} of {len(found)} are met.",
    )
