"""Builds the gateway: `create_app(settings)` makes everything, inside the lifespan, in one place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
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
from gateway.access import Access
from gateway.accounts import Accounts
from gateway.active_call import CLIENT_GONE
from gateway.admission import Admission
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
from gateway.background import keep_running
from gateway.batch_store import BatchStore
from gateway.batches import Batches
from gateway.calibration_file import CalibrationBook
from gateway.comparison import Comparisons
from gateway.dispatch import Dispatcher
from gateway.domain.discovery import questions_of
from gateway.domain.records import Registry
from gateway.domain.rounds import RoundStatus
from gateway.endpoints import ENDPOINTS
from gateway.energy_records import EnergyRecords
from gateway.energy_watch import EnergyWatch
from gateway.engine_diary import EngineDiary
from gateway.engine_records import EngineRecords
from gateway.errors import (
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RouteNotFound,
    SimsaError,
    StartRefused,
    Unavailable,
)
from gateway.evidence import estimate_on
from gateway.fleet import Fleet
from gateway.kept_minutes import KeptMinutes
from gateway.key_ring import KeyRing
from gateway.limits import Limiter
from gateway.live_registry import LiveRegistry
from gateway.load_runs import LoadRuns
from gateway.log import flush_log
from gateway.long_work import LongWork
from gateway.name_watch import NameWatch
from gateway.recorder import Recorder
from gateway.relay import Relay
from gateway.reply_homes import ReplyHomes
from gateway.resolver import Resolver
from gateway.retention import Retention
from gateway.review_address import ReviewAddress, warn_of_other_names, warn_of_shared_address
from gateway.rounds.answering import Answering
from gateway.rounds.bundle_tools import TOOLS
from gateway.rounds.cards import CardEvidence
from gateway.rounds.chair_sessions import ChairSessions
from gateway.rounds.desk import RoundDesk
from gateway.rounds.life import RoundLife
from gateway.rounds.limits import ChairLimits, ReviewLimits
from gateway.rounds.store import RoundStore
from gateway.rounds.voting import Reviewing
from gateway.run_names import RunNames
from gateway.settings import Settings
from gateway.settlements import Settlements
from gateway.settler import Settler
from gateway.store import Store
from gateway.stored_replies import PREFIX as STORED_REPLIES
from gateway.stored_replies import StoredReplies
from gateway.telemetry import Telemetry
from gateway.together import BATCHES, KEYS, Together
from gateway.tracing import tracer_of
from gateway.upstream import Upstream
from gateway.web import Web
from gateway.workers import Siblings, WorkerPlace

TICK_S = 0.25
LAST_SPANS_S = 3.0
"""How long a collector has to take the last spans when the gateway stops."""
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
_GROUPS = (
    ("/v1/", "models"),
    ("/api/comparisons", "comparisons"),
    ("/api/", "api"),
    ("/review", "review"),
    ("/rounds", "rounds"),
)


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
        self._relay: Relay | None = None
        self._stored: StoredReplies | None = None
        self._api = _build_api(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
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
        """Take no new calls; those in flight go on."""
        if self.services is not None and self._relay is not None and self._stored is not None:
            self.services.is_draining = True
            self._relay.is_draining = self._stored.is_draining = True
            self.services.batches.begin_draining()

    @asynccontextmanager
    async def lifespan(self, _api: FastAPI) -> AsyncIterator[None]:
        try:
            async with _running(self.settings, self._place) as services:
                self.services = self._api.state.services = services
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
                    group = next((name for prefix, name in _GROUPS if scope["path"].startswith(prefix)), "ops")
                    services.telemetry.count_own(group, message["status"])
            await send(message)

        await self._api(scope, receive, send_marked)


def create_app(settings: Settings, place: WorkerPlace | None = None) -> GatewayApp:
    """The application for these settings; nothing is opened before its lifespan starts.

    `place`: which worker of a machine it is, where there are several.
    """
    return GatewayApp(settings, place)


@asynccontextmanager
async def _running(settings: Settings, place: WorkerPlace | None) -> AsyncIterator[Services]:
    """Every part of the gateway, started in order and stopped in reverse."""
    settings.refuse_open_door()
    settings.refuse_lonely_redis()
    now = time.perf_counter
    telemetry = Telemetry(log_level=settings.log_level)
    upstream = Upstream(idle_connections=settings.upstream_idle_connections, now=now)
    tracer = tracer_of(settings, upstream, telemetry.spans, now)
    fleet = Fleet(settings=settings, upstream=upstream, telemetry=telemetry, now=now)
    calibration = CalibrationBook(settings.calibration_file)

    def take_registry(registry: Registry) -> None:
        names.want(questions_of(registry))
        _take_registry(registry, live, fleet, telemetry)
        _show_verdicts(registry, telemetry, settings, calibration)

    live = LiveRegistry(
        settings.registry, take_registry, replicas_file=settings.replicas_file, on_addresses=fleet.apply
    )
    resolver = Resolver(settings.name_servers)
    names = NameWatch(
        ask=resolver.ask,
        refresh_s=settings.dns_refresh_s,
        telemetry=telemetry,
        on_change=live.take_addresses,
    )
    _make_directory(settings)
    store = await Store.open(settings.database, settings.database_limits)
    accounts = Accounts(store)
    keys = KeyRing(accounts)
    together = Together(
        settings, store=store, accounts=accounts, registry=live, fleet=fleet, telemetry=telemetry, now=now
    )
    count_failure = telemetry.count_background_failure
    engine_records = EngineRecords(store)
    diary = EngineDiary(
        engine_records,
        calibration,
        registry=lambda: live.current,
        flush_s=settings.observation_flush_s,
        writes=lambda: together.duty.is_held,
    )
    fleet.on_metrics = diary.note
    diary.on_learnt = lambda: _show_verdicts(live.current, telemetry, settings, calibration)
    energy_records = EnergyRecords(store)
    energy = EnergyWatch(
        fleet=fleet,
        upstream=upstream,
        records=energy_records,
        interval_s=settings.energy_interval_s,
        timeout_s=settings.health_timeout_s,
        flush_s=settings.observation_flush_s,
    )
    recorder = Recorder(settings.data_dir / "spool", store, settings, count_failure=count_failure)
    try:
        await recorder.start()
        await keys.load()
        await together.start()
        _pass_on_news(together, keys)
        dispatcher = Dispatcher(
            settings=settings,
            upstream=upstream,
            fleet=fleet,
            admission=Admission(settings=settings, fleet=fleet, telemetry=telemetry, now=now),
            recorder=recorder,
            telemetry=telemetry,
            limiter=Limiter(together.books),
            registry=lambda: live.current,
            calibration=calibration,
            now=now,
            tracer=tracer,
        )
        round_store = RoundStore(store)
        warn_of_other_names(settings)
        if settings.reviewers_share_address:
            warn_of_shared_address(settings, *await round_store.names_of(RoundStatus.OPEN))
        compare = Comparisons(dispatcher=dispatcher, store=store, settings=settings, now=now)
        settler = Settler(
            fleet=fleet,
            settlements=Settlements(store),
            telemetry=telemetry,
            settings=settings,
            registry=lambda: live.current,
            charge=together.books.correct,
        )
        working = Batches(
            comparisons=compare, store=BatchStore(store), find_caller=keys.caller_of, settings=settings, now=now
        )
        working.on_change = partial(together.tell, BATCHES)
        together.hear(BATCHES, working.take_news)
        retention = Retention(minutes=KeptMinutes(store), engine_records=engine_records, settings=settings)
        services = Services(
            settings=settings,
            registry=live,
            names=names,
            fleet=fleet,
            dispatcher=dispatcher,
            store=store,
            recorder=recorder,
            telemetry=telemetry,
            comparisons=compare,
            batches=working,
            rounds=RoundDesk(
                store=round_store,
                life=RoundLife(round_store),
                answering=Answering(batches=working, store=store, rounds=round_store),
                evidence=CardEvidence(store=store, settings=settings, calibration=calibration),
                registry=lambda: live.current,
                tools=TOOLS,
            ),
            access=Access(settings.admin_key, keys.find),
            run_names=RunNames(),
            accounts=accounts,
            keys=keys,
            engine_records=engine_records,
            load_runs=LoadRuns(store),
            engine_diary=diary,
            energy_records=energy_records,
            energy_watch=energy,
            calibration=calibration,
            long_work=LongWork(),
            reviewing=Reviewing(round_store, registry=lambda: live.current, clock=lambda: datetime.now(UTC)),
            review_limits=ReviewLimits(now),
            chairs=ChairSessions(store, caller_of=keys.caller_of, admin_key=settings.admin_key),
            chair_limits=ChairLimits(now),
            web=Web(),
            together=together,
            siblings=None if place is None else Siblings(place, lambda: ops.render_own(services)),
            now=now,
        )
        if services.siblings is not None:
            await services.siblings.start()
        take_registry(live.current)
        only = together.duty.only
        background = [
            asyncio.create_task(keep_running(name, work, count_failure), name=name)
            for name, work in (
                ("registry watch", lambda: live.watch(settings.registry_poll_s)),
                ("key refresh", lambda: keys.watch(settings.key_refresh_s)),
                ("tick", lambda: _tick(telemetry)),
                ("engine diary", diary.run),
                ("batches", only(services.batches.run)),
                ("energy watch", only(energy.run)),
                ("settlement", only(settler.run)),
                ("retention", only(retention.run)),
                *together.works(recorder),
                *([("span export", tracer.export.run)] if tracer is not None else []),
            )
        ]
        try:
            yield services
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            services.long_work.close()
            if services.siblings is not None:
                await services.siblings.stop()
            await together.stop()
            if together.duty.is_held:
                await settler.note_presences()
            await names.stop()
            await resolver.close()
            await fleet.stop()
            if tracer is not None:
                await tracer.export.flush(LAST_SPANS_S)
            upstream.close()
            await diary.flush()
            await energy.flush()
    finally:
        try:
            await recorder.stop()
        finally:
            await together.close()
            await store.close()


def _pass_on_news(together: Together, keys: KeyRing) -> None:
    """A key that is made, changed or revoked in one gateway is so in all."""
    keys.on_change = partial(together.tell, KEYS)

    async def look() -> None:
        with suppress(Unavailable):  # the next look comes by itself
            await keys.load()

    together.hear(KEYS, look)


def _make_directory(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartRefused(f"SIMSA_DATA_DIR={settings.data_dir} cannot be made: {error.strerror}") from error


def _take_registry(registry: Registry, live: LiveRegistry, fleet: Fleet, telemetry: Telemetry) -> None:
    """Put a registry to use: watch its replicas, show its identity."""
    fleet.apply(registry)
    telemetry.expect_models([model.id for model in registry.routable() if not fleet.lacks_key(model.id)])
    telemetry.registry_valid.set(live.problem is None)
    telemetry.registry_info.clear()
    telemetry.registry_info.labels(registry.sha256).set(1)


def _show_verdicts(registry: Registry, telemetry: Telemetry, settings: Settings, calibration: CalibrationBook) -> None:
    """The one-GPU verdicts of a registry's models as series, with the overhead as it is known now."""
    telemetry.feasibility_fits.clear()
    telemetry.feasibility_headroom.clear()
    gpu_id, context = settings.feasibility_gpu, settings.feasibility_context
    for model in registry.routable():
        estimate = estimate_on(model, registry, gpu_id=gpu_id, context=context, calibration=calibration)
        if estimate is not None and estimate.headroom_bytes is not None:
            telemetry.feasibility_fits.labels(model.id, gpu_id).set(estimate.verdict == "fits")
            telemetry.feasibility_headroom.labels(model.id, gpu_id).set(estimate.headroom_bytes.likely)


async def _tick(telemetry: Telemetry) -> None:
    """Measure how late the loop runs its timers; push out the log."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(TICK_S)
        telemetry.loop_lag.set(max(0.0, loop.time() - before - TICK_S))
        flush_log()


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
