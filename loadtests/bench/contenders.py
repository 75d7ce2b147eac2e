"""Holdfast beside what else one could do, in turn, round by round, each with the same requests."""

import asyncio

from rich.console import Console

from loadtests.bench import pages, processes, targets
from loadtests.bench.field import EMPTY, HOLDFAST_NAME, Field, running_field
from loadtests.bench.lone import latencies
from loadtests.bench.options import Options
from loadtests.bench.orders import order_cpu
from loadtests.bench.redis_cost import bytes_per_hold, script_costs
from loadtests.bench.report import Section
from loadtests.bench.results import Measured, Order, Results
from loadtests.bench.runs import Case, cases, run, run_at
from loadtests.bench.saturation import generator
from loadtests.bench.steady import keep_up

SHARE = 0.7
"""Of the saturation rate, for latencies."""
WARM_UP_SECONDS, PROBE_SECONDS = 0.5, 1.0
QUIET = 0.9
"""Share of its core that the empty endpoint must get, or the machine was not idle."""
BATCHES = (32, 64)
PAIRS = 2
"""Of Holdfast and the empty endpoint in a round: their ratio is what is aimed at."""
STEADY_RATE = 5000.0
ORDER_ROUNDS = 3


def measure(options: Options, console: Console) -> Section:
    """Ten minutes with the defaults; two with `quick`."""
    cores = processes.cores()
    if generator() != "wrk":
        console.print(
            "wrk is not on PATH (`apt install wrk`): a generator in Python, which is slower, saturates"
        )
    with running_field(console) as field:
        results = _compare(field, options, console)
        _measure_pieces(field, results, options, console)
    return Section(
        "contenders",
        _intro(options, cores is not None, results.holds[EMPTY]),
        [
            targets.table(targets.targets(results)),
            pages.throughput(HOLDS_CAPTION, "holds", results.holds.values()),
            pages.throughput(REFUSALS_CAPTION, "answers", results.refusals.values()),
            pages.latencies(LATENCY_CAPTION, results.all),
            *pages.pieces(results),
        ],
        pages.plots(results),
    )


def _compare(field: Field, options: Options, console: Console) -> Results:
    """All contenders in every round, so that what else the machine does meets all of them."""
    rows = [Measured(case) for case in cases(field)]
    for row in rows:
        run(field, row.case, options, WARM_UP_SECONDS)
    for number in range(1, options.rounds + 1):
        _throughput_round(field, rows, options, f"round {number}/{options.rounds}", console)
    for number in range(1, _latency_rounds(options) + 1):
        for row in rows:
            rate = run(field, row.case, options, PROBE_SECONDS).rate * SHARE
            row.arrivals.append(run_at(field, row.case, options, rate, options.seconds))
            console.print(
                f"constant rate {number}/{_latency_rounds(options)}: {_what(row.case)}: p99 "
                f"{row.arrivals[-1].latency_ms(row.status, 0.99):.1f} ms"
            )
    return Results(
        {row.case.name: row for row in rows if row.case.accepted},
        {row.case.name: row for row in rows if not row.case.accepted},
    )


def _throughput_round(
    field: Field, rows: list[Measured], options: Options, title: str, console: Console
) -> None:
    """Each contender once; Holdfast twice, each time with the empty endpoint right before."""
    empty = next(row for row in rows if row.case.name == EMPTY)
    for row in rows:
        if row is empty:
            continue
        compared = row.case.contender.name == HOLDFAST_NAME
        for each in (empty, row) * PAIRS if compared else (row,):
            each.runs.append(run(field, each.case, options, options.seconds))
            last = each.runs[-1]
            console.print(
                f"{title}: {_what(each.case)}: {last.rate:,.0f}/s, {last.cpu_us['API']:.0f} µs of the API"
            )
        if compared:
            row.beside += empty.runs[-PAIRS:]


def _latency_rounds(options: Options) -> int:
    return max(1, options.rounds * 3 // 5)


def _what(case: Case) -> str:
    return case.name if case.accepted else f"{case.name}, sold out"


def _measure_pieces(field: Field, results: Results, options: Options, console: Console) -> None:
    holdfast, seconds = field.named(HOLDFAST_NAME), options.seconds
    console.print("whole orders")
    empty = results.holds[EMPTY].case
    for number in range(1 if options.quick else ORDER_ROUNDS):
        beside = run(field, empty, options, seconds).cpu_us["API"]
        spent = order_cpu(field, holdfast, f"orders-{number}", options.connections, seconds)
        results.orders.append(Order(spent, beside))
    console.print("lone requests")
    results.lone_ms = latencies(field, "lone", 2 if options.quick else 8)
    console.print("the drain at a constant rate")
    results.steady = keep_up(field, holdfast, "steady", STEADY_RATE, seconds if options.quick else 15.0)
    console.print("the script alone, and memory")
    batches, turns = (50, 2) if options.quick else (300, 5)
    for batch in BATCHES:
        results.script[batch] = asyncio.run(script_costs(field.redis_url, batch, batches, turns))
    results.hold_bytes = asyncio.run(bytes_per_hold(field.redis_url, 20_000 if options.quick else 100_000))


def _intro(options: Options, pinned: bool, empty: Measured) -> str:
    where = (
        "All servers run on one core, the generator on the other."
        if pinned
        else "Servers and generator share all cores: they could not be kept apart here, so rates say little."
    )
    # Nothing but its own CPU limits the empty endpoint: what is missing, something else took.
    used = empty.median(lambda run: run.rate * run.cpu_us["API"] / processes.MICROSECONDS)
    busy = f" **Something else used the servers' core: {1 - used:.0%} of it.**" if used < QUIET else ""
    trial = " **A trial (`--quick`): nothing here is precise.**" if options.quick else ""
    return (
        f"{options.rounds} rounds of {options.seconds:g} s of each contender in turn, {options.connections} "
        f"connections, one API process each on uvloop and httptools. {where} Saturation by {generator()}, "
        f"constant rates by `loadtests/bench/constant_rate.py`. Redis `appendfsync always` except where "
        f"everysec is named, Postgres with fsync. {processes.machine()}.{busy}{trial}\n\n"
        "Medians of the rounds, with minimum and maximum in brackets; in each round Holdfast's cases run "
        f"{PAIRS} times, each time right after the empty endpoint. µs are CPU for one answer, user and "
        "system, as the kernel accounts for them."
    )


HOLDS_CAPTION = """\
### Accepted holds

As many as are answered. Holdfast's are counted until the drain has caught up, so that they are in Postgres
with their outbox rows. The two endpoints at the top decide nothing."""

REFUSALS_CAPTION = """\
### Sold out

After the last unit is gone. Oversold units: after each round, what the contender's own store says was given
out, or what customers were told, whichever is more, beyond the stock."""

LATENCY_CAPTION = f"""\
### Latency at a constant rate

At {SHARE:.0%} of the saturation rate that each contender had right before (Holdfast's until all was
drained), evenly spaced, whatever becomes of the answers; latency counts from the moment at which a request
was due. Generator busy: the share of its own core that it used."""
