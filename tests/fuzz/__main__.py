"""Fuzzes the service with bytes, and every decoder with texts: `python -m tests.fuzz [--help]`."""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from app.logs import configure_logs
from app.migrate import upgrade
from app.settings import Settings
from tests.fuzz.decoders import DECODERS, fuzz
from tests.fuzz.round import Round
from tests.fuzz.service import running_service
from tests.fuzz.stage import prepare, verify
from tests.servers import temporary_servers

EXAMPLES = """\
examples:
  python -m tests.fuzz                            100,000 inputs of bytes, and each decoder's share
  python -m tests.fuzz --seed 7 --inputs 20000
  python -m tests.fuzz --seed 7 --only 4711       one input again
"""
NAMESPACE = "fuzz"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="default: a random one, printed"
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="of bytes; default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=240, help="for them at the most; default: %(default)s"
    )
    parser.add_argument("--connections", type=int, default=128, help="at the same time; default: %(default)s")
    parser.add_argument("--texts", type=int, default=4_000, help="for each decoder; default: %(default)s")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="the inputs of these numbers alone")
    return parser.parse_args()


def fuzz_bytes(options: argparse.Namespace, console: Console) -> tuple[Round, list[str]]:
    with temporary_servers() as servers, tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        upgrade(Settings(redis_url=servers.redis_url, database_url=servers.database_url))
        with running_service(servers.redis_url, servers.database_url, NAMESPACE, Path(folder)) as service:
            numbers = options.only or list(range(options.inputs))
            deadline = time.monotonic() + options.seconds
            done = Round(service, prepare(service), options.seed, numbers, options.connections, deadline)
            done.progress = _Progress(console)
            uvloop.run(done.run())
            return done, verify(done, servers.database_url)


class _Progress:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 10_000

    def __call__(self, sent: int) -> None:
        if sent >= self._next:
            self._next += 10_000
            self._console.print(f"{sent:,} inputs sent")


def show(console: Console, done: Round) -> None:
    table = Table("inputs", "sent", "MiB", "answers", "closed", "slowest", title="Bytes sent to the service")
    for kind, tally in sorted(done.tallies.items()):
        answers = " ".join(f"{status}:{count}" for status, count in sorted(tally.statuses.items()))
        table.add_row(
            kind, f"{tally.inputs:,}", f"{tally.bytes / 2**20:.1f}", answers, f"{tally.closed:,}",
            f"{tally.slowest:.2f} s",
        )  # fmt: skip
    console.print(table)
    console.print(f"memory in MiB: {' '.join(f'{size / 2**20:.0f}' for size in done.memory)}")


def fuzz_decoders(options: argparse.Namespace, console: Console) -> list[str]:
    table = Table("decoder", "texts", "seconds", "faults", title="Texts given to the decoders")
    faults = []
    for decoder in DECODERS:
        started = time.monotonic()
        found = fuzz(decoder, options.seed, options.texts)
        seconds = f"{time.monotonic() - started:.1f}"
        table.add_row(decoder.name, f"{options.texts:,}", seconds, str(len(found)))
        faults += found[:5]
    console.print(table)
    return faults


def main() -> int:
    options = _parse()
    console = Console(width=120)
    console.print(f"seed {options.seed}")
    configure_logs(Settings(log_level="ERROR"))
    started = time.monotonic()
    faults = [] if options.only else fuzz_decoders(options, console)
    done, more = fuzz_bytes(options, console)
    faults += more
    show(console, done)
    for fault in faults:
        console.print(fault, markup=False, highlight=False)
    asked = len(options.only or range(options.inputs))
    if done.sent < asked:
        console.print(f"there was no time for {asked - done.sent:,} inputs: allow more --seconds")
    texts = 0 if options.only else options.texts * len(DECODERS)
    console.print(
        f"{done.sent:,} inputs of bytes and {texts:,} texts in {time.monotonic() - started:.0f} s: "
        f"{len(faults)} faults"
    )
    return 1 if faults or done.sent < asked else 0


if __name__ == "__main__":
    sys.exit(main())
