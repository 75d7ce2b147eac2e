"""The results of the contenders as tables and plots."""

import math
import statistics
from collections.abc import Callable, Iterable

from loadtests.bench.field import HOLDFAST_NAME
from loadtests.bench.report import Plot, Table
from loadtests.bench.results import Measured, Results
from loadtests.bench.runs import Run
from loadtests.bench.steady import Steady

ROLES = ("API", "Redis", "worker", "Postgres")
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def spread(measured: Measured, of: Callable[[Run], float], form: str = ",.0f") -> str:
    """Median, and minimum to maximum."""
    values = [of(run) for run in measured.runs]
    return f"{measured.median(of):{form}} ({min(values):{form}}–{max(values):{form}})"


def throughput(caption: str, what: str, rows: Iterable[Measured]) -> Table:
    columns = (
        "contender", f"{what}/s", *(f"{role} µs" for role in ROLES), "all µs", "API MiB", "oversold units",
    )  # fmt: skip
    return Table(columns, [_throughput_row(row) for row in rows], caption)


def _throughput_row(row: Measured) -> tuple[str, ...]:
    used = row.runs[0].cpu_us
    costs = (spread(row, lambda run, role=role: run.cpu_us[role]) if role in used else "-" for role in ROLES)  # type: ignore[misc]
    sells = row.case.contender.prepare is not None
    return (
        _name(row), spread(row, lambda run: run.rate), *costs,
        spread(row, lambda run: sum(run.cpu_us.values())),
        f"{row.median(lambda run: run.memory_mib):.0f}", str(row.oversold) if sells else "-",
    )  # fmt: skip


def _name(row: Measured) -> str:
    return f"**{row.case.name}**" if row.case.name.startswith(HOLDFAST_NAME) else row.case.name


def latencies(caption: str, rows: Iterable[Measured]) -> Table:
    columns = (
        "contender", "offered/s", *(f"{name} ms" for name in QUANTILES), "p99 ÷ p50", "p99.9 ÷ p50",
        "unanswered", "generator busy",
    )  # fmt: skip
    return Table(
        columns,
        [
            (
                f"{_name(row)}{'' if row.case.accepted else ', sold out'}",
                f"{statistics.median(each.rate for each in row.arrivals):,.0f}",
                *(_latency_spread(row, quantile) for quantile in QUANTILES.values()),
                f"{row.tail(0.99):.1f}", f"{row.tail(0.999):.1f}",
                str(sum(each.unanswered for each in row.arrivals)),
                f"{max(each.busy for each in row.arrivals):.0%}",
            )
            for row in rows
        ],
        caption,
    )  # fmt: skip


def _latency_spread(row: Measured, quantile: float) -> str:
    values = [each.latency_ms(row.status, quantile) for each in row.arrivals]
    return f"{row.latency_ms(quantile):.2f} ({min(values):.2f}–{max(values):.2f})"


def pieces(results: Results) -> list[Table]:
    """What was measured beside the contenders."""
    return [
        _order(results),
        _lone(results),
        _script(results),
        *([_steady(results.steady)] if results.steady else []),
    ]


def _order(results: Results) -> Table:
    spent = results.order_us
    row = ("reserve and confirm", *(f"{spent[role]:.0f}" for role in ROLES), f"{sum(spent.values()):.0f}")
    return Table(("request", *(f"{role} µs" for role in ROLES), "all µs"), [row], ORDER_CAPTION)


def _lone(results: Results) -> Table:
    rows: list[tuple[str, ...]] = [(what, f"{took:.2f}") for what, took in results.lone_ms.items()]
    return Table(("what", "median ms"), rows, LONE_CAPTION)


def _script(results: Results) -> Table:
    rows: list[tuple[str, ...]] = [
        (str(batch), name, f"{cost.script_us:.2f}", f"{cost.process_us:.2f}")
        for batch, costs in results.script.items()
        for name, cost in costs.items()
    ]
    columns = ("batch", "script", "in EVALSHA, µs per request", "CPU of the process, µs per request")
    caption = f"{SCRIPT_CAPTION} A living hold with its index entries takes {results.hold_bytes:.0f} bytes."
    return Table(columns, rows, caption)


def _steady(steady: Steady) -> Table:
    columns = ("offered/s", "accepted/s", "entries behind at the end", "caught up after", *ROLES[1:])
    row = (
        f"{steady.offered:,.0f}", f"{steady.accepted:,.0f}", f"{steady.behind:,.0f}",
        f"{steady.caught_up:.2f} s", *(f"{steady.cpu_us[role]:.0f} µs" for role in ROLES[1:]),
    )  # fmt: skip
    return Table(columns, [row], STEADY_CAPTION)


ORDER_CAPTION = """\
### A whole order

Reserved and confirmed over HTTP, and counted until order and outbox row are in Postgres, as is verified."""

LONE_CAPTION = """\
### One request at a time

Without other load, in turn: a hold waits for what the rows above it wait for, and for the disk. EVALSHA is
asked from an event loop of its own (uvloop), which is in its time."""

SCRIPT_CAPTION = """\
### The script alone

Redis asked directly by `app.inventory`; `loadtests/bench/bare_writes.lua`, which is handed the same values
ready-made, reads and writes them, and decides nothing; and an empty script given the same KEYS and ARGV; all
with `appendfsync always`. The process' CPU includes parsing, append-only file and fsync."""

STEADY_CAPTION = """\
### The drain keeps up

Holds made by the reserve script at a constant rate, without HTTP before it."""


def plots(results: Results) -> list[Plot]:
    def bars(rows: list[Measured], of: Callable[[Measured], float]) -> list[tuple[float, float]]:
        # What was never answered has no bar.
        found = [(float(index), of(row)) for index, row in enumerate(rows)]
        return [(x, y) for x, y in found if math.isfinite(y)]

    holds, refusals = list(results.holds.values()), list(results.refusals.values())
    found = []
    for kind, what, rows in (("holds", "Accepted holds", holds), ("sold-out", "Sold-out answers", refusals)):
        names = tuple(row.case.name for row in rows)
        found += [
            Plot(f"{kind}-rate", f"{what} a second", "", "a second",
                 {what: bars(rows, lambda row: row.rate)}, labels=names),
            Plot(f"{kind}-cpu", f"CPU per request: {what.lower()}", "", "µs",
                 {"API process": bars(rows, lambda row: row.cpu_us("API")),
                  "all processes": bars(rows, lambda row: row.median(lambda run: sum(run.cpu_us.values())))},
                 labels=names),
            Plot(f"{kind}-latency", f"{what}: latency at 70 % of saturation", "", "ms, from being due",
                 {name: bars(rows, lambda row, at=quantile: row.latency_ms(at))  # type: ignore[misc]
                  for name, quantile in QUANTILES.items()}, log_y=True, labels=names),
        ]  # fmt: skip
    return found
