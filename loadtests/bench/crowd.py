"""A sale as shoppers see it, by locust: they come early, ask again, pay, walk away, and lose answers."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import ConfigurationError
from loadtests.bench.field import Field

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
    """Requests whose answer was lost on purpose, and which were answered the same when they were repeated."""
    p50_ms: float
    """Of reservations, with the wait for one of the crowd's connections."""
    p99_ms: float
    checks: int
    """What was verified of the sale, by the shoppers and by the auditor; all of it held."""


def sell(field: Field, shoppers: int, units: int) -> Crowd:
    """Raises ConfigurationError where the shoppers and the auditor don't agree."""
    keys = ("HOLDFAST_ADMIN_KEY", "HOLDFAST_STOREFRONT_KEY")
    command = [
        sys.executable, "-m", "loadtests", "--host", field.stage.url, "--json-lines",
        "--buyers", str(shoppers), "--stock", str(units), "--seconds", str(SECONDS),
        "--settle-seconds", str(SETTLE_SECONDS),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env={**os.environ, **{key: field.stage.variables[key] for key in keys}},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
    )
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
