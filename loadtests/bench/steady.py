"""Does the drain keep up with holds that are accepted at a constant rate?"""

import asyncio
import time
from dataclasses import dataclass

from app.embedded.installation import settings_from
from app.errors import Overloaded
from app.ids import random_hold_id, request_digest
from app.inventory import Inventory
from app.keys import Keys
from app.models import Item
from app.reserving import Reserved, ReserveRequest
from app.scripts import connect
from app.settings import Settings
from loadtests.bench.field import Contender, Field, lag
from loadtests.bench.processes import MICROSECONDS

WAVE_SECONDS = 0.01


@dataclass(frozen=True)
class Steady:
    offered: float
    accepted: float
    """A second."""
    behind: float
    """Journal entries that were not in Postgres at the end."""
    caught_up: float
    """Seconds after the end."""
    cpu_us: dict[str, float]


def keep_up(field: Field, contender: Contender, sale: str, rate: float, seconds: float) -> Steady:
    assert contender.prepare  # noqa: S101
    contender.prepare(sale, 10**9)
    before = field.cpu(contender)
    settings = settings_from(field.stage.variables)
    accepted, took = asyncio.run(_accept(settings, sale, rate, seconds))
    behind, caught_up = lag(field.stage), contender.settle()
    spent = {role: value - before[role] for role, value in field.cpu(contender).items()}
    costs = {role: value / accepted * MICROSECONDS for role, value in spent.items()}
    return Steady(rate, accepted / took, behind, caught_up, costs)


async def _accept(settings: Settings, sale: str, rate: float, seconds: float) -> tuple[int, float]:
    """Holds by the reserve script at a constant rate, without HTTP before it; how many, and in how long."""
    redis = connect(settings)
    inventory = Inventory(redis, Keys(settings.namespace, settings.partitions), settings)
    items = (Item("a", 1),)

    async def reserve(number: int) -> bool:
        hold_id = random_hold_id()
        request = ReserveRequest(sale, hold_id, "", f"c{number:09}", request_digest(hold_id), items)
        try:
            return isinstance(await inventory.reserve(request), Reserved)
        except Overloaded:  # the disk stood still for longer than the queue is
            return False

    started = time.perf_counter()
    waves: list[asyncio.Future[list[bool]]] = []
    sent = 0
    while (elapsed := time.perf_counter() - started) < seconds:
        due = int(elapsed * rate)
        waves.append(asyncio.gather(*(reserve(number) for number in range(sent, due))))
        sent = due
        await asyncio.sleep(WAVE_SECONDS)
    accepted = sum([sum(await wave) for wave in waves])
    took = time.perf_counter() - started
    await redis.aclose()
    return accepted, took
