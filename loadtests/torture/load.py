"""The load of one scenario: its sales, its clients, and when holds succeeded again."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

from loadtests.admin import Admin
from loadtests.torture.clients import HOLD_SECONDS, Buyer, Client, Market, Operator
from loadtests.torture.ledger import Ledger
from loadtests.torture.stand import Stand
from loadtests.torture.wire import Wire

SALES = 6
QUANTITIES = {"plenty": 1_000_000, "steady": 20, "scarce": 8}
LIMIT = 6
"""Units of a SKU that a customer may have: with some hundred customers it is reached."""
SALE_LASTS_SECONDS = 3600.0
RECOVERY_SECONDS = 60.0


class NotRecovered(Exception):
    """No hold succeeded in all that time after a fault."""


class Load:
    """Clients at work. `ledger` is what they were told."""

    def __init__(self, sales: tuple[str, ...]) -> None:
        self.sales = sales
        self.ledger = Ledger()
        self.over = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.workers: list[Client] = []
        self._waiting: list[tuple[float, asyncio.Future[float]]] = []

    def market(self) -> Market:
        return Market(self.sales, self.ledger, self.over, self._on_hold, self.gate)

    async def recovered(self, since: float) -> float:
        """Seconds from `since` until a hold was acknowledged that had been asked for later.

        Raises NotRecovered.
        """
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((since, future))
        try:
            return await asyncio.wait_for(future, RECOVERY_SECONDS) - since
        except TimeoutError:
            raise NotRecovered(f"no hold succeeded for {RECOVERY_SECONDS:.0f} s after a fault") from None

    def _on_hold(self, asked_at: float) -> None:
        for since, future in self._waiting:
            if asked_at > since and not future.done():
                future.set_result(time.time())
        self._waiting = [waiting for waiting in self._waiting if not waiting[1].done()]

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Every client has finished what it had begun, and begins nothing."""
        self.gate.clear()
        try:
            await asyncio.gather(*(worker.idle.wait() for worker in self.workers))
            yield
        finally:
            self.gate.set()


@contextlib.asynccontextmanager
async def running_load(stand: Stand, name: str, rng: random.Random, clients: int) -> AsyncIterator[Load]:
    """Begins with the first hold; ends once each client has its last answer.

    Raises AdminError or OSError if the sales can't be made, NotRecovered if nothing can be held.
    """
    load = Load(tuple(f"{name}-{number}" for number in range(SALES)))
    admin = Admin(stand.urls[0], stand.admin_key)
    for sale in load.sales:
        await asyncio.to_thread(
            admin.create_sale, sale, QUANTITIES, LIMIT, HOLD_SECONDS, time.time() - 60, SALE_LASTS_SECONDS
        )
    market = load.market()

    def wire(token: str) -> Wire:
        return Wire(stand.urls, token, load.ledger.retries, random.Random(rng.random()))

    wires = [wire(stand.storefront_key) for _ in range(clients)] + [wire(stand.admin_key)]
    load.workers = [
        *(Buyer(f"b{n}", market, wires[n], random.Random(rng.random())) for n in range(clients)),
        Operator("move", market, wires[-1], random.Random(rng.random())),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for worker in load.workers:
                group.create_task(worker.run())
            try:
                await load.recovered(0.0)
                yield load
            finally:
                load.over.set()
    finally:
        for one in wires:
            await one.close()
