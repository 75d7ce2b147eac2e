"""The OpenAPI document. Request bodies and headers are read off the endpoints' dependencies, so that it says
what they do."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from app import __version__
from app.http import problems, requests, schemas
from app.http.links import links_of
from app.http.requests import JsonBody

_REF = "#/components/schemas/{model}"
_GROUPS = {
    "body": (
        "request_timeout",
        "body_too_large",
        "unsupported_media_type",
        "malformed_json",
        "validation_failed",
    ),
    "ignored_body": ("request_timeout", "body_too_large"),
    "write": ("overloaded", "outcome_unknown"),
}
_MEMBERS: dict[str, tuple[str, ...]] = {
    "sku_not_found": ("sku",),
    "sale_not_open": ("state", "opens_at"),
    "sale_paused": ("state", "opens_at"),
    "sale_closed": ("state", "opens_at"),
    "sold_out": ("sku", "requested", "available", "held"),
    "customer_limit_reached": ("sku", "limit", "taken"),
    "insufficient_stock": ("sku", "requested", "available"),
    "reservation_expired": ("refund_required",),
    "validation_failed": ("errors",),
}
"""What a problem has beside the members of every one."""
_COUNT = {"type": "integer", "minimum": 0}
_MEMBER_SCHEMAS: dict[str, dict[str, Any]] = {
    "sku": {"type": "string", "pattern": schemas.ID_PATTERN},
    "requested": _COUNT,
    "available": _COUNT,
    "held": _COUNT,
    "limit": _COUNT,
    "taken": _COUNT,
    "state": {"type": "string", "enum": ["scheduled", "open", "paused", "closed"]},
    "opens_at": {"type": "string", "format": "date-time"},
    "refund_required": {"type": "boolean"},
    "errors": {"type": "array", "items": {"$ref": _REF.format(model="FieldError")}},
}
_ALWAYS = (
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "rate_limited",
    "store_unavailable",
    "sale_rebuilding",
)
_INTRODUCTION = """
Flash-sale reservations that never sell a unit twice and never lose one.

Send `Authorization: Bearer …` with an API key, or a customer's token that the shop has signed. Send an
`Idempotency-Key` with every reservation and the same one with every retry. Every error is a problem
(`application/problem+json`, RFC 9457): switch on its `code`; `/problems/{code}` explains it.
"""
_TAGS = [
    {"name": "Storefront", "description": "What shoppers do."},
    {"name": "Admin", "description": "What operators do; needs an API key of scope `admin`."},
    {"name": "Service", "description": "Open to everybody."},
]
_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "sale_id": {"type": "string", "pattern": schemas.ID_PATTERN, "examples": ["black-friday"]},
    "sku": {"type": "string", "pattern": schemas.ID_PATTERN, "examples": ["TSHIRT-M"]},
    "reservation_id": {"type": "string", "pattern": "^res_[0-9a-z]{26}$"},
    "order_id": {"type": "string", "pattern": "^ord_[0-9a-z]{26}$"},
    "code": {"type": "string", "enum": list(problems.PROBLEMS)},
}
_KEY_SCHEMA = {"type": "string", "pattern": schemas.VISIBLE_255, "examples": ["b7c2e0"]}
_HEADERS: dict[Any, dict[str, Any]] = {
    requests.optional_key: {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Strongly advised: a retry with the same key gives the same reservation.",
        "schema": _KEY_SCHEMA,
    },
    requests.required_key: {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": "A retry with the same key changes nothing more.",
        "schema": _KEY_SCHEMA,
    },
    requests.preferred_wait: {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`wait=N` (RFC 7240) waits up to N seconds, at most 10, until the order is persisted.",
        "schema": {"type": "string", "examples": ["wait=5"]},
    },
}
_RESPONSE_HEADERS = {
    "X-Request-Id": ("on every answer", None),
    "Location": ("of what was made, relative to the origin", ("201",)),
    "Idempotent-Replayed": ("`true` where the answer repeats an earlier one", None),
    "Preference-Applied": ("the preference that was honoured", None),
    "ETag": ("weak; of everything but `server_time`", None),
    "WWW-Authenticate": ("the scheme to use: Bearer", ("401",)),
    "Allow": ("the methods of this path", ("405",)),
    "Retry-After": ("whole seconds; with 409 only before the opening", ("409", "429", "503")),
}


def problems_of(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, by status: those of every operation and `codes`; the groups
    `body` and `write` stand for what every call with a body, or every change, may meet."""
    named = [one for code in (*_ALWAYS, *codes) for one in _GROUPS.get(code, (code,))]
    by_status: dict[int | str, list[str]] = {}
    for code in dict.fromkeys(named):
        by_status.setdefault(problems.PROBLEMS[code].status, []).append(code)
    return {status: _problem_response(found) for status, found in by_status.items()}


