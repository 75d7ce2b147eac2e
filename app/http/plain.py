"""Reservations and confirmations in the form in which nearly all come: whole in one piece, and with nothing
about them that needs a second thought. They are answered without an ASGI scope, a task, or a future.

What is not plain, however slightly, is left to the ordinary way through parser and application, which judges
it from the start; so this reader has no errors of its own, and must only never take what the parser would not
read in the same way.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from app import errors
from app.confirming import Confirmation
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
        b"content-encoding", b"expect", b"prefer", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
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


Finish = Callable[[Answer, bytes], None]
"""Called once, with an answer, and the header lines that it has beside its own."""


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
        self._looking: set[asyncio.Task[None]] = set()

    def takes(self, plain: Plain) -> bool:
        """Is the request plain for whom it comes from? A confirmation is only the shop's, by a key that was
        accepted before: whose a customer's reservation is would have to be looked up."""
        return plain.hold_id is None or self._authenticator.is_known_key(plain.headers.get(b"authorization"))

    def begin(self, plain: Plain, client: tuple[str, int] | None, finish: Finish) -> None:
        """Judges the request; `finish` is called at once with its refusal, or once it is decided."""
        started = time.perf_counter()
        named = plain.headers
        common = b"x-request-id: %b\r\n" % request_id(named.get(b"x-request-id")) + _NOSNIFF
        if self._cors is not None:
            common += lines_of(self._cors.headers(named))
        route = RESERVATIONS if plain.hold_id is None else confirmations.ROUTE

        def done(answer: Answer) -> None:
            finish(answer, common)
            seconds = time.perf_counter() - started
            metrics.observe(route, "POST", answer.status, answer.outcome, seconds)

        refused = self._submit(plain, client, done)
        if refused is not None:
            done(refused)

    def _submit(
        self, plain: Plain, client: tuple[str, int] | None, done: Callable[[Answer], None]
    ) -> Answer | None:
        """Has the request decided, or refuses it at once."""
        try:
            if self._limits is not None:
                self._limits.judge_address(client)
            principal = self._authenticator.authenticate(plain.headers.get(b"authorization"))
            if self._limits is not None:
                self._limits.judge_principal(principal)
            if plain.hold_id is None:
                return self._reserve(plain, principal, done)
            self._confirm(plain, plain.hold_id, done)
            return None
        except Exception as error:
            return self._refusal(plain, error)

    def _reserve(self, plain: Plain, principal: Principal, done: Callable[[Answer], None]) -> Answer | None:
        key = read_idempotency_key(plain.headers.get(b"idempotency-key"))
        request = self._hot_path.request(plain.sale_id, principal, key, plain.body)
        if (known := self._inventory.known(request)) is not None:
            return hotpath.answer_of(request, known)

        def decided(outcome: ScriptAnswer | HoldfastError) -> None:
            try:
                answer = hotpath.answer_of(request, outcome)
            except Exception as error:
                answer = self._refusal(plain, error)
            done(answer)

        self._inventory.submit(request, decided)
        return None

    def _confirm(self, plain: Plain, hold_id: str, done: Callable[[Answer], None]) -> None:
        request = confirmations.confirmation(plain.sale_id, hold_id, plain.body)

        def decided(outcome: ScriptAnswer | HoldfastError) -> None:
            try:
                answer = confirmations.answer_of(self._services, request, outcome)
            except Exception as error:
                answer = self._refusal(plain, error)
            if answer is None:
                task = asyncio.create_task(self._look_further(plain, request, done))
                self._looking.add(task)
                task.add_done_callback(self._looking.discard)
            else:
                done(answer)

        self._inventory.submit_confirmation(request, decided)

    async def _look_further(
        self, plain: Plain, request: Confirmation, done: Callable[[Answer], None]
    ) -> None:
        try:
            answer = await confirmations.answer_from_postgres(self._services, request)
        except Exception as error:
            answer = self._refusal(plain, error)
        done(answer)

    @staticmethod
    def _refusal(plain: Plain, error: Exception) -> Answer:
        """To be called while the error is handled."""
        if not isinstance(error, HoldfastError):
            hotpath.log.exception("a plain request failed")
            error = errors.OutcomeUnknown()
        if plain.hold_id is None:
            return hotpath.refusal(error, plain.sale_id)
        return confirmations.refusal(error, plain.sale_id, plain.hold_id)


assert _MAX_BYTES < BODY_BYTES  # noqa: S101
