"""Everything a campaign needs before its first request: plan, registry, doors, engines, lengths, calibration.

All that can be wrong is found here, before anything is sent. Running is `campaign`'s subject.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace as replace_struct

from gateway import __version__
from gateway.domain.records import GpuPrice, Model, Registry
from gateway.errors import SimsaError
from gateway.file_lock import FileLock
from gateway.gateway_client import GatewayUnreachable
from gateway.resolver import Resolver
from gateway.settings import Settings, secret_from_environment
from loadtests.arrivals import TracePoint, duration_s
from loadtests.calibration import calibrate, this_host
from loadtests.campaign import Campaign, Step
from loadtests.cell_order import DrawnWork
from loadtests.cells import Calibration, EngineSeen, Run
from loadtests.doorways import Doorway, TargetUnknown, doorways, engine_addresses
from loadtests.engine_names import moved, with_engines
from loadtests.engine_view import EngineWatch
from loadtests.hosts import LOOPBACK, PORT, WAIT_S, Address, Hosts, require_free
from loadtests.journal import LOCK, Journal, new_run_id, runs_directory
from loadtests.measured import Context
from loadtests.plan import RECORDS, Arrivals, Cell, Open, Plan
from loadtests.plan_file import parse_plan
from loadtests.run_evidence import is_tested
from loadtests.sighting import Sighting, TargetSilent, count_tokens, see_target
from loadtests.traces import TraceRefused, trace_in, trace_lines, trace_of_records
from loadtests.validity import SILENT, Look
from loadtests.workloads import languages_of, workload_sha256
from loadtests.workloads.fitting import DEFAULT_FERTILITY, Fertility, fertility_samples, learn_fertility

CALIBRATED_FOR = timedelta(hours=1)
"""How old a run may be whose calibration another takes over."""
PACKAGES = ("locust", "gevent", "geventhttpclient")


class OutsetRefused(Exception):
    """The campaign cannot begin; the message says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says beside the plan."""

    workers: int | None = None
    web_port: int | None = None
    listen: Address | None = None
    hosts: int | None = None
    """Others that send in this one's place, and connect where it listens."""
    wait_s: float = WAIT_S
    resume: Path | None = None
    calibrated: Path | None = None
    """A run that showed what this client can read; it is not tried again."""


async def prepare(
    plan_path: Path,
    registry: Registry,
    settings: Settings,
    wishes: Wishes,
    *,
    stopping: asyncio.Event,
    on_step: Callable[[Step], None],
    say: Callable[[str], None],
) -> Campaign:
    """A campaign that is ready to run. Raises OutsetRefused, PlanInvalid, TargetUnknown, TargetSilent,
    CalibrationFailed, and what the gateway's client raises."""
    if find_spec("locust") is None:
        raise OutsetRefused("load tests need Locust: install the extra with `pip install 'simsa[loadtest]'`")
    taken = None if wishes.calibrated is None else take_over(Journal(wishes.calibrated).run(), now=datetime.now(UTC))
    before, journal, text = _begun(plan_path, settings, wishes)
    plan = parse_plan(text, path=plan_path.name, registry=registry)
    if wishes.workers is not None:
        plan = replace(plan, workers=wishes.workers)
    hosts = _hosts(plan, wishes)
    _refuse_taken(hosts, wishes)
    if hosts is not None:
        plan = replace(plan, workers=hosts.count * hosts.workers_each)
    names = plan.target.models or (plan.target.model,)
    find = partial(with_engines, registry, names, Resolver(settings.name_servers).ask)
    registry = await find()
    doors = doorways(plan, registry, settings, is_set=lambda name: secret_from_environment(name) is not None)
    keys = {name: key for door in doors if (name := door.key_variable) and (key := secret_from_environment(name))}
    if hosts is not None:
        _refuse_own_addresses(doors, hosts)
    engines = engine_addresses(plan, registry)
    model = registry.models.get(plan.target.model)
    per_replica = plan.gpus or _gpus_of(model)
    see = partial(see_target, doors, engines, names, registry, keys, gpu=plan.gpu, gpus=per_replica)
    sighting = await see()

    say(f"{plan.target.model}: answers are {sighting.provenance.value}; {len(sighting.engines)} engine(s) to be read")
    _refuse_other_gpus(plan, model)
    fertility = await _fertility(plan, doors[0], keys, say)
    gpus = _gpus(plan, sighting, engines)
    if before is not None:
        _refuse_other(before, plan, sighting, gpus)
    journal.begin(text)
    lock = FileLock(journal.directory / LOCK, refusal=f"{journal.directory.name} is being run by another process")
    traces = {cell.id: trace for cell in plan.cells if (trace := await _trace_of(cell, plan_path, settings, journal))}
    calibration = before.calibration if before is not None else None
    if plan.calibrates and hosts is not None:
        say("several hosts are not calibrated on a stand-in: CPU and schedule lag of each worker are checked")
    elif plan.calibrates and calibration is None:
        calibration = await _calibration(taken, _needed_of_each(plan, traces), journal, say)
        say(_calibrated(calibration))
    return Campaign(
        id=before.id if before is not None else journal.directory.name,
        plan=plan,
        plan_text=text,
        workload_sha256=_workload_sha256(plan, traces),
        registry=registry,
        doors=doors,
        context=_context(plan, model, registry, sighting, gpus, len(engines), calibration),
        sighting=sighting,
        work=DrawnWork(plan.workload, fertility),
        journal=journal,
        watch=EngineWatch(engines),
        look=partial(_look, see, find, model),
        lock=lock,
        versions=_versions(),
        traces=traces,
        on_step=on_step,
        stopping=stopping,
        calibration=calibration,
        before=before,
        web_port=wishes.web_port,
        hosts=hosts,
    )


