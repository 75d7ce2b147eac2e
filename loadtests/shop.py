"""What a shopper can ask of the storefront, and which answers the contract knows."""

import random
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent
import orjson
from gevent import socket
from geventhttpclient.client import HTTPClient

from loadtests.options import Plan
from loadtests.tally import Tally

MAX_TRIES = 30
MAX_PAUSE_SECONDS = 5.0
"""A longer Retry-After is cut: the run is bounded, and asking early is allowed."""
LOST_ANSWER_PAUSE_SECONDS = 0.2

RESERVE_REFUSALS = frozenset(
    ("sold_out", "sale_not_open", "sale_paused", "sale_closed", "customer_limit_reached")
)
TRY_AGAIN = frozenset(
    ("rate_limited", "overloaded", "store_unavailable", "sale_rebuilding", "outcome_unknown")
)


class Unexpected(Exception):
    """An answer that the contract does not know."""


class GaveUp(Exception):
    """No final answer after many tries."""


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    replayed: bool
    retry_after: float
    """Seconds; 0 without the header."""


class Request(NamedTuple):
    name: str
    """As it is called in locust's statistics."""
    method: str
    path: str
    body: dict[str, Any] | None
    key: str | None
    successes: tuple[int, ...]
    refusals: frozenset[str]


class Shop:
    """The storefront over one bounded pool of connections, shared by all shoppers of the process.

    `fire` is locust's request event. The client below FastHttpUser's session is called directly: half the CPU
    per request, on a machine that also runs the servers.
    """

    def __init__(self, client: HTTPClient, plan: Plan, tally: Tally, fire: Callable[..., None]) -> None:
        self._client = client
        self._fire = fire
        self._url = urlsplit(plan.host)
        self._headers = {
            "Authorization": f"Bearer {plan.storefront_key}",
            "Content-Type": "application/json",
        }
        self._reservations = f"{self._url.path}/v1/sales/{plan.sale_id}/reservations"
        self.tally = tally

    def reservation(
        self, customer_id: str, items: list[tuple[str, int]], key: str, name: str = "reserve"
    ) -> Request:
        body = {
            "customer_id": customer_id,
            "items": [{"sku": sku, "quantity": quantity} for sku, quantity in items],
        }
        return Request(name, "POST", self._reservations, body, key, (201,), RESERVE_REFUSALS)

    def confirmation(self, reservation_id: str, reference: str) -> Request:
        path = f"{self._reservations}/{reservation_id}/confirm"
        body = {"payment_reference": reference}
        return Request("confirm", "POST", path, body, None, (200, 202), frozenset(("reservation_expired",)))

    def release(self, reservation_id: str) -> Request:
        return Request(
            "release", "DELETE", f"{self._reservations}/{reservation_id}", None, None, (200,), frozenset()
        )

    def ask(self, request: Request) -> Answer:
        """The final answer: a success or a refusal that the contract knows.

        A 503 or 429 with Retry-After, and a lost answer, are tried again with the same key.
        Raises Unexpected for any other answer, GaveUp after too many tries.
        """
        for _ in range(MAX_TRIES):
            answer = self._send(request)
            if answer is None:
                self.tally.counts["lost answers"] += 1
                gevent.sleep(LOST_ANSWER_PAUSE_SECONDS * (0.5 + random.random()))
            elif answer.status in (429, 503):
                self.tally.counts[f"refused {answer.body['code']}"] += 1
                gevent.sleep(min(answer.retry_after, MAX_PAUSE_SECONDS) * (1 + random.random() / 4))
            else:
                if answer.status == 409:
                    self.tally.counts[f"refused {answer.body['code']}"] += 1
                return answer
        raise GaveUp(f"{request.name}: no final answer after {MAX_TRIES} tries")

    def lose_answer(self, request: Request) -> None:
        """Sends the request and hangs up before the answer, as a phone in a tunnel does."""
        body = orjson.dumps(request.body)
        headers = {
            **self._headers_of(request), "Host": self._url.netloc, "Content-Length": str(len(body)),
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            with self._connect() as connection:
                connection.sendall(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        except OSError:
            return  # then the request was lost too, which is as good
        self.tally.counts["answers lost on purpose"] += 1

    def _connect(self) -> Any:
        https = self._url.scheme == "https"
        address = (self._url.hostname, self._url.port or (443 if https else 80))
        connection = socket.create_connection(address, timeout=10)
        if not https:
            return connection
        return ssl.create_default_context().wrap_socket(connection, server_hostname=self._url.hostname)

    def _headers_of(self, request: Request) -> dict[str, str]:
        return {**self._headers, "Idempotency-Key": request.key} if request.key else self._headers

    def _send(self, request: Request) -> Answer | None:
        """One try; None if the answer was lost."""
        started = time.perf_counter()
        body = b"" if request.body is None else orjson.dumps(request.body)
        content, error, answer = b"", None, None
        try:
            response = self._client.request(
                request.method, request.path, body=body, headers=self._headers_of(request)
            )
            content = response.read()
            answer = _parse(response, content)
        except (OSError, EOFError, ValueError) as lost:
            self.tally.counts[f"connection: {type(lost).__name__}"] += 1
        else:
            error = _contradiction(request, answer, content)
        self._fire(
            request_type=request.method, name=request.name, url=request.path, context={}, response=None,
            start_time=started, response_time=(time.perf_counter() - started) * 1000,
            response_length=len(content), exception=error,
        )  # fmt: skip
        if error:
            self.tally.fail(str(error))
            raise error
        return answer


def _parse(response: Any, content: bytes) -> Answer:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    return Answer(
        response.get_code(),
        body if isinstance(body, dict) else {},
        response.get("idempotent-replayed") == "true",
        float(response.get("retry-after") or 0),
    )


def _contradiction(request: Request, answer: Answer, content: bytes) -> Unexpected | None:
    status, code = answer.status, answer.body.get("code")
    known = (
        (status in request.successes and answer.body)
        or (status == 409 and code in request.refusals)
        or (status in (429, 503) and code in TRY_AGAIN and answer.retry_after >= 1)
    )
    if known:
        return None
    return Unexpected(f"{request.name} was answered {status}: {content[:200].decode(errors='replace')}")
