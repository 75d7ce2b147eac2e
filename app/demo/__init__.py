"""`holdfast demo`: a whole flash sale on this machine, with everything it needs, audited at the end."""

import asyncio
import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from app.demo.crowd import Crowd, Sale
from app.demo.report import final_table
from app.demo.show import Show
from app.demo.stage import Stage, running_stage
from app.errors import ConfigurationError

INTERRUPTED = 130
_SALE_ID = "demo"
_HOLD_SECONDS = 3
"""Short, so that abandoned units come back while there are still shoppers who want them."""
_SKUS = 3
_LIMIT = 2
_BUYERS_PER_SECOND = 600
"""What two cores, which also run the shoppers, serve without a queue."""


def run(*, buyers: int = 5000, stock: int = 500, seconds: float = 20.0) -> int:
    """Sells `stock` units to `buyers` shoppers; nobody starts to shop later than `seconds` after the opening.

    Returns 0 if every invariant held and the shoppers' own account agrees, else 1; 130 after Ctrl-C.
    Raises ConfigurationError if something that it needs is not there.
    """
    if importlib.util.find_spec("locust") is None:
        raise ConfigurationError("the demo's shoppers need locust: pip install 'holdfast[embedded,load]'")
    arrive_over = min(max(buyers / _BUYERS_PER_SECOND, 2.0), seconds / 2)
    sale = Sale(
        _SALE_ID, buyers, stock, min(_SKUS, stock), _LIMIT, _HOLD_SECONDS, seconds, arrive_over
    )  # fmt: skip
    console = Console()
    try:
        with _signals_interrupt(), running_stage(console) as stage:
            return asyncio.run(_perform(console, stage, sale))
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped and removed")
        return INTERRUPTED


async def _perform(console: Console, stage: Stage, sale: Sale) -> int:
    crowd = Crowd(stage, sale)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(crowd.run())
        show = Show(console, stage, sale, crowd)
        await show.until(running)
    if crowd.verdict is None:
        console.print(f"[red]The sale could not be run: {crowd.reason or 'the shoppers ended early'}[/]")
        console.print(stage.last_words())
        return 1
    agreed = final_table(console, sale, crowd, await stage.persisted(sale.id), show.seconds)
    return 0 if agreed else 1


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have SIGTERM and a terminal that closes stop things in order, as Ctrl-C does, and only once."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # Stopping is bounded; a second Ctrl-C would only cut it short.
        for number in caught:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
