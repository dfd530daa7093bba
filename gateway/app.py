"""The ASGI application: `create_app(settings)`, its routes, and how what goes wrong on them is told.

What runs behind it is put together by `assembly` when the lifespan starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from gateway import __version__
from gateway.active_call import CLIENT_GONE
from gateway.api import (
    admin,
    batches,
    chair,
    chair_comments,
    chair_steps,
    claims,
    columns,
    comparisons,
    costs,
    feasibility,
    load_runs,
    models,
    ops,
    review,
    round_comments,
    round_export,
    round_results,
    rounds,
    token_costs,
    usage,
)
from gateway.api.deps import Services
from gateway.api.openai import describe_relay
from gateway.api.schemas import ComparisonParams
from gateway.asgi import ClientLeft, Message, Receive, Scope, Send, request_id_of
from gateway.assembly import running
from gateway.endpoints import ENDPOINTS
from gateway.errors import InternalError, InvalidRequest, MethodNotAllowed, RouteNotFound, SimsaError
from gateway.relay import Relay
from gateway.reply_homes import ReplyHomes
from gateway.review_address import ReviewAddress
from gateway.settings import Settings
from gateway.stored_replies import PREFIX as STORED_REPLIES
from gateway.stored_replies import StoredReplies
from gateway.workers import WorkerPlace

_ROUTERS = (
    ops.router,
    models.router,
    feasibility.router,
    columns.router,
    load_runs.router,
    claims.router,
    batches.router,
    comparisons.router,
    usage.router,
    costs.router,
    rounds.router,
    token_costs.router,
    round_results.router,
    round_comments.router,
    round_export.router,
    admin.router,
    review.router,
    chair_comments.router,
    chair.router,
    chair_steps.router,
)
GROUPS = (
    ("/v1/", "models"),
    ("/api/comparisons", "comparisons"),
    ("/api/", "api"),
    ("/review", "review"),
    ("/rounds", "rounds"),
)
"""What our own routes are counted as, by how their path begins; anything else as `ops`."""


class GatewayApp:
    """The ASGI application: the relay's routes first, everything else to the framework."""

    def __init__(self, settings: Settings, place: WorkerPlace | None = None) -> None:
        self.settings = settings
        self._place = place
        self.services: Services | None = None
        self.start_error: Exception | None = None
        """Why the start failed, for whoever runs the server."""
        self._review_address = (
            None if settings.review_url is None else ReviewAddress(settings.review_url, settings.public_url)
        )
        self._is_draining = False
        self._relay: Relay | None = None
        self._stored: StoredReplies | None = None
        self._api = _build_api(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._is_draining:
                send = _last_answer(send)
            if self._review_address is not None:
                scope = self._review_address.narrowed(scope)
            if scope["path"] in ENDPOINTS:
                assert self._relay is not None
                await self._relay(scope, receive, send)
            elif scope["path"].startswith(STORED_REPLIES):
                assert self._stored is not None
                await self._stored(scope, receive, send)
            else:
                await self._serve_api(scope, receive, send)
        else:
            await self._api(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The description of every route, as /openapi.json has it."""
        return self._api.openapi()

    def begin_draining(self) -> None:
        """Take no new calls; those in flight go on. Each connection ends with its next answer: where nothing but
        connections is spread over gateways, a client that stayed would be refused until the last call here ends.
        """
        self._is_draining = True
        if self.services is not None and self._relay is not None and self._stored is not None:
            self.services.is_draining = True
            self._relay.is_draining = self._stored.is_draining = True
            self.services.batches.begin_draining()

    @asynccontextmanager
    async def lifespan(self, _api: FastAPI) -> AsyncIterator[None]:
        try:
            async with running(self.settings, self._place) as services:
                self.services = self._api.state.services = services
                services.telemetry.expect_own_routes([name for _, name in GROUPS])
                homes = ReplyHomes(self.settings.remembered_responses, services.together.link)
                self._relay = Relay(services.dispatcher, services.access, homes, services.run_names)
                self._stored = StoredReplies(services.dispatcher, services.access, homes)
                yield
        except Exception as error:
            self.start_error = error
            raise

    async def _serve_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Our own routes: a request id on every answer, and a count."""
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        services = self.services

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if services is not None:
                    group = next((name for prefix, name in GROUPS if scope["path"].startswith(prefix)), "ops")
                    services.telemetry.count_own(group, message["status"])
            await send(message)

        await self._api(scope, receive, send_marked)


def _last_answer(send: Send) -> Send:
    """The same, and the connection is closed after it."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return send_last


def create_app(settings: Settings, place: WorkerPlace | None = None) -> GatewayApp:
    """The application for these settings; nothing is opened before its lifespan starts.

    `place`: which worker of a machine it is, where there are several.
    """
    return GatewayApp(settings, place)


def _build_api(app: GatewayApp) -> FastAPI:
    api = FastAPIOffline(
        title="Simsa",
        version=__version__,
        summary="Inference gateway that turns claims about candidate language models into evidence",
        lifespan=app.lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in _ROUTERS:
        api.include_router(router)
    api.add_exception_handler(SimsaError, _answer_ours)
    api.add_exception_handler(HTTPException, _answer_framework)
    api.add_exception_handler(RequestValidationError, _answer_validation)
    api.add_exception_handler(ClientLeft, _answer_nobody)
    api.add_exception_handler(Exception, _answer_unexpected)

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
            api.openapi_schema = describe_relay(_without_422(document))
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
    return api


def _without_422(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document without the answer that it gives itself to bad parameters: ours is 400."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def _response(error: SimsaError) -> JSONResponse:
    return JSONResponse(error.envelope(), status_code=error.status, headers=dict(error.headers()))


async def _answer_ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SimsaError)
    return _response(error)


async def _answer_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = _allowed_methods(request)
        return _response(MethodNotAllowed(f"{request.url.path} takes {allow}, not {request.method}.", allow=allow))
    if error.status_code == 404:
        return _response(_no_route(request.method, request.url.path))
    body = InvalidRequest(str(error.detail)).envelope()
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def _allowed_methods(request: Request) -> str:
    """Of all routes with this path: the framework itself names those of the first one alone."""
    routes = [*request.app.routes, *(route for router in _ROUTERS for route in router.routes)]
    same = [route for route in routes if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in same for method in route.methods or ()}))


def _no_route(method: str, path: str) -> RouteNotFound:
    """Says where the route is, where only the /v1 of the client's base URL is missing, or is too much."""
    for other in (f"/v1{path}", path.removeprefix("/v1")):
        is_ours = other in ENDPOINTS or other == "/v1/models" or other.startswith(("/v1/models/", STORED_REPLIES))
        if is_ours and other != path:
            return RouteNotFound(f"There is no {method} {path[:200]}. Did you mean {other[:200]}?")
    return RouteNotFound(f"There is no {method} {path[:200]}. See /docs.")


async def _answer_validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    context = first.get("ctx", {})
    words = {
        "extra_forbidden": f"there is no such field{_place_of(where)}",
        "too_short": f"expected at least {context.get('min_length')}, got {context.get('actual_length')}",
        "too_long": f"expected at most {context.get('max_length')}, got {context.get('actual_length')}",
    }
    told = words.get(first["type"], first["msg"].removeprefix("Value error, "))
    more = f" ({len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    message = f"{where or 'the request body'}: {told}{more}"
    return _response(InvalidRequest(message, param=where or None))


def _place_of(field: str) -> str:
    """Where a misplaced field of a comparison belongs."""
    return f" here; it belongs into 'params': params.{field}" if field in ComparisonParams.model_fields else ""


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    structlog.get_logger("simsa").error("request failed", path=request.url.path, exc_info=error)
    return _response(InternalError())
