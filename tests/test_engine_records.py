"""What engines showed, on both databases: written any number of times, by several gateways, read for any span."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from databases import ScratchDatabase
from test_store import ended, opened

from gateway.calibration_file import CalibrationBook
from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.records import EngineAddress, Model, Provenance, Registry, Replica, Serving, ServingKind
from gateway.engine_diary import EngineDiary
from gateway.engine_records import EngineRecords, EngineReport, LoadRow, OwnCall, report_id, span_start
from gateway.replica_state import ReplicaState
from gateway.store import Store
from gateway.upstream import parse_origin

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RESOLVED = ResolvedEngine(
    version="0.32.0",
    max_model_len=4096,
    num_gpu_blocks=1024,
    kv_cache_max_concurrency=4.0,
    gpu_memory_utilization=0.92,
    enable_prefix_caching=True,
    engines=1,
    labels=(("num_gpu_blocks", "1024"), ("이름", '"따옴표"')),
)
REPORT = EngineReport(
    "r1", "m", "m/1", "h100-sxm", 1, Provenance.REAL, "the engine serves org/weights", NOON, NOON, RESOLVED
)


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def load(start: float, end: float, *, looks: int = 2, preemptions: int | None = 1, running: int = 3) -> ObservedLoad:
    return ObservedLoad(
        looks, minutes(start), minutes(end), peak_running=running, peak_kv_usage=0.5, preemptions=preemptions
    )


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


@pytest.fixture
def records(store: Store) -> EngineRecords:
    return EngineRecords(store)


async def test_a_report_comes_back_as_it_was_and_only_moves_when_it_is_seen_again(records: EngineRecords) -> None:
    await records.save([REPORT], [])
    assert await records.list_reports() == [REPORT]
    later = replace(REPORT, first_seen=minutes(5), last_seen=minutes(9), replica="renamed", gpu="h200")
    await records.save([later], [])
    await records.save([later], [])
    await records.save([REPORT], [])
    assert await records.list_reports(model="m") == [replace(later, first_seen=NOON)]
    assert await records.list_reports(model="other") == []


async def test_each_configuration_is_found_by_replica_and_moment(records: EngineRecords) -> None:
    other = replace(REPORT, id="r2", first_seen=minutes(20), last_seen=minutes(30), resolved=ResolvedEngine())
    await records.save([replace(REPORT, last_seen=minutes(10)), other], [])
    found = [await records.report_at("m/1", minutes(at)) for at in (-1, 5, 15, 25)]
    assert [report and report.id for report in found] == [None, "r1", None, "r2"]
    assert [report.id for report in await records.list_reports()] == ["r2", "r1"]


async def test_loads_are_joined_over_a_span_and_written_again_without_counting_twice(records: EngineRecords) -> None:
    rows = [
        LoadRow("r1", "one", minutes(0), 60, load(0, 0.9)),
        LoadRow("r1", "one", minutes(0), 3600, load(1, 9, preemptions=None, running=0)),
        LoadRow("r1", "one", minutes(10), 60, load(10, 10.9, running=9)),
        LoadRow("r2", "one", minutes(0), 60, load(0, 0.9, running=99)),
    ]
    await records.save([], rows)
    await records.save([], [replace(rows[0], load=load(0, 0.9, looks=5, preemptions=4)), *rows[1:]])
    whole = await records.observed("r1")
    assert whole is not None
    assert (whole.looks, whole.preemptions, whole.peak_running) == (9, 5, 9)
    assert (whole.first_look, whole.last_look, whole.peak_waiting) == (minutes(0), minutes(10.9), None)
    part = await records.observed("r1", since=minutes(9.5), until=minutes(12))
    assert part == rows[2].load
    assert await records.observed("r1", since=minutes(20)) is None
    assert await records.observed("unknown") is None


async def test_two_gateways_beside_each_other_count_once_and_one_after_the_other_twice(records: EngineRecords) -> None:
    for seer, start in (("one", 0), ("two", 0.1), ("three", 30)):
        await records.save([], [LoadRow("r1", seer, minutes(start), 60, load(start, start + 0.5))])
    whole = await records.observed("r1")
    assert whole is not None
    assert (whole.preemptions, whole.looks) == (2, 6)


async def test_calls_of_a_run_are_found_with_when_their_replica_had_them(store: Store, records: EngineRecords) -> None:
    calls = [
        ended(opened(1, run_id="run"), replica="m/1"),
        ended(opened(2, run_id="run"), replica=None),
        ended(opened(3, run_id="other"), replica="m/1"),
    ]
    waited = replace(calls[0], timing=replace(calls[0].timing, queue_s=1.5))
    await store.upsert_calls([waited, *calls[1:], opened(4, run_id="run")])
    found = await records.own_calls(run_ids=["run"], model=None, since=None, until=None)
    start = waited.opened.started_at + timedelta(seconds=1.5)
    assert found == [OwnCall("m/1", start, waited.ended_at)]
    in_span = await records.own_calls(run_ids=None, model="exaone", since=calls[2].ended_at, until=None)
    assert in_span is not None
    assert len(in_span) == 1


def state_of(model_id: str, **figures: int) -> ReplicaState:
    """A replica as a look has left it."""
    replica = Replica(f"{model_id}/1", model_id, f"http://{model_id}:8000")
    model = Model(model_id, Serving(ServingKind.VLLM, model_id), replicas=(replica,))
    now = datetime.now(UTC)
    seen = ObservedLoad(1, now, now, **figures)  # type: ignore[arg-type]
    return ReplicaState(replica, model, parse_origin(replica.url), (), resolved=RESOLVED, last_look=seen)


async def test_figures_that_no_database_takes_are_dropped_and_counted_and_all_others_are_written(
    records: EngineRecords, tmp_path: Path
) -> None:
    registry = Registry({}, {}, {}, (), {}, None, "")
    book = CalibrationBook(tmp_path / "calibration.json")
    diary = EngineDiary(records, book, registry=lambda: registry, flush_s=60)
    odd, well = state_of("odd", peak_running=2**70), state_of("well", peak_running=7)
    for state in (odd, well):
        diary.note(state)
    await diary.flush()
    assert (diary.dropped, odd.report_id == well.report_id) == (1, False)
    assert [report.model for report in await records.list_reports()] == ["well"]
    assert await records.observed(well.report_id or "") == well.last_look
    diary.note(state_of("well", peak_running=9))
    await diary.flush()
    again = await records.observed(well.report_id or "")
    assert again is not None
    assert (again.looks, again.peak_running, diary.dropped) == (2, 9, 1)


def test_the_id_of_a_report_is_of_what_is_shown_where_and_of_nothing_else() -> None:
    here = EngineAddress("http://engine:8000", "/v1", None)
    same = report_id("m", here, Provenance.REAL, replace(RESOLVED))
    assert same == report_id("m", here._replace(api_key_env="KEY"), Provenance.REAL, RESOLVED)
    others = {
        report_id("n", here, Provenance.REAL, RESOLVED),
        report_id("m", here._replace(url="http://other:8000"), Provenance.REAL, RESOLVED),
        report_id("m", here, Provenance.UNKNOWN, RESOLVED),
        report_id("m", here, Provenance.REAL, replace(RESOLVED, version="0.33.0")),
    }
    assert len(others | {same}) == 5


@pytest.mark.parametrize(("span_s", "expected"), [(60, "12:34:00"), (3600, "12:00:00"), (300, "12:30:00")])
def test_spans_begin_on_the_minute_or_the_hour(span_s: int, expected: str) -> None:
    at = datetime(2026, 3, 1, 12, 34, 56, 789, tzinfo=UTC)
    assert span_start(at, span_s).strftime("%H:%M:%S.%f") == expected + ".000000"
