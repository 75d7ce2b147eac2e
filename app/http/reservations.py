"""Finds reservations for those who may see them: in Redis, and in Postgres once Redis has forgotten them."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from app import errors
from app.errors import HoldfastError
from app.http.auth import Principal
from app.http.services import Services
from app.ids import hold_id_of
from app.models import Order, Reservation
from app.patience import read_soon
from app.rebuild import forgotten_hold

_NO_HOLD = "-"
"""An id that no reservation has, for public ids that can't be one: the sale is still judged first."""
_FORGOTTEN = (errors.SaleNotFound, errors.ReservationNotFound, errors.OrderNotFound)


def read_hold_id(public_id: str, prefix: str) -> str:
    return hold_id_of(public_id, prefix) or _NO_HOLD


@contextmanager
def nameless(hold_id: str) -> Iterator[None]:
    """Keeps the id that stands for none out of what clients read."""
    try:
        yield
    except (errors.ReservationNotFound, errors.OrderNotFound) as error:
        if hold_id == _NO_HOLD:
            raise type(error)() from None
        raise


async def find(services: Services, principal: Principal, sale_id: str, hold_id: str) -> Reservation:
    """The reservation as it is now.

    Raises SaleNotFound or ReservationNotFound; to a customer, Forbidden for whatever is not their own.
    """
    try:
        reservation = await services.inventory.reservation(sale_id, hold_id)
        if reservation is None:
            raise errors.ReservationNotFound()
        principal.require_own(reservation.customer_id)
    except (*_FORGOTTEN, errors.Forbidden) as error:
        try:
            reservation = await _remembered(services, principal, sale_id, hold_id, error)
        except (*_FORGOTTEN, errors.StoreUnavailable):
            # Else a reservation of somebody else would differ from none while Postgres is away.
            if principal.customer_id is not None:
                raise errors.Forbidden() from None
            raise
        principal.require_own(reservation.customer_id)
    return reservation


async def require_own(services: Services, principal: Principal, sale_id: str, hold_id: str) -> None:
    """Raises Forbidden unless the reservation is the principal's; costs the shop nothing."""
    if principal.customer_id is not None:
        await find(services, principal, sale_id, hold_id)


async def _remembered(
    services: Services, principal: Principal, sale_id: str, hold_id: str, error: HoldfastError
) -> Reservation:
    """What Postgres knows of a reservation that Redis does not. Raises `error` if it knows nothing.

    For a customer it is asked in any case, also for somebody else's that Redis does know: were it asked only
    for some of what is not their own, the time would tell which of it exists.
    """
    if hold_id == _NO_HOLD and principal.customer_id is None:
        raise error
    reservation = await read_soon(services.orders.reservation(sale_id, hold_id))
    if reservation is None:
        raise error
    return reservation


async def decide(
    services: Services, sale_id: str, hold_id: str, command: Callable[[], Awaitable[Reservation]]
) -> Reservation:
    """What `command` decides of a hold, which is taken back first if Redis has forgotten it.

    Raises as the inventory does.
    """
    try:
        with nameless(hold_id):
            return await command()
    except errors.ReservationNotFound:
        if hold_id == _NO_HOLD:
            raise
        packed = await read_soon(forgotten_hold(services.pool, sale_id, hold_id))
        if packed is None:
            raise
    await services.inventory.recall(sale_id, hold_id, packed)
    return await command()


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
    partition = services.keys.partition(reservation.sale_id)
    return services.progress.has_drained(partition, order.journal_id) is True
