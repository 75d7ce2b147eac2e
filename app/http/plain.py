"""Reservations and confirmations in the form in which nearly all come: whole in one piece, and with nothing
about them that needs a second thought. They are answered without an ASGI scope, a task, or a future.

What is not plain, however slightly, is left to the ordinary way through parser and application, which judges
it from the start; so this reader has no errors of its own, and must only never take what the parser would not
read in the same way.
"""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from app import errors
from app.errors import HoldfastError
from app.http import confirmations, hotpath, metrics
from app.http.auth import Principal
from app.http.body import BODY_BYTES, NamedHeaders, is_json, read_idempotency_key
from app.http.cors import Cors
from app.http.front import request_id
from app.http.hotpath import Answer, HotPath, lines_of
from app.http.paths import RESERVATIONS
from app.http.services import Services
from app.partition_calls import ScriptAnswer

START = b"POST /v1/sales/"
_MAX_BYTES = 4 * 1024
"""Of head and body: several times what a storefront sends."""
_HEAD = re.compile(
    rb"POST /v1/sales/([A-Za-z0-9._~-]{1,64})/reservations(?:/res_([0-9a-hjkmnp-tv-z]{26})/confirm)?"
    rb" HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_FIELD = re.compile(rb"([^:]+): ([^\r]*)\r\n")
_NOT_PLAIN = frozenset(
    {
        b"content-encoding", b"expect", b"prefer", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers that change how a message is framed, when it is answered, or what becomes of the connection."""
_NOSNIFF = b"x-content-type-options: nosniff\r\n"


class Plain(NamedTuple):
    """`hold_id` of a confirmation; None where a hold is asked for."""

    sale_id: str
    hold_id: str | None
    headers: NamedHeaders
    body: bytes


Finish = Callable[[Answer | None, bytes], None]
"""Called with an answer, and the header lines that it has beside its own; None where it was not plain."""


def read_plain(data: bytes) -> Plain | None:
    """A plain request that is all of `data`; None if it is not that."""
    if len(data) > _MAX_BYTES or (head := _HEAD.match(data)) is None:
        return None
    fields = _FIELD.findall(head[3])
    named = {name.lower(): value for name, value in fields}
    body = data[head.end() :]
    if (
        len(named) != len(fields)
        or named.get(b"content-length") != b"%d" % len(body)
        or named.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or not is_json(named.get(b"content-type"))
        or not _NOT_PLAIN.isdisjoint(named)
    ):
        return None
    hold_id: bytes | None = head[2]
    return Plain(head[1].decode(), None if hold_id is None else hold_id.decode(), named, body)


class PlainRequests:
    """Answers them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._authenticator = services.authenticator
        self._inventory = services.inventory
        self._hot_path = HotPath(services)
        self._limits = services.limits
        origins = services.settings.cors_origins
        self._cors = Cors(origins) if origins else None

    def begin(self, plain: Plain, client: tuple[str, int] | None, finish: Finish) -> None:
        """Judges the request; `finish` is called at once with its refusal, or once it is decided."""
        started = time.perf_counter()
        named = plain.headers
        common = b"x-request-id: %b\r\n" % request_id(named.get(b"x-request-id")) + _NOSNIFF
        if self._cors is not None:
            common += lines_of(self._cors.headers(named))
        route = RESERVATIONS if plain.hold_id is None else confirmations.ROUTE

        def done(answer: Answer | None) -> None:
            finish(answer, common)
            if answer is not None:
                seconds = time.perf_counter() - started
                metrics.observe(route, "POST", answer.status, answer.outcome, seconds)

        try:
            if self._limits is not None:
                self._limits.judge_address(client)
            principal = self._authenticator.authenticate(named.get(b"authorization"))
            if self._limits is not None:
                self._limits.judge_principal(principal)
            if plain.hold_id is None:
                self._reserve(plain, principal, done)
            else:
                self._confirm(plain, plain.hold_id, principal, done)
        except HoldfastError as error:
            done(self._refusal(plain, error))
        except Exception:
            hotpath.log.exception("a plain request failed", route=route)
            done(self._refusal(plain, errors.OutcomeUnknown()))

    def _reserve(self, plain: Plain, principal: Principal, done: Callable[[Answer], None]) -> None:
        key = read_idempotency_key(plain.headers.get(b"idempotency-key"))
        request = self._hot_path.request(plain.sale_id, principal, key, plain.body)
        self._inventory.submit(request, lambda outcome: done(hotpath.answer_of(request, outcome)))

    def _confirm(
        self, plain: Plain, hold_id: str, principal: Principal, done: Callable[[Answer | None], None]
    ) -> None:
        request = confirmations.confirmation(plain.sale_id, hold_id, principal, plain.body)
        if request is None:
            done(None)
            return

        def decided(outcome: ScriptAnswer | HoldfastError) -> None:
            done(confirmations.answer_of(self._services, request, outcome))

        self._inventory.submit_confirmation(request, decided)

    @staticmethod
    def _refusal(plain: Plain, error: HoldfastError) -> Answer:
        if plain.hold_id is None:
            return hotpath.refusal(error, plain.sale_id)
        return confirmations.refusal(error, plain.sale_id, plain.hold_id)


assert _MAX_BYTES < BODY_BYTES  # noqa: S101
