"""`holdfast up`: a whole installation on this machine, for trying it out and for small shops."""

import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.embedded.installation import running_installation, settings_from
from app.embedded.ports import free_port
from app.embedded.supervisor import Service
from app.embedded.workspace import clear_leftovers
from app.migrate import upgrade

_READY_SECONDS = 120.0
"""The API waits for the worker, which may have a rebuild or a long journal before it."""
_SERVE_STOP_SECONDS = 20.0
"""Longer than `holdfast serve` takes to let the requests finish that it has begun."""


def up(data: Path, host: str, port: int, workers: int) -> int:
    """Run until a signal asks to stop; returns the exit code.

    Raises ConfigurationError if the port or `data` is taken, or a part cannot start.
    """
    with _signals_interrupt():
        clear_leftovers(data)
    port = free_port(host, port)
    with _signals_interrupt(), running_installation(data) as (servers, variables):
        try:
            settings = settings_from(variables)
            upgrade(settings)
            environment = {**os.environ, **variables, "TMPDIR": str(servers.workspace.temporary)}
            address = ["--host", host, "--port", str(port), "--workers", str(workers)]
            commands = {"worker": ["worker"], "serve": ["serve", *address]}
            for name, words in commands.items():
                servers.supervisor.start(
                    Service(
                        name=name,
                        # -P: `app` is a common name, and must not be taken from the working directory.
                        command=[sys.executable, "-P", "-m", "app.cli", *words],
                        environment=environment,
                        folder=Path.cwd(),
                        stop_seconds=_SERVE_STOP_SECONDS + settings.shutdown_grace_seconds,
                    )
                )
            url = f"http://{_reachable(host)}:{port}"
            servers.supervisor.wait_ready(dict.fromkeys(commands, lambda _: _is_ready(url)), _READY_SECONDS)
            _print(_introduction(url, data, variables))
            _print(f"ready http://{_bracketed(host)}:{port}")
            threading.Event().wait()
        except KeyboardInterrupt:
            _print("stopping")
            _ignore_signals()
    return 0


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have a terminal that closes, and SIGTERM, stop things in order, as Ctrl-C does."""
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in caught}
    try:
        yield
    except KeyboardInterrupt:
        # While the servers were starting: they have been stopped on the way here.
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """Stopping is under way and bounded; a second Ctrl-C would only cut it short."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 (our own address)
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reachable(host: str) -> str:
    """Where a server that listens everywhere can be called from this machine."""
    return _bracketed({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104


def _introduction(url: str, data: Path, variables: dict[str, str]) -> str:
    """The keys, and three calls that work when pasted: a sale that is open now, a hold, an order."""
    now = datetime.now(UTC)
    sale = f"launch-{now:%Y%m%d-%H%M%S}"
    opens, closes = (f"{moment:%Y-%m-%dT%H:%M:%S.000Z}" for moment in (now, now + timedelta(days=1)))
    admin, storefront = variables["HOLDFAST_ADMIN_KEY"], variables["HOLDFAST_STOREFRONT_KEY"]
    return f"""
admin key       {admin}
storefront key  {storefront}
both are in     {data / "env"}

# a sale of 100 units that is open now
curl -sS -X PUT {url}/v1/admin/sales/{sale} \\
  -H 'Authorization: Bearer {admin}' -H 'Content-Type: application/json' \\
  -d '{{"name":"Launch","opens_at":"{opens}","closes_at":"{closes}","hold_seconds":300,
       "max_hold_seconds":900,"items":[{{"sku":"sneaker-42","quantity":100,"limit_per_customer":2}}]}}'

# hold one of them for five minutes; the same key again gives the same hold
RESERVATION=$(curl -sS -X POST {url}/v1/sales/{sale}/reservations \\
  -H 'Authorization: Bearer {storefront}' -H 'Content-Type: application/json' \\
  -H 'Idempotency-Key: checkout-1' \\
  -d '{{"customer_id":"alice","items":[{{"sku":"sneaker-42","quantity":1}}]}}' \\
  | tee /dev/stderr | grep -o 'res_[0-9A-Za-z]*' | head -n 1)

# the shop has the money: make it an order
curl -sS -X POST {url}/v1/sales/{sale}/reservations/$RESERVATION/confirm \\
  -H 'Authorization: Bearer {storefront}' -H 'Content-Type: application/json' \\
  -H 'Prefer: wait=5' -d '{{"payment_reference":"payment-1"}}'
"""


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
