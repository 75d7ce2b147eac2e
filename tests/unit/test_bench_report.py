"""The report's writer: it replaces one section between its marks, with plots beside the page."""

from pathlib import Path

import pytest

from app.errors import ConfigurationError
from loadtests.bench import runs
from loadtests.bench.field import Contender
from loadtests.bench.options import Options
from loadtests.bench.report import Plot, Section, Table, write
from loadtests.bench.results import Measured
from loadtests.bench.runs import Case, Run
from loadtests.bench.saturation import Load, Saturated

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


def one_run(answers: int) -> Run:
    return Run(answers, 1.0, {"API": 1.0}, 0.0, units=1, given=0, told=0)


def test_a_ratio_is_to_the_run_beside_it() -> None:
    """The machine was half as fast during the second pair."""
    measured = Measured(Case(Contender("Holdfast", "", {}), accepted=True))
    measured.runs = [one_run(130), one_run(65), one_run(120)]
    measured.beside = [one_run(100), one_run(50), one_run(100)]
    assert measured.ratio(lambda run: run.rate) == pytest.approx(1.3)


def test_a_contender_is_sold_out_once_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers nothing for a moment may still have units."""
    answers = iter([(5, 0), (0, 0), (3, 0), (0, 9)])
    monkeypatch.setattr(
        runs, "saturate", lambda *_: Saturated(*next(answers), seconds=1.0, p50_ms=1.0, p99_ms=1.0)
    )
    assert runs._sell_out(Load("", "sale", ""), Options(), 8) == 8
    assert next(answers, None) is None
