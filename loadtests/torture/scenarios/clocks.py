"""API processes on hosts whose clocks are a day wrong, beside one whose clock is right."""

import asyncio
import time
from email.utils import parsedate_to_datetime
from functools import partial

import httpx

from loadtests.torture.bench import Bench, scenario
from loadtests.torture.stand import stand_of_pieces

DAY = 24 * 3600
SHIFTS = (DAY, 0, -DAY)
SECONDS = 8.0
_TOLERANCE_SECONDS = 30.0
_THREE = partial(stand_of_pieces, serves=3, workers=1, clocks=",".join(map(str, SHIFTS)))


@scenario(
    "wrong-clocks",
    "API clocks a day ahead and a day behind",
    "three API processes, the clocks of two moved",
    _THREE,
    rounds=1,
    seconds=15,
)
async def wrong_clocks(bench: Bench) -> None:
    """Each request goes to any of them, a key that comes back often to another one than before.

    That deadlines are by Redis' clock is held against each hold, as in every scenario.
    """
    for url, shift in zip(bench.stand.urls, SHIFTS, strict=True):
        async with httpx.AsyncClient(trust_env=False) as client:
            shown = parsedate_to_datetime((await client.get(f"{url}/livez")).headers["date"]).timestamp()
        if abs(shown - time.time() - shift) > _TOLERANCE_SECONDS:
            bench.wrong.append(f"the clock of {url} is {shown - time.time():.0f} s ahead, not {shift}")
    for _ in bench.turns():
        await bench.recover()
        await asyncio.sleep(SECONDS * bench.share)
