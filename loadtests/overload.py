"""Five times what the machine can serve: how many useful answers are left, and how quickly it says no.

Servers and worker run on one core, the arrivals come from another. The first rates find the peak of useful
answers (holds given); then many times that rate is offered. Payments are made all the while, over a
connection of their own. It takes two minutes at the most.
"""

import argparse
import asyncio
import itertools
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass

import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from app.demo.stage import Stage, running_stage
from app.serve import raise_file_limit
from loadtests.bench.field import create_sale
from loadtests.bench.processes import cpu_seconds
from loadtests.bench.saturation import PATH, Load
from loadtests.generator import drive
from loadtests.open_loop import Arrivals, Pool

HELD, REFUSED = 201, 503
GUESS_SECONDS, GUESS_CONNECTIONS = 3.0, 500
SHARES_OF_THE_GUESS = (0.6, 0.8, 1.0, 1.2)
PAYMENT_PAUSE_SECONDS = 0.1
NORMAL_TIMES = 3
"""A request's time is normal again when it is at most so many times what it was before, or 10 ms."""
RECOVERY_SECONDS = 30


@dataclass
class Measured:
    """One rate."""

    offered: float
    arrivals: Arrivals
    payments_ms: list[float]
    memory: float
    """MiB of the API process at the end."""
    cpu: float
    """Seconds that the API process was given in a second."""
    recovered: float = 0.0
    """Seconds after the end, until a hold took a normal time again."""

    @property
    def held(self) -> float:
        """A second."""
        return self.arrivals.rate(HELD)


class Payments:
    """Pays for holds, one after the other, while others ask for new ones."""

    def __init__(self, client: httpx.AsyncClient, holds: list[str]) -> None:
        self._client = client
        self._holds = holds
        self.milliseconds: list[float] = []

    @classmethod
    async def prepare(cls, client: httpx.AsyncClient, count: int) -> "Payments":
        holds = []
        for number in range(count):
            body = {"customer_id": f"payer{number}", "items": [{"sku": "a", "quantity": 1}]}
            answer = await client.post(PATH.format(sale="overload"), json=body)
            holds.append(answer.raise_for_status().json()["id"])
        return cls(client, holds)

    async def run(self) -> None:
        while self._holds:
            path = f"{PATH.format(sale='overload')}/{self._holds.pop()}/confirm"
            started = time.perf_counter()
            answer = await self._client.post(path, json={"payment_reference": "pay"})
            answer.raise_for_status()
            self.milliseconds.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(PAYMENT_PAUSE_SECONDS)


