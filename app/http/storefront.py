"""What storefronts call. Making a reservation is answered by hotpath.py."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from app import errors, models
from app.http import reservations
from app.http.availability import etag_matches
from app.http.body import pointer
from app.http.document import problems_of
from app.http.requests import (
    MAX_WAIT_SECONDS,
    JsonBody,
    ListQuery,
    PreferredWait,
    ignore_body,
    optional_key,
)
from app.http.reservations import order_of, read_hold_id
from app.http.responses import Json
from app.http.schemas import (
    ConfirmRequest,
    CustomerId,
    ExtendRequest,
    Order,
    Page,
    Reservation,
    ReservationRequest,
    Sale,
)
from app.http.services import PrincipalDep, ServicesDep
from app.http.views import order_view, reservation_view
from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.models import OrderStatus
from app.pages import SortKey, make_page, read_cursor

_SALE = "/v1/sales/{sale_id:identifier}"
_RESERVATIONS = _SALE + "/reservations"
_RESERVATION = _RESERVATIONS + "/{reservation_id}"

router = APIRouter(tags=["Storefront"])


class ActiveReservationsQuery(ListQuery):
    customer_id: CustomerId | None = Field(
        None, description="required with an API key; a customer's token has it"
    )


@router.get(_SALE, responses={200: {"model": Sale}, 304: {}, **problems_of("sale_not_found")})
async def get_sale(sale_id: str, request: Request, services: ServicesDep) -> Response:
    """A sale and how much of it is left. May lag 250 ms."""
    page = await services.availability.page(sale_id)
    headers = {"ETag": page.etag, "Cache-Control": "private, no-cache"}
    if etag_matches(", ".join(request.headers.getlist("if-none-match")), page.etag):
        return Response(status_code=304, headers=headers)
    return Response(page.body(), media_type="application/json", headers=headers)


@router.post(
    _RESERVATIONS,
    status_code=201,
    responses={
        201: {"model": Reservation},
        **problems_of(
            "forbidden", "malformed_header", "body", "sale_not_found", "sku_not_found", "validation_failed",
            "idempotency_key_reused", "sale_not_open", "sale_paused", "sale_closed", "sold_out",
            "customer_limit_reached", "write",
        ),
    },
)  # fmt: skip
async def make_reservation(
    sale_id: str,
    key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[ReservationRequest, Depends(JsonBody(ReservationRequest))],
) -> Response:
    """Hold units of one or more SKUs for a customer, all or none.

    The same Idempotency-Key gives the same reservation again, with `Idempotent-Replayed: true`.
    """
    raise AssertionError("app.http.front sends these requests to the hot path")


@router.get(
    _RESERVATIONS,
    responses={
        200: {"model": Page[Reservation]},
        **problems_of("forbidden", "validation_failed", "sale_not_found"),
    },
)
async def list_active_reservations(
    sale_id: str,
    principal: PrincipalDep,
    services: ServicesDep,
    query: Annotated[ActiveReservationsQuery, Query()],
) -> Response:
    """A customer's active holds, newest first, so that a shopper who returns resumes their own."""
    customer_id = query.customer_id or principal.customer_id
    if customer_id is None:
        raise errors.ValidationFailed([{"path": pointer(("customer_id",)), "message": "is required"}])
    principal.require_own(customer_id)
    created_before, id_before = read_cursor(query.cursor)
    holds = await services.inventory.living_holds(sale_id, customer_id)
    holds.sort(key=_by_creation, reverse=True)
    if created_before is not None and id_before is not None:
        holds = [hold for hold in holds if _by_creation(hold) < (created_before, id_before)]
    page = make_page(holds[: query.limit + 1], query.limit, reservation_view, _by_creation)
    return Json({"items": page.items, "next_cursor": page.next_cursor})


def _by_creation(hold: models.Reservation) -> SortKey:
    return hold.created_at, hold.hold_id


@router.get(
    _RESERVATION,
    responses={
        200: {"model": Reservation},
        **problems_of("forbidden", "sale_not_found", "reservation_not_found"),
    },
)
async def get_reservation(
    sale_id: str, reservation_id: str, principal: PrincipalDep, services: ServicesDep
) -> Response:
    """A reservation as it is now, also after it ended."""
    hold_id = read_hold_id(reservation_id, RESERVATION_PREFIX)
    return Json(reservation_view(await reservations.find(services, principal, sale_id, hold_id)))


