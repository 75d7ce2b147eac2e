"""What a section measured, and how it gets into the report: text between two marks, plots beside it."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from app.errors import ConfigurationError

LABEL_WIDTH = 14
"""Characters in a line below a bar: seven bars fit side by side."""


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str = ""
    """Markdown, above the table."""


@dataclass(frozen=True)
class Plot:
    name: str
    """Stem of its file."""
    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False
    labels: tuple[str, ...] = ()
    """Names of x = 0, 1, …: then these are bars, one group for each name."""


@dataclass(frozen=True)
class Section:
    name: str
    """In the marks of the page."""
    intro: str
    """Markdown."""
    tables: list[Table]
    plots: list[Plot]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- bench: {name} begin -->", f"<!-- bench: {name} end -->"


def require_place(page: Path, name: str) -> tuple[str, str]:
    """What stands before and after the section. Raises ConfigurationError where its marks are missing."""
    begin, end = _marks(name)
    text = page.read_text() if page.exists() else ""
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ConfigurationError(
            f"{page} has no place for the section {name}: put the lines {begin} and {end} where it belongs, "
            "or name another page with --out"
        )
    return before, after


def write(page: Path, section: Section) -> None:
    """Replaces what stands between the section's marks. Raises ConfigurationError where these are missing."""
    before, after = require_place(page, section.name)
    begin, end = _marks(section.name)
    folder = page.with_suffix("")
    for plot in section.plots:
        draw(plot, folder / f"{plot.name}.svg")
    page.write_text(f"{before}{begin}\n{markdown(section, folder.name)}{end}{after}")


def markdown(section: Section, plots_folder: str) -> str:
    parts = [section.intro]
    for table in section.tables:
        lines = [table.columns, ("---",) * len(table.columns), *table.rows]
        caption = [table.caption] if table.caption else []
        parts += [*caption, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts += [f"![{plot.title}]({plots_folder}/{plot.name}.svg)" for plot in section.plots]
    return "\n\n".join(parts) + "\n"


def draw(plot: Plot, file: Path) -> None:
    """The plot, in the format that the file's suffix names."""
    # Late and without pyplot: it is slow to import, and only this needs it.
    import matplotlib
    from matplotlib.figure import Figure

    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": plot.name, "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(8, 4.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    width = 0.8 / max(len(plot.series), 1)
    for number, (name, points) in enumerate(plot.series.items()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        if plot.labels:
            shift = (number - (len(plot.series) - 1) / 2) * width
            bars = axes.bar([each + shift for each in x], y, width, label=name)
            axes.bar_label(bars, fmt="{:,.3g}" if max(y, default=0) < 100 else "{:,.0f}", fontsize=7)
        else:
            axes.plot(x, y, marker="o", markersize=3, label=name)
    if plot.labels:
        axes.set_xticks(range(len(plot.labels)), [fill(label, LABEL_WIDTH) for label in plot.labels])
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    if len(plot.series) > 1:
        axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=120)
