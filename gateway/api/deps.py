"""What a handler may ask for: the gateway's parts, and who the caller is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer

from gateway.access import Access, asked_priority, asked_run, permit_roles
from gateway.accounts import Accounts
from gateway.batches import Batches
from gateway.calibration_file import CalibrationBook
from gateway.comparison import Comparisons
from gateway.dispatch import Dispatcher
from gateway.domain.accounts import Caller, Role
from gateway.domain.records import Priority
from gateway.energy_records import EnergyRecords
from gateway.energy_watch import EnergyWatch
from gateway.engine_diary import EngineDiary
from gateway.engine_records import EngineRecords
from gateway.errors import InvalidRequest
from gateway.first_looks import FirstLooks
from gateway.fleet import Fleet
from gateway.key_ring import KeyRing
from gateway.live_registry import LiveRegistry
from gateway.load_runs import LoadRuns
from gateway.long_work import LongWork
from gateway.name_watch import NameWatch
from gateway.recorder import Recorder
from gateway.rounds.chair_sessions import ChairSessions
from gateway.rounds.desk import RoundDesk
from gateway.rounds.limits import ChairLimits, ReviewLimits
from gateway.rounds.voting import Reviewing
from gateway.run_names import RunNames
from gateway.settings import Settings
from gateway.store import Store
from gateway.telemetry import Telemetry
from gateway.together import Together
from gateway.web import Web
from gateway.workers import Siblings


@dataclass(slots=True)
class Services:
    """The running gateway's parts, built once in `app`."""

    settings: Settings
    registry: LiveRegistry
    names: NameWatch
    fleet: Fleet
    dispatcher: Dispatcher
    store: Store
    recorder: Recorder
    telemetry: Telemetry
    comparisons: Comparisons
    batches: Batches
    rounds: RoundDesk
    access: Access
    run_names: RunNames
    accounts: Accounts
    keys: KeyRing
    engine_records: EngineRecords
    engine_diary: EngineDiary
    load_runs: LoadRuns
    energy_records: EnergyRecords
    energy_watch: EnergyWatch
    calibration: CalibrationBook
    long_work: LongWork
    reviewing: Reviewing
    review_limits: ReviewLimits
    chairs: ChairSessions
    chair_limits: ChairLimits
    web: Web
    together: Together
    siblings: Siblings | None
    first_looks: FirstLooks
    now: Callable[[], float]
    is_draining: bool = field(default=False)

    @property
    def database_failing(self) -> str | None:
        """Why the database cannot be reached, by who writes there, or by who looks for keys where nobody calls."""
        return self.recorder.stats().database_failing or self.keys.database_failing


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Gateway = Annotated[Services, Depends(_services)]


def _caller(request: Request, services: Gateway) -> Caller:
    """Whose key it is. No database looks for a NUL; refused here, it is an error of the caller on every route."""
    caller = services.access.check(request.scope["headers"])
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidRequest("The address holds a NUL character (%00), which nothing here has in its name.")
    return caller


DescribeKey = Depends(HTTPBearer(scheme_name="key", auto_error=False, description="An organisation's key."))
"""Says in OpenAPI that a route takes a key; `CheckedCaller` checks it."""
CheckedCaller = Annotated[Caller, Depends(_caller)]
"""Who sent the request. Raises AuthenticationFailed unless the key is right."""


def _priority(
    caller: CheckedCaller,
    x_simsa_priority: Annotated[
        str | None, Header(description="The class of its calls where engines are full: the key's own, or a lower one.")
    ] = None,
) -> Priority:
    return caller.priority if x_simsa_priority is None else asked_priority(caller, x_simsa_priority.encode("latin-1"))


AskedPriority = Annotated[Priority, Depends(_priority)]


def _run(
    caller: CheckedCaller,
    services: Gateway,
    x_simsa_run_id: Annotated[
        str | None, Header(description="The load run that its calls belong to; of keys of class load_test.")
    ] = None,
) -> str | None:
    if x_simsa_run_id is None:
        return None
    run = asked_run(caller, x_simsa_run_id.encode("latin-1"))
    services.run_names.note(caller, run)
    return run


AskedRun = Annotated[str | None, Depends(_run)]
RequireKey = Depends(_caller)
"""The same for whole routers."""


def require_roles(roles: frozenset[Role]) -> Any:
    """A dependency that raises PermissionDenied unless the caller has one of the roles."""

    def check(caller: CheckedCaller) -> None:
        permit_roles(caller, roles)

    return Depends(check)
