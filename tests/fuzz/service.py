"""A real service to fuzz: the API and a worker in processes of their own."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.embedded.ports import free_port
from tests.fuzz.messages import ADMIN_KEY, STOREFRONT_KEY

BODY_SECONDS = 0.5
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Service:
    port: int
    process: psutil.Process
    log: Path

    def memory(self) -> int:
        """Bytes that the API's process has in memory."""
        return int(self.process.memory_info().rss)

    def complaints(self) -> str:
        """What the log says of a failure that nobody foresaw."""
        text = self.log.read_text(errors="replace")
        at = min(
            (text.find(word) for word in ("Traceback", "[error", "ERROR", "CRITICAL") if word in text),
            default=-1,
        )
        return text[max(0, at - 500) : at + 3000] if at >= 0 else ""


@contextmanager
def running_service(redis_url: str, database_url: str, namespace: str, folder: Path) -> Iterator[Service]:
    """On a migrated database. Its log is in `folder`."""
    port = free_port("127.0.0.1", 0)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")} | {
        "HOLDFAST_REDIS_URL": redis_url,
        "HOLDFAST_DATABASE_URL": database_url,
        "HOLDFAST_NAMESPACE": namespace,
        "HOLDFAST_PARTITIONS": "4",
        "HOLDFAST_ID_SECRET": "a secret for the fuzzer only",
        "HOLDFAST_ADMIN_KEY": ADMIN_KEY,
        "HOLDFAST_STOREFRONT_KEY": STOREFRONT_KEY,
        "HOLDFAST_ALLOW_VOLATILE": "1",
        "HOLDFAST_BODY_TIMEOUT_SECONDS": str(BODY_SECONDS),
    }
    log = folder / "serve.log"
    with (
        _running(["worker"], environment, folder / "worker.log"),
        _running(["serve", "--port", str(port)], environment, log) as api,
    ):
        _wait_ready(f"http://127.0.0.1:{port}/readyz", log)
        yield Service(port, psutil.Process(api.pid), log)
        assert api.poll() is None, "the API's process has ended"


@contextmanager
def _running(words: list[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        command = [sys.executable, "-P", "-m", "app.cli", *words]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 (our own address)
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
