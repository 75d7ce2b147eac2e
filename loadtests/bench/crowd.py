"""The section `crowd`: a sale as shoppers see it, by locust; they come early, ask again, pay, walk away."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import orjson
from rich.console import Console

from app.demo.stage import Stage, running_stage
from app.errors import ConfigurationError
from loadtests.bench.options import Options
from loadtests.bench.report import Section, Table

CROWD, SMALL_CROWD = (20_000, 2_000), (1_000, 100)
"""Shoppers, and units."""
SECONDS = 15
SETTLE_SECONDS = 60
_PATIENCE_SECONDS = 180


@dataclass(frozen=True)
class Crowd:
    shoppers: int
    units: int
    sold: int
    requests: int
    """Of any kind."""
    replays: int
    """Reservations and payments that were sent again, with the same key or reference, and answered alike."""
    p50_ms: float
    """Of reservations, with the wait for one of the crowd's connections."""
    p99_ms: float
    checks: int
    """What was verified of the sale, by the shoppers and by the auditor; all of it held."""


INTRO = """\
Shoppers by locust (`loadtests/shoppers.py`), most of whom come within seconds: some before the sale opens;
they lose answers, ask again with their key (*repeated*, and answered alike), pay, pay late, or walk away.
Latencies of reservations are the shoppers' own, with their wait for one of 64 connections and for locust's
only core. Shoppers and auditor verified the sale at the end."""


def measure(options: Options, console: Console) -> Section:
    with running_stage(console) as stage:
        crowd = sell(stage, *(SMALL_CROWD if options.quick else CROWD))
    columns = ("shoppers", "units", "sold", "requests", "repeated", "p50 ms", "p99 ms", "verified")
    row = (
        f"{crowd.shoppers:,}", f"{crowd.units:,}", f"{crowd.sold:,}", f"{crowd.requests:,}",
        f"{crowd.replays:,}", f"{crowd.p50_ms:.0f}", f"{crowd.p99_ms:.0f}", f"{crowd.checks} points",
    )  # fmt: skip
    return Section("crowd", INTRO, [Table(columns, [row])], [])


def sell(stage: Stage, shoppers: int, units: int) -> Crowd:
    """Raises ConfigurationError where the shoppers and the auditor don't agree."""
    keys = ("HOLDFAST_ADMIN_KEY", "HOLDFAST_STOREFRONT_KEY")
    command = [
        sys.executable, "-m", "loadtests", "--host", stage.url, "--json-lines",
        "--buyers", str(shoppers), "--stock", str(units), "--seconds", str(SECONDS),
        "--settle-seconds", str(SETTLE_SECONDS),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOADTEST_")}
    environment |= {key: stage.variables[key] for key in keys}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the crowd did not end within {_PATIENCE_SECONDS} s") from None
    lines: list[dict[str, Any]] = [
        orjson.loads(line) for line in done.stdout.splitlines() if line.startswith("{")
    ]
    progress = [line for line in lines if line["event"] == "progress"]
    if done.returncode or not progress or not lines[-1].get("ok"):
        raise ConfigurationError(f"the crowd's sale was not right: {done.stdout[-500:]} {done.stderr[-500:]}")
    return _crowd(shoppers, units, progress[-1], lines[-1])


def _crowd(shoppers: int, units: int, progress: dict[str, Any], verdict: dict[str, Any]) -> Crowd:
    return Crowd(
        shoppers,
        units,
        sum(row["sold"] for row in verdict["stock"]),
        progress["requests"],
        verdict["counts"].get("replays answered the same", 0),
        progress["p50_ms"],
        progress["p99_ms"],
        len(verdict["checks"]) + len(verdict["audit"]["invariants"]),
    )
