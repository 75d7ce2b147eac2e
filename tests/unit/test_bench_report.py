"""The report's writer: it replaces one section between its marks, with plots beside the page."""

from pathlib import Path

import pytest

from app.errors import ConfigurationError
from loadtests.bench.report import Plot, Section, Table, write

PAGE = """\
# Above

<!-- bench: rates begin -->
stale
<!-- bench: rates end -->

<!-- bench: other begin -->
kept
<!-- bench: other end -->
"""
BARS = Plot("bars", "Rates", "", "a second", {"held": [(0, 10), (1, 20)]}, labels=("one", "two, with key"))
LINES = Plot(
    "lines", "Growth", "holds", "ms", {"p50": [(1, 1), (10, 2)], "p99": [(1, 3), (10, 4)]}, log_x=True
)
SECTION = Section("rates", "Measured.", [Table(("what", "rate"), [("holds", "10")], "Rates")], [BARS, LINES])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "figures.md"
    page.write_text(PAGE)
    return page


def test_only_the_sections_own_text_is_replaced(page: Path) -> None:
    write(page, SECTION)
    text = page.read_text()
    assert "stale" not in text
    assert text.startswith("# Above\n\n<!-- bench: rates begin -->\nMeasured.\n")
    assert "| what | rate |\n| --- | --- |\n| holds | 10 |" in text
    assert text.endswith("<!-- bench: other begin -->\nkept\n<!-- bench: other end -->\n")


def test_a_second_run_leaves_nothing_of_the_first(page: Path) -> None:
    write(page, SECTION)
    once = page.read_text()
    plot = (page.parent / "figures/bars.svg").read_bytes()
    write(page, SECTION)
    assert page.read_text() == once
    assert (page.parent / "figures/bars.svg").read_bytes() == plot


def test_plots_lie_beside_the_page_and_are_shown(page: Path) -> None:
    write(page, SECTION)
    assert "![Rates](figures/bars.svg)" in page.read_text()
    for name in ("bars", "lines"):
        assert "<svg" in (page.parent / f"figures/{name}.svg").read_text()


def test_a_page_without_the_marks_is_refused_and_kept(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text("# Nothing here\n")
    with pytest.raises(ConfigurationError, match="put the lines <!-- bench: rates begin -->"):
        write(page, SECTION)
    assert page.read_text() == "# Nothing here\n"
