"""Domain errors. They know no status codes; `app.http.problems` has the one table that translates.

Each class carries its public `code` (the word clients switch on) and the extra members that a client may
read. The docstring's first line is the title that clients see.
"""

from typing import Any, ClassVar


class HoldfastError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str = "", *, retry_after: float | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.retry_after = retry_after
        """Seconds after which trying again makes sense, if it does."""
        self.extra = extra

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or "").splitlines()[0]


# Who calls.


class Unauthorized(HoldfastError):
    """The request carries no token, or one that is not accepted."""

    code = "unauthorized"


class Forbidden(HoldfastError):
    """The token does not allow this."""

    code = "forbidden"


# What is asked.


class NotFound(HoldfastError):
    """There is nothing at this path."""

    code = "not_found"


class SaleNotFound(HoldfastError):
    """There is no such sale."""

    code = "sale_not_found"


class SkuNotFound(HoldfastError):
    """The sale has no such SKU."""

    code = "sku_not_found"


class ReservationNotFound(HoldfastError):
    """The sale has no such reservation."""

    code = "reservation_not_found"


class OrderNotFound(HoldfastError):
    """The sale has no such order."""

    code = "order_not_found"


class MethodNotAllowed(HoldfastError):
    """This path does not take that method."""

    code = "method_not_allowed"


class RequestTimeout(HoldfastError):
    """The request's body did not arrive in time."""

    code = "request_timeout"


class BodyTooLarge(HoldfastError):
    """The request's body is too large."""

    code = "body_too_large"


class UnsupportedMediaType(HoldfastError):
    """The body must be application/json."""

    code = "unsupported_media_type"


class MalformedHeader(HoldfastError):
    """A header cannot be read."""

    code = "malformed_header"


class MalformedJson(HoldfastError):
    """The body is not JSON."""

    code = "malformed_json"


class IdempotencyKeyRequired(HoldfastError):
    """This call needs the header Idempotency-Key."""

    code = "idempotency_key_required"


class ValidationFailed(HoldfastError):
    """The request has fields that cannot be accepted."""

    code = "validation_failed"

    def __init__(self, errors: list[dict[str, str]], detail: str = "") -> None:
        super().__init__(detail or "; ".join(f"{e['path'] or '/'}: {e['message']}" for e in errors[:3]))
        self.extra = {"errors": errors}


class IdempotencyKeyReused(HoldfastError):
    """This Idempotency-Key was used for another request."""

    code = "idempotency_key_reused"


# What the stock and the clock say.


class SaleNotOpen(HoldfastError):
    """The sale has not opened yet."""

    code = "sale_not_open"


class SalePaused(HoldfastError):
    """The sale is paused."""

    code = "sale_paused"


class SaleClosed(HoldfastError):
    """The sale is closed."""

    code = "sale_closed"


class SoldOut(HoldfastError):
    """Not enough units are available."""

    code = "sold_out"


class CustomerLimitReached(HoldfastError):
    """The customer may not take more units of this SKU."""

    code = "customer_limit_reached"


class ReservationConfirmed(HoldfastError):
    """The reservation is already confirmed."""

    code = "reservation_confirmed"


class ReservationReleased(HoldfastError):
    """The reservation was released."""

    code = "reservation_released"


class ReservationExpired(HoldfastError):
    """The reservation has expired."""

    code = "reservation_expired"


class ExtensionLimitReached(HoldfastError):
    """The hold cannot be kept that long."""

    code = "extension_limit_reached"


class InsufficientStock(HoldfastError):
    """Fewer units are available than should be withdrawn."""

    code = "insufficient_stock"


# What the service can do now.


class RateLimited(HoldfastError):
    """Too many requests."""

    code = "rate_limited"


class Overloaded(HoldfastError):
    """The service is at its limit and refuses rather than queues."""

    code = "overloaded"


class StoreUnavailable(HoldfastError):
    """A store cannot be reached; nothing was changed."""

    code = "store_unavailable"


class SaleRebuilding(HoldfastError):
    """The sale's state is being rebuilt; it opens again by itself."""

    code = "sale_rebuilding"


class OutcomeUnknown(HoldfastError):
    """The store's answer was lost: the request may have taken effect; retry it with the same key."""

    code = "outcome_unknown"


class AuditNotReady(HoldfastError):
    """The journal was not drained in time for an audit."""

    code = "audit_not_ready"


class ConfigurationError(Exception):
    """A setting, a server or an installation stops the start; the message says what to change."""
