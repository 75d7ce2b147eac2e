"""Pages of lists: a cursor names the last row of a page, so that rows added meanwhile shift nothing."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from app.errors import ValidationFailed

T = TypeVar("T")
Row = TypeVar("Row")
SortKey = tuple[int, str]
"""Milliseconds (or a counter) and an id: what a list is sorted by, downwards."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next_cursor` is None on the last page."""

    items: list[T]
    next_cursor: str | None


def write_cursor(key: SortKey) -> str:
    return urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def read_cursor(cursor: str | None) -> SortKey | tuple[None, None]:
    """Raises ValidationFailed for anything that `write_cursor` has not written."""
    if cursor is None:
        return None, None
    try:
        number, id_ = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if type(number) is int and type(id_) is str and 0 <= number < 2**53 and "\0" not in id_:
            return number, id_
    except (ValueError, TypeError, binascii.Error):
        pass
    raise ValidationFailed([{"path": "/cursor", "message": "is not a cursor that this list has given"}])


def make_page(
    rows: list[Row], limit: int, read: Callable[[Row], T], sort_key: Callable[[Row], SortKey]
) -> Page[T]:
    """`rows` has one more than `limit` where there is a next page."""
    more = len(rows) > limit
    rows = rows[:limit]
    return Page([read(row) for row in rows], write_cursor(sort_key(rows[-1])) if more and rows else None)
