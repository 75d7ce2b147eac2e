"""Benchmarks: everything started fresh, contenders in turn, and the report docs/benchmarks.md."""

from importlib import import_module
from pathlib import Path

from rich.console import Console

from app.errors import ConfigurationError
from loadtests.bench.options import Options

SECTIONS = ("contenders", "crowd", "growth", "cluster")
"""Modules with `measure(options, console)`, in the order of the report."""


def run(options: Options, only: list[str], page: Path) -> None:
    """Measures the sections and writes each to the page as soon as it is there.

    Raises ConfigurationError where something is missing, or a contender does not do what it should.
    """
    console = Console(stderr=True)
    if unknown := set(only) - set(SECTIONS):
        raise ConfigurationError(
            f"there is no section {', '.join(sorted(unknown))}: --only takes {', '.join(SECTIONS)}"
        )
    try:
        from loadtests.bench.report import require_place, write

        modules = {name: import_module(f"loadtests.bench.{name}") for name in only or SECTIONS}
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'holdfast[bench]', or make install in a checkout"
        ) from error
    for name in modules:
        require_place(page, name)
    for name, module in modules.items():
        console.rule(name)
        write(page, module.measure(options, console))
        console.print(f"{page}: section {name} is written")
