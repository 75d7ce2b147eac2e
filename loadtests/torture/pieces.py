"""An installation with several API processes and workers, under the supervisor of `holdfast up`.

example: python -m loadtests.torture.pieces --data /tmp/x --port 8001 --port 8002 --workers 2
"""

import argparse
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from app.embedded.installation import running_installation, settings_from
from app.embedded.supervisor import Service
from app.logs import configure_logs
from app.migrate import upgrade
from app.settings import load_settings

READY_SECONDS = 120.0
STOP_SECONDS = 20.0


def services(chosen: argparse.Namespace, variables: dict[str, str]) -> Iterator[tuple[Service, str]]:
    """Each service, and the port on which it answers; '' for a worker."""
    environment = {**os.environ, **variables}

    def service(name: str, *command: str) -> Service:
        return Service(
            name=name,
            command=[sys.executable, "-P", "-m", *command],
            environment=environment,
            folder=Path.cwd(),
            stop_seconds=STOP_SECONDS,
        )

    clocks = [int(shift) for shift in chosen.clocks.split(",")] if chosen.clocks else [0] * len(chosen.port)
    for number in range(1, chosen.workers + 1):
        yield service(f"worker-{number}", "app.cli", "worker"), ""
    for number, (port, shift) in enumerate(zip(chosen.port, clocks, strict=True), 1):
        program = ["loadtests.torture.shifted", str(shift)] if shift else ["app.cli"]
        yield service(f"serve-{number}", *program, "serve", "--port", str(port)), str(port)


def _answers(port: str) -> Callable[[int], bool]:
    def check(_pid: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return check


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--port", type=int, action="append", required=True, help="of an API process; repeat it"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--clocks", default="", help="seconds by which each API process' clock is wrong: 86400,0"
    )
    chosen = parser.parse_args()
    configure_logs(load_settings())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with running_installation(chosen.data) as (servers, variables):
        upgrade(settings_from(variables))
        ready: dict[str, Callable[[int], bool]] = {}
        for service, port in services(chosen, variables):
            servers.supervisor.start(service)
            ready[service.name] = _answers(port) if port else _answers(str(chosen.port[0]))
        servers.supervisor.wait_ready(ready, READY_SECONDS)
        print(f"\nready http://127.0.0.1:{chosen.port[0]}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
