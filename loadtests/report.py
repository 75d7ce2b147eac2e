"""How a run shows itself: a table for people, lines of JSON for programs."""

from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from loadtests.options import Plan
from loadtests.tally import Tally
from loadtests.verification import Verdict


def print_line(event: str, **values: Any) -> None:
    print(orjson.dumps({"event": event, **values}).decode(), flush=True)


def progress(environment: Any, tally: Tally) -> dict[str, Any]:
    """What the run has done so far. Latencies in milliseconds, over all tries to reserve."""
    total = environment.stats.total
    reserve = environment.stats.get("reserve", "POST")
    return {
        "requests": total.num_requests,
        "p50_ms": reserve.get_response_time_percentile(0.50) or 0,
        "p99_ms": reserve.get_response_time_percentile(0.99) or 0,
        "counts": dict(tally.counts),
        "failures": tally.failures,
    }


def verdict_message(plan: Plan, tally: Tally, verdict: Verdict) -> dict[str, Any]:
    return {
        "ok": verdict.ok,
        "sale_id": plan.sale_id,
        "checks": [asdict(check) for check in verdict.checks],
        "audit": verdict.audit,
        "stock": verdict.stock,
        "counts": dict(tally.counts),
    }


def print_table(plan: Plan, tally: Tally, verdict: Verdict) -> None:
    console = Console()
    console.print(_shoppers(tally))
    console.print(_stock(plan, verdict))
    console.print(_checks(verdict))
    if verdict.ok:
        console.print(f"[green]sale {plan.sale_id}: the shoppers and the auditor agree[/]")
    else:
        console.print(f"[red]sale {plan.sale_id}: VIOLATED, see the crosses above[/]")


def _shoppers(tally: Tally) -> Table:
    table = Table("what shoppers saw", "")
    table.columns[1].justify = "right"
    for section in ("visit ", "refused "):
        for name, count in tally.section(section).items():
            table.add_row(section + name, f"{count:,}")
    for name in ("holds", "replays", "answers lost on purpose", "lost answers", "failures"):
        table.add_row(name, f"{tally.counts[name]:,}")
    return table


def _stock(plan: Plan, verdict: Verdict) -> Table:
    columns = ("allocated", "available", "held", "sold")
    table = Table(f"stock of {plan.sale_id}", *columns)
    for row in verdict.stock:
        table.add_row(row["sku"], *(f"{row[column]:,}" for column in columns))
    return table


def _checks(verdict: Verdict) -> Table:
    table = Table("", "verified", "expected", "found")
    invariants = [{**one, "name": f"auditor: {one['name']}"} for one in verdict.audit["invariants"]]
    for check in [*map(asdict, verdict.checks), *invariants]:
        ok, name = check["ok"], check["name"]
        if check.get("detail") and not ok:
            name += f"\n{check['detail']}"
        table.add_row(_tick(ok), name, _figures(check["expected"], ok), _figures(check["found"], ok))
    return table


def _figures(value: Any, short: bool) -> str:
    """A figure, or several; those are counted only if `short`."""
    if isinstance(value, dict):
        return f"{len(value)} figures" if short else ", ".join(f"{name} {n}" for name, n in value.items())
    return str(value)


def _tick(ok: bool) -> str:
    return "[green]✓[/]" if ok else "[red]✗[/]"
