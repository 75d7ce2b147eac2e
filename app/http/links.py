"""Links of the OpenAPI document: which calls the values of an answer lead to."""

from collections.abc import Iterable, Mapping
from typing import Any

_Parameters = Mapping[str, str]

_OF_REQUEST = "$request.path.sale_id"
_SALE: _Parameters = {"sale_id": "$response.body#/id"}
_SKU: _Parameters = {**_SALE, "sku": "$response.body#/items/0/sku"}
_STOCK_SKU: _Parameters = {"sale_id": _OF_REQUEST, "sku": "$response.body#/items/0/sku"}
_MOVED_SKU: _Parameters = {"sale_id": _OF_REQUEST, "sku": "$response.body#/sku"}
_HOLD: _Parameters = {"sale_id": "$response.body#/sale_id", "reservation_id": "$response.body#/id"}
_CUSTOMER: _Parameters = {"sale_id": "$response.body#/sale_id", "customer_id": "$response.body#/customer_id"}
_ORDER: _Parameters = {"sale_id": "$response.body#/sale_id", "order_id": "$response.body#/id"}
_ORDERED: _Parameters = {
    "sale_id": "$response.body#/sale_id",
    "reservation_id": "$response.body#/reservation_id",
}


def _first(parameters: _Parameters) -> _Parameters:
    """Of the first row of a list."""
    return {name: where.replace("#/", "#/items/0/") for name, where in parameters.items()}


_Targets = Iterable[tuple[str, _Parameters]]

_OF_SALE: _Targets = [
    *((name, _SALE) for name in (
        "make_reservation", "get_sale", "get_admin_sale", "get_stock", "pause_sale", "resume_sale",
        "list_reservations", "list_orders", "list_movements", "audit_sale",
    )),
    ("restock", _SKU),
    ("withdraw", _SKU),
]  # fmt: skip
_OF_HOLD: _Targets = [
    *((name, _HOLD) for name in (
        "get_reservation", "confirm_reservation", "extend_reservation", "release_reservation",
    )),
    ("list_active_reservations", _CUSTOMER),
]  # fmt: skip
_OF_ORDER: _Targets = [("get_order", _ORDER), ("cancel_order", _ORDER), ("get_reservation", _ORDERED)]
_OF_MOVE: _Targets = [("restock", _MOVED_SKU), ("withdraw", _MOVED_SKU)]

_LINKS: Mapping[str, _Targets] = {
    "put_sale": _OF_SALE,
    "list_sales": [("get_admin_sale", _first(_SALE)), ("make_reservation", _first(_SALE))],
    "get_admin_sale": _OF_SALE,
    "pause_sale": [("resume_sale", _SALE), ("make_reservation", _SALE)],
    "get_stock": [("restock", _STOCK_SKU), ("withdraw", _STOCK_SKU)],
    "restock": _OF_MOVE,
    "withdraw": _OF_MOVE,
    "make_reservation": _OF_HOLD,
    "get_reservation": _OF_HOLD,
    "extend_reservation": _OF_HOLD,
    "list_active_reservations": [
        (name, _first(_HOLD)) for name in ("confirm_reservation", "extend_reservation")
    ],
    "list_reservations": [("get_reservation", _first(_HOLD)), ("release_reservation", _first(_HOLD))],
    "confirm_reservation": _OF_ORDER,
    "cancel_order": [("get_order", _ORDER)],
    "list_orders": [("get_order", _first(_ORDER)), ("cancel_order", _first(_ORDER))],
}
"""By operation: where its successful answers lead, and what of them the next call takes."""


def links_of(operation: str) -> dict[str, Any]:
    """The links of an operation's successful answers, by the operation that each leads to."""
    return {
        target: {"operationId": target, "parameters": dict(parameters)}
        for target, parameters in _LINKS.get(operation, ())
    }