def problems_of_open() -> dict[int | str, dict[str, Any]]:
    """The error responses of an open call that may find nothing."""
    return {
        problems.PROBLEMS[code].status: _problem_response([code]) for code in ("not_found", "rate_limited")
    }


def _problem_response(codes: list[str]) -> dict[str, Any]:
    schema = {
        "allOf": [
            {"$ref": _REF.format(model="Problem")},
            {"type": "object", "properties": {"code": {"enum": codes}, **_members(codes)}},
        ]
    }
    return {
        "description": " ".join(problems.PROBLEMS[code].title for code in codes),
        "content": {problems.MEDIA_TYPE: {"schema": schema}},
    }


def _members(codes: list[str]) -> dict[str, Any]:
    """The extra members of these problems, each with the codes that may carry it."""
    carriers: dict[str, list[str]] = {}
    for code in codes:
        for name in _MEMBERS.get(code, ()):
            carriers.setdefault(name, []).append(f"`{code}`")
    return {
        name: {**_MEMBER_SCHEMAS[name], "description": "with " + ", ".join(carrying)}
        for name, carrying in carriers.items()
    }


def build(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title="Holdfast",
        version=__version__,
        description=_INTRODUCTION.strip(),
        tags=_TAGS,
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    models = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        models.pop(unused, None)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"bearer": []}]
    bodies: list[type[Any]] = [schemas.Problem, schemas.FieldError]
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                _finish(operation, route)
                bodies += [body.model for body in _json_bodies(route)]
    _, definitions = models_json_schema([(model, "validation") for model in bodies], ref_template=_REF)
    models.update(definitions["$defs"])
    return document


def _finish(operation: dict[str, Any], route: APIRoute) -> None:
    operation["operationId"] = route.name
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["schema"] = _PATH_PARAMETERS.get(parameter["name"], parameter["schema"])
    headers = [_HEADERS[call] for call in _calls(route.dependant) if call in _HEADERS]
    if headers:
        operation.setdefault("parameters", []).extend(headers)
    for body in _json_bodies(route):
        schema = {"$ref": _REF.format(model=body.model.__name__)}
        operation["requestBody"] = {
            "required": not body.optional,
            "content": {"application/json": {"schema": schema}},
        }
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    if "Service" in operation.get("tags", []):
        operation["security"] = []
    for status, response in responses.items():
        if status < "300" and (links := links_of(route.name)):
            response["links"] = links
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, (text, statuses) in _RESPONSE_HEADERS.items()
            if (status in statuses if statuses else name == "X-Request-Id" or name in _sent_by(route, status))
        }


def _sent_by(route: APIRoute, status: str) -> tuple[str, ...]:
    """The optional headers of a successful answer."""
    calls = list(_calls(route.dependant))
    if requests.preferred_wait in calls:
        return ("Preference-Applied",) if status == "200" else ()
    if status in ("200", "201") and not {requests.optional_key, requests.required_key}.isdisjoint(calls):
        return ("Idempotent-Replayed",)
    return ("ETag",) if route.name == "get_sale" and status in ("200", "304") else ()


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        if dependency.call is not None and not isinstance(dependency.call, JsonBody):
            yield dependency.call


def _json_bodies(route: APIRoute) -> Iterator[JsonBody[Any]]:
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, JsonBody):
            yield dependency.call
