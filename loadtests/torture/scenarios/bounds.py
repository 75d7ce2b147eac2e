"""A journal that is as long as it may be."""

import asyncio
from contextlib import AbstractContextManager

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import family, living, stopped
from loadtests.torture.scenarios.emptied import drained
from loadtests.torture.stand import Stand, stand_of_up

MAX_JOURNAL_ENTRIES = 400
FULL_SECONDS = 30.0


def stand_of_a_small_journal() -> AbstractContextManager[Stand]:
    return stand_of_up(HOLDFAST_MAX_JOURNAL_ENTRIES=str(MAX_JOURNAL_ENTRIES))


@scenario(
    "full-journal",
    "Postgres away, journals full",
    f"`HOLDFAST_MAX_JOURNAL_ENTRIES={MAX_JOURNAL_ENTRIES}`, SIGSTOP of Postgres until holds are refused and "
    "2 s longer; back: after it goes on",
    stand_of_a_small_journal,
    rounds=2,
    seconds=16,
)
async def full_journal(bench: Bench) -> None:
    """New holds wait for room; whoever has one can pay or give it back."""
    refused = bench.load.ledger.retries
    for _ in bench.turns():
        known = refused["overloaded"]
        async with stopped(family(await living(bench.stand, "postgres"))):
            async with asyncio.timeout(FULL_SECONDS):
                while refused["overloaded"] == known:  # noqa: ASYNC110 (clients count)
                    await asyncio.sleep(0.02)
            before = bench.load.ledger.acknowledged.copy()
            await asyncio.sleep(2.0)
            bench.expect_done(before, "confirm", "release")
        await bench.recover()
        await drained(bench.stand)
