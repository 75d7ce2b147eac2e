"""The last thing a demo shows: what happened, in a merchant's words, and whether all of it adds up."""

import os
from typing import Any

from rich.console import Console
from rich.table import Table

from app.demo.crowd import Crowd, Sale
from app.demo.stage import Persisted

LAST_LINE = "no unit oversold, no unit lost"


def final_table(console: Console, sale: Sale, crowd: Crowd, persisted: Persisted, seconds: float) -> bool:
    """Prints the account; True if the auditor, the shoppers and Postgres agree."""
    verdict = crowd.verdict or {}
    console.print(_account(sale, crowd, persisted, verdict))
    console.print(_checks(verdict, persisted))
    console.print(
        f"Measured here: {os.cpu_count()} cores that servers and shoppers share, Redis with appendfsync "
        f"always, Postgres with fsync. {crowd.requests:,} requests in {seconds:.0f} s, "
        f"reserve p50 {crowd.p50_ms:.0f} ms, p99 {crowd.p99_ms:.0f} ms.",
    )
    agreed = bool(verdict.get("ok")) and persisted.orders == persisted.with_outbox_row
    if agreed:
        console.print(f"[bold green]{LAST_LINE}[/]")
    else:
        console.print("[bold red]the account does not add up: see the crosses above[/]")
    return agreed


def _account(sale: Sale, crowd: Crowd, persisted: Persisted, verdict: dict[str, Any]) -> Table:
    stock, counts = verdict["stock"], crowd.counts
    late = counts["visit bought late"]
    rows: list[tuple[str, int]] = [
        ("units allocated", sum(row["allocated"] for row in stock)),
        ("units sold", sum(row["sold"] for row in stock)),
        ("units still available", sum(row["available"] for row in stock)),
        ("units still held", sum(row["held"] for row in stock)),
        ("holds given", counts["holds"]),
        ("  of these expired", persisted.expired),
        ("  of these given back by the shopper", counts["visit changed their mind"]),
        ("shoppers", counts["visits"]),
        ("  bought", counts["visit bought"] + late),
        ("  told sold out", counts["visit sold out"]),
        ("  walked away without paying", counts["visit walked away"]),
        ("late payments that got their units again", late),
        ("late payments to refund", counts["visit to refund"]),
        ("repeated requests answered the same", counts["replays answered the same"]),
        ("orders in Postgres", persisted.orders),
        ("  with their outbox row", persisted.with_outbox_row),
    ]
    table = Table(f"{sale.buyers:,} shoppers for {sale.stock:,} units", "")
    table.columns[1].justify = "right"
    for name, figure in rows:
        table.add_row(name, f"{figure:,}")
    return table


def _checks(verdict: dict[str, Any], persisted: Persisted) -> Table:
    table = Table("", "checked", "expected", "found", title="the auditor's account, and the shoppers' own")
    table.columns[2].justify = table.columns[3].justify = "right"
    outbox = {
        "name": "orders with their outbox row", "ok": persisted.orders == persisted.with_outbox_row,
        "expected": persisted.orders, "found": persisted.with_outbox_row,
    }  # fmt: skip
    for check in [*verdict["audit"]["invariants"], *verdict["checks"], outbox]:
        tick = "[green]✓[/]" if check["ok"] else "[red]✗[/]"
        name = check["name"].replace("_", " ")
        if check.get("detail") and not check["ok"]:
            name += f"\n{check['detail']}"
        expected, found = _text(check["expected"], check["ok"]), _text(check["found"], check["ok"])
        table.add_row(tick, name, expected, found)
    return table


def _text(value: Any, short: bool) -> str:
    """A figure, or several; those are counted only if `short`."""
    if isinstance(value, dict):
        return f"{len(value)} figures" if short else ", ".join(f"{name} {n}" for name, n in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
