"""The shoppers of loadtests/, in a process of their own, and what they report."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.demo.stage import Stage, without_settings
from app.embedded import launch
from app.paths import data_folder

_LINE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sale:
    """What is sold in a demo, and to how many."""

    id: str
    buyers: int
    stock: int
    skus: int
    limit_per_customer: int
    hold_seconds: int
    seconds: float
    arrive_over: float

    def as_options(self) -> list[str]:
        return [
            "--sale", self.id, "--buyers", str(self.buyers), "--stock", str(self.stock),
            "--skus", str(self.skus), "--limit", str(self.limit_per_customer),
            "--hold-seconds", str(self.hold_seconds), "--seconds", str(self.seconds),
            "--arrive-over", str(self.arrive_over),
        ]  # fmt: skip


@dataclass
class Crowd:
    """`run` lets them shop; the other fields are what was reported last."""

    stage: Stage
    sale: Sale
    counts: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    p50_ms: float = 0
    p99_ms: float = 0
    verdict: dict[str, Any] | None = None
    """What loadtests/ verified, with the auditor's report; None: it did not come so far."""
    reason: str = ""
    """Why not."""

    def section(self, prefix: str) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(prefix))

    async def run(self) -> None:
        """Until the last shopper has left and all is verified."""
        workspace = self.stage.servers.workspace
        options = {
            "pid_file": str(workspace.run / "shoppers.pid"), "signal": int(signal.SIGKILL),
            "parent": os.getpid(), "uid": None, "gid": None, "needs_name": False,
        }  # fmt: skip
        environment = without_settings() | self.stage.variables
        environment["PYTHONPATH"] = str(data_folder("loadtests").parent)
        with workspace.log("shoppers").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", launch.__file__, json.dumps(options),
                sys.executable, "-P", "-m", "loadtests", "--host", self.stage.url, "--json-lines",
                *self.sale.as_options(),
                env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
                limit=_LINE_BYTES_MAX, start_new_session=True,
            )  # fmt: skip
        try:
            assert process.stdout  # noqa: S101
            async for line in process.stdout:
                self._read(line)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _read(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        match message.get("event"):
            case "progress":
                self.counts = Counter(message["counts"])
                self.requests = message["requests"]
                self.p50_ms, self.p99_ms = message["p50_ms"], message["p99_ms"]
            case "verdict":
                self.verdict = message
            case "failed":
                self.reason = message["reason"]
