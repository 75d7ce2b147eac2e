"""The section `growth`: what a hold costs as load and sales grow, and how long the sweeper blocks Redis."""

import os
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console

from app.embedded.servers import EmbeddedServers
from loadtests.bench.growth_background import HOLDS, SHORT_MS, SKUS, Work, background_work
from loadtests.bench.growth_http import PROCESS_CONNECTIONS, HttpCost, measure_http
from loadtests.bench.growth_inventory import Axis, Growth, measure_inventory
from loadtests.bench.growth_lab import open_lab, quantile
from loadtests.bench.growth_meanwhile import RATE, Waits, holds_meanwhile
from loadtests.bench.growth_sweep import LIMIT_MS, Steps, sweep_steps
from loadtests.bench.options import Options
from loadtests.bench.report import Plot, Section, Table

_ROUNDS = 3
_HTTP_SECONDS = 2.0
_UNUSED = "postgresql://127.0.0.1/unused"
"""The part without HTTP needs no Postgres."""

_INTRO = """\
Over HTTP: holds with an Idempotency-Key, each by another customer; the generator, API, Redis, worker and
Postgres share {cores} cores, so several API processes show what sharing costs and not what further cores
would give.

Without HTTP: batches of 64 holds by the reserve script on a Redis of its own, `appendfsync always`; medians
of {rounds} rounds. CPU is that of the thread which runs the commands. A sale was filled by the reserve script
itself, with `appendfsync no` and the journal cut off meanwhile. Rewriting the append-only file forks Redis,
which stood still for {fork:.0f} ms at {fork_holds:,} living holds: that grows with its memory, as with every
Redis.

A step of the sweeper is one call of `lua/expire.lua`. CPU is exact, without writing the file; SLOWLOG is wall
time, in which the core may have done other things. The sweeper has one call under way at a time: a call of
holds waits for one step and its sync, at most, and each has a sync of its own.

Other work goes in small calls as well. Calls that never take {short} ms are left out, and of `snapshot`
SLOWLOG has only the script, without the reading of the rows beside it. What makes, reads or marks a sale as
a whole does so at one moment: it takes as long as the sale has SKUs, however many holds there are."""


def measure(options: Options, console: Console) -> Section:
    rounds = 1 if options.quick else _ROUNDS
    by_connections, by_processes = measure_http(min(options.seconds, _HTTP_SECONDS), options.quick, console)
    growth, steps, waits = uvloop.run(_without_http(rounds, options.quick, console))
    works = background_work(options.quick, console)
    intro = _INTRO.format(
        cores=os.cpu_count(), rounds=rounds, fork=growth.fork_ms, fork_holds=growth.fork_holds, short=SHORT_MS
    )
    tables = [
        _http_table("connections", by_connections, "One API process."),
        _http_table("API processes", by_processes, f"{PROCESS_CONNECTIONS} connections."),
        _axes_table(growth),
        _steps_table(steps),
        _waits_table(waits),
        _work_table(works, HOLDS // 10 if options.quick else HOLDS),
    ]
    plots = [
        _http_plot("growth-connections", "connections", by_connections),
        _http_plot("growth-processes", "API processes", by_processes),
        *(_axis_plot(axis) for axis in growth.axes),
        _steps_plot(steps),
    ]
    return Section("growth", intro, tables, plots)


async def _without_http(
    rounds: int, quick: bool, console: Console
) -> tuple[Growth, list[Steps], list[Waits]]:
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-growth-", dir="/tmp") as folder,
        EmbeddedServers(Path(folder) / "data", database_url=_UNUSED) as servers,
    ):
        async with open_lab(servers.redis_url) as lab:
            steps = await sweep_steps(lab, quick, console)
            waits = await holds_meanwhile(lab, quick, console)
            return await measure_inventory(lab, rounds, quick, console), steps, waits


