"""The benchmark on real servers: what it measures is what the contenders' own stores say."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from loadtests.bench.field import HOLDFAST_NAME, ROW_LOCK, Field, running_field
from loadtests.bench.options import Options
from loadtests.bench.runs import FEW, Run, cases, run, run_at

OPTIONS = Options(rounds=1, seconds=0.5, connections=8, quick=True)


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    cores = os.sched_getaffinity(0)
    with running_field(Console(quiet=True)) as field:
        yield field
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("name", [ROW_LOCK, HOLDFAST_NAME])
def test_every_hold_that_was_told_is_in_the_store(field: Field, name: str) -> None:
    case = next(case for case in cases(field) if case.accepted and case.name == name)
    measured = run(field, case, OPTIONS, OPTIONS.seconds)
    assert 0 < measured.told <= measured.given < measured.units
    assert measured.cpu_us["API"] > 0
    assert measured.oversold == 0


@pytest.mark.parametrize("name", [ROW_LOCK, HOLDFAST_NAME])
def test_after_the_sell_out_everybody_is_refused(field: Field, name: str) -> None:
    case = next(case for case in cases(field) if not case.accepted and case.contender.name == name)
    measured = run(field, case, OPTIONS, OPTIONS.seconds)
    assert (measured.units, measured.given) == (FEW, FEW)
    # wrk does not count what is answered after it was told to end.
    assert 0 < measured.told <= FEW


def test_a_constant_rate_is_answered_in_full(field: Field) -> None:
    case = next(case for case in cases(field) if case.accepted and case.name == HOLDFAST_NAME)
    arrivals = run_at(field, case, OPTIONS, rate=200.0, seconds=OPTIONS.seconds)
    assert len(arrivals.latencies[201]) == 100
    assert arrivals.unanswered == 0


def test_a_unit_too_many_is_oversold() -> None:
    exact = Run(1, 1.0, {}, 0.0, units=10, given=10, told=10)
    assert exact.oversold == 0
    assert replace(exact, given=12).oversold == 2
    assert replace(exact, told=11).oversold == 1
