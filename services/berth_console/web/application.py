"""The console's web application: pages, JSON, OTLP endpoints and static files behind one set of headers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from berth_console.receiver import Receiver
from berth_console.settings import LOOPBACK_HOSTS
from berth_console.web.filters import FILTERS
from berth_console.web.pages import Pages
from berth_console.web.read_models import ReadModels

_HERE = Path(__file__).parent

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def console_application(
    receiver: Receiver, models: ReadModels, *, allowed_hosts: Sequence[str] = LOOPBACK_HOSTS
) -> Starlette:
    """`allowed_hosts`: names in the Host header that are answered (`*`: any), so that a page elsewhere cannot
    point a name of its own at this address and read the cluster through a visitor's browser.
    """
    pages = Pages(templates=_templates(), receiver=receiver, models=models)
    handlers: dict[Any, Any] = {404: pages.not_found}
    return Starlette(
        routes=[
            *receiver.routes(),
            *pages.routes(),
            Mount("/static", StaticFiles(directory=_HERE / "static"), name="static"),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False),
        ],
        exception_handlers=handlers,
    )


def _templates() -> Jinja2Templates:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return Jinja2Templates(env=environment)


class _SecurityHeaders:
    """Writes the headers on every answer; pages are never cached, static files are checked again each time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers["cache-control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
