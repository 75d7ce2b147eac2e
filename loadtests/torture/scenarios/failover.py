"""The Redis that leads is killed, and one that has not all of its writes takes its place."""

import asyncio
import time
from functools import partial
from typing import Any

from app.journal import Record
from app.models import JournalId
from loadtests.torture.bench import Bench, scenario
from loadtests.torture.faults import a_moment, living, stopped
from loadtests.torture.pair import PairStand, Server, stand_of_pair
from loadtests.torture.scenarios.emptied import KEYS, operations, positions, records_of
from loadtests.torture.verdict import Operation

BEHIND_SECONDS = 0.5
_WITHOUT_ACKS = partial(stand_of_pair, 0)
_WITH_ACKS = partial(stand_of_pair, 1)


def _not_in_postgres(server: Server, after: dict[int, JournalId]) -> list[Record]:
    """Of a server's journal, what comes after Postgres' positions."""
    journals: list[Any] = [
        server.client.xrange(KEYS.journal(number), min=f"({position}") for number, position in after.items()
    ]
    return records_of(journals)


async def _lost_with(stand: PairStand) -> set[Operation]:
    """What the leader alone knows, once it lets nobody write any more."""
    stand.primary.client.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    at = await positions(stand)
    return operations(_not_in_postgres(stand.primary, at)) - operations(_not_in_postgres(stand.replica, at))


async def _fail_over(stand: PairStand) -> None:
    """The killed server comes back empty, as a replica of the one that leads now."""
    stand.replica.lead()
    stand.point_to(stand.replica)
    stand.change_places()
    await asyncio.to_thread(stand.replica.start_empty)
    await asyncio.to_thread(stand.replica.follow, stand.primary)


@scenario(
    "failover",
    "Failover to a replica that is behind",
    "replication cut, worker stopped, kill -9 of the primary, replica promoted",
    _WITHOUT_ACKS,
    rounds=4,
    seconds=16,
)
async def failover(bench: Bench) -> None:
    stand = bench.stand
    assert isinstance(stand, PairStand)  # noqa: S101
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        stand.replica.stop_following()
        async with stopped([await living(stand, "worker-1")]):
            await asyncio.sleep(BEHIND_SECONDS)
            bench.only_in_redis |= await _lost_with(stand)
            since = time.time()
            stand.primary.kill()
            bench.kills += 1
        await _fail_over(stand)
        await bench.recover(since)


@scenario(
    "failover-acks",
    "The same, with `HOLDFAST_REPLICA_ACKS=1`",
    "replication cut, kill -9 of the primary, replica promoted",
    _WITH_ACKS,
    rounds=4,
    seconds=16,
)
async def failover_acks(bench: Bench) -> None:
    """Nothing may be lost: what the replica had not was not acknowledged."""
    stand = bench.stand
    assert isinstance(stand, PairStand)  # noqa: S101
    for _ in bench.turns():
        await a_moment(bench.rng, 2.0)
        async with stopped([await living(stand, "worker-1")]):
            stand.replica.stop_following()
            await asyncio.sleep(BEHIND_SECONDS)
            since = time.time()
            stand.primary.kill()
            bench.kills += 1
        await _fail_over(stand)
        await bench.recover(since)
