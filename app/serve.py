"""`holdfast serve`: the API under uvicorn."""

import asyncio
import multiprocessing
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import uvicorn

from app.embedded.launch import die_with_parent
from app.embedded.ports import free_port
from app.http.auth import Authenticator
from app.http_server import DRAIN_SECONDS, Server, Supervisor
from app.logs import configure_logs
from app.main import create_app, open_services
from app.settings import Settings, load_settings

_BACKLOG = 4096
"""Connections that the kernel may hold while a process is busy; a sale opens for everybody at once."""
_START_SECONDS = 30
"""For a process to start in a rolling restart, or to show that it lives."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep idle connections (60 s is usual), so that never the server closes first."""


def serve(host: str, port: int, workers: int) -> None:
    """Serve until a signal asks to stop. With several workers each is a process of its own.

    Raises ConfigurationError if a setting is wrong, a store unfit or the port taken, StoreUnavailable if a
    store does not come in time.
    """
    free_port(host, port)
    settings = load_settings()
    asyncio.run(_check(settings))
    raise_file_limit()
    config = _config(host, port, workers)
    if workers == 1:
        with suppress(KeyboardInterrupt):
            Server(config).run()
        return
    with _shared_metrics():
        Supervisor(config, [config.bind_socket()], settings.shutdown_grace_seconds).run()


def raise_file_limit() -> None:
    """Allows as many open files, and so connections, as this process may allow itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has a limit below the one that it names
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _check(settings: Settings) -> None:
    """Opens all once: a fault in uvicorn's processes would be a traceback, or a restart for ever."""
    authenticator = Authenticator(settings)
    _ = settings.id_secrets
    async with open_services(settings, authenticator):
        pass


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder through which /metrics of one process can tell of all."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="holdfast-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _config(host: str, port: int, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        "app.serve:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="app.http_holds:HoldProtocol",
        ws="none",
        proxy_headers=False,  # app.main reads them, from HOLDFAST_TRUSTED_PROXIES only
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
        access_log=False,
        server_header=False,
        log_config=None,
    )


def application() -> Callable[..., Awaitable[None]]:
    """The application, in the process that serves it."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        # A worker of a killed server would keep the port.
        die_with_parent(signal.SIGTERM, parent.pid)
    configure_logs(load_settings())
    return create_app()
