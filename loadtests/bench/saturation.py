"""As many requests as a server answers: by wrk where it is on PATH, else by a generator in Python."""

import asyncio
import itertools
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from app.errors import ConfigurationError
from loadtests.generator import drive

SCRIPT = Path(__file__).with_name("saturate.lua")
PATH = "/v1/sales/{sale}/reservations"
ACCEPTED, SOLD_OUT = 201, 409
PATIENCE_SECONDS = 30
"""A slow answer is a finding of its own, and no failure."""
_parts = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """Requests for one unit, each by another customer."""

    url: str
    sale: str
    token: str
    keyed: bool = True
    """Whether each has an Idempotency-Key."""

    part: int = 0

    @property
    def prefix(self) -> str:
        """Of customers and keys."""
        return f"{self.sale}-{self.part}"

    def again(self) -> "Load":
        """The same by customers who have not asked before."""
        return replace(self, part=next(_parts))

    def requests(self) -> Iterator[bytes]:
        """Without end."""
        head = (
            f"POST {PATH.format(sale=self.sale)} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
        )
        for number in itertools.count():
            name = f"{self.prefix}-{number:09}"
            body = f'{{"customer_id":"{name}","items":[{{"sku":"a","quantity":1}}]}}'
            key = f"Idempotency-Key: {name}\r\n" if self.keyed else ""
            yield f"{head}{key}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@dataclass(frozen=True)
class Saturated:
    accepted: int
    refused: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def answers(self) -> int:
        return self.accepted + self.refused


@cache
def generator() -> str:
    """What puts the load on, for the report."""
    return "wrk" if shutil.which("wrk") else "a generator in Python, as wrk is not on PATH"


def saturate(load: Load, connections: int, seconds: float) -> Saturated:
    """Raises ConfigurationError if anything but holds and refusals is answered."""
    if shutil.which("wrk"):
        return _by_wrk(load, connections, seconds)
    requests = load.requests()
    result = asyncio.run(drive(load.url, lambda _: next(requests), connections=connections, seconds=seconds))
    if unexpected := set(result.statuses) - {ACCEPTED, SOLD_OUT}:
        raise ConfigurationError(f"{load.url} answered {unexpected} where it should hold or refuse")
    p50, p99 = result.latency_ms(0.5), result.latency_ms(0.99)
    return Saturated(result.statuses[ACCEPTED], result.statuses[SOLD_OUT], result.seconds, p50, p99)


def _by_wrk(load: Load, connections: int, seconds: float) -> Saturated:
    """wrk counts only whole seconds, so it is asked for more and interrupted in time."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{int(seconds) + 2}", "-s", str(SCRIPT)]
    command += ["--timeout", f"{PATIENCE_SECONDS}s", load.url, "--"]
    command += [load.sale, load.token, load.prefix, "keyed" if load.keyed else "keyless"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=2 * PATIENCE_SECONDS)
    _, found, result = output.partition("RESULT ")
    said = json.loads(result) if found else {}
    if not found or said["failed"]:
        raise ConfigurationError(f"wrk could not finish against {load.url}: {output.strip()[-300:]}")
    refused = said["refused"]
    return Saturated(
        said["answers"] - refused, refused, said["microseconds"] / 1e6, said["p50"] / 1000, said["p99"] / 1000
    )
