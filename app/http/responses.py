"""Answers, and the handlers that turn every error into a problem."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from app import errors
from app.errors import HoldfastError
from app.http import problems
from app.http.body import pointer


class Json(Response):
    """A value as JSON."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(content), status, headers)


def problem(request: Request, error: HoldfastError) -> Response:
    """The error as an answer to the request."""
    status, headers, body = problems.render(error, problems.instance_of(request.scope))
    request.state.outcome = error.code
    response = Response(body, status)
    response.raw_headers = headers
    return response


def install_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem, whoever raised it."""

    @app.exception_handler(HoldfastError)
    async def domain_error(request: Request, error: HoldfastError) -> Response:
        return problem(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid_parameters(request: Request, error: RequestValidationError) -> Response:
        # The location starts with where the parameter was: query.
        found = [{"path": pointer(tuple(e["loc"][1:])), "message": e["msg"]} for e in error.errors()]
        return problem(request, errors.ValidationFailed(found))

    @app.exception_handler(HTTPException)
    async def routing_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return _wrong_method(request, _allowed_methods(app, request))
        if error.status_code == 404:
            return problem(request, errors.NotFound())
        return problem(request, problems.unexpected(request.method))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _: Exception) -> Response:
        return problem(request, problems.unexpected(request.method))


def _allowed_methods(app: FastAPI, request: Request) -> str:
    """The methods of the request's path, over all routes that have it."""
    methods = {"OPTIONS"}
    for route in app.routes:
        if isinstance(route, Route) and route.path_regex.match(request.scope["path"]):
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _wrong_method(request: Request, allowed: str) -> Response:
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": allowed})
    response = problem(request, errors.MethodNotAllowed())
    response.headers["Allow"] = allowed
    return response