@router.post(
    _RESERVATION + "/confirm",
    status_code=202,
    responses={
        200: {"model": Order, "description": "The order, persisted."},
        202: {"model": Order, "description": "The order; Postgres will have it in a moment."},
        **problems_of(
            "forbidden", "body", "validation_failed", "sale_not_found", "reservation_not_found",
            "reservation_confirmed", "reservation_released", "reservation_expired", "write",
        ),
    },
)  # fmt: skip
async def confirm_reservation(
    sale_id: str,
    reservation_id: str,
    wait: PreferredWait,
    body: Annotated[ConfirmRequest, Depends(JsonBody(ConfirmRequest))],
    principal: PrincipalDep,
    services: ServicesDep,
) -> Response:
    """Turn a hold into an order: the shop has the money. Idempotent by `payment_reference`.

    After expiry the units are taken again if they are still there (`reacquired`); if not, the answer says
    `refund_required`.
    """
    if not principal.may_confirm:
        raise errors.Forbidden()
    hold_id = read_hold_id(reservation_id, RESERVATION_PREFIX)
    await reservations.require_own(services, principal, sale_id, hold_id)
    confirmed = await reservations.decide(
        services,
        sale_id,
        hold_id,
        lambda: services.inventory.confirm(sale_id, hold_id, body.payment_reference, body.metadata),
    )
    order = order_of(confirmed)
    headers = {}
    persisted = reservations.is_known_persisted(services, confirmed)
    if wait is not None and order.journal_id is not None:
        partition = services.keys.partition(sale_id)
        persisted = await services.progress.wait(partition, order.journal_id, min(wait, MAX_WAIT_SECONDS))
        persisted = persisted or await reservations.is_persisted(services, confirmed)
        if persisted:
            headers["Preference-Applied"] = f"wait={min(wait, MAX_WAIT_SECONDS)}"
    ended = order.status is OrderStatus.CANCELLED
    return Json(order_view(confirmed, order, persisted), 200 if persisted or ended else 202, headers)


@router.post(
    _RESERVATION + "/extend",
    responses={
        200: {"model": Reservation},
        **problems_of(
            "forbidden", "body", "validation_failed", "sale_not_found", "reservation_not_found",
            "reservation_confirmed", "reservation_released", "reservation_expired", "extension_limit_reached",
            "write",
        ),
    },
)  # fmt: skip
async def extend_reservation(
    sale_id: str,
    reservation_id: str,
    body: Annotated[ExtendRequest, Depends(JsonBody(ExtendRequest))],
    principal: PrincipalDep,
    services: ServicesDep,
) -> Response:
    """Keep a hold until at least `seconds` from now; a retry is harmless."""
    hold_id = read_hold_id(reservation_id, RESERVATION_PREFIX)
    await reservations.require_own(services, principal, sale_id, hold_id)
    extended = await reservations.decide(
        services, sale_id, hold_id, lambda: services.inventory.extend(sale_id, hold_id, body.seconds)
    )
    return Json(reservation_view(extended))


@router.delete(
    _RESERVATION,
    responses={
        200: {"model": Reservation},
        **problems_of(
            "forbidden", "ignored_body", "sale_not_found", "reservation_not_found", "reservation_confirmed",
            "write",
        ),
    },
    dependencies=[Depends(ignore_body)],
)  # fmt: skip
async def release_reservation(
    sale_id: str, reservation_id: str, principal: PrincipalDep, services: ServicesDep
) -> Response:
    """Give a hold's units back; one that has ended is answered as it is."""
    hold_id = read_hold_id(reservation_id, RESERVATION_PREFIX)
    await reservations.require_own(services, principal, sale_id, hold_id)
    released = await reservations.decide(
        services, sale_id, hold_id, lambda: services.inventory.release(sale_id, hold_id)
    )
    return Json(reservation_view(released))


@router.get(
    _SALE + "/orders/{order_id}",
    responses={200: {"model": Order}, **problems_of("forbidden", "sale_not_found", "order_not_found")},
)
async def get_order(sale_id: str, order_id: str, principal: PrincipalDep, services: ServicesDep) -> Response:
    """An order, from the moment its confirmation was answered."""
    hold_id = read_hold_id(order_id, ORDER_PREFIX)
    try:
        reservation = await reservations.find(services, principal, sale_id, hold_id)
    except errors.ReservationNotFound:
        raise errors.OrderNotFound() from None
    order = order_of(reservation)
    return Json(order_view(reservation, order, await reservations.is_persisted(services, reservation)))
