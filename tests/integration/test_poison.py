"""Records that Postgres cannot take, or nobody can read, are set aside: they block nothing."""

from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from app.keys import Keys
from app.rejects import Rejects
from app.workers.drain import Drain, Outcome
from tests.integration.test_drain import add_entry, statuses
from tests.shop import Shop


async def test_bad_records_are_set_aside_and_block_nothing(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, redis: Redis, keys: Keys
) -> None:
    await shop.configure(a=10)
    good = [await shop.hold(f"good-{i}", a=1) for i in range(3)]
    partition, (epoch, sequence) = shop.partition, (1, len(await shop.journal()))
    hold = "0" * 26
    bad = [
        f"held sale {hold} who 1 digest a=1",  # expires before it was made
        f"held nowhere {hold} who 9999999999999 digest a=1",
        f"confirmed sale {hold} who a=1 0 pay {{}}",
        f"released sale {hold} who a=1",
        "held too short",
        "held sale res x x x a=b",
        f"extended sale {good[0].hold_id} good-0 179001790010000000000",  # no date of any platform
        f"held sale {hold} who 9999999999999 digest a={2**64}",
        f"restocked sale a {2**64} 1 1 0 0 key digest null",
        "danced sale",
        "repaired sale rules {}",  # of what?
        f"confirmed sale {good[0].hold_id} good-0 a=1 0 pay not-json",
    ]
    ids = [f"{epoch}-{sequence + i}" for i in range(1, 4)]
    await add_entry(redis, keys, partition, ids[0], *bad, f"released sale {good[1].hold_id} good-1 a=1")
    await redis.xadd(keys.journal(partition), {"what": "is this"}, id=ids[1])
    await add_entry(redis, keys, partition, ids[2], f"confirmed sale {good[2].hold_id} good-2 a=1 0 pay {{}}")
    count = await drain.run_once(partition)
    assert (count.outcome, count.rejects) == (Outcome.DRAINED, len(bad) + 1)
    assert await statuses(pool) == {"good-0": "held", "good-1": "released", "good-2": "confirmed"}
    rejects = await pool.fetch("SELECT kind, sale_id, record FROM rejects ORDER BY sequence, ordinal")
    assert [f"{row['kind']} {row['record']}" for row in rejects[:-1]] == bad
    assert (rejects[-1]["kind"], rejects[-1]["sale_id"]) == ("unreadable", None)
    positions = [row["position"] for row in await pool.fetch("SELECT position FROM outbox ORDER BY position")]
    assert positions == list(range(1, 8))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"at": "9" * 17},
        {"by": "- some\0body"},
        {"records": b"held sale \xff\xfe who 1 digest a=1"},
        {"records": b"held sale " + b"0" * 26 + b" wh\xc3\xb6\xff 9999999999999 digest a=1"},
        {"records": "opened 1-5"},
        {"records": "opened by nobody"},
    ],
    ids=[
        "no date",
        "a NUL in who did it",
        "no text",
        "half a text",
        "an epoch begins within another",
        "an epoch begins nowhere",
    ],
)
async def test_an_entry_that_is_spoilt_whole_blocks_nothing(
    shop: Shop, drain: Drain, pool: asyncpg.Pool, redis: Redis, keys: Keys, spoilt: dict[str, Any]
) -> None:
    await shop.configure(a=10)
    sequence = shop.inventory.seen(shop.partition).sequence
    fields: dict[Any, Any] = {"at": "1790000000000", "records": "danced sale"} | spoilt
    before = REGISTRY.get_sample_value("holdfast_drain_rejects_total")
    await redis.xadd(keys.journal(shop.partition), fields, id=f"1-{sequence + 1}")
    await add_entry(redis, keys, shop.partition, f"1-{sequence + 2}", "paused sale")
    count = await drain.run_once(shop.partition)
    assert (count.outcome, count.rejects) == (Outcome.DRAINED, 1)
    assert await pool.fetchval("SELECT paused FROM sales")
    waiting = await Rejects(pool, keys.namespace).list()
    assert [row["sequence"] for row in waiting] == [sequence + 1]
    assert REGISTRY.get_sample_value("holdfast_drain_rejects_total") == (before or 0) + 1
