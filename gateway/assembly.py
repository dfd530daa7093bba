"""Puts the gateway together: every part made once, started in order and stopped in reverse. What serves is `app`'s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial

from gateway.access import Access
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.api import ops
from gateway.api.deps import Services
from gateway.background import end_all, keep_running
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
from gateway.errors import StartRefused, Unavailable
from gateway.evidence import estimate_on
from gateway.first_looks import FirstLooks
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
from gateway.resolver import Resolver
from gateway.retention import Retention
from gateway.review_address import warn_of_other_names, warn_of_shared_address
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
from gateway.telemetry import Telemetry
from gateway.together import BATCHES, KEYS, Together
from gateway.tracing import tracer_of
from gateway.upstream import Upstream
from gateway.web import web
from gateway.workers import Siblings, WorkerPlace

TICK_S = 0.25
LAST_SPANS_S = 3.0
"""How long a collector has to take the last spans when the gateway stops."""


@asynccontextmanager
async def running(settings: Settings, place: WorkerPlace | None) -> AsyncIterator[Services]:
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
    count_failure = telemetry.count_background_failure
    recorder = Recorder(settings.data_dir / "spool", store, settings, count_failure=count_failure)
    together = Together(
        settings,
        store=store,
        accounts=accounts,
        registry=live,
        fleet=fleet,
        recorder=recorder,
        telemetry=telemetry,
        now=now,
    )
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
            web=web(),
            together=together,
            siblings=None if place is None else Siblings(place, lambda: ops.render_own(services)),
            first_looks=FirstLooks(names, fleet, now=now),
            now=now,
        )
        if services.siblings is not None:
            telemetry.workers.set(services.siblings.of)
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
                *together.works(),
                *([("span export", tracer.export.run)] if tracer is not None else []),
            )
        ]
        try:
            yield services
        finally:
            await end_all(background)
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
    telemetry.expect_models(
        [model.id for model in registry.routable() if not fleet.lacks_key(model.id)],
        [endpoint.name for endpoint in ENDPOINTS.values()],
    )
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
