"""What every request meets first: its id, CORS, limits, its token; then the hot path or FastAPI."""

import re
import secrets
import time
from itertools import count

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from app.errors import HoldfastError
from app.http import metrics, problems
from app.http.body import (
    BODY_BYTES,
    ClientDisconnected,
    NamedHeaders,
    name_headers,
    read_body,
    read_idempotency_key,
)
from app.http.cors import Cors
from app.http.exchange import Exchange
from app.http.hotpath import HotPath, answer_of, failed, refusal
from app.http.paths import PROBES, RESERVATIONS, SALE_RESERVATIONS
from app.http.services import Services

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_OPEN_PATHS = PROBES | {"/docs", "/openapi.json"}
_OPEN_PREFIX = "/problems/"
_ADMIN_PREFIX = "/v1/admin/"
_NOSNIFF = (b"x-content-type-options", b"nosniff")

_process = secrets.token_hex(8)
_requests = count(1)


def request_id(given: bytes | None) -> bytes:
    """The caller's id if it is 1 to 128 visible ASCII characters, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%s-%x" % (_process.encode(), next(_requests))


def _has_encoded_slash(scope: Scope) -> bool:
    """An encoded slash is a part of a name, and no name here has one."""
    raw_path: bytes = scope.get("raw_path") or b""
    return b"%" in raw_path and b"%2f" in raw_path.lower()


class Front:
    """The ASGI application in front of `app`, which answers everything but the hot path."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._authenticator = services.authenticator
        self._limits = services.limits
        self._hot_path = HotPath(services)
        self._inventory = services.inventory
        self._body_timeout = services.settings.body_timeout_seconds
        self._cors = Cors(services.settings.cors_origins) if services.settings.cors_origins else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # WebSockets: the server answers 403
        started = time.perf_counter()
        named = name_headers(scope["headers"])
        identifier = request_id(named.get(b"x-request-id"))
        common: problems.Headers = [(b"x-request-id", identifier), _NOSNIFF]
        if self._cors is not None:
            common += self._cors.headers(named)
        if scope["method"] == "POST":
            match = SALE_RESERVATIONS.fullmatch(scope["path"])
            if match is not None and not _has_encoded_slash(scope):
                await self._reserve(match[1], scope, receive, send, named, common)
                return
        exchange = Exchange(scope, send, common, started)
        exchange.state["request_id"] = identifier.decode()
        await self._ordinary(exchange, receive, named)

    async def _reserve(
        self,
        sale_id: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        named: NamedHeaders,
        common: problems.Headers,
    ) -> None:
        started = time.perf_counter()
        try:
            if self._limits is not None:
                self._limits.judge_address(scope.get("client"))
            principal = self._authenticator.authenticate(named.get(b"authorization"))
            if self._limits is not None:
                self._limits.judge_principal(principal)
            key = read_idempotency_key(named.get(b"idempotency-key"))
            body = await read_body(receive, named, BODY_BYTES, self._body_timeout)
            request = self._hot_path.request(sale_id, principal, key, body)
            answer = answer_of(request, await self._inventory.decide(request))
        except ClientDisconnected:
            return
        except HoldfastError as error:
            answer = refusal(error, sale_id)
        except Exception:
            answer = failed(sale_id)
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers + common}
        )
        await send({"type": "http.response.body", "body": answer.body})
        seconds = time.perf_counter() - started
        metrics.observe(RESERVATIONS, "POST", answer.status, answer.outcome, seconds)

    async def _ordinary(self, exchange: Exchange, receive: Receive, named: NamedHeaders) -> None:
        try:
            if self._limits is not None and exchange.path not in PROBES:
                self._limits.judge_address(exchange.scope.get("client"))
            preflight = self._cors.preflight(named) if self._cors and exchange.method == "OPTIONS" else None
            if preflight is not None:
                await exchange.respond(204, preflight, b"")
            else:
                self._admit(exchange, named)
                await self._app(exchange.scope, receive, exchange.send)
        except HoldfastError as error:
            await exchange.refuse(error)
        except ClientDisconnected:
            return
        except Exception:
            log.exception("a request failed", method=exchange.method, route=exchange.route)
            if not exchange.begun:
                await exchange.refuse(problems.unexpected(exchange.method))
            elif not exchange.finished:
                raise  # half an answer is out: the server can only cut the connection
        exchange.observe()

    def _admit(self, exchange: Exchange, named: NamedHeaders) -> None:
        """Lets the request in, as whom its token names. Raises Unauthorized, RateLimited, Forbidden
        or NotFound."""
        path = exchange.path
        if path not in _OPEN_PATHS and not path.startswith(_OPEN_PREFIX):
            principal = self._authenticator.authenticate(named.get(b"authorization"))
            if self._limits is not None:
                self._limits.judge_principal(principal)
            if path.startswith(_ADMIN_PREFIX):
                principal.require_admin()
            exchange.state.update(principal=principal, headers=named)
        # Routes end in $, which a line feed slips past, and know paths only decoded.
        if not path.isprintable() or _has_encoded_slash(exchange.scope):
            raise errors.NotFound()
