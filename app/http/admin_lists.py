"""What operators read page by page, newest first. Their token is judged before a request comes here."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from app import audit_log
from app.http import schemas
from app.http.admin import SALE, SALES
from app.http.document import problems_of
from app.http.requests import ListQuery
from app.http.reservations import order_of
from app.http.responses import Json
from app.http.services import Services, ServicesDep
from app.http.views import admin_sale_view, movement_view, order_view, reservation_view
from app.orders import Filters
from app.times import rfc3339

router = APIRouter(tags=["Admin"])


class SalesQuery(ListQuery):
    status: Literal["scheduled", "open", "paused", "closed"] | None = Field(None, description="its `state`")
    since: schemas.Instant | None = Field(None, alias="from", description="inclusive, of created_at")
    until: schemas.Instant | None = Field(None, alias="to", description="exclusive")


class MovementsQuery(ListQuery):
    sku: schemas.Identifier | None = None
    status: Literal["allocated", "restocked", "withdrawn", "written_off"] | None = Field(
        None, description="its `kind`"
    )
    since: schemas.Instant | None = Field(None, alias="from", description="inclusive")
    until: schemas.Instant | None = Field(None, alias="to", description="exclusive")


class ReservationsQuery(ListQuery):
    customer_id: schemas.CustomerId | None = None
    status: Literal["held", "confirmed", "released", "expired"] | None = None
    sku: schemas.Identifier | None = None
    since: schemas.Instant | None = Field(None, alias="from", description="inclusive, of created_at")
    until: schemas.Instant | None = Field(None, alias="to", description="exclusive")


class OrdersQuery(ListQuery):
    customer_id: schemas.CustomerId | None = None
    status: Literal["confirmed", "cancelled"] | None = None
    sku: schemas.Identifier | None = None
    since: schemas.Instant | None = Field(None, alias="from", description="inclusive, of confirmed_at")
    until: schemas.Instant | None = Field(None, alias="to", description="exclusive")


@router.get(
    SALES,
    responses={
        200: {"model": schemas.Page[schemas.AdminSale]},
        **problems_of("forbidden", "validation_failed"),
    },
)
async def list_sales(query: Annotated[SalesQuery, Query()], services: ServicesDep) -> Response:
    """All sales, newest first."""
    filters = Filters(
        status=query.status, since=query.since, until=query.until, now=await services.redis_time()
    )
    page = await services.orders.sales(filters, query.limit, query.cursor)
    return Json({"items": [admin_sale_view(sale) for sale in page.items], "next_cursor": page.next_cursor})


_LISTED = problems_of("forbidden", "validation_failed", "sale_not_found")


@router.get(SALE + "/movements", responses={200: {"model": schemas.Page[schemas.Movement]}, **_LISTED})
async def list_movements(
    sale_id: str, query: Annotated[MovementsQuery, Query()], services: ServicesDep
) -> Response:
    """Every change of allocated stock, newest first."""
    await services.availability.page(sale_id)
    filters = Filters(status=query.status, sku=query.sku, since=query.since, until=query.until)
    page = await services.orders.movements(sale_id, filters, query.limit, query.cursor)
    return Json({"items": [movement_view(one) for one in page.items], "next_cursor": page.next_cursor})


async def _filters(services: Services, sale_id: str, query: ReservationsQuery | OrdersQuery) -> Filters:
    sale = await services.availability.page(sale_id)
    return Filters(query.customer_id, query.status, query.sku, query.since, query.until, sale.now())


@router.get(SALE + "/reservations", responses={200: {"model": schemas.Page[schemas.Reservation]}, **_LISTED})
async def list_reservations(
    sale_id: str, query: Annotated[ReservationsQuery, Query()], services: ServicesDep
) -> Response:
    """The sale's reservations as Postgres has them, newest first."""
    filters = await _filters(services, sale_id, query)
    page = await services.orders.reservations(sale_id, filters, query.limit, query.cursor)
    return Json({"items": [reservation_view(one) for one in page.items], "next_cursor": page.next_cursor})


@router.get(SALE + "/orders", responses={200: {"model": schemas.Page[schemas.Order]}, **_LISTED})
async def list_orders(
    sale_id: str, query: Annotated[OrdersQuery, Query()], services: ServicesDep
) -> Response:
    """The sale's orders as Postgres has them, newest first."""
    filters = await _filters(services, sale_id, query)
    page = await services.orders.orders(sale_id, filters, query.limit, query.cursor)
    items = [order_view(one, order_of(one), persisted=True) for one in page.items]
    return Json({"items": items, "next_cursor": page.next_cursor})


class AuditLogQuery(ListQuery):
    sale_id: schemas.Identifier | None = None
    actor: str | None = Field(None, max_length=200, pattern=schemas.NO_CONTROLS, description="whole")
    action: str | None = Field(None, max_length=64, pattern=schemas.NO_CONTROLS, examples=["sale.paused"])
    since: schemas.Instant | None = Field(None, alias="from", description="inclusive")
    until: schemas.Instant | None = Field(None, alias="to", description="exclusive")


class Act(BaseModel):
    """What an operator did."""

    id: str
    at: schemas.Time
    actor: str = Field(description="an API key's id, the setting that has the key, or a command and its user")
    request_id: str | None = Field(description="X-Request-Id of the call")
    action: str = Field(examples=["stock.restocked"])
    sale_id: schemas.Identifier | None
    subject: str | None = Field(
        description="what in the sale, or besides: a SKU, an order, a key, a partition"
    )
    before: Any = Field(description="of what changed; null where there was nothing")
    after: Any


def _act_view(entry: audit_log.Entry) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": rfc3339(entry.at),
        "actor": entry.actor.name,
        "request_id": entry.actor.request_id,
        "action": entry.action,
        "sale_id": entry.sale_id,
        "subject": entry.subject,
        "before": orjson.Fragment(entry.before or "null"),
        "after": orjson.Fragment(entry.after or "null"),
    }


@router.get(
    "/v1/admin/audit-log",
    responses={200: {"model": schemas.Page[Act]}, **problems_of("forbidden", "validation_failed")},
)
async def list_acts(query: Annotated[AuditLogQuery, Query()], services: ServicesDep) -> Response:
    """Who did what, newest first. Nothing here is ever changed or removed."""
    criteria = audit_log.Criteria(query.sale_id, query.actor, query.action, query.since, query.until)
    page = await audit_log.entries(services.pool, criteria, query.limit, query.cursor)
    return Json({"items": [_act_view(entry) for entry in page.items], "next_cursor": page.next_cursor})
