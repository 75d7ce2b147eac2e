"""`python -m loadtests.torture`: breaks a real installation under load, and tells what became of it."""

import argparse
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from loadtests.torture import scenarios  # noqa: F401 (registers them)
from loadtests.torture.bench import SCENARIOS
from loadtests.torture.report import table, write
from loadtests.torture.runner import CLIENTS, SECONDS, Plan, Row, perform

EXAMPLES = """\
examples:
  python -m loadtests.torture --out docs/reliability.md     all of it, some ten minutes; as `make torture`
  python -m loadtests.torture --quick                       a few rounds of a few faults, half a minute
  python -m loadtests.torture --only kill-redis --seed 7    one scenario, as it was with that seed

The exit code is 0 only if nothing was lost but what only an emptied Redis knew, nothing was sold twice, and
everything came back.
"""
QUICK = ("kill-several", "empty-undrained")
QUICK_SHARE = 0.1
_SENTENCES = 20


def main() -> int:
    chosen = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    plan = Plan(chosen.seed, QUICK_SHARE if chosen.quick else chosen.share, chosen.seconds, chosen.clients)
    names = chosen.only or (QUICK if chosen.quick else SCENARIOS)
    console.print(f"seed {plan.seed}")
    rows = _run(console, plan, names)
    console.print(table(rows))
    if chosen.out:
        write(chosen.out, rows, plan)
    return 0 if all(row.verdict.ok for row in rows) else 1


def _run(console: Console, plan: Plan, names: Iterable[str]) -> list[Row]:
    """Shows each row as it comes."""
    rows = []
    with console.status("") as status:
        for row in perform([SCENARIOS[name] for name in names], plan, status.update):
            rows.append(row)
            console.print(
                f"{'✓' if row.verdict.ok else '✗'} {row.scenario.name}: {row.rounds} rounds, "
                f"{row.verdict.acknowledged:,} operations acknowledged, {row.seconds:.0f} s"
            )
            for sentence in (row.verdict.lost + row.verdict.wrong)[:_SENTENCES]:
                console.print(f"    {sentence}", markup=False, highlight=False)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m loadtests.torture",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    only = ", ".join(SCENARIOS)
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, metavar="NAME", help=f"repeat it for more: {only}"
    )
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, a tenth of their rounds")
    parser.add_argument(
        "--share", type=float, default=1.0, metavar="X", help="of all rounds, at least one each (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="X", help="in all, roughly; default: %(default).0f"
    )
    parser.add_argument("--clients", type=int, default=CLIENTS, metavar="X", help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), metavar="X", help="default: a random one"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page to write the table into")
    return parser


if __name__ == "__main__":
    sys.exit(main())
