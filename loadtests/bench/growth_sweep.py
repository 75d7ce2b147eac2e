"""What one step of the sweeper takes of Redis, on a server that does nothing else."""

import random
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from app.inventory import EXPIRE_WORK
from app.models import Item
from app.scripts import script_source
from app.workers.sweeper import BATCH
from loadtests.bench.growth_lab import Cart, Lab, SlowLog, main_thread_seconds, one_unit

SKUS = 1_000
LINES = {1: 100_000, 5: 10_000, 20: 3_000}
"""Of a cart: how many holds with such carts are swept."""
LIMIT_MS = 2.0


@dataclass(frozen=True)
class Steps:
    """Milliseconds of each step, in order of size: of Redis' CPU, and by SLOWLOG."""

    lines: int
    holds: int
    cpu: list[float]
    slowlog: list[float]
    seconds: float


def carts_of(lines: int, skus: int = SKUS) -> Cart:
    """Each with other SKUs, so that no two lines of a step share a row if they need not."""
    if lines == 1:
        return one_unit
    names = [f"sku-{i}" for i in range(skus)]
    return lambda number: (f"c{number:09}", tuple(Item(sku, 1) for sku in random.sample(names, lines)))


async def sweep_steps(lab: Lab, quick: bool, console: Console) -> list[Steps]:
    """For carts of different sizes."""
    return [
        await _sweep(lab, lines, holds // 10 if quick else holds, console) for lines, holds in LINES.items()
    ]


async def _sweep(lab: Lab, lines: int, holds: int, console: Console) -> Steps:
    sale = f"sweep-{lines}"
    await lab.open_sale(sale, SKUS, hold_seconds=1)
    await lab.fill(sale, holds, carts_of(lines))
    log = SlowLog(lab.redis)
    await log.start()
    sha = await lab.redis.script_load(script_source("expire"))
    cpu: list[float] = []
    swept, started = 0, time.perf_counter()
    while swept < holds:
        due = (await lab.inventory.due_holds(0, BATCH)).get(sale, [])
        while due:
            expired, seen_to, took = await _step(lab, sha, sale, due[: EXPIRE_WORK // 2])
            swept += expired
            due = due[seen_to:]
            cpu.append(took)
    seconds = time.perf_counter() - started
    slowlog = (await log.take())["expire"]
    await log.stop()
    steps = Steps(lines, holds, sorted(cpu), slowlog, seconds)
    console.print(
        f"carts of {lines}: {holds:,} holds in {len(cpu):,} steps of at most {steps.cpu[-1]:.2f} ms CPU"
    )
    return steps


async def _step(lab: Lab, sha: str, sale: str, ids: list[str]) -> tuple[int, int, float]:
    """Holds ended, holds taken care of, milliseconds of Redis' CPU: between two looks in the same write."""
    keys = lab.keys.for_script(sale)
    async with lab.redis.pipeline(transaction=False) as pipe:
        pipe.info("cpu")
        pipe.evalsha(sha, len(keys), *keys, "0-0", sale, EXPIRE_WORK, *ids)
        pipe.info("cpu")
        before, reply, after = await pipe.execute()
    took = (main_thread_seconds(after) - main_thread_seconds(before)) * 1000
    words: list[Any] = reply
    return int(words[3]), int(words[4]), took
