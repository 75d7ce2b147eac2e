"""One contender, one round: as many requests as it answers, or requests at a constant rate."""

import itertools
from dataclasses import dataclass

from app.errors import ConfigurationError
from loadtests.bench.constant_rate import Arrivals, offer
from loadtests.bench.field import Contender, Field
from loadtests.bench.options import Options
from loadtests.bench.processes import MICROSECONDS
from loadtests.bench.saturation import ACCEPTED, SOLD_OUT, Load, Saturated, saturate

ENOUGH = 10**6
"""Units that no round can give out."""
UNITS_A_SECOND = 6_000
"""Of who needs a row for each: more than it can give out in a second."""
FEW = 200
"""Units that are gone before the refusals are measured."""
SELL_OUT_SECONDS = 0.3
SELL_OUT_TIMES = 20
_numbers = itertools.count()


@dataclass(frozen=True)
class Case:
    """What is measured of a contender."""

    contender: Contender
    accepted: bool
    """Holds are given; else all is sold out."""
    suffix: str = ""
    keyed: bool = True

    @property
    def name(self) -> str:
        return self.contender.name + self.suffix


@dataclass(frozen=True)
class Run:
    answers: int
    seconds: float
    """Until all that was answered is where it belongs."""
    cpu_us: dict[str, float]
    """Of each process, for an answer."""
    memory_mib: float
    units: int
    given: int
    told: int
    """Units that customers were told they hold."""

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    @property
    def oversold(self) -> int:
        """Units beyond the stock that customers hold by the store, or were told that they hold."""
        return max(self.given - self.units, self.told - self.units, 0)


def cases(field: Field) -> list[Case]:
    """In the order of the report."""
    accepting = [Case(contender, True) for contender in field.contenders]
    refusing = [
        Case(contender, False, suffix, keyed)
        for contender in field.contenders
        if contender.prepare
        for suffix, keyed in contender.refusals.items()
    ]
    return accepting + refusing


def _open(field: Field, case: Case, units: int) -> Load:
    """A new sale for the case, and requests for it."""
    name = f"run-{next(_numbers)}"
    if case.contender.prepare:
        case.contender.prepare(name, units)
    return Load(case.contender.url, name, field.token, case.keyed)


def run(field: Field, case: Case, options: Options, seconds: float) -> Run:
    """Raises ConfigurationError if it gave other answers than it should."""
    contender = case.contender
    units = _units(case, seconds)
    load = _open(field, case, units)
    told = 0 if case.accepted else _sell_out(load, options, units)
    contender.settle()
    before = field.cpu(contender)
    result = saturate(load.again(), options.connections, seconds)
    settled = contender.settle()
    spent = {role: value - before[role] for role, value in field.cpu(contender).items()}
    _require_kind(case, result)
    if not result.answers:
        raise ConfigurationError(f"{case.name} answered nothing in {seconds:g} s: try more --seconds")
    given = contender.given(load.sale)
    told = told + result.accepted if contender.prepare else 0
    if given < told:
        raise ConfigurationError(f"{case.name} told customers of {told} units, but its store has {given}")
    return Run(
        result.answers,
        result.seconds + settled,
        {role: value / result.answers * MICROSECONDS for role, value in spent.items()},
        field.memory(contender),
        units,
        given,
        told,
    )


def _units(case: Case, seconds: float) -> int:
    if not case.accepted:
        return FEW
    return int(UNITS_A_SECOND * (seconds + 1)) if "SKIP" in case.contender.name else ENOUGH


def _sell_out(load: Load, options: Options, units: int) -> int:
    """Lets customers take all units, and returns how many they were told that they have."""
    told = 0
    for number in range(SELL_OUT_TIMES):
        result = saturate(load.again(), options.connections, SELL_OUT_SECONDS)
        told += result.accepted
        if number and result.refused and not result.accepted:
            return told
    raise ConfigurationError(f"{units} units were not sold out after {SELL_OUT_TIMES} tries, {told} given")


def _require_kind(case: Case, result: Saturated) -> None:
    wrong = result.refused if case.accepted else result.accepted
    if wrong:
        what = "refused" if case.accepted else "accepted"
        raise ConfigurationError(
            f"{case.name} {what} {wrong} of {result.answers} requests, which should not be: its "
            "figures would compare something else. Start it by hand and look at its answers"
        )


def run_at(field: Field, case: Case, options: Options, rate: float, seconds: float) -> Arrivals:
    """Requests at a constant rate. Raises ConfigurationError if other answers come than should."""
    units = _units(case, seconds + 1)
    load = _open(field, case, units)
    if not case.accepted:
        _sell_out(load, options, units)
    case.contender.settle()
    arrivals = offer(
        load.url, load.again().requests(), rate=rate, seconds=seconds, connections=options.connections
    )
    case.contender.settle()
    expected = ACCEPTED if case.accepted else SOLD_OUT
    if set(arrivals.latencies) - {expected}:
        found = {status: len(latencies) for status, latencies in arrivals.latencies.items()}
        raise ConfigurationError(f"{case.name} answered {found} at {rate:,.0f}/s, where {expected} was due")
    return arrivals
