"""`holdfast serve`: the API under uvicorn."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory

import uvicorn

from app.embedded.launch import die_with_parent
from app.embedded.ports import free_port
from app.http.auth import Authenticator
from app.logs import configure_logs
from app.main import create_app, open_services
from app.settings import Settings, load_settings

_BACKLOG = 4096
"""Connections that the kernel may hold while a process is busy; a sale opens for everybody at once."""
_DRAIN_SECONDS = 10
"""Requests that have begun get this long when the server is told to stop; live streams are cut then."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep idle connections (60 s is usual), so that never the server closes first."""


def serve(host: str, port: int, workers: int) -> None:
    """Serve until a signal asks to stop. With several workers each is a process of its own.

    Raises ConfigurationError if a setting is wrong, a store unfit or the port taken, StoreUnavailable if a
    store does not come in time.
    """
    free_port(host, port)
    asyncio.run(_check(load_settings()))
    with _shared_metrics() if workers > 1 else nullcontext():
        _run(host, port, workers)


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


def _run(host: str, port: int, workers: int) -> None:
    uvicorn.run(
        "app.serve:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="app.http_protocol:HttpProtocol",
        ws="none",
        proxy_headers=False,  # app.main reads them, from HOLDFAST_TRUSTED_PROXIES only
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
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