async def _look(
    see: Callable[[], Awaitable[Sighting]], find: Callable[[], Awaitable[Registry]], model: Model | None
) -> Look:
    """At what stands behind the doors now. `model`: with the engines that it had when the run began."""
    try:
        difference = "" if model is None else moved(model, (await find()).models.get(model.id))
    except TargetUnknown:
        difference = None
    try:
        return Look((await see()).provenance.value, difference)
    except (TargetSilent, SimsaError, GatewayUnreachable):
        return Look(SILENT, difference)


def _begun(plan_path: Path, settings: Settings, wishes: Wishes) -> tuple[Run | None, Journal, bytes]:
    """What was run before, where the run is kept, and the plan's text: of an interrupted run its own."""
    if wishes.resume is not None:
        journal = Journal(wishes.resume)
        return journal.run(), journal, journal.plan()
    try:
        text = plan_path.read_bytes()
    except OSError as error:
        raise OutsetRefused(f"{plan_path}: cannot be read: {error.strerror or error}") from error
    name = new_run_id(plan_path.stem, datetime.now(UTC), os.urandom(8))
    return None, Journal(runs_directory(settings.data_dir) / name), text


def _hosts(plan: Plan, wishes: Wishes) -> Hosts | None:
    if wishes.hosts is None:
        return None
    return Hosts(wishes.hosts, plan.workers, wishes.listen or Address(LOOPBACK, PORT), wishes.wait_s)


def _refuse_taken(hosts: Hosts | None, wishes: Wishes) -> None:
    wanted = {} if hosts is None else {"--listen": hosts.listen}
    if wishes.web_port is not None:
        wanted["--web-port"] = Address(LOOPBACK, wishes.web_port)
    for named, address in wanted.items():
        try:
            require_free(address)
        except OSError as error:
            raise OutsetRefused(f"{named}: {error}; name another, or stop what uses it") from error


def _refuse_own_addresses(doors: Sequence[Doorway], hosts: Hosts) -> None:
    """Other hosts would ask themselves."""
    for door in doors:
        own = Address(urlsplit(door.address).hostname or "", 0)
        if own.is_loopback and not hosts.listen.is_loopback:
            raise OutsetRefused(
                f"target: {door.address} is this host's own, the others would ask themselves; name it in the plan "
                f"(target.{'engine' if door.door == 'direct' else 'gateway'}) as they reach it"
            )


