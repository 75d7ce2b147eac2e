"""Finds reservations for those who may see them: in Redis, and in Postgres once Redis has forgotten them."""

from app import errors
from app.errors import HoldfastError
from app.http.auth import Principal
from app.http.patience import read_soon
from app.http.services import Services
from app.ids import hold_id_of
from app.models import Order, OrderStatus, Reservation, ReservationStatus

_NO_HOLD = "-"
"""An id that no reservation has, for public ids that can't be one: the sale is still judged first."""
_FORGOTTEN = (errors.SaleNotFound, errors.ReservationNotFound, errors.OrderNotFound)


def read_hold_id(public_id: str, prefix: str) -> str:
    return hold_id_of(public_id, prefix) or _NO_HOLD


async def find(services: Services, principal: Principal, sale_id: str, hold_id: str) -> Reservation:
    """The reservation as it is now.

    Raises SaleNotFound or ReservationNotFound; to a customer, Forbidden for whatever is not their own.
    """
    try:
        reservation = await services.inventory.reservation(sale_id, hold_id)
        if reservation is None:
            raise errors.ReservationNotFound()
    except _FORGOTTEN as error:
        try:
            reservation = await recall(services, sale_id, hold_id, error)
        except _FORGOTTEN:
            if principal.customer_id is not None:
                raise errors.Forbidden() from None
            raise
    principal.require_own(reservation.customer_id)
    return reservation


async def require_own(services: Services, principal: Principal, sale_id: str, hold_id: str) -> None:
    """Raises Forbidden unless the reservation is the principal's; costs the shop nothing."""
    if principal.customer_id is not None:
        await find(services, principal, sale_id, hold_id)


async def recall(services: Services, sale_id: str, hold_id: str, error: HoldfastError) -> Reservation:
    """What Postgres knows of a reservation that Redis does not. Raises `error` if it knows nothing."""
    if hold_id == _NO_HOLD:
        raise error
    reservation = await read_soon(services.orders.reservation(sale_id, hold_id))
    if reservation is None:
        raise error
    return reservation


async def confirm(
    services: Services, sale_id: str, hold_id: str, payment_reference: str, metadata: bytes
) -> Reservation:
    """The reservation with its order; raises as the inventory does."""
    try:
        return await services.inventory.confirm(sale_id, hold_id, payment_reference, metadata)
    except _FORGOTTEN as error:
        known = await recall(services, sale_id, hold_id, error)
    if known.order is not None:
        if known.order.payment_reference == payment_reference:
            return known
        raise errors.ReservationConfirmed()
    if known.status is ReservationStatus.RELEASED:
        raise errors.ReservationReleased()
    raise errors.ReservationExpired("The sale is over; the payment has to be refunded.", refund_required=True)


async def extend(services: Services, sale_id: str, hold_id: str, seconds: int) -> Reservation:
    """Raises as the inventory does."""
    try:
        return await services.inventory.extend(sale_id, hold_id, seconds)
    except _FORGOTTEN as error:
        known = await recall(services, sale_id, hold_id, error)
    if known.status is ReservationStatus.CONFIRMED:
        raise errors.ReservationConfirmed()
    if known.status is ReservationStatus.RELEASED:
        raise errors.ReservationReleased()
    raise errors.ReservationExpired()


async def release(services: Services, sale_id: str, hold_id: str) -> Reservation:
    """Raises as the inventory does."""
    try:
        return await services.inventory.release(sale_id, hold_id)
    except _FORGOTTEN as error:
        known = await recall(services, sale_id, hold_id, error)
    if known.status is ReservationStatus.CONFIRMED:
        raise errors.ReservationConfirmed()
    return known


async def cancel(
    services: Services, sale_id: str, hold_id: str, restock: bool, reason: str | None
) -> Reservation:
    """Raises as the inventory does."""
    try:
        return await services.inventory.cancel(sale_id, hold_id, restock, reason)
    except _FORGOTTEN as error:
        known = await recall(services, sale_id, hold_id, error)
        if known.order is None or known.order.status is not OrderStatus.CANCELLED:
            raise
    return known


def order_of(reservation: Reservation) -> Order:
    """Raises OrderNotFound if the reservation was not confirmed."""
    if reservation.order is None:
        raise errors.OrderNotFound()
    return reservation.order


async def is_persisted(services: Services, reservation: Reservation) -> bool:
    """Is the order in Postgres? No, as far as can be told, while Postgres is away."""
    if is_known_persisted(services, reservation):
        return True
    try:
        return await read_soon(services.orders.is_persisted(reservation.hold_id))
    except HoldfastError:
        return False


def is_known_persisted(services: Services, reservation: Reservation) -> bool:
    """Like `is_persisted`, without asking Postgres."""
    order = reservation.order
    if order is None or order.journal_id is None:
        return order is not None and order.persisted
    drained = services.progress.drained(services.keys.partition(reservation.sale_id))
    return drained is not None and drained >= order.journal_id