class Overload:
    def __init__(self, stage: Stage, options: argparse.Namespace) -> None:
        self._options = options
        self._stage = stage
        token = stage.variables["HOLDFAST_STOREFRONT_KEY"]
        self._requests = Load(stage.url, "overload", token).requests()
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(base_url=stage.url, headers=headers, timeout=30)
        self._pool = Pool(stage.url)
        self._numbers = itertools.count()

    def _request(self) -> bytes:
        return next(self._requests)

    def _memory(self) -> float:
        return float(psutil.Process(self._stage.servers.supervisor.pid("serve")).memory_info().rss) / 2**20

    async def _ask(self) -> float:
        """Milliseconds until a hold is given to somebody who asks again when told to."""
        body = {"customer_id": f"probe{next(self._numbers)}", "items": [{"sku": "a", "quantity": 1}]}
        started = time.perf_counter()
        answer = await self._client.post(PATH.format(sale="overload"), json=body)
        return (time.perf_counter() - started) * 1000 if answer.status_code == HELD else float("inf")

    async def _measure(self, rate: float, seconds: float) -> Measured:
        payments = await Payments.prepare(self._client, int((seconds + 1) / PAYMENT_PAUSE_SECONDS))
        paying = asyncio.create_task(payments.run())
        pid = self._stage.servers.supervisor.pid("serve")
        spent, started = cpu_seconds(pid), time.perf_counter()
        arrivals = await self._pool.drive(self._request, rate, seconds)
        cpu = (cpu_seconds(pid) - spent) / (time.perf_counter() - started)
        memory = self._memory()
        paying.cancel()
        await asyncio.gather(paying, return_exceptions=True)
        return Measured(rate, arrivals, payments.milliseconds, memory, cpu)

    async def _recovered(self, normal: float) -> float:
        """Seconds until a hold takes a normal time again."""
        started = time.perf_counter()
        while await self._ask() > max(normal * NORMAL_TIMES, 10.0):
            if time.perf_counter() - started > RECOVERY_SECONDS:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.perf_counter() - started

    async def run(self, console: Console) -> bool:
        """Prints the tables. Were useful answers left as many as they should be?"""
        normal = statistics.median([await self._ask() for _ in range(50)])
        guess = await drive(
            self._stage.url, lambda _: self._request(), connections=GUESS_CONNECTIONS, seconds=GUESS_SECONDS
        )
        capacity = guess.statuses[HELD] / guess.seconds
        console.print(f"alone, a hold takes {normal:.1f} ms; about {capacity:,.0f} a second can be given")
        await self._pool.open(self._options.connections)
        console.print(f"looking for the peak: {len(SHARES_OF_THE_GUESS)} rates")
        found = [
            await self._settled(capacity * share, self._options.seconds, normal)
            for share in SHARES_OF_THE_GUESS
        ]
        best = max(found, key=lambda row: row.held).offered
        before = self._memory()
        rows = [await self._settled(best, self._options.seconds, normal)]
        for self._pool.patient in (True, False):
            rows.append(
                await self._settled(
                    rows[0].held * self._options.times, self._options.overload_seconds, normal
                )
            )
            rows.append(await self._settled(best, self._options.seconds, normal))
        self._pool.close()
        # What else the machine does changes from minute to minute: each is held against its neighbours.
        left = [rows[at].held / statistics.mean((rows[at - 1].held, rows[at + 1].held)) for at in (1, 3)]
        console.print(self._table(rows))
        console.print(
            f"{self._options.times:g} times the peak leaves {left[0]:.0%} of its useful answers where "
            f"clients heed Retry-After, and {left[1]:.0%} where they ask again at once. The API process had "
            f"{before:.0f} MiB before and {rows[-1].memory:.0f} MiB after."
        )
        return bool(min(left) >= self._options.least)

    async def _settled(self, rate: float, seconds: float, normal: float) -> Measured:
        """Measures a rate, and waits until the machine is over it."""
        measured = await self._measure(rate, seconds)
        measured.recovered = await self._recovered(normal)
        return measured

    @staticmethod
    def _table(rows: list[Measured]) -> Table:
        table = Table(
            "offered/s", "held/s", "held per CPU s", "p50 ms", "p99", "refused/s", "p50 ms", "p99",
            "not read/s", "lost", "payment p50 ms", "p99", "MiB", "normal after s",
        )  # fmt: skip
        for row in rows:
            arrivals, paid = row.arrivals, sorted(row.payments_ms) or [0.0]
            table.add_row(
                f"{arrivals.offered / arrivals.seconds:,.0f}",
                f"{row.held:,.0f}", f"{row.held / row.cpu:,.0f}",
                f"{arrivals.latency_ms(HELD, 0.5):.0f}", f"{arrivals.latency_ms(HELD, 0.99):.0f}",
                f"{arrivals.rate(REFUSED):,.0f}",
                f"{arrivals.latency_ms(REFUSED, 0.5):.0f}", f"{arrivals.latency_ms(REFUSED, 0.99):.0f}",
                f"{arrivals.unsent / arrivals.seconds:,.0f}", f"{arrivals.lost}",
                f"{statistics.median(paid):.0f}", f"{paid[int((len(paid) - 1) * 0.99)]:.0f}",
                f"{row.memory:.0f}", f"{row.recovered:.1f}",
            )  # fmt: skip
        return table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overload",
        description=__doc__,
        epilog="example: python -m loadtests.overload --times 10",
    )
    parser.add_argument("--times", type=float, default=5.0, help="the peak (default: 5)")
    parser.add_argument("--connections", type=int, default=4000, help="default: 4000")
    parser.add_argument("--seconds", type=float, default=4.0, help="per rate of the search (default: 4)")
    parser.add_argument("--overload-seconds", type=float, default=15.0, help="twice (default: 15)")
    parser.add_argument(
        "--least", type=float, default=0.8, help="share of the peak, else exit code 1 (default: 0.8)"
    )
    options = parser.parse_args()
    raise_file_limit()
    console = Console(width=140)
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})  # the servers inherit it
    with running_stage(console) as stage:
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[1]})
        console.print(
            f"Python {platform.python_version()}, {platform.machine()}, servers on one core, "
            f"{options.connections} connections"
        )
        create_sale(stage, "overload", 10**9)
        return 0 if uvloop.run(Overload(stage, options).run(console)) else 1


if __name__ == "__main__":
    sys.exit(main())
