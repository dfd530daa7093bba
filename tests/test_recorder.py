"""The recorder against real databases and files, real locks, a real full device and a real kill -9."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
from databases import ScratchDatabase
from guards import HANG_S
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Provenance, Timing, Usage
from gateway.errors import StartRefused
from gateway.recorder import Recorder
from gateway.settings import DatabaseLimits, Settings
from gateway.spool import Spool, frame, read_segment, settle
from gateway.store import Store

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HEADER = b"simsa-spool 1\n"


def opened(number: int = 1) -> CallOpened:
    return CallOpened(
        id=f"call-{number:06d}",
        request_id=f"request-{number}",
        started_at=NOON + timedelta(seconds=number),
        model="exaone",
        endpoint="/v1/chat/completions",
        streamed=False,
        organisation="acme",
        key="key-1",
        prompt_estimate=9,
    )


def ended(number: int = 1) -> Call:
    return Call(
        opened=opened(number),
        ended_at=NOON + timedelta(seconds=number, microseconds=1),
        status=CallStatus.OK,
        http_status=200,
        replica="exaone/0",
        provenance=Provenance.REAL,
        attempts=1,
        error_type=None,
        error_code=None,
        error_message=None,
        finish_reason="stop",
        usage=Usage(1, 2, None, None, "engine"),
        timing=Timing(e2e_s=0.1 * number),
        cost=Cost(Decimal("0.10"), "USD", "api_price"),
        charged_tokens=3,
    )


def quick(**changes: object) -> Settings:
    """Settings that write each record at once, so that no test waits."""
    knobs: dict[str, object] = {"recorder_flush_s": 0.001, "spool_fsync_s": 0.001}
    return Settings(**{**knobs, **changes})  # type: ignore[arg-type]


IMPATIENT = DatabaseLimits(statement_s=2)
"""Half of it would be too short for an ordinary statement on a busy machine."""


@asynccontextmanager
async def recording(directory: Path, url: str, **changes: object) -> AsyncIterator[tuple[Recorder, Store]]:
    store = await Store.open(url, IMPATIENT)
    recorder = Recorder(directory / "spool", store, quick(**changes), now=lambda: NOON)
    try:
        await recorder.start()
        yield recorder, store
    finally:
        await recorder.stop(deadline_s=20)
        await store.close()


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "spool").glob("*.spool"))


def leave_spool(directory: Path, *records: Call | CallOpened, tail: bytes = b"", number: int = 1) -> None:
    """What a killed process leaves behind."""
    (directory / "spool").mkdir(exist_ok=True)
    path = directory / "spool" / f"{number:012d}.spool"
    path.write_bytes(HEADER + b"".join(frame(record) for record in records) + tail)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not fact():
            await asyncio.sleep(0.001)


# --- the ordinary way ---------------------------------------------------------------------------------------


async def test_every_call_reaches_the_database_and_the_spool_empties(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (recorder, store):
        for number in range(50):
            recorder.opened(opened(number))
        assert await recorder.drain(20)
        assert len(await store.list_orphans()) == 50
        for number in range(50):
            recorder.closed(ended(number))
        assert await recorder.drain(20)
        assert await store.list_calls() == [ended(number) for number in reversed(range(50))]
        assert recorder.stats().queued == 0
        assert recorder.stats().lag_s == 0
        assert recorder.stats().interrupted_at_s == 0
    assert segments(tmp_path) == []


async def test_a_call_that_opens_and_ends_within_a_batch_is_one_row_written_once(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with recording(tmp_path, database.url, recorder_flush_s=60.0) as (recorder, _):
        recorder.opened(opened())
        recorder.closed(ended())
        assert recorder.stats().queued == 1
        assert await recorder.drain(20)
        assert recorder.stats().written == 1


async def test_a_record_is_in_the_file_when_the_call_returns(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url, recorder_flush_s=60.0) as (recorder, _):
        recorder.opened(opened(1))
        recorder.closed(ended(1))
        [path] = segments(tmp_path)
        assert read_segment(path).records == [opened(1), ended(1)]
        assert recorder.stats().spooled_bytes == path.stat().st_size


async def test_full_segments_are_followed_by_new_ones_and_vanish_once_stored(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with recording(tmp_path, database.url, spool_segment_bytes=1100, recorder_flush_s=60.0) as (recorder, store):
        for number in range(20):
            recorder.closed(ended(number))
        made = segments(tmp_path)
        assert len(made) == 10
        assert all(path.stat().st_size < 2500 for path in made)
        assert await recorder.drain(20)
        await until(lambda: recorder.stats().spooled_bytes == 0)
        assert segments(tmp_path) == []
        assert len(await store.list_calls()) == 20


def test_a_segment_stays_while_the_database_cannot_promise_that_it_is_on_the_disk(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(5, "the disk is broken")

    spool = Spool(tmp_path / "spool", segment_bytes=1)
    spool.open()
    segment = spool.append(frame(ended()))
    assert segment is not None
    spool.release([segment])
    with pytest.raises(OSError, match="broken"):
        settle(spool.touched(), fail)
    assert read_segment(segment.path).records == [ended()]
    settle([segment], lambda: None)
    assert segments(tmp_path) == []
    spool.close()


async def test_text_that_no_encoding_carries_is_kept_legible(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (recorder, store):
        recorder.opened(replace(opened(), model="half \ud800 pair"))
        recorder.closed(replace(ended(), error_message="\udfff"))
        recorder.opened(replace(opened(2), model="nul \0 within"))
        recorder.closed(replace(ended(2), error_message="\\u0000 is no \0"))
        assert await recorder.drain(20)
        found = [await store.get_call(f"call-00000{number}") for number in (1, 2)]
        assert [call.error_message for call in found if isinstance(call, Call)] == ["?", "\\u0000 is no ?"]
        assert recorder.stats().lost == 0


async def test_a_record_that_the_database_refuses_does_not_stop_the_others(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    bad = replace(ended(2), usage=Usage(prompt_tokens=2**70))
    async with recording(tmp_path, database.url, recorder_flush_s=60.0) as (recorder, store):
        for call in (ended(1), bad, ended(3)):
            recorder.closed(call)
        assert await recorder.drain(20)
        assert [call.opened.id for call in await store.list_calls() if isinstance(call, Call)] == [
            "call-000003",
            "call-000001",
        ]
        assert (recorder.stats().lost, recorder.stats().written) == (1, 2)
    assert b"call-000002" in (tmp_path / "spool" / "refused.lines").read_bytes()


# --- after a crash ------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans()).map(lambda pick: ended(pick[0]) if pick[1] else opened(pick[0])),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, cuts=st.lists(st.integers(0, 25), max_size=3))
def test_any_order_and_repetition_of_records_gives_the_same_rows(
    database: ScratchDatabase, records: Sequence[Call | CallOpened], cuts: list[int]
) -> None:
    expected: dict[str, CallStatus] = {}
    for record in records:
        if isinstance(record, Call):
            expected[record.opened.id] = CallStatus.OK
        else:
            expected.setdefault(record.id, CallStatus.INTERRUPTED)

    async def replay(directory: Path) -> dict[str, CallStatus]:
        await database.empty()  # of the example before
        edges = [0, *sorted(cuts), len(records)]
        for number, (start, end) in enumerate(pairwise(edges), 1):
            leave_spool(directory, *records[start:end], number=number)
        async with recording(directory, database.url, recorder_batch=3) as (recorder, store):
            assert segments(directory) == []
            assert recorder.stats().interrupted == sum(s is CallStatus.INTERRUPTED for s in expected.values())
            calls = await store.list_calls()
            ends = [call for call in calls if isinstance(call, Call)]
            assert len(ends) == len(calls)
            assert all(call == ended(int(call.opened.id[5:])) for call in ends if call.status is CallStatus.OK)
            return {call.opened.id: call.status for call in ends}

    with tempfile.TemporaryDirectory() as directory:
        assert asyncio.run(replay(Path(directory))) == expected


VICTIM = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from tests.test_recorder import opened, ended, recording

async def main():
    async with recording(Path(sys.argv[1]), sys.argv[3], spool_segment_bytes=20_000) as (recorder, store):
        number = 0
        while True:
            recorder.opened(opened(number))
            print("opened", number, flush=True)
            if number % 3:
                recorder.closed(ended(number))
                print("closed", number, flush=True)
            number += 1
            if number % 20 == 0:
                await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 900])
async def test_kill_9_loses_no_acknowledged_record(tmp_path: Path, database: ScratchDatabase, lines: int) -> None:
    root = Path(__file__).parent.parent
    arguments = [sys.executable, "-c", VICTIM, str(tmp_path), str(root), database.url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root) as victim:
        assert victim.stdout is not None
        seen = [victim.stdout.readline().split() for _ in range(lines)]
        victim.send_signal(signal.SIGKILL)
        rest = [line.split() for line in victim.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    said = {(word, int(number)) for word, number in seen + rest}
    async with recording(tmp_path, database.url) as (recorder, store):
        found = {call.opened.id: call for call in await store.list_calls(limit=10**6) if isinstance(call, Call)}
        assert await store.list_orphans() == []
        for word, number in said:
            call = found[opened(number).id]
            assert call.opened == opened(number)
            if word == "closed":
                assert call == ended(number)
            elif ("closed", number) not in said and number % 3 == 0:
                assert call.status is CallStatus.INTERRUPTED
        assert recorder.stats().lost == 0


async def test_a_torn_last_line_is_counted_and_the_rest_replayed(tmp_path: Path, database: ScratchDatabase) -> None:
    leave_spool(tmp_path, ended(1), opened(2), tail=frame(ended(2))[:-10])
    async with recording(tmp_path, database.url) as (recorder, store):
        assert await store.get_call("call-000001") == ended(1)
        stats = recorder.stats()
        assert (stats.replayed, stats.torn, stats.interrupted) == (2, 1, 1)
        assert stats.interrupted_at_s == NOON.timestamp()
    assert list((tmp_path / "spool").glob("*.damaged")) == []


async def test_a_segment_damaged_in_the_middle_is_kept_aside(tmp_path: Path, database: ScratchDatabase) -> None:
    line = bytearray(frame(ended(2)))
    line[100] ^= 1
    leave_spool(tmp_path, ended(1), tail=bytes(line) + frame(ended(3)))
    async with recording(tmp_path, database.url) as (recorder, store):
        assert await store.get_call("call-000003") == ended(3)
        assert await store.get_call("call-000002") is None
        assert recorder.stats().torn == 1
        recorder.closed(ended(4))
        assert [path.stem for path in segments(tmp_path)] == ["000000000002"]
    assert [path.stem for path in (tmp_path / "spool").glob("*.damaged")] == ["000000000001"]


@pytest.mark.parametrize("content", [b"", b"simsa-sp"])
async def test_a_segment_cut_short_in_its_header_is_no_obstacle(
    tmp_path: Path, database: ScratchDatabase, content: bytes
) -> None:
    leave_spool(tmp_path)
    (tmp_path / "spool" / "000000000001.spool").write_bytes(content)
    async with recording(tmp_path, database.url) as (recorder, _):
        assert recorder.stats().torn == 1
    assert list((tmp_path / "spool").iterdir()) == [tmp_path / "spool" / "lock"]


async def test_a_spool_of_a_newer_version_is_refused_with_its_name(tmp_path: Path, database: ScratchDatabase) -> None:
    leave_spool(tmp_path)
    (tmp_path / "spool" / "000000000001.spool").write_bytes(b"simsa-spool 2\n")
    store = await Store.open(database.url)
    with pytest.raises(StartRefused, match=r"000000000001\.spool.*newer"):
        await Recorder(tmp_path / "spool", store, quick()).start()
    await store.close()


async def test_two_recorders_never_share_a_spool(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (_, store):
        with pytest.raises(StartRefused, match="SIMSA_DATA_DIR"):
            await Recorder(tmp_path / "spool", store, quick()).start()


@given(st.binary(max_size=200), st.integers(0, 600))
def test_reading_a_segment_never_fails_whatever_is_in_it(noise: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "000000000001.spool"
        path.write_bytes((HEADER + frame(opened()) + frame(ended()))[:cut] + noise)
        contents = read_segment(path)
        assert all(record in (opened(), ended()) for record in contents.records)


# --- the database is away -----------------------------------------------------------------------------------


async def test_a_locked_database_only_delays(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (recorder, store):
        async with database.locked():
            for number in range(20):
                recorder.opened(opened(number))
                recorder.closed(ended(number))
            await until(lambda: recorder.stats().database_failing is not None)
            assert database.locked_words in str(recorder.stats().database_failing)
            assert recorder.stats().queued == 20
            recorder.opened(opened(20))
        assert await recorder.drain(20)
        assert recorder.stats().database_failing is None
        assert len(await store.list_calls()) == 21


async def test_what_a_locked_database_could_not_take_before_the_stop_comes_with_the_next_start(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    store = await Store.open(database.url, IMPATIENT)
    recorder = Recorder(tmp_path / "spool", store, quick())
    await recorder.start()
    async with database.locked():
        recorder.closed(ended())
        await recorder.stop(deadline_s=0.1)
        assert recorder.stats().lost == 0
        await store.close()
    async with recording(tmp_path, database.url) as (_, again):
        assert await again.get_call("call-000001") == ended()


async def test_a_start_with_the_database_away_serves_and_catches_up(tmp_path: Path, database: ScratchDatabase) -> None:
    leave_spool(tmp_path, opened(1), ended(2))
    store = await Store.open(database.url, IMPATIENT)
    async with database.locked():
        recorder = Recorder(tmp_path / "spool", store, quick())
        await recorder.start()
        recorder.opened(opened(3))
    assert await recorder.drain(20)
    found = await store.list_calls()
    assert [call.status if isinstance(call, Call) else "open" for call in found] == ["open", "ok", "interrupted"]
    await recorder.stop()
    await store.close()


async def test_a_database_that_is_gone_loses_nothing_once_it_is_back(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (recorder, store):
        async with database.gone():
            recorder.closed(ended())
            await until(lambda: recorder.stats().database_failing is not None)
            assert re.search(database.gone_words, str(recorder.stats().database_failing))
        assert await recorder.drain(20)
        assert await store.get_call("call-000001") == ended()


async def test_new_calls_are_not_accepted_when_memory_is_full_but_open_ones_still_end(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with recording(tmp_path, database.url, recorder_queue=3) as (recorder, store):
        async with database.locked():
            for number in range(3):
                assert recorder.accepting
                recorder.opened(opened(number))
            assert not recorder.accepting
            for number in range(3):
                recorder.closed(ended(number))
        assert await recorder.drain(20)
        assert recorder.accepting
        assert await store.list_calls() == [ended(2), ended(1), ended(0)]


async def test_lag_is_the_age_of_the_oldest_unwritten_record(tmp_path: Path, database: ScratchDatabase) -> None:
    ticks = iter([10.0, 12.0, 15.0])
    store = await Store.open(database.url)
    recorder = Recorder(tmp_path / "spool", store, quick(recorder_flush_s=60.0), clock=lambda: next(ticks))
    await recorder.start()
    recorder.opened(opened(1))
    recorder.opened(opened(2))
    recorder.closed(ended(1))
    assert recorder.stats().lag_s == 5.0
    await recorder.stop()
    await store.close()


# --- the spool cannot be written ----------------------------------------------------------------------------


def put_full_devices(directory: Path, count: int) -> None:
    """The next `count` segments lie on a device that is full: a real ENOSPC."""
    (directory / "spool").mkdir(exist_ok=True)
    for number in range(1, count + 1):
        (directory / "spool" / f"{number:012d}.spool").symlink_to("/dev/full")


async def recorder_on_full_device(directory: Path, url: str, count: int) -> tuple[Recorder, Store]:
    store = await Store.open(url, IMPATIENT)
    recorder = Recorder(directory / "spool", store, quick())
    await recorder.start()
    put_full_devices(directory, count)
    return recorder, store


async def test_a_full_disk_leaves_the_database_and_is_told_until_it_is_over(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    recorder, store = await recorder_on_full_device(tmp_path, database.url, 3)
    recorder.opened(opened(1))
    recorder.closed(ended(1))
    recorder.opened(opened(2))
    assert recorder.spool_failing
    assert recorder.stats().spool_failing == os.strerror(28)
    assert await recorder.drain(20)
    assert await store.list_calls() == [opened(2), ended(1)]
    recorder.closed(ended(2))
    assert not recorder.spool_failing
    assert await recorder.drain(20)
    assert await store.get_call("call-000002") == ended(2)
    await recorder.stop()
    assert recorder.stats().lost == 0
    await store.close()


async def test_a_disk_that_does_not_sync_is_told_and_nothing_is_lost(tmp_path: Path, database: ScratchDatabase) -> None:
    async with recording(tmp_path, database.url) as (recorder, store):
        (tmp_path / "spool" / "000000000001.spool").symlink_to("/dev/null")  # takes every write, refuses fsync
        recorder.closed(ended(1))
        await until(lambda: recorder.spool_failing)
        assert await recorder.drain(20)
        recorder.closed(ended(2))
        assert not recorder.spool_failing
        assert await recorder.drain(20)
        assert await store.list_calls() == [ended(2), ended(1)]


async def test_records_that_a_full_disk_refused_are_spooled_when_there_is_room_again(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    recorder, store = await recorder_on_full_device(tmp_path, database.url, 2)
    async with database.locked():
        recorder.opened(opened(1))
        recorder.closed(ended(1))
        assert recorder.spool_failing
        await recorder.stop(deadline_s=0.01)
        await store.close()
    assert recorder.stats().lost == 0
    async with recording(tmp_path, database.url) as (_, again):
        assert await again.get_call("call-000001") == ended(1)


async def test_what_neither_spool_nor_database_took_is_counted_as_lost(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    recorder, store = await recorder_on_full_device(tmp_path, database.url, 1000)
    async with database.locked():
        recorder.closed(ended(1))
        with structlog.testing.capture_logs() as lines:
            await recorder.stop(deadline_s=0.01)
        assert recorder.stats().lost == 1
        assert [line["lost"] for line in lines if line["event"].startswith("records are lost")] == [1]
        await store.close()


# --- its own work fails in a way that nobody foresaw --------------------------------------------------------


@contextmanager
def log_that_raises() -> Iterator[None]:
    """Every log line raises where it is told."""

    def refuse(*_: object) -> str:
        raise OSError(28, os.strerror(28))

    before = structlog.get_config()
    structlog.configure(processors=[refuse])
    try:
        yield
    finally:
        structlog.configure(**before)


async def test_writing_begins_anew_after_an_unexpected_failure_and_loses_nothing(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    store = await Store.open(database.url, IMPATIENT)
    failures: list[str] = []
    recorder = Recorder(tmp_path / "spool", store, quick(recorder_batch=2), count_failure=failures.append)
    await recorder.start()
    put_full_devices(tmp_path, 2)
    with log_that_raises():
        async with database.locked():
            for number in (1, 2, 3):
                recorder.opened(opened(number))
            await asyncio.sleep(0)
            for number in (1, 2):
                recorder.closed(ended(number))
            await until(lambda: failures == ["recorder"])
            assert recorder.stats().queued == 3
            assert recorder.accepting
            recorder.closed(ended(3))
        assert await recorder.drain(20)
    assert await store.list_calls() == [ended(3), ended(2), ended(1)]
    await recorder.stop()
    await store.close()
    assert recorder.stats().lost == 0
    assert segments(tmp_path) == []


async def test_start_goes_on_though_what_an_earlier_process_left_makes_it_stumble(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    leave_spool(tmp_path, ended(1), tail=b"torn", number=1)
    leave_spool(tmp_path, ended(2), number=2)
    with log_that_raises():
        async with recording(tmp_path, database.url) as (recorder, store):
            recorder.closed(ended(3))
            assert await recorder.drain(20)
            assert await store.list_calls() == [ended(3), ended(2), ended(1)]


def test_segment_whose_settling_failed_is_settled_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", segment_bytes=1)
    spool.open()
    segment = spool.append(b"a line\n")
    assert segment is not None
    touched = spool.touched()
    spool.touch_again(touched)
    assert spool.touched() == touched == [segment]
    segment.is_removed = True
    spool.touch_again(touched)
    assert spool.touched() == []
    spool.close()
