"""What a section of docs/benchmarks.md consists of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """`name`: of its file, without the suffix."""

    name: str
    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Section:
    """`name`: of its marker; `intro`: Markdown."""

    name: str
    intro: str
    tables: list[Table]
    plots: list[Plot]
