"""Errors as clients see them (RFC 9457): the one table from an error's code to its status."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from urllib.parse import quote

import orjson
from starlette.types import Scope

from app import errors
from app.errors import HoldfastError

MEDIA_TYPE = "application/problem+json"
Headers = list[tuple[bytes, bytes]]

_STATUS: Mapping[type[HoldfastError], int] = {
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.SaleNotFound: 404,
    errors.SkuNotFound: 404,
    errors.ReservationNotFound: 404,
    errors.OrderNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.MalformedHeader: 400,
    errors.MalformedJson: 400,
    errors.IdempotencyKeyRequired: 400,
    errors.ValidationFailed: 422,
    errors.IdempotencyKeyReused: 422,
    errors.SaleNotOpen: 409,
    errors.SalePaused: 409,
    errors.SaleClosed: 409,
    errors.SoldOut: 409,
    errors.CustomerLimitReached: 409,
    errors.ReservationConfirmed: 409,
    errors.ReservationReleased: 409,
    errors.ReservationExpired: 409,
    errors.ExtensionLimitReached: 409,
    errors.InsufficientStock: 409,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.StoreUnavailable: 503,
    errors.SaleRebuilding: 503,
    errors.OutcomeUnknown: 503,
    errors.AuditNotReady: 503,
}

_ADVICE: Mapping[type[HoldfastError], str] = {
    errors.Unauthorized: "Send an API key or a customer's token: Authorization: Bearer …",
    errors.Forbidden: "Use a token whose scope, or whose customer, covers this.",
    errors.RequestTimeout: "Send the whole body at once.",
    errors.BodyTooLarge: "Bodies are at most 16 KiB, a sale's definition 4 MiB.",
    errors.UnsupportedMediaType: "Send JSON in UTF-8 with Content-Type: application/json.",
    errors.IdempotencyKeyRequired: "Send a key of your own choice, the same one with every retry.",
    errors.ValidationFailed: "`errors` names each field by a JSON Pointer.",
    errors.IdempotencyKeyReused: "Use a new key for a new request.",
    errors.SaleNotOpen: "`opens_at` says when it opens; Retry-After counts down to it.",
    errors.SoldOut: "`held` units may come back, when their holds are released or expire.",
    errors.CustomerLimitReached: "`taken` counts held and bought units; releases and expiry give them back.",
    errors.ReservationExpired: "With `refund_required`, a payment came for units that are gone: refund it.",
    errors.RateLimited: "Wait for Retry-After.",
    errors.Overloaded: "Wait for Retry-After, then send the same request with the same key.",
    errors.StoreUnavailable: "Nothing was changed. Wait for Retry-After, then send the same request again.",
    errors.SaleRebuilding: "Nothing was changed. Wait for Retry-After, then send the same request again.",
    errors.OutcomeUnknown: "It may have taken effect: a retry with the same key tells what happened.",
    errors.AuditNotReady: "Postgres lags behind. Wait for Retry-After, then audit again.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of error."""

    code: str
    status: int
    title: str
    advice: str

    @property
    def type(self) -> str:
        return f"/problems/{self.code}"


PROBLEMS: Mapping[str, Problem] = MappingProxyType(
    {
        error.code: Problem(error.code, status, error.title(), _ADVICE.get(error, ""))
        for error, status in _STATUS.items()
    }
)
_MEDIA_TYPE = MEDIA_TYPE.encode()
_DEFAULT_RETRY_AFTER = 1.0


def render(error: HoldfastError, instance: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error met at the path `instance`."""
    problem = PROBLEMS[error.code]
    status = problem.status
    body = orjson.dumps(
        {
            "type": problem.type,
            "title": problem.title,
            "status": status,
            "detail": error.detail,
            "instance": instance,
            "code": problem.code,
            **error.extra,
        }
    )
    headers: Headers = [(b"content-type", _MEDIA_TYPE), (b"content-length", b"%d" % len(body))]
    retry_after = error.retry_after
    if retry_after is None and status in (429, 503):
        retry_after = _DEFAULT_RETRY_AFTER
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(retry_after))))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="holdfast"'))
    elif status in (408, 413):  # the rest of the body may still come, without end
        headers.append((b"connection", b"close"))
    return status, headers, body


def instance_of(scope: Scope) -> str:
    """The request's path as it was sent, as a URI reference."""
    return quote(scope.get("raw_path") or scope["path"].encode(), safe="/%:@!$&'()*+,;=~")


def unexpected(method: str) -> HoldfastError:
    """What to say of a failure that nobody foresaw: a write may have happened."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return errors.StoreUnavailable("The request could not be answered; nothing was changed.")
    return errors.OutcomeUnknown()
