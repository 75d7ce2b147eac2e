"""The FastAPI app: everything but the hot path."""

from typing import Any

from fastapi import FastAPI

from app import __version__
from app.http import admin, admin_lists, document, service, storefront
from app.http.responses import install_handlers
from app.http.services import Services


class Application(FastAPI):
    """FastAPI with this project's own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = document.build(self)
        return self.openapi_schema


def build_application(services: Services) -> Application:
    app = Application(
        title="Holdfast",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (storefront.router, admin.router, admin_lists.router, service.router):
        app.router.routes.extend(router.routes)
    app.state.services = services
    install_handlers(app)
    return app