def needed_events_per_s(plan: Plan, traces: Mapping[str, Sequence[TracePoint]]) -> float | None:
    """The most events a second that the plan's open loops can bring, one event a token; None where nothing says."""
    output = plan.workload.output_tokens
    tokens = output.most if output is not None else plan.workload.max_output_tokens
    rates = [_peak(cell.load, traces.get(cell.id, ())) for cell in plan.cells if isinstance(cell.load, Open)]
    return max(rates) * tokens if rates else None


def _needed_of_each(plan: Plan, traces: Mapping[str, Sequence[TracePoint]]) -> float | None:
    needed = needed_events_per_s(plan, traces)
    return None if needed is None else needed / plan.workers


def take_over(shown: Run, *, now: datetime) -> Calibration:
    """What `shown` says of this client, so that several plans in a row need not each try it.

    Raises OutsetRefused where it says nothing itself, is of other software, or too old to be of this machine as it is.
    """
    found = shown.calibration
    why = None
    if found is None:
        why = "it was not calibrated"
    elif found.of_run is not None:
        why = f"its own is that of {found.of_run}"
    elif found.host != this_host():
        why = "it is of another host"
    elif shown.versions != _versions():
        why = "it is of other versions of the client"
    elif now - datetime.fromisoformat(shown.began_at) > CALIBRATED_FOR:
        why = f"it began more than {CALIBRATED_FOR.total_seconds() / 3600:g} h ago"
    if found is None or why is not None:
        raise OutsetRefused(f"the calibration of {shown.id} cannot be taken over: {why}; leave out --calibrated")
    return replace_struct(found, of_run=shown.id)


async def _calibration(
    taken: Calibration | None, needed_events_per_s: float | None, journal: Journal, say: Callable[[str], None]
) -> Calibration:
    """Of this client, anew or as `taken` over, held against what each worker needs."""
    if taken is None:
        say("calibrating the client on a stand-in")
        return await calibrate(journal.directory / "calibration", needed_events_per_s=needed_events_per_s)
    is_enough = needed_events_per_s is None or taken.events_per_s >= needed_events_per_s
    return replace_struct(taken, needed_events_per_s=needed_events_per_s, passed=taken.passed and is_enough)


def _peak(load: Open, trace: Sequence[TracePoint]) -> float:
    if load.arrivals is Arrivals.TRACE:
        return len(trace) / max(1.0, duration_s(load, trace))
    return max(max(rate.begin_per_s, rate.end_per_s) for rate in load.rates)


async def _fertility(plan: Plan, door: Doorway, keys: Mapping[str, str], say: Callable[[str], None]) -> Fertility:
    """How long texts are to this model, by its own /tokenize; guesses where it has none, and then it is said."""
    if plan.workload.input_tokens is None and not plan.workload.shared_prefix_tokens:
        return DEFAULT_FERTILITY
    key = keys.get(door.key_variable or "")
    counted: dict[str, list[tuple[int, int]]] = {}
    for language in languages_of(plan.workload):
        for sample in fertility_samples(language):
            tokens = await count_tokens(door, plan.target.route, sample, key)
            if tokens is None:
                say("the engine does not tell how long texts are (/tokenize): lengths of prompts are guesses")
                return DEFAULT_FERTILITY
            counted.setdefault(language, []).append((len(sample), tokens))
    return learn_fertility(counted)


async def _trace_of(cell: Cell, plan_path: Path, settings: Settings, journal: Journal) -> Sequence[TracePoint]:
    """The trace that a cell replays, kept with the run, so that going on with it finds the same."""
    load = cell.load
    if not isinstance(load, Open) or load.trace is None:
        return ()
    kept = journal.trace(cell.id)
    try:
        if kept.exists():
            return trace_in(kept)
        if load.trace.startswith(RECORDS):
            model = load.trace.removeprefix(RECORDS)
            points = await trace_of_records(settings.database, settings.database_limits, model)
        else:
            points = trace_in(plan_path.parent / load.trace)
    except TraceRefused as error:
        raise OutsetRefused(f"{cell.id}: {error}") from error
    kept.write_bytes(trace_lines(points))
    return points


