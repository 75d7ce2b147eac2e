"""The live view of a demo: bars in a terminal, a line each second elsewhere."""

import asyncio
import time
from typing import Any

import asyncpg
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.demo.crowd import Crowd, Sale
from app.demo.stage import Persisted, Stage

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 1.0
_RATE_OVER_SECONDS = 1.0
_BAR_WIDTH = 40


class Show:
    """Asks the service and Postgres a few times a second, and shows that with the shoppers' reports."""

    def __init__(self, console: Console, stage: Stage, sale: Sale, crowd: Crowd) -> None:
        self.seconds = 0.0
        self._console = console
        self._stage = stage
        self._sale = sale
        self._crowd = crowd
        self._started = time.monotonic()
        self._stock: list[dict[str, Any]] = []
        self._persisted = Persisted()
        self._holds_at: list[tuple[float, int]] = [(0.0, 0)]

    async def until(self, running: asyncio.Task[None]) -> None:
        """Shows the sale until `running` is done."""
        if not self._console.is_terminal:
            await self._follow(running, _LINE_SECONDS, lambda: self._console.out(self._line()))
            return
        with Live(self._view(), console=self._console, auto_refresh=False, transient=True) as live:
            await self._follow(running, _REFRESH_SECONDS, lambda: live.update(self._view(), refresh=True))

    async def _follow(self, running: asyncio.Task[None], pause: float, show: Any) -> None:
        while not running.done():
            await self._look()
            show()
            await asyncio.wait([running], timeout=pause)

    async def _look(self) -> None:
        self.seconds = time.monotonic() - self._started
        self._stock = await self._stage.stock(self._sale.id) or self._stock
        try:
            self._persisted = await self._stage.persisted(self._sale.id)
        except (OSError, asyncpg.PostgresError):
            return  # shown again at the next look
        self._holds_at.append((self.seconds, self._crowd.counts["holds"]))
        while self._holds_at[-1][0] - self._holds_at[0][0] > _RATE_OVER_SECONDS and len(self._holds_at) > 2:
            del self._holds_at[0]

    def _holds_per_second(self) -> float:
        (before, fewer), (now, more) = self._holds_at[0], self._holds_at[-1]
        return (more - fewer) / (now - before) if now > before else 0.0

    def _units(self, counter: str) -> int:
        return sum(row[counter] for row in self._stock)

    def _figures(self) -> list[tuple[str, str]]:
        crowd, counts = self._crowd, self._crowd.counts
        return [
            ("available", f"{self._units('available'):,}"),
            ("held", f"{self._units('held'):,}"),
            ("sold", f"{self._units('sold'):,}"),
            ("shoppers", f"{counts['visits']:,} of {self._sale.buyers:,}"),
            ("holds", f"{counts['holds']:,}"),
            ("holds/s", f"{self._holds_per_second():,.0f}"),
            ("refusals", f"{crowd.section('refused '):,}"),
            ("expired", f"{self._persisted.expired:,}"),
            ("confirmed", f"{counts['visit bought'] + counts['visit bought late']:,}"),
            ("orders in Postgres", f"{self._persisted.orders:,}"),
            ("reserve p50/p99", f"{crowd.p50_ms:.0f}/{crowd.p99_ms:.0f} ms"),
            ("requests", f"{crowd.requests:,}"),
        ]

    def _line(self) -> str:
        return f"{self.seconds:3.0f} s  " + ", ".join(f"{name} {value}" for name, value in self._figures())

    def _view(self) -> RenderableType:
        bars = Table.grid(padding=(0, 2))
        for row in self._stock:
            rest = f"{row['available']:,} available, {row['held']:,} held, {row['sold']:,} sold"
            bars.add_row(row["sku"], _bar(row), rest)
        figures = Table.grid(padding=(0, 3))
        cells = [Text.assemble((f"{value:>14}", "bold"), f" {name}") for name, value in self._figures()]
        for first in range(0, len(cells), 3):
            figures.add_row(*cells[first : first + 3])
        title = Text(f"flash sale, {self.seconds:.0f} s", style="bold")
        return Group(title, bars, figures)


def _bar(row: dict[str, Any]) -> Text:
    """Available, held and sold units, as they share the bar."""
    scale = _BAR_WIDTH / max(1, row["allocated"])
    available, gone = round(row["available"] * scale), round(row["sold"] * scale)
    held = max(0, _BAR_WIDTH - available - gone)
    return Text.assemble(("█" * available, "green"), ("▒" * held, "yellow"), ("░" * gone, "dim"))
