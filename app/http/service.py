"""What is open to everybody: health, metrics and documentation."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app import errors
from app.http import health, metrics
from app.http.docs_page import STYLE_HASH, docs_page, problem_page, problems_page
from app.http.document import problems_of_open
from app.http.problems import PROBLEMS
from app.http.responses import Json
from app.http.services import ServicesDep

router = APIRouter(tags=["Service"])

_HTML_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",  # frame-ancestors, for browsers that do not know it
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_HEALTH: dict[str, Any] = {
    "description": "ready",
    "content": {health.MEDIA_TYPE: {"schema": {"type": "object", "required": ["status"]}}},
}
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "a page", "content": {"text/html": {"schema": {"type": "string"}}}}
}


def _page(text: str) -> Response:
    return HTMLResponse(text, headers=_HTML_HEADERS)


@router.get(
    "/livez", responses={200: _HEALTH | {"description": "the process lives"}}, response_class=Response
)
async def livez() -> Response:
    """Does the process live?"""
    return Response(b'{"status":"pass"}', media_type=health.MEDIA_TYPE)


@router.get(
    "/readyz",
    responses={200: _HEALTH, 503: _HEALTH | {"description": "not ready"}},
    response_class=Response,
)
async def readyz(services: ServicesDep) -> Response:
    """Can it serve? Redis, Postgres, and how far the drain is behind."""
    ready, report = await health.check(services)
    headers = {"Content-Type": health.MEDIA_TYPE}
    if not ready:
        headers["Retry-After"] = "1"
    return Json(report, 200 if ready else 503, headers)


@router.get(
    "/metrics",
    responses={200: {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
async def get_metrics() -> Response:
    """Metrics for Prometheus."""
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return Json(request.app.openapi())


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    return _page(docs_page(request.app.openapi()))


@router.get("/problems/", include_in_schema=False)
async def list_problems() -> Response:
    return _page(problems_page())


@router.get("/problems/{code}", responses=_PAGE | problems_of_open(), response_class=HTMLResponse)
async def explain_problem(code: str) -> Response:
    """What a problem's `code` means."""
    problem = PROBLEMS.get(code)
    if problem is None:
        raise errors.NotFound()
    return _page(problem_page(problem))
