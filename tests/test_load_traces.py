"""What the gateway recorded, as a trace that an open loop replays: moments and lengths, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from databases import ScratchDatabase
from test_store import ended, opened

from gateway.call_traces import RecordedArrival
from gateway.domain.records import Usage
from gateway.settings import DatabaseLimits
from gateway.store import Store
from loadtests.arrivals import TracePoint, moments
from loadtests.plan import Arrivals, Open
from loadtests.traces import TraceRefused, as_trace, trace_in, trace_lines, trace_of_records

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def recorded(database: ScratchDatabase) -> None:
    """Three calls of `m`, one of another model, and one of a load run."""
    store = await Store.open(database.url)
    calls = [
        opened(3, model="m", started_at=NOON + timedelta(seconds=4.5)),
        opened(1, model="m", started_at=NOON),
        opened(2, model="m", started_at=NOON + timedelta(seconds=1.25)),
        opened(4, model="other", started_at=NOON),
        opened(5, model="m", run_id="night", started_at=NOON + timedelta(seconds=2)),
    ]
    await store.upsert_calls([ended(call, usage=Usage(100, 20, source="engine")) for call in calls])
    await store.close()


async def test_recorded_calls_become_moments_since_the_first(database: ScratchDatabase) -> None:
    await recorded(database)
    points = await trace_of_records(database.url, DatabaseLimits(), "m")
    assert points == [TracePoint(0.0, 100, 20), TracePoint(1.25, 100, 20), TracePoint(4.5, 100, 20)]
    assert moments(Open(Arrivals.TRACE, speed=2.0), 1, points).tolist() == [0.0, 0.625, 2.25]


async def test_a_span_takes_its_begin_and_leaves_its_end(database: ScratchDatabase) -> None:
    await recorded(database)
    begin, end = NOON, NOON + timedelta(seconds=4.5)
    points = await trace_of_records(database.url, DatabaseLimits(), "m", since=begin, until=end)
    assert [point.at_s for point in points] == [0.0, 1.25]
    with pytest.raises(TraceRefused, match="all requests of the trace are of one moment"):
        await trace_of_records(database.url, DatabaseLimits(), "m", since=NOON + timedelta(seconds=2))


async def test_no_call_is_said_and_no_empty_trace(database: ScratchDatabase) -> None:
    await recorded(database)
    with pytest.raises(TraceRefused, match="the records hold no call of nothing"):
        await trace_of_records(database.url, DatabaseLimits(), "nothing")


def test_a_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    points = as_trace([RecordedArrival(NOON, 5, None), RecordedArrival(NOON + timedelta(seconds=2), None, 0)])
    path = tmp_path / "trace.jsonl"
    path.write_bytes(trace_lines(points))
    assert trace_in(path) == points == [TracePoint(0.0, 5, None), TracePoint(2.0, None, None)]


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "the trace has no request"), (b"{}\n", "line 1"), (b'{"at_s":3}\n', "of one moment")]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceRefused, match=why):
        trace_in(path)
