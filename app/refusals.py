"""Turns the scripts' words into domain errors and the answers to reservation requests."""

from app import errors
from app.errors import HoldfastError
from app.models import Item, Reservation, ReservationStatus, SaleState
from app.packing import read_hold
from app.times import rfc3339


def _sale_state(error: type[HoldfastError], state: SaleState, opens_at: str, now: int) -> HoldfastError:
    wait = max(int(opens_at) - now, 1) / 1000 if state is SaleState.SCHEDULED else None
    return error(retry_after=wait, state=state.value, opens_at=rfc3339(int(opens_at)))


def _sold_out(sku: str, requested: str, available: str, held: str) -> HoldfastError:
    return errors.SoldOut(
        f"{requested} of {sku} asked for, {available} available.",
        sku=sku, requested=int(requested), available=int(available), held=int(held),
    )  # fmt: skip


def _customer_limit(sku: str, limit: str, taken: str) -> HoldfastError:
    return errors.CustomerLimitReached(
        f"A customer may take {limit} of {sku}; {taken} are taken.",
        sku=sku,
        limit=int(limit),
        taken=int(taken),
    )


_FULL = {
    "journal": "Nothing new until more of the journal is in Postgres.",
    "memory": "Nothing new until Redis has memory again.",
    "sale": "The sale has as many reservations as it may have.",
}


def overloaded(what: str) -> HoldfastError:
    """`what` is full: journal, memory or sale."""
    return errors.Overloaded(_FULL[what], retry_after=1)


_PLAIN: dict[str, type[HoldfastError]] = {
    "idempotency_key_reused": errors.IdempotencyKeyReused,
    "reservation_confirmed": errors.ReservationConfirmed,
    "reservation_released": errors.ReservationReleased,
    "reservation_expired": errors.ReservationExpired,
    "extension_limit_reached": errors.ExtensionLimitReached,
}
_STATES = {
    "sale_closed": (errors.SaleClosed, SaleState.CLOSED),
    "sale_not_open": (errors.SaleNotOpen, SaleState.SCHEDULED),
    "sale_paused": (errors.SalePaused, SaleState.PAUSED),
}


def refusal(word: str, *details: str, now: int = 0) -> HoldfastError | None:
    """The error that a script's word stands for, or None if it is no refusal. `now`: milliseconds."""
    if word in _PLAIN:
        return _PLAIN[word]()
    if word in _STATES:
        return _sale_state(*_STATES[word], details[0], now)
    match word:
        case "sold_out":
            return _sold_out(*details)
        case "customer_limit_reached":
            return _customer_limit(*details)
        case "sku_not_found":
            return errors.SkuNotFound(f"The sale has no SKU {details[0]}.", sku=details[0])
        case "sale_not_found":
            return errors.SaleNotFound()
        case "rate_limited":
            return errors.RateLimited(
                "The customer has made too many reservations of this sale.", retry_after=60
            )
        case "overloaded":
            return overloaded(*details)
    return None


def reserve_answer(
    sale_id: str, hold_id: str, customer_id: str, items: tuple[Item, ...], answer: str, now: int
) -> tuple[Reservation, bool] | HoldfastError:
    """The reservation and whether it is a replay, or the refusal, from one answer of `reserve`."""
    word, _, rest = answer.partition(" ")
    if word == "held":
        created, expires = rest.split(" ")
        return Reservation(
            sale_id, hold_id, customer_id, ReservationStatus.HELD, items, int(created), int(expires)
        ), False
    if word == "replayed":
        held_id, packed = rest.split(" ", 1)
        return read_hold(sale_id, held_id, packed, now), True
    error = refusal(word, *rest.split(" "), now=now)
    if error is None:
        raise AssertionError(f"reserve answered {word!r}")
    return error
