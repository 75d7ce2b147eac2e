"""Prometheus metrics of the API.

With several processes, PROMETHEUS_MULTIPROC_DIR (an empty folder, set before the start) makes /metrics the
sum over all of them; without it each answers for itself.
"""

import os
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_REQUESTS = Counter(
    "holdfast_http_requests",
    "Requests by route, method, status and outcome: ok or an error's code.",
    ["route", "method", "status", "outcome"],
)
_SECONDS = Histogram(
    "holdfast_http_request_seconds",
    "Seconds from a request's headers to its answer, without those that were shed.",
    ["route", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})

_counters: dict[tuple[str, str, int, str], Counter] = {}
_timers: dict[tuple[str, str], Histogram] = {}


def observe(route: str, method: str, status: int, outcome: str, seconds: float) -> None:
    """One answered request. `route`: the path's template, so that ids make no series."""
    method = _known(method)
    count(route, method, status, outcome)
    timer = _timers.get((route, method))
    if timer is None:
        timer = _timers[route, method] = _SECONDS.labels(route, method)
    timer.observe(seconds)


def count(route: str, method: str, status: int, outcome: str) -> None:
    """One answered request that took no time worth a figure."""
    method = _known(method)
    counter = _counters.get((route, method, status, outcome))
    if counter is None:
        counter = _counters[route, method, status, outcome] = _REQUESTS.labels(
            route, method, str(status), outcome
        )
    counter.inc()


def _known(method: str) -> str:
    """Methods are the client's to invent."""
    return method if method in _METHODS else "other"


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