def _workload_sha256(plan: Plan, traces: Mapping[str, Sequence[TracePoint]]) -> str:
    """Of what is asked, and of when and how long where a trace says so."""
    whole = workload_sha256(plan.workload)
    if not traces:
        return whole
    parts = [whole.encode(), *(trace_lines(traces[name]) for name in sorted(traces))]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _refuse_other_gpus(plan: Plan, model: Model | None) -> None:
    """The plan may say on which GPUs engines stand where the registry does not, and not otherwise than it."""
    for replica in model.stated_replicas if model is not None else ():
        if replica.gpu is None:
            continue
        said = (plan.gpu or replica.gpu, plan.gpus or replica.gpus)
        if said != (replica.gpu, replica.gpus):
            raise OutsetRefused(
                f"gpu: the plan says {said[1]} × {said[0]}, the registry {replica.gpus} × {replica.gpu} for "
                f"{replica.id}; mend whichever is wrong"
            )


def _gpus(plan: Plan, sighting: Sighting, engines: Sequence[str]) -> int | None:
    """Of all replicas together: the plan's or the registry's for each engine; None unless every engine was seen."""
    if plan.gpus is not None and engines:
        return plan.gpus * len(engines)
    if not engines or len(sighting.engines) != len(engines):
        return None
    return sum(one.gpus for one in sighting.engines)


def _refuse_other(before: Run, plan: Plan, sighting: Sighting, gpus: int | None) -> None:
    """Going on is for the same engines, gateway and client: else a run's repeats would be of different things."""
    same = {
        "the answers' provenance": (
            sighting.provenance.value if before.provenance == "mixed" else before.provenance,
            sighting.provenance.value,
        ),
        "the engines": (_identity(before.engines), _identity(sighting.engines)),
        "the number of GPUs": (before.gpus, gpus),
        "the gateway's registry": (before.gateway, dict(sighting.gateway)),
        "the versions": (before.versions, _versions()),
        "the number of workers": (before.workers, plan.workers),
    }
    other = [name for name, (then, now) in same.items() if then != now]
    if other:
        raise OutsetRefused(f"{before.id} cannot be gone on with: {', '.join(other)} changed; begin a new run")


def _identity(engines: Sequence[EngineSeen]) -> list[EngineSeen]:
    return [replace_struct(one, restarts=0) for one in sorted(engines, key=lambda one: one.replica)]


def _context(
    plan: Plan,
    model: Model | None,
    registry: Registry,
    sighting: Sighting,
    gpus: int | None,
    replicas: int,
    calibration: Calibration | None,
) -> Context:
    kinds = {one.gpu for one in sighting.engines} if plan.gpu is None else {plan.gpu}
    known = registry.gpus.get((kinds.pop() if len(kinds) == 1 else None) or "")
    price: GpuPrice | None = known.prices[0] if known is not None and known.prices else None
    return Context(
        plan=plan,
        claims=tuple(claim for claim in (model.claims if model else ()) if is_tested(claim)),
        gpus=gpus,
        replicas=replicas or None,
        price=price,
        calibrated_events_per_s=None if calibration is None else calibration.events_per_s * plan.workers,
    )


def _gpus_of(model: Model | None) -> int:
    return model.stated_replicas[0].gpus if model is not None and model.stated_replicas else 1


def _calibrated(one: Calibration) -> str:
    words = (
        f"this client reads {one.events_per_s:,.0f} events/s with a schedule lag of {one.lag_p99_s * 1000:.1f} ms (p99)"
    )
    if one.of_run is not None:
        words += f", as {one.of_run} showed"
    if one.needed_events_per_s is None:
        return words
    return f"{words}; the plan needs at most {one.needed_events_per_s:,.0f} of each worker" + (
        "" if one.passed else ": TOO FEW, take more workers"
    )


def _versions() -> dict[str, str]:
    found = {"simsa": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
