"""What operators call. Their token is judged before a request comes here."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app import auditor, errors
from app.errors import HoldfastError
from app.http import reservations, schemas
from app.http.body import SALE_BODY_BYTES
from app.http.document import problems_of
from app.http.requests import JsonBody, RequiredKey, ignore_body
from app.http.reservations import order_of, read_hold_id
from app.http.responses import Json
from app.http.services import ActorDep, Services, ServicesDep
from app.http.views import admin_sale_view, order_view, stock_view
from app.ids import ORDER_PREFIX, request_digest
from app.models import Actor, SaleRules, StockRow

SALES = "/v1/admin/sales"
SALE = SALES + "/{sale_id:identifier}"
_DRAIN_SECONDS = 1.0
"""How long a write waits for the drain, so that the lists show it at once; they follow anyway."""

router = APIRouter(tags=["Admin"])


@contextmanager
def _after_change() -> Iterator[None]:
    """An error here must not say that nothing was changed."""
    try:
        yield
    except HoldfastError as error:
        raise errors.OutcomeUnknown(retry_after=error.retry_after) from error


async def _changed_sale(services: Services, sale_id: str) -> dict[str, object]:
    """The sale right after a change. Raises OutcomeUnknown."""
    with _after_change():
        await services.drain_seen(sale_id, _DRAIN_SECONDS)
        return admin_sale_view(await services.inventory.snapshot(sale_id))


@router.put(
    SALE,
    responses={
        200: {"model": schemas.AdminSale, "description": "The sale existed; its rules are replaced."},
        201: {"model": schemas.AdminSale, "description": "The sale is new."},
        **problems_of("forbidden", "body", "sale_closed", "write"),
    },
)
async def put_sale(
    sale_id: str,
    body: Annotated[schemas.SaleRequest, Depends(JsonBody(schemas.SaleRequest, limit=SALE_BODY_BYTES))],
    by: ActorDep,
    services: ServicesDep,
) -> Response:
    """Create a sale, or replace its rules and add SKUs.

    A known SKU's `quantity` must be its first or present `allocated`: stock moves by restock and withdraw.
    """
    rules = SaleRules(
        body.name,
        body.opens_at,
        body.closes_at,
        body.hold_seconds,
        body.max_hold_seconds,
        tuple((item.sku, item.quantity, item.limit_per_customer) for item in body.items),
    )
    created = await services.inventory.configure(sale_id, rules, by)
    view = await _changed_sale(services, sale_id)
    return Json(view, 201, {"Location": f"{SALES}/{sale_id}"}) if created else Json(view)


@router.get(SALE, responses={200: {"model": schemas.AdminSale}, **problems_of("forbidden", "sale_not_found")})
async def get_admin_sale(sale_id: str, services: ServicesDep) -> Response:
    """A sale with all its rules and its stock."""
    return Json(admin_sale_view(await services.sale(sale_id)))


async def _steer(services: Services, sale_id: str, verb: str, by: Actor) -> Response:
    await services.inventory.steer(sale_id, verb, by)
    return Json(await _changed_sale(services, sale_id))


_STEERED = {
    200: {"model": schemas.AdminSale},
    **problems_of("forbidden", "ignored_body", "sale_not_found", "sale_closed", "write"),
}
_NO_BODY = [Depends(ignore_body)]


@router.post(SALE + "/pause", responses=_STEERED, dependencies=_NO_BODY)
async def pause_sale(sale_id: str, by: ActorDep, services: ServicesDep) -> Response:
    """No new holds; living ones may still confirm."""
    return await _steer(services, sale_id, "paused", by)


@router.post(SALE + "/resume", responses=_STEERED, dependencies=_NO_BODY)
async def resume_sale(sale_id: str, by: ActorDep, services: ServicesDep) -> Response:
    """New holds again."""
    return await _steer(services, sale_id, "resumed", by)


@router.post(SALE + "/close", responses=_STEERED, dependencies=_NO_BODY)
async def close_sale(sale_id: str, by: ActorDep, services: ServicesDep) -> Response:
    """No new holds, for good; living ones may still confirm."""
    return await _steer(services, sale_id, "closed", by)


Movement = Annotated[schemas.MovementRequest, Depends(JsonBody(schemas.MovementRequest))]
_MOVED = ("forbidden", "malformed_header", "idempotency_key_required", "body", "sale_not_found",
          "sku_not_found", "idempotency_key_reused", "write")  # fmt: skip


_Move = Callable[[str, str, int, str, str, str | None, Actor], Awaitable[tuple[StockRow, bool]]]


async def _move_stock(
    services: Services,
    verb: str,
    move: _Move,
    sale_id: str,
    sku: str,
    key: str,
    body: schemas.MovementRequest,
    by: Actor,
) -> Response:
    digest = request_digest(verb, sku, str(body.quantity), body.reason or "")
    row, replayed = await move(sale_id, sku, body.quantity, request_digest(key), digest, body.reason, by)
    with _after_change():
        await services.drain_seen(sale_id, _DRAIN_SECONDS)
    return Json(stock_view(row), headers={"Idempotent-Replayed": "true"} if replayed else None)


@router.post(
    SALE + "/skus/{sku:identifier}/restock",
    responses={200: {"model": schemas.Stock}, **problems_of(*_MOVED)},
)
async def restock(
    sale_id: str, sku: str, key: RequiredKey, body: Movement, by: ActorDep, services: ServicesDep
) -> Response:
    """Add units to a SKU, once per Idempotency-Key."""
    return await _move_stock(services, "restock", services.inventory.restock, sale_id, sku, key, body, by)


@router.post(
    SALE + "/skus/{sku:identifier}/withdraw",
    responses={200: {"model": schemas.Stock}, **problems_of(*_MOVED, "insufficient_stock")},
)
async def withdraw(
    sale_id: str, sku: str, key: RequiredKey, body: Movement, by: ActorDep, services: ServicesDep
) -> Response:
    """Take unsold units away from a SKU, once per Idempotency-Key."""
    return await _move_stock(services, "withdraw", services.inventory.withdraw, sale_id, sku, key, body, by)


@router.get(
    SALE + "/stock",
    responses={200: {"model": schemas.StockTable}, **problems_of("forbidden", "sale_not_found")},
)
async def get_stock(sale_id: str, services: ServicesDep) -> Response:
    """Every SKU's stock, exact: read in one step."""
    return Json({"items": [stock_view(row) for row in (await services.sale(sale_id)).stock]})


