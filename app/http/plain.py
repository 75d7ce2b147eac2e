"""Reservation requests in the form in which nearly all come: whole in one piece, and with nothing about them
that needs a second thought. They are answered without an ASGI scope, a task, or a future.

What is not plain, however slightly, is left to the ordinary way through parser and application, which judges
it from the start; so this reader has no errors of its own, and must only never take what the parser would not
read in the same way.
"""

import re
import time
from collections.abc import Callable

from app.errors import HoldfastError
from app.http import metrics
from app.http.body import BODY_BYTES, NamedHeaders, read_idempotency_key
from app.http.cors import Cors
from app.http.front import request_id
from app.http.hotpath import Answer, HotPath, answer_of, failed, lines_of, refusal
from app.http.paths import RESERVATIONS
from app.http.services import Services
from app.partition_calls import ScriptAnswer

START = b"POST /v1/sales/"
_MAX_BYTES = 4 * 1024
"""Of head and body: several times what a storefront sends."""
_HEAD = re.compile(
    rb"POST /v1/sales/([A-Za-z0-9._~-]{1,64})/reservations HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_FIELD = re.compile(rb"([^:]+): ([^\r]*)\r\n")
_NOT_PLAIN = frozenset(
    {b"connection", b"content-encoding", b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Headers that change how a message is framed, or what becomes of the connection."""
_NOSNIFF = b"x-content-type-options: nosniff\r\n"

Plain = tuple[str, NamedHeaders, bytes]
Finish = Callable[[Answer, bytes], None]
"""Called with an answer, and the header lines that it has beside its own."""


def read_plain(data: bytes) -> Plain | None:
    """The sale's id, headers and body of a plain request that is all of `data`; None if it is not that."""
    if len(data) > _MAX_BYTES or (head := _HEAD.match(data)) is None:
        return None
    fields = _FIELD.findall(head[2])
    named = {name.lower(): value for name, value in fields}
    body = data[head.end() :]
    if (
        len(named) != len(fields)
        or named.get(b"content-length") != b"%d" % len(body)
        or named.get(b"content-type") != b"application/json"
        or not _NOT_PLAIN.isdisjoint(named)
    ):
        return None
    return head[1].decode("ascii"), named, body


class PlainHolds:
    """Answers plain requests for holds."""

    def __init__(self, services: Services) -> None:
        self._authenticator = services.authenticator
        self._inventory = services.inventory
        self._hot_path = HotPath(services)
        self._limits = services.limits
        origins = services.settings.cors_origins
        self._cors = Cors(origins) if origins else None

    def begin(self, plain: Plain, client: tuple[str, int] | None, finish: Finish) -> None:
        """Judges the request; `finish` is called at once with its refusal, or once it is decided."""
        started = time.perf_counter()
        sale_id, named, body = plain
        common = b"x-request-id: %b\r\n" % request_id(named.get(b"x-request-id")) + _NOSNIFF
        if self._cors is not None:
            common += lines_of(self._cors.headers(named))

        def done(outcome: ScriptAnswer | HoldfastError) -> None:
            answer = answer_of(request, outcome)
            finish(answer, common)
            seconds = time.perf_counter() - started
            metrics.observe(RESERVATIONS, "POST", answer.status, answer.outcome, seconds)

        try:
            if self._limits is not None:
                self._limits.judge_address(client)
            principal = self._authenticator.authenticate(named.get(b"authorization"))
            if self._limits is not None:
                self._limits.judge_principal(principal)
            key = read_idempotency_key(named.get(b"idempotency-key"))
            request = self._hot_path.request(sale_id, principal, key, body)
            self._inventory.submit(request, done)
            return
        except HoldfastError as error:
            answer = refusal(error, sale_id)
        except Exception:
            answer = failed(sale_id)
        finish(answer, common)
        seconds = time.perf_counter() - started
        metrics.observe(RESERVATIONS, "POST", answer.status, answer.outcome, seconds)


assert _MAX_BYTES < BODY_BYTES  # noqa: S101
