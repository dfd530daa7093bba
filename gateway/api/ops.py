"""Is it alive, is it ready, how busy: three routes without a key, and without detail for callers who have none."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway.api.deps import Gateway, Services
from gateway.api.refusals import refusals
from gateway.domain.accounts import OVERSEEING
from gateway.errors import SimsaError

router = APIRouter(tags=["operations"])


@router.get("/health", summary="Live: the process answers")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/ready",
    summary="Ready: store open, a live replica, not draining",
    responses={400: refusals(400)[400], 503: {}},
)
async def ready(request: Request, services: Gateway, engines: bool = True) -> JSONResponse:
    """With `engines=false` also without a live replica: for who only asks whether this gateway can take requests.

    A gateway that has just begun is not ready before it has looked at each of its engines once, or for 30 s.
    """
    problems = readiness_problems(services, engines=engines)
    body: dict[str, Any] = {"status": "not ready" if problems else "ready"}
    if _may_see_detail(request, services):
        body["problems"] = problems
        body["replicas_down"] = services.fleet.reasons()
        body["registry_problem"] = services.registry.problem
        body["name_problems"] = services.names.problems
    return JSONResponse(body, status_code=503 if problems else 200)


@router.get("/metrics", summary="Prometheus series", response_class=Response)
async def metrics(services: Gateway) -> Response:
    page = render_own(services) if services.siblings is None else await services.siblings.render_all()
    return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")


def render_own(services: Services) -> bytes:
    """The series of this process."""
    observe_recorder(services)
    return services.telemetry.render()


def readiness_problems(services: Services, *, engines: bool = True) -> list[str]:
    """Why no new request should be sent here; empty when ready."""
    problems: list[str] = []
    if services.is_draining:
        problems.append("shutting down")
    if not services.first_looks.are_over:
        problems.append("its engines are being looked at for the first time")
    if engines and not services.fleet.has_live_replica:
        problems.append("no live replica")
    if not services.recorder.accepting:
        problems.append("records cannot be kept")
    return problems


def observe_recorder(services: Services) -> None:
    stats = services.recorder.stats()
    telemetry = services.telemetry
    telemetry.recorder_queued.set(stats.queued)
    telemetry.recorder_capacity.set(services.settings.recorder_queue)
    telemetry.recorder_spooled.set(stats.spooled_bytes)
    telemetry.recorder_lag.set(stats.lag_s)
    telemetry.recorder_written.set(stats.written)
    telemetry.recorder_lost.set(stats.lost)
    telemetry.recorder_interrupted.set(stats.interrupted)
    telemetry.interrupted_at.set(stats.interrupted_at_s)
    telemetry.recorder_failing.labels("database").set(services.database_failing is not None)
    telemetry.recorder_failing.labels("spool").set(stats.spool_failing is not None)


def _may_see_detail(request: Request, services: Services) -> bool:
    try:
        caller = services.access.check(request.scope["headers"])
    except SimsaError:
        return False
    return caller.has_any(OVERSEEING)
