"""Every API process and worker restarted in turn by SIGTERM, as an upgrade does."""

import asyncio
import contextlib
import os
import random
import signal
import time
from functools import partial

import httpx

from loadtests.tally import Fate
from loadtests.torture.bench import Bench, scenario
from loadtests.torture.clients import moment
from loadtests.torture.faults import a_moment, living
from loadtests.torture.ledger import Hold
from loadtests.torture.stand import Stand, stand_of_pieces
from loadtests.torture.wire import Answer, Wire

_TWO_OF_EACH = partial(stand_of_pieces, serves=2, workers=2)
SERVICES = ("serve-1", "serve-2", "worker-1", "worker-2")
KEYLESS_CLIENTS = 4
READY_SECONDS = 60.0


class Keyless:
    """Reserves without a key: what has no definite answer it may not ask again."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._rng = random.Random(bench.rng.random())
        self._name = f"keyless{number}"
        stand, ledger = bench.stand, bench.load.ledger
        self._wire = Wire(stand.urls, stand.storefront_key, ledger.retries, self._rng)

    async def run(self, over: asyncio.Event) -> None:
        number = 0
        while not over.is_set():
            number += 1
            await self._visit(f"{self._name}.{number}")
            await asyncio.sleep(self._rng.uniform(0.01, 0.05))
        await self._wire.close()

    async def _visit(self, customer: str) -> None:
        sale, began = self._rng.choice(self._bench.load.sales), time.time()
        body = {"customer_id": customer, "items": [{"sku": "plenty", "quantity": 1}]}
        answer = await self._ask(f"/v1/sales/{sale}/reservations", body)
        if answer is None or answer.status != 201:
            self._bench.wrong.append(f"a request that may not be repeated failed: {answer}")
            return
        hold = Hold(
            reservation_id=answer.body["id"],
            customer_id=customer,
            items=[("plenty", 1)],
            asked_at=began,
            told_at=time.time(),
            sale_id=sale,
            key="",
            expires_at=moment(answer.body["expires_at"]),
        )
        ledger = self._bench.load.ledger
        ledger.holds.append(hold)
        ledger.acknowledged["hold"] += 1
        hold.fate, hold.released_at = Fate.RELEASING, time.time()
        path = f"/v1/sales/{sale}/reservations/{hold.reservation_id}"
        released = await self._wire.ask("DELETE", path)
        if released.body.get("status") == "released":
            hold.fate = Fate.RELEASED
            ledger.acknowledged["release"] += 1

    async def _ask(self, path: str, body: object) -> Answer | None:
        """An answer that is definite or may not be repeated; None where the connection broke."""
        while True:
            answer = await self._wire.ask_once("POST", path, body)
            if isinstance(answer, Answer):
                if answer.status != 503 or answer.code == "outcome_unknown":
                    return answer
            elif not isinstance(answer, httpx.ConnectError):
                return None
            await asyncio.sleep(self._rng.uniform(0.05, 0.2))


async def _ready_again(stand: Stand, service: str, before: int) -> None:
    """The process is another one, and if it is an API process, it answers. Raises StandFailed."""
    await living(stand, service, other_than=before)
    if service.startswith("serve"):
        url = stand.urls[SERVICES.index(service)]
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)


@scenario(
    "rolling-restart",
    "Rolling restart",
    "SIGTERM of two API processes and two workers in turn; some clients without keys",
    _TWO_OF_EACH,
    rounds=3,
    seconds=25,
)
async def rolling_restart(bench: Bench) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(KEYLESS_CLIENTS):
            group.create_task(Keyless(bench, number).run(over))
        try:
            for _ in bench.turns():
                for service in SERVICES:
                    await a_moment(bench.rng, 0.5)
                    pid = await living(bench.stand, service)
                    os.kill(pid, signal.SIGTERM)
                    await bench.recover()
                    await _ready_again(bench.stand, service, pid)
        finally:
            over.set()
