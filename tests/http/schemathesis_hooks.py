"""Loaded by schemathesis: sends most requests to what exists, so that they get past the first "not found"."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import schemathesis

NAMES = ("sale_id", "sku", "reservation_id", "order_id")
RULES = {"name", "opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "items"}
CART = {"customer_id", "items"}


def mostly(value: object) -> int:
    """A number that depends on the value alone; 0 for one value of five."""
    number = crc32(repr(value).encode())
    return number if number % 5 else 0


def known(name: str, value: object) -> Any:
    """An id that exists, for most values."""
    ids = os.environ.get(f"KNOWN_{name.upper()}", "").split()
    number = mostly(value)
    return ids[number % len(ids)] if ids and number else value


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    if path_parameters is None:
        return None
    if context.operation.path.endswith("/close"):  # for good: one sale is enough
        return {"sale_id": "closing" if mostly(path_parameters) else path_parameters["sale_id"]}
    return {name: known(name, value) if name in NAMES else value for name, value in path_parameters.items()}


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Most sales open, and most carts of SKUs that exist: else nearly all of them are refused as data, by
    rules that a schema cannot say."""
    body = case.body
    valid = case.meta is not None and case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE
    if not valid or not isinstance(body, dict) or not mostly(body):
        return case
    if body.keys() == RULES:
        now = datetime.now(UTC)
        opens, closes = now - timedelta(hours=1), now + timedelta(hours=2)
        items = [{"sku": sku, "quantity": 1000} for sku in ("a", "b")]
        times = {"opens_at": opens.isoformat(), "closes_at": closes.isoformat()}
        case.body = {**body, **times, "items": items, "hold_seconds": 60, "max_hold_seconds": 600}
    elif body.keys() == CART:
        case.body = {**body, "items": [{"sku": known("sku", body), "quantity": 1}]}
    return case