@router.post(
    SALE + "/orders/{order_id}/cancel",
    responses={
        200: {"model": schemas.Order},
        **problems_of("forbidden", "body", "sale_not_found", "order_not_found", "write"),
    },
)
async def cancel_order(
    sale_id: str,
    order_id: str,
    body: Annotated[schemas.CancelRequest, Depends(JsonBody(schemas.CancelRequest, optional=True))],
    by: ActorDep,
    services: ServicesDep,
) -> Response:
    """Take an order back. Its units return to the stock, or with `"restock": false` leave the allocation."""
    hold_id = read_hold_id(order_id, ORDER_PREFIX)
    with reservations.nameless(hold_id):
        cancelled = await services.inventory.cancel(sale_id, hold_id, body.restock, body.reason, by)
    with _after_change():
        await services.drain_seen(sale_id, _DRAIN_SECONDS)
    return Json(
        order_view(cancelled, order_of(cancelled), reservations.is_known_persisted(services, cancelled))
    )


@router.get(
    SALE + "/audit",
    responses={
        200: {"model": schemas.AuditReport},
        **problems_of("forbidden", "sale_not_found", "outcome_unknown", "audit_not_ready"),
    },
)
async def audit_sale(sale_id: str, services: ServicesDep) -> Response:
    """Check the sale's invariants across Redis and Postgres, exactly, while it runs."""
    report = await auditor.audit(
        services.inventory, services.pool, services.redis, services.keys, services.progress, sale_id
    )
    return Json(report.as_dict())
