"""The generator at a constant rate: a stall counts for everybody who would have asked meanwhile."""

import itertools
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from loadtests.bench.constant_rate import offer

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
STALL_SECONDS = 0.3
RATE = 200.0


class Handler(socketserver.BaseRequestHandler):
    """Answers at once, except once."""

    stall_at = -1

    def handle(self) -> None:
        for number in itertools.count():
            if not self.request.recv(65536):
                return
            if number == self.stall_at:
                time.sleep(STALL_SECONDS)  # what is measured
            self.request.sendall(ANSWER)


class Stalling(Handler):
    stall_at = 20


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), request.param) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("url", [Handler], indirect=True)
def test_each_request_is_sent_once_at_its_time(url: str) -> None:
    arrivals = offer(url, itertools.repeat(REQUEST), rate=RATE, seconds=0.5, connections=2, warm_up=0.1)
    assert {status: len(each) for status, each in arrivals.latencies.items()} == {201: 100}
    assert arrivals.unanswered == 0
    assert 0 < arrivals.busy < 1
    assert arrivals.latency_ms(201, 0.5) < STALL_SECONDS * 1000


@pytest.mark.parametrize("url", [Stalling], indirect=True)
def test_latency_counts_from_when_a_request_was_due(url: str) -> None:
    arrivals = offer(url, itertools.repeat(REQUEST), rate=RATE, seconds=0.6, connections=1, warm_up=0.0)
    late = sorted(latency for latency in arrivals.latencies[201] if latency > STALL_SECONDS / 3)
    # One was in flight; some sixty more were due while it stalled.
    assert len(late) >= RATE * STALL_SECONDS / 2
    assert late[-1] >= STALL_SECONDS


@pytest.mark.parametrize("url", [Handler], indirect=True)
def test_what_is_never_answered_is_no_short_latency(url: str) -> None:
    arrivals = offer(url, itertools.repeat(REQUEST), rate=RATE, seconds=0.2, connections=1, warm_up=0.0)
    arrivals.unanswered = len(arrivals.latencies[201])
    assert arrivals.latency_ms(201, 0.9) == float("inf")


def test_only_the_loopback_interface_is_asked() -> None:
    with pytest.raises(ValueError, match="loopback"):
        offer("http://192.0.2.1", iter([REQUEST]), rate=1, seconds=1, connections=1)