def _http_table(name: str, costs: dict[int, HttpCost], caption: str) -> Table:
    columns = (name, "holds/s", "p50 ms", "p99 ms", "API µs", "Redis µs", "holds a call")
    rows: list[tuple[str, ...]] = [
        (
            f"{size:,}", f"{cost.rate:,.0f}", f"{cost.p50_ms:.1f}", f"{cost.p99_ms:.1f}", f"{cost.api:.0f}",
            f"{cost.redis:.0f}", f"{cost.batch:.0f}",
        )
        for size, cost in costs.items()
    ]  # fmt: skip
    return Table(columns, rows, f"{caption} µs are CPU per hold.")


def _http_plot(name: str, x: str, costs: dict[int, HttpCost]) -> Plot:
    series = {
        "API": [(float(size), cost.api) for size, cost in costs.items()],
        "Redis": [(float(size), cost.redis) for size, cost in costs.items()],
    }
    return Plot(name, f"CPU per hold by {x}", x, "µs", series, log_x=True)


def _axes_table(growth: Growth) -> Table:
    rows: list[tuple[str, ...]] = [
        (axis.name, f"{size:,}", f"{cost.cpu:.0f}", f"{cost.script:.0f}")
        for axis in growth.axes
        for size, cost in axis.costs.items()
    ]
    caption = "One hold among 64 in a call, without HTTP."
    return Table(("what grows", "size", "Redis CPU µs", "of these in the script (wall)"), rows, caption)


def _axis_plot(axis: Axis) -> Plot:
    series = {"Redis": [(float(size), cost.cpu) for size, cost in axis.costs.items()]}
    name = "growth-" + axis.name.replace(" ", "-").lower()
    return Plot(name, f"CPU per hold by {axis.name}", axis.name, "µs", series, log_x=True)


def _steps_table(steps: list[Steps]) -> Table:
    columns = ("lines of a cart", "holds", "steps", "took", "clock", "p50 ms", "p99 ms", "max ms", "> 2 ms")
    rows: list[tuple[str, ...]] = []
    for run in steps:
        size = (str(run.lines), f"{run.holds:,}", f"{len(run.cpu):,}", f"{run.seconds:.1f} s")
        for clock, took in (("CPU", run.cpu), ("SLOWLOG", run.slowlog)):
            quantiles = [f"{quantile(took, share):.2f}" for share in (0.5, 0.99, 1.0)]
            rows.append((*size, clock, *quantiles, str(sum(ms > LIMIT_MS for ms in took))))
    return Table(columns, rows, "Sweeping holds that are all due.")


def _waits_table(waits: list[Waits]) -> Table:
    rows: list[tuple[str, ...]] = []
    for run in waits:
        quantiles = [f"{quantile(run.took, share):.1f}" for share in (0.5, 0.99, 1.0)]
        rows.append((run.during, f"{run.seconds:.1f} s", f"{len(run.took):,}", *quantiles))
    caption = (
        f"Holds at a constant rate of {RATE:,.0f} a second, from when each was due, without HTTP; the "
        "sweeper is a process of its own."
    )
    return Table(("meanwhile", "for", "holds", "p50 ms", "p99 ms", "max ms"), rows, caption)


def _work_table(works: list[Work], holds: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for work in works:
        quantiles = [f"{quantile(work.cpu, share):.2f}" for share in (0.5, 0.99, 1.0)]
        rows.append((work.of, work.call, f"{len(work.cpu):,}", *quantiles, f"{work.slowlog:.2f}"))
    columns = ("work", "script or command", "calls", "p50 ms", "p99 ms", "max ms", "SLOWLOG max ms")
    caption = (
        f"Other work in the background, on a sale with {holds:,} holds and {SKUS:,} SKUs: Redis' CPU for a "
        "call, its reply and its part of the append-only file included."
    )
    return Table(columns, rows, caption)


def _steps_plot(steps: list[Steps]) -> Plot:
    shares = (0.5, 0.9, 0.99, 0.999, 1.0)
    series = {
        f"carts of {run.lines}": [(share * 100, quantile(run.cpu, share)) for share in shares]
        for run in steps
    }
    return Plot("growth-sweep", "A step of the sweeper", "percentile", "ms of Redis' CPU", series)
