"""Performs scenarios one after another; each has its own load and its own row."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadtests.admin import AdminError
from loadtests.torture.bench import Bench, Scenario
from loadtests.torture.load import Load, NotRecovered, running_load
from loadtests.torture.stand import Stand, StandFailed
from loadtests.torture.verdict import Verdict, judge

CLIENTS = 24
SECONDS = 600.0
FAULTS_SHARE = 0.85
"""Of a scenario's time; the rest is for its start and for the verdict."""
LEAD_SECONDS = 0.5
"""Of load before the first fault and after the last one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    scenario: Scenario
    rounds: int
    kills: int
    verdict: Verdict
    recoveries: list[float]
    retries: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`share`: of the full rounds and times, 1.0 for all; `seconds`: how long all may take, roughly."""

    seed: int
    share: float = 1.0
    seconds: float = SECONDS
    clients: int = CLIENTS


def perform(scenarios: Sequence[Scenario], plan: Plan, tell: Callable[[str], None]) -> Iterator[Row]:
    """A row for each, as soon as it is known. Raises StandFailed if an installation does not start."""
    end = time.monotonic() + plan.seconds
    with contextlib.ExitStack() as running:
        stand: Stand | None = None
        before: Scenario | None = None
        for number, one in enumerate(scenarios):
            # Equally late for all: what one took too long is taken from all that follow.
            left = max(0.0, end - time.monotonic()) / sum(later.seconds for later in scenarios[number:])
            deadline = time.monotonic() + left * one.seconds * FAULTS_SHARE
            if stand is None or before is None or before.stand is not one.stand:
                running.close()
                tell("starting an installation")
                stand = running.enter_context(one.stand())
            tell(one.fault)
            row = asyncio.run(_perform(one, stand, plan, deadline))
            before = one if row.verdict.ok else None
            yield row


async def _perform(one: Scenario, stand: Stand, plan: Plan, deadline: float) -> Row:
    started = time.monotonic()
    # Seeded by name, so that a scenario alone meets what it met among the others.
    rng = random.Random(f"{plan.seed} {one.name}")
    async with running_load(stand, one.name, rng, plan.clients) as load:
        bench = Bench(stand, load, rng, max(1, round(one.rounds * plan.share)), plan.share, deadline)
        await asyncio.sleep(LEAD_SECONDS)
        try:
            await one.inject(bench)
            await asyncio.sleep(LEAD_SECONDS)
        except (NotRecovered, StandFailed) as error:
            bench.wrong.append(str(error))
    verdict = await _judge(bench, load)
    verdict.wrong += bench.wrong
    return Row(
        one,
        bench.rounds,
        bench.kills,
        verdict,
        bench.recoveries,
        load.ledger.retries.total(),
        time.monotonic() - started,
    )


async def _judge(bench: Bench, load: Load) -> Verdict:
    try:
        return await judge(bench.stand, load, frozenset(bench.only_in_redis))
    except (AdminError, OSError) as error:
        return Verdict(load.ledger.total, wrong=[f"the service does not answer the verdict: {error}"])
