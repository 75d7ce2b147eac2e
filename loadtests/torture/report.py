"""How a run shows itself: a table for people, and the page docs/reliability.md."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from app.embedded.resolve import find_postgres, find_redis
from loadtests.torture.clients import HOLD_SECONDS
from loadtests.torture.load import SALES
from loadtests.torture.runner import Plan, Row
from loadtests.torture.stand import PARTITIONS

BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"
COLUMNS = (
    "fault", "how it was injected", "rounds", "acknowledged operations", "lost", "lost with Redis' memory",
    "oversold", "time to recover, median", "max",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    verdict, times = row.verdict, row.recoveries
    return [
        row.scenario.fault,
        row.scenario.how,
        str(row.rounds),
        f"{verdict.acknowledged:,}",
        str(len(verdict.lost)),
        str(len(verdict.documented)),
        str(verdict.oversold),
        f"{statistics.median(times):.2f} s" if times else "",
        f"{max(times):.2f} s" if times else "",
    ]


def table(rows: Sequence[Row]) -> Table:
    shown = Table("", *COLUMNS, "took")
    for row in rows:
        shown.add_row("[green]✓[/]" if row.verdict.ok else "[red]✗[/]", *cells(row), f"{row.seconds:.0f} s")
    return shown


def summary(rows: Sequence[Row], plan: Plan) -> str:
    """One paragraph: how much was done, with which settings, where and when."""
    versions = [
        f"{program.path.name.removesuffix('-server').capitalize()} {'.'.join(map(str, program.version))}"
        for program in (find_redis(), find_postgres(None))
    ]
    return (
        f"{sum(row.rounds for row in rows)} rounds, {sum(row.kills for row in rows)} processes killed, "
        f"{sum(row.verdict.acknowledged for row in rows):,} operations acknowledged, "
        f"{sum(row.retries for row in rows):,} tries without a definite answer repeated with the same key. "
        f"{plan.clients} buyers and an operator in {SALES} sales over {PARTITIONS} partitions, "
        f"holds of {HOLD_SECONDS} s; "
        f"Redis `appendfsync always`, Postgres with fsync. {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}; {datetime.now(UTC):%Y-%m-%d}; "
        f"`python -m loadtests.torture --seed {plan.seed}`."
    )


def write(page: Path, rows: Sequence[Row], plan: Plan) -> None:
    """Puts table and summary between the page's two marks. Raises ValueError if it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table, which is between {BEGIN} and {END}")
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *map(cells, rows)]
    told = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    told += "".join(f"\n- {row.scenario.fault}: {sentence}" for row in rows for sentence in row.verdict.wrong)
    page.write_text(f"{before}{BEGIN}\n{summary(rows, plan)}\n\n{told}{END}{after}")
