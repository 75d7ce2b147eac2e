"""Breaks each Lua script on purpose and lists the test that notices: `python -m tests.mutants [--help]`.

A mutant that survives is a missing test. Each runs in a copy of the project, so nothing here is touched.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutations import MUTATIONS, Mutation

PROJECT = Path(__file__).resolve().parent.parent
TESTS = "tests/lua"
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)
LIMIT_SECONDS = 120


class NoTestRan(Exception):
    """pytest ended without saying which test failed: that says nothing about the scripts."""


def killer_of(mutation: Mutation | None) -> str | None:
    """The first test that fails under the mutation, or None if all pass; without a mutation, as things are.

    Raises NoTestRan if pytest ends in any other way.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in ("app", "lua", "migrations", "tests"):
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", copy)
        if mutation:
            _break(copy / "lua" / mutation.script, mutation)
        command = [sys.executable, "-m", "pytest", "-x", "-rfE", "-p", "no:cacheprovider", "-n", "0", TESTS]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            result = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise NoTestRan(f"the tests took longer than {LIMIT_SECONDS} s") from None
    if result.returncode == 0:
        return None
    if found := FAILED.search(result.stdout):
        return found[1]
    raise NoTestRan((result.stdout + result.stderr)[-500:])


def _break(target: Path, mutation: Mutation) -> None:
    source = target.read_text()
    if source.count(mutation.before) != 1:
        raise SystemExit(
            f"{mutation.script} has not exactly one {mutation.before!r}: mend tests/mutations.py"
        )
    target.write_text(source.replace(mutation.before, mutation.after))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        epilog="example: python -m tests.mutants --only confirm",
    )
    parser.add_argument("--only", default="", help="only the scripts whose name contains this")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="side by side (default: a core each)"
    )
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.script]
    console = Console()
    try:
        if failing := killer_of(None):
            console.print(f"nothing is broken yet, but {failing} fails: mend that first")
            return 1
        return _report(console, chosen, arguments.jobs)
    except NoTestRan as error:
        console.print(f"no test ran: {error}", markup=False)
        return 1


def _report(console: Console, chosen: list[Mutation], jobs: int) -> int:
    table = Table("script", "broken on purpose", "noticed by", title="Mutants of the scripts")
    survivors = 0
    with ThreadPoolExecutor(jobs) as executor:
        for done, (mutation, killer) in enumerate(
            zip(chosen, executor.map(killer_of, chosen), strict=True), 1
        ):
            survivors += killer is None
            console.print(f"{done}/{len(chosen)} {mutation.script}: {mutation.what}: {killer or 'SURVIVED'}")
            table.add_row(mutation.script, mutation.what, killer or "[red]nothing: a test is missing[/]")
    console.print(table)
    console.print(f"{len(chosen) - survivors} of {len(chosen)} mutants were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
