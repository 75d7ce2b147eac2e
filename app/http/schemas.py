"""What requests must look like: the models that validate are the ones that the OpenAPI document shows."""

import json
import re
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.inventory import MAX_SKUS_PER_SALE
from app.times import milliseconds_of

Row = TypeVar("Row", bound=BaseModel)

ID_PATTERN = r"^[A-Za-z0-9._~-]{1,64}$"
VISIBLE_64 = r"^[!-~]{1,64}$"
VISIBLE_255 = r"^[!-~]{1,255}$"
METADATA_BYTES = 4096
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:[0-5]\d)", re.ASCII)
_YEAR_10000 = 253_402_300_800_000


def _invalid(message: str) -> PydanticCustomError:
    # `message` is no template here: braces in it would be.
    return PydanticCustomError("invalid", "{message}", {"message": message})


def _instant(value: Any) -> int:
    """Milliseconds since 1970."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise _invalid("must be an RFC 3339 time with an offset, such as 2026-11-27T18:00:00Z")
    try:
        moment = milliseconds_of(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        raise _invalid("is not a time that exists") from None
    if not 0 <= moment < _YEAR_10000:
        raise _invalid("must lie between the years 1970 and 9999")
    return moment


def _metadata(value: Any) -> bytes:
    """Compact JSON; integers keep all their digits."""
    if not isinstance(value, dict):
        raise _invalid("must be an object")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise _invalid("has a number that is out of range") from None
    encoded = text.encode()
    if len(encoded) > METADATA_BYTES:
        raise _invalid(f"must have at most {METADATA_BYTES} bytes as compact JSON")
    if _has_nul(value):
        raise _invalid("must not contain the character U+0000")
    return encoded


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _distinct_skus(items: list[Any]) -> list[Any]:
    if len({item.sku for item in items}) != len(items):
        raise _invalid("must name each SKU once")
    return items


Identifier = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
CustomerId = Annotated[str, StringConstraints(pattern=VISIBLE_64)]
PaymentReference = Annotated[str, StringConstraints(pattern=VISIBLE_255)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_CONTROLS)]
Reason = Annotated[str, StringConstraints(max_length=1000, pattern=NO_CONTROLS)]
Instant = Annotated[
    int,
    PlainValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-27T18:00:00Z"]}),
]
Metadata = Annotated[
    bytes,
    PlainValidator(_metadata),
    WithJsonSchema({"type": "object", "description": f"at most {METADATA_BYTES} bytes as compact JSON"}),
]


class Body(BaseModel):
    """A request's body: a typo must not become a default."""

    # Values are not cached: no two customers share theirs.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, cache_strings="keys")


class ItemRequest(Body):
    sku: Identifier = Field(examples=["TSHIRT-M"])
    quantity: int = Field(ge=1, le=1000)


class ReservationRequest(Body):
    """Units of one or more SKUs, all or none."""

    customer_id: CustomerId = Field(examples=["customer-42"])
    items: Annotated[list[ItemRequest], Field(min_length=1, max_length=20), AfterValidator(_distinct_skus)]


class ConfirmRequest(Body):
    """Says that the shop has the money."""

    payment_reference: PaymentReference = Field(examples=["pay_8f3a"])
    metadata: Metadata = Field(b"{}", json_schema_extra={"default": {}})


class ExtendRequest(Body):
    seconds: int = Field(ge=1, le=86_400)


class SaleItemRequest(Body):
    sku: Identifier = Field(examples=["TSHIRT-M"])
    quantity: int = Field(ge=0, le=10**9)
    limit_per_customer: Annotated[int, Field(ge=1, le=10**6)] | None = None


class SaleRequest(Body):
    """A sale's rules, and the stock set aside for it."""

    name: Name = Field(examples=["Black Friday"])
    opens_at: Instant
    closes_at: Instant
    hold_seconds: int = Field(ge=1, le=86_400)
    max_hold_seconds: int = Field(ge=1, le=604_800)
    items: Annotated[
        list[SaleItemRequest],
        Field(max_length=MAX_SKUS_PER_SALE, description="those that are absent stay"),
        AfterValidator(_distinct_skus),
    ]

    @model_validator(mode="after")
    def _rules_agree(self) -> "SaleRequest":
        if self.opens_at >= self.closes_at:
            raise _at("/closes_at", "must be later than opens_at")
        if self.hold_seconds > self.max_hold_seconds:
            raise _at("/max_hold_seconds", "must be at least hold_seconds")
        return self


def _at(path: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid", "{message}", {"message": message, "path": path})


class MovementRequest(Body):
    quantity: int = Field(ge=1, le=10**9)
    reason: Reason | None = None


class CancelRequest(Body):
    reason: Reason | None = None
    restock: bool = True


# What answers look like. The document shows them; views.py builds the answers.

StockCount = Annotated[int, Field(ge=0)]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
ReservationId = Annotated[str, StringConstraints(pattern=r"^res_[0-9a-z]{26}$")]
OrderId = Annotated[str, StringConstraints(pattern=r"^ord_[0-9a-z]{26}$")]


class Line(BaseModel):
    sku: Identifier
    quantity: int


class Reservation(BaseModel):
    id: ReservationId
    sale_id: Identifier
    customer_id: str
    status: Literal["held", "confirmed", "released", "expired"]
    items: list[Line]
    created_at: Time
    expires_at: Time
    order_id: OrderId | None


class Order(BaseModel):
    id: OrderId
    sale_id: Identifier
    reservation_id: ReservationId
    customer_id: str
    status: Literal["confirmed", "cancelled"]
    items: list[Line]
    payment_reference: str
    metadata: dict[str, Any]
    reacquired: bool
    confirmed_at: Time
    persisted: bool = Field(description="is it, with its outbox row, committed in Postgres?")


class SaleItem(BaseModel):
    sku: Identifier
    available: StockCount
    held: StockCount = Field(description="may come back")
    sold: StockCount
    limit_per_customer: int | None


class AdminSaleItem(SaleItem):
    allocated: StockCount


class Sale(BaseModel):
    id: Identifier
    name: str
    state: Literal["scheduled", "open", "paused", "closed"]
    opens_at: Time
    closes_at: Time
    hold_seconds: int
    server_time: Time
    items: list[SaleItem]


class AdminSale(Sale):
    max_hold_seconds: int
    created_at: Time
    updated_at: Time
    items: list[AdminSaleItem]  # type: ignore[assignment]


class Stock(BaseModel):
    sku: Identifier
    allocated: StockCount
    available: StockCount
    held: StockCount
    sold: StockCount


class StockTable(BaseModel):
    items: list[Stock]


class Movement(BaseModel):
    id: str
    sku: Identifier
    kind: Literal["allocated", "restocked", "withdrawn", "written_off"]
    quantity: int = Field(description="signed")
    reason: str | None
    at: Time


class Invariant(BaseModel):
    name: str
    ok: bool
    expected: Any
    found: Any
    detail: str | None = None


class AuditReport(BaseModel):
    ok: bool
    invariants: list[Invariant]


class Page(BaseModel, Generic[Row]):
    """A part of a list; `next_cursor` asks for the next one."""

    items: list[Row]
    next_cursor: str | None


class FieldError(BaseModel):
    path: str = Field(description="JSON Pointer")
    message: str


class Problem(BaseModel):
    """What went wrong (RFC 9457). `code` is the word to switch on."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
