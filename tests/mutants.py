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
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
LIMIT_SECONDS = 120


def killer_of(mutation: Mutation) -> str | None:
    """The first test that fails under the mutation, or None if all pass."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in ("app", "lua", "migrations", "tests"):
            shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", copy)
        target = copy / "lua" / mutation.script
        source = target.read_text()
        if source.count(mutation.before) != 1:
            raise SystemExit(
                f"{mutation.script} has not exactly one {mutation.before!r}: mend tests/mutations.py"
            )
        target.write_text(source.replace(mutation.before, mutation.after))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0", TESTS]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        result = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    if result.returncode == 0:
        return None
    found = FAILED.search(result.stdout)
    return found[1] if found else f"no test ran: {result.stdout[-200:]}"


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
    table = Table("script", "broken on purpose", "noticed by", title="Mutants of the scripts")
    survivors = 0
    with ThreadPoolExecutor(arguments.jobs) as executor:
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
