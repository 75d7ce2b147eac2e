"""Reads requests in the order in which they are judged: headers, size, media type, JSON, fields."""

import asyncio
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.types import Receive

from app import errors

BODY_BYTES = 16 * 1024
SALE_BODY_BYTES = 4 * 1024 * 1024
_ERRORS_SHOWN = 50

Model = TypeVar("Model", bound=BaseModel)
HeaderList = list[tuple[bytes, bytes]]
NamedHeaders = dict[bytes, bytes]

GIVEN_TWICE = b"\0"
"""No header has this value: servers refuse it."""
_GIVEN_ONCE = (b"authorization", b"idempotency-key", b"content-type", b"content-encoding")

_JSON_TYPE = re.compile(rb'application/json *(; *charset=("utf-8"|utf-8) *)?;? *', re.IGNORECASE)
_VISIBLE = re.compile(rb"[!-~]{1,255}")


class ClientDisconnected(Exception):
    """The client went away before its request was whole; nobody is there to be answered."""


def name_headers(headers: HeaderList) -> NamedHeaders:
    """The headers by name, the last of a name; one that must be given once and is not is `GIVEN_TWICE`."""
    named = dict(headers)
    if len(named) != len(headers):
        names = [name for name, _ in headers]
        named.update({name: GIVEN_TWICE for name in _GIVEN_ONCE if names.count(name) > 1})
    return named


def read_idempotency_key(key: bytes | None) -> str | None:
    """The key, without quotes; None without a header.

    Raises MalformedHeader.
    """
    if key is None:
        return None
    if key == GIVEN_TWICE:
        raise errors.MalformedHeader("Idempotency-Key is given more than once.")
    if len(key) > 1 and key[:1] == key[-1:] == b'"':
        key = key[1:-1]
    elif key[:1] == b'"' or key[-1:] == b'"':
        raise errors.MalformedHeader("Idempotency-Key has one quotation mark without the other.")
    if not _VISIBLE.fullmatch(key):
        raise errors.MalformedHeader("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return key.decode("ascii")


async def read_body(receive: Receive, headers: NamedHeaders, limit: int, timeout: float) -> bytes:
    """The whole body, judged by size and media type.

    Raises BodyTooLarge, UnsupportedMediaType, RequestTimeout (after `timeout` seconds) or ClientDisconnected.
    """
    body = await receive_body(receive, headers, limit, timeout)
    _judge_media_type(headers, body)
    return body


async def receive_body(receive: Receive, headers: NamedHeaders, limit: int, timeout: float) -> bytes:
    """The whole body, of whatever type. Raises BodyTooLarge, RequestTimeout or ClientDisconnected."""
    length = headers.get(b"content-length", b"0")
    # Ten digits without leading zeros tell: a longer number is larger than any limit.
    if not length.isdigit() or int(length.lstrip(b"0")[:10] or b"0") > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(timeout):
            return await _receive_all(receive, limit)
    except TimeoutError:
        raise errors.RequestTimeout() from None


def is_json(media_type: bytes | None) -> bool:
    return media_type == b"application/json" or bool(media_type and _JSON_TYPE.fullmatch(media_type))


def _judge_media_type(headers: NamedHeaders, body: bytes) -> None:
    media_type = headers.get(b"content-type")
    if media_type == b"application/json" and b"content-encoding" not in headers:
        return
    if media_type is None:
        if body:
            raise errors.UnsupportedMediaType("Content-Type is missing; it must be application/json.")
    elif not is_json(media_type):
        raise errors.UnsupportedMediaType()
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise errors.UnsupportedMediaType("Compressed bodies are not accepted.")


def _too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"The body must have at most {limit} bytes.")


async def _receive_all(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(body) <= limit:
        return body
    chunks = [body]
    size = len(body)
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])


def parse(model: type[Model], body: bytes) -> Model:
    """The body as a valid `model`. Raises MalformedJson or ValidationFailed."""
    try:
        valid: Model = model.__pydantic_validator__.validate_json(body)
        return valid
    except ValidationError as error:
        try:
            # Stricter than the model's own parser, which takes NaN for a number.
            from_json(body, allow_inf_nan=False)
        except ValueError as invalid:
            if str(invalid).startswith("number out of range"):
                message = "has a number that is out of range"
                raise errors.ValidationFailed([{"path": "", "message": message}]) from None
            raise errors.MalformedJson() from None
        raise validation_failed(error) from None


def validation_failed(error: ValidationError) -> errors.ValidationFailed:
    """Names each wrong field by its JSON Pointer; says nothing of what was sent."""
    found = error.errors(include_url=False, include_input=False)
    return errors.ValidationFailed([_describe(one) for one in found[:_ERRORS_SHOWN]])


def _describe(error: Any) -> dict[str, str]:
    path = error.get("ctx", {}).get("path")
    return {
        "path": pointer(error["loc"]) if path is None else pointer(error["loc"]) + path,
        "message": _MESSAGES.get(error["type"], error["msg"]),
    }


_MESSAGES = {"extra_forbidden": "is not a field of this request", "missing": "is required"}


def pointer(location: tuple[int | str, ...]) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
