"""Domain values as the JSON that clients see."""

from typing import Any

import orjson

from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.models import Item, Order, Reservation, Sale, StockRow
from app.orders import Movement
from app.times import rfc3339


def items_view(items: tuple[Item, ...]) -> list[dict[str, Any]]:
    return [{"sku": item.sku, "quantity": item.quantity} for item in items]


def reservation_view(reservation: Reservation) -> dict[str, Any]:
    return {
        "id": RESERVATION_PREFIX + reservation.hold_id,
        "sale_id": reservation.sale_id,
        "customer_id": reservation.customer_id,
        "status": reservation.status.value,
        "items": items_view(reservation.items),
        "created_at": rfc3339(reservation.created_at),
        "expires_at": rfc3339(reservation.expires_at),
        "order_id": ORDER_PREFIX + reservation.hold_id if reservation.order else None,
    }


def order_view(reservation: Reservation, order: Order, persisted: bool) -> dict[str, Any]:
    """The reservation's order. Its metadata is passed through byte by byte."""
    return {
        "id": ORDER_PREFIX + reservation.hold_id,
        "sale_id": reservation.sale_id,
        "reservation_id": RESERVATION_PREFIX + reservation.hold_id,
        "customer_id": reservation.customer_id,
        "status": order.status.value,
        "items": items_view(reservation.items),
        "payment_reference": order.payment_reference,
        "metadata": orjson.Fragment(order.metadata),
        "reacquired": order.reacquired,
        "confirmed_at": rfc3339(order.confirmed_at),
        "persisted": persisted,
    }


def sale_view(sale: Sale) -> dict[str, Any]:
    """What everybody may know, without `server_time`."""
    return {
        "id": sale.id,
        "name": sale.name,
        "state": sale.state.value,
        "opens_at": rfc3339(sale.opens_at),
        "closes_at": rfc3339(sale.closes_at),
        "hold_seconds": sale.hold_seconds,
        "items": [
            {
                "sku": row.sku,
                "available": row.available,
                "held": row.held,
                "sold": row.sold,
                "limit_per_customer": row.limit_per_customer,
            }
            for row in sale.stock
        ],
    }


def admin_sale_view(sale: Sale) -> dict[str, Any]:
    view = sale_view(sale)
    for item, row in zip(view["items"], sale.stock, strict=True):
        item["allocated"] = row.allocated
    return view | {
        "server_time": rfc3339(sale.server_time),
        "max_hold_seconds": sale.max_hold_seconds,
        "created_at": rfc3339(sale.created_at),
        "updated_at": rfc3339(sale.updated_at),
    }


def stock_view(row: StockRow) -> dict[str, Any]:
    return {
        "sku": row.sku,
        "allocated": row.allocated,
        "available": row.available,
        "held": row.held,
        "sold": row.sold,
    }


def movement_view(movement: Movement) -> dict[str, Any]:
    return {
        "id": str(movement.id),
        "sku": movement.sku,
        "kind": movement.kind,
        "quantity": movement.quantity,
        "reason": movement.reason,
        "at": rfc3339(movement.at),
    }
