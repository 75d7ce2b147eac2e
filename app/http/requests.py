"""What endpoints take from a request, as dependencies; openapi.py reads the document's parameters off them.

They stand in an endpoint's signature in the order in which a request is judged: headers before body.
"""

import re
from typing import Annotated, Any, Generic

from fastapi import Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.convertors import Convertor, register_url_convertor

from app import errors
from app.http.body import BODY_BYTES, Model, parse, read_body, read_idempotency_key, receive_body

MAX_WAIT_SECONDS = 10


class _IdentifierConvertor(Convertor[str]):
    """A sale's id or a SKU in a path; what can't be one is no path of this service."""

    regex = "[A-Za-z0-9._~-]{1,64}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("identifier", _IdentifierConvertor())


_DECIMAL = re.compile(r"[0-9]{1,9}")


def _decimal(value: Any) -> Any:
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise PydanticCustomError("invalid", "must be a whole number")
    return value


class ListQuery(BaseModel):
    """A list's parameters: here, too, a typo must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=500), BeforeValidator(_decimal)] = 50
    cursor: str | None = Field(None, max_length=300, description="`next_cursor` of the page before")


class JsonBody(Generic[Model]):
    """Reads and validates the body. An `optional` one that is empty is `{}`."""

    def __init__(self, model: type[Model], *, limit: int = BODY_BYTES, optional: bool = False) -> None:
        self.model = model
        self.limit = limit
        self.optional = optional

    async def __call__(self, request: Request) -> Model:
        body = await read_body(request.receive, request.state.headers, self.limit, _body_timeout(request))
        return parse(self.model, body or b"{}" if self.optional else body)


def _body_timeout(request: Request) -> float:
    seconds: float = request.app.state.services.settings.body_timeout_seconds
    return seconds


async def ignore_body(request: Request) -> None:
    """For a change that needs no body: reads one to its end all the same, since a request whose body breaks
    is refused, and must then have changed nothing. Raises BodyTooLarge or RequestTimeout."""
    await receive_body(request.receive, request.state.headers, BODY_BYTES, _body_timeout(request))


async def optional_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one. Raises MalformedHeader."""
    return read_idempotency_key(request.state.headers.get(b"idempotency-key"))


async def required_key(request: Request) -> str:
    """The Idempotency-Key. Raises IdempotencyKeyRequired or MalformedHeader."""
    key = await optional_key(request)
    if key is None:
        raise errors.IdempotencyKeyRequired()
    return key


_PREFERENCE = re.compile(
    r"""[\s,]*(?P<name>[!\#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(?P<value>"(?:[^"\\]|\\.)*"|[^\s",;]*)\s*)?"""
    r"""(?:;(?:[^",]|"(?:[^"\\]|\\.)*")*)?(?:,|$)"""
)


def read_wait(values: list[str]) -> int | None:
    """The seconds of the preference `wait` (RFC 7240), the first one given; None without, or malformed."""
    text = ",".join(values)
    at = 0
    while at < len(text):
        match = _PREFERENCE.match(text, at)
        if match is None:
            return None
        if match["name"].lower() == "wait":
            seconds = (match["value"] or "").strip('"')
            return int(seconds[:9]) if seconds.isascii() and seconds.isdigit() else None
        at = match.end()
    return None


async def preferred_wait(request: Request) -> int | None:
    return read_wait(request.headers.getlist("prefer"))


RequiredKey = Annotated[str, Depends(required_key)]
PreferredWait = Annotated[int | None, Depends(preferred_wait)]
