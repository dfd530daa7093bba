"""Backups of either kind of database, made beside a gateway at work, and put back into either kind: all or nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from closed_rounds import ID as CLOSED_ROUND
from closed_rounds import put_closed_round
from databases import ScratchDatabase
from gateways import entry, running_gateway
from hypothesis import given
from hypothesis import strategies as st
from next_versions import NEXT, OURS, NextVersion
from old_databases import (
    HEAD,
    Written,
    as_known_at,
    everything_told,
    make_old,
    put_records,
    tables_in,
    tables_of,
    unknown_at,
    written,
)
from processes_under_test import run_simsa
from test_postgresql import opened_store
from test_store import NOON, ended, opened

from gateway.backup import back_up, restore
from gateway.backup_file import BackupReader, BackupWriter, Header, opened_backup
from gateway.domain.records import Call, CallOpened, CallStatus
from gateway.errors import StartRefused
from gateway.rounds.bundle import BundleKind, build_bundle
from gateway.rounds.bundle_tools import TOOLS
from gateway.rounds.contents import read_content
from gateway.rounds.store import RoundStore
from gateway.settings import DatabaseLimits
from gateway.spool import Segment, frame
from gateway.store import Store

LIMITS = DatabaseLimits()
HEADER = Header(kind="simsa.backup", format=1, revision=HEAD, made_at="now", made_by="0", database="sqlite")
Lines = list[bytes]


@pytest.fixture(params=["empty_sqlite_file", "empty_postgres"], ids=["into-sqlite", "into-postgresql"])
def target(request: pytest.FixtureRequest) -> ScratchDatabase:
    found: ScratchDatabase = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "simsa.backup"


@pytest.fixture
async def whole(tmp_path: Path, file: Path) -> Written:
    """A backup with rows of every kind, written to `file`."""
    found = await written(tmp_path, HEAD)
    file.write_bytes(found.backup)
    return found


# --- there and back -----------------------------------------------------------------------------------------


async def test_what_a_running_gateway_has_comes_back_in_either_kind_of_database(
    database: ScratchDatabase, target: ScratchDatabase, tmp_path: Path, file: Path
) -> None:
    async with opened_store(database.url, LIMITS) as store:
        await put_records(store)
        await back_up(database.url, file, LIMITS, now=NOON)
        told, bundle = await everything_told(store), await bundle_of(store)
    assert unknown_at("0001", tables_in(file)), "there is something of every kind"
    await restore(target.url, file, LIMITS, replace=False)
    assert await tables_of(target.url, tmp_path) == tables_in(file)
    async with opened_store(target.url, LIMITS) as store:
        assert await everything_told(store) == told
        assert await bundle_of(store) == bundle
        await store.upsert_calls([opened(900)])


async def test_a_round_verifies_after_the_restore_with_what_was_published_before(
    postgres: ScratchDatabase, empty_sqlite_file: ScratchDatabase, tmp_path: Path, file: Path
) -> None:
    async with opened_store(postgres.url, LIMITS) as store:
        closed = await put_closed_round(RoundStore(store))
        await closed.reveal()
        before = await closed.content()
        await back_up(postgres.url, file, LIMITS, now=NOON)
    await restore(empty_sqlite_file.url, file, LIMITS, replace=False)
    async with opened_store(empty_sqlite_file.url, LIMITS) as store:
        (tmp_path / "after.zip").write_bytes(await bundle_of(store))
        (tmp_path / "receipt.json").write_text(json.dumps(closed.receipt))
    published = ("--root", str(before.round.root), "--head", str(before.round.head), "--closing", before.closing.root)
    receipt = ("--receipt", str(tmp_path / "receipt.json"))
    told = await run_simsa("round", "verify", str(tmp_path / "after.zip"), *published, *receipt)
    assert told.code == 0, told.err
    assert json.loads(told.out)["verdict"] == "authenticated"


async def bundle_of(store: Store) -> bytes:
    """The closed round's audit bundle, which is the same bytes for the same content."""
    rounds = RoundStore(store)
    found = await rounds.get(CLOSED_ROUND)
    assert found is not None
    return build_bundle(await read_content(rounds, found), BundleKind.AUDIT, tools=TOOLS).data


async def test_a_backup_made_while_calls_are_written_is_of_one_moment(
    database: ScratchDatabase, tmp_path: Path
) -> None:
    """The sums of a day are written in one transaction with the calls that they are made of."""
    counts: list[int] = []
    async with opened_store(database.url, LIMITS) as store, asyncio.TaskGroup() as tasks:

        async def write() -> None:
            number = 0
            while len(counts) < 5:
                await store.upsert_calls([ended(opened(10 * number + n)) for n in range(10)])
                number += 1

        tasks.create_task(write())
        while len(counts) < 5:
            file = tmp_path / f"{len(counts)}"
            await back_up(database.url, file, LIMITS, now=NOON)
            tables = tables_in(file)
            assert sum(int(row["calls"]) for row in tables["use_by_day"]) == len(tables["calls"])
            assert sum(int(row["calls"]) for row in tables["spent_by_day"]) == len(tables["calls"])
            counts.append(len(tables["calls"]))
    assert counts[0] < counts[-1]


@pytest.mark.parametrize("revision", ["0003", "0011"])
async def test_an_older_backup_is_put_back_and_brought_up_to_date(
    target: ScratchDatabase, tmp_path: Path, file: Path, revision: str
) -> None:
    expected = await written(tmp_path, revision)
    old = f"sqlite:///{tmp_path / 'old.db'}"
    await make_old(old, revision, expected.tables)
    await back_up(old, file, LIMITS, now=NOON)
    with opened_backup(file) as backup:
        assert backup.header.revision == revision
    assert tables_in(file) == as_known_at(revision, expected.tables)
    await restore(target.url, file, LIMITS, replace=False)
    async with opened_store(target.url, LIMITS) as store:
        assert await everything_told(store) == expected.told


# --- what a restore does not do -----------------------------------------------------------------------------


async def test_rows_are_removed_by_a_restore_only_where_that_was_said(
    database: ScratchDatabase, whole: Written, tmp_path: Path, file: Path
) -> None:
    await put_two_calls(database)
    settings = {"database_url": database.url, "data_dir": tmp_path / "data"}
    refused = await run_simsa("db", "restore", str(file), **settings)
    assert refused.code == 2
    assert "has rows (calls, " in refused.error_line
    assert refused.error_line.endswith("or remove them with --replace")
    assert await call_ids(database) == TWO
    done = await run_simsa("db", "restore", str(file), "--replace", **settings)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["rows"]["round_votes"] == len(whole.tables["round_votes"])
    assert await tables_of(database.url, tmp_path) == whole.tables


async def test_a_database_of_an_older_schema_is_replaced_whole(
    target: ScratchDatabase, whole: Written, tmp_path: Path, file: Path
) -> None:
    await make_old(target.url, "0009", whole.tables)
    await restore(target.url, file, LIMITS, replace=True)
    assert await tables_of(target.url, tmp_path) == whole.tables


@pytest.mark.usefixtures("whole")
async def test_nothing_is_restored_while_a_gateway_has_the_database(database: ScratchDatabase, file: Path) -> None:
    async with opened_store(database.url, LIMITS):
        with pytest.raises(StartRefused, match="in use"):
            await restore(database.url, file, LIMITS, replace=True)


async def test_a_schema_that_this_version_does_not_know_is_neither_backed_up_nor_replaced(
    database: ScratchDatabase, tmp_path: Path, file: Path
) -> None:
    await back_up(database.url, file, LIMITS, now=NOON)
    await NextVersion(tmp_path, oldest_code=OURS).take_step(database.url)
    with pytest.raises(StartRefused, match=f"schema {NEXT}.*back it up with the version that it was upgraded to"):
        await back_up(database.url, tmp_path / "other", LIMITS, now=NOON)
    assert not (tmp_path / "other").exists()
    with pytest.raises(StartRefused, match=f"schema {NEXT}.*into another database"):
        await restore(database.url, file, LIMITS, replace=True)


async def test_what_is_no_database_has_no_backup(empty_database: ScratchDatabase, tmp_path: Path, file: Path) -> None:
    with pytest.raises(StartRefused, match=r"no tables yet|there is no file"):
        await back_up(empty_database.url, file, LIMITS, now=NOON)
    assert list(tmp_path.glob("*backup*")) == []


def cut(lines: Lines) -> bytes:
    return gzip.compress(b"".join(lines[:-1]))


def cut_gzip(lines: Lines) -> bytes:
    return gzip.compress(b"".join(lines))[:-20]


def with_another_vote(lines: Lines) -> bytes:
    return gzip.compress(b"".join(lines).replace(b'"reviewer-1"', b'"reviewer-2"'))


def without_a_row(lines: Lines) -> bytes:
    gone = next(n for n, line in enumerate(lines) if line.startswith(b"["))
    return gzip.compress(b"".join(lines[:gone] + lines[gone + 1 :]))


def with_more(lines: Lines) -> bytes:
    return gzip.compress(b"".join([*lines, b"[]\n"]))


def with_a_torn_line(lines: Lines) -> bytes:
    return gzip.compress(b"".join([lines[0], lines[1], b'["a\n', *lines[2:]]))


def of_another_form(lines: Lines) -> bytes:
    return gzip.compress(b"".join([lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]]))


def of_a_newer_schema(lines: Lines) -> bytes:
    return gzip.compress(b"".join([lines[0].replace(HEAD.encode(), b"9999"), *lines[1:]]))


def nothing_of_ours(_lines: Lines) -> bytes:
    return gzip.compress(b'{"kind":"other"}\n')


def no_gzip(_lines: Lines) -> bytes:
    return b"SQLite format 3\0" * 100


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut short"),
        (cut_gzip, "ended before|no whole backup"),
        (with_another_vote, "not those that were written"),
        (without_a_row, "not those that were written"),
        (with_more, "behind its end"),
        (with_a_torn_line, "none of Simsa's"),
        (of_another_form, "a form that this version does not know"),
        (of_a_newer_schema, "schema 9999"),
        (nothing_of_ours, "is no backup of Simsa's"),
        (no_gzip, "is no whole backup"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
@pytest.mark.usefixtures("whole")
async def test_a_file_that_is_no_whole_backup_is_refused_with_its_name(
    sqlite_file: ScratchDatabase, file: Path, damage: Callable[[Lines], bytes], words: str
) -> None:
    await put_two_calls(sqlite_file)
    file.write_bytes(damage(lines_of(file)))
    with pytest.raises(StartRefused, match=words) as refused:
        await restore(sqlite_file.url, file, LIMITS, replace=True)
    assert str(file) in str(refused.value)
    assert await call_ids(sqlite_file) == TWO


@pytest.mark.usefixtures("whole")
async def test_a_restore_that_fails_at_the_end_changes_nothing(database: ScratchDatabase, file: Path) -> None:
    await put_two_calls(database)
    file.write_bytes(cut(lines_of(file)))
    with pytest.raises(StartRefused, match="cut short"):
        await restore(database.url, file, LIMITS, replace=True)
    assert await call_ids(database) == TWO
    async with opened_store(database.url, LIMITS) as store:
        await store.upsert_calls([ended(opened(2))])


TWO = ["call-000001", "call-000002"]


async def put_two_calls(database: ScratchDatabase) -> None:
    async with opened_store(database.url, LIMITS) as store:
        await store.upsert_calls([ended(opened(1)), opened(2)])


async def call_ids(database: ScratchDatabase) -> list[str]:
    return [row["id"] for row in await database.rows("SELECT id FROM calls ORDER BY id")]


def lines_of(file: Path) -> Lines:
    return gzip.decompress(file.read_bytes()).splitlines(keepends=True)


# --- the file -----------------------------------------------------------------------------------------------


async def test_the_command_writes_a_new_file_that_only_its_owner_reads(
    tmp_path: Path, sqlite_file: ScratchDatabase
) -> None:
    file, settings = tmp_path / "a.backup", {"data_dir": tmp_path / "data"}
    done = await run_simsa("db", "backup", str(file), **settings)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["schema"] == HEAD
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    refused = await run_simsa("db", "backup", str(file), **settings)
    assert refused.code == 2
    assert "exists already" in refused.error_line
    assert file.read_bytes() == content
    missing = await run_simsa("db", "backup", str(tmp_path / "no" / "b.backup"), **settings)
    assert missing.error_line.endswith("cannot be written: No such file or directory")
    assert await run_simsa("db", "restore", str(tmp_path / "none"), **settings) == (
        2,
        "",
        f"simsa: {tmp_path / 'none'} cannot be read: No such file or directory\n",
    )


PLAIN = st.one_of(st.none(), st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary())
ROWS = st.lists(st.lists(PLAIN, min_size=3, max_size=3))


@given(ROWS, ROWS)
def test_values_come_back_from_the_file_as_they_were(first: list[list[Any]], second: list[list[Any]]) -> None:
    held = io.BytesIO()
    writer = BackupWriter(held, Path("f"), HEADER)
    for table, rows in (("first", first), ("second", second)):
        writer.begin(table, ("a", "b", "c"))
        writer.add(rows)
    writer.end()
    held.seek(0)
    read: dict[str, list[list[Any]]] = {"first": [], "second": []}
    for rows in BackupReader(held, Path("f")):
        read[rows.table] += rows.values
    assert read == {"first": first, "second": second}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1E-18"), "0.000000000000000001"),
        (Decimal("1E+4"), "10000"),
        (Decimal("0.10"), "0.10"),
        (datetime(2026, 3, 1, 12, 0, tzinfo=UTC), "2026-03-01 12:00:00.000000+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (True, 1),
        (float("inf"), float("inf")),
    ],
    ids=str,
)
def test_what_one_kind_of_database_gives_is_what_the_other_takes(value: Any, text: Any) -> None:
    held = io.BytesIO()
    writer = BackupWriter(held, Path("f"), HEADER)
    writer.begin("t", ("a",))
    writer.add([[value]])
    writer.end()
    held.seek(0)
    (rows,) = BackupReader(held, Path("f"))
    assert rows.values == [[text]]


# --- beside the database ------------------------------------------------------------------------------------


async def test_after_a_restore_the_spool_still_has_what_came_later_and_what_was_open_is_interrupted(
    tmp_path: Path, sqlite_file: ScratchDatabase, file: Path
) -> None:
    async with opened_store(sqlite_file.url, LIMITS) as store:
        await store.upsert_calls([ended(opened(1)), opened(2)])
        await back_up(sqlite_file.url, file, LIMITS, now=NOON)
        await store.upsert_calls([ended(opened(2)), ended(opened(3))])
    spool = tmp_path / "data" / "spool"
    spool.mkdir()
    segment = Segment(spool / "000000000001.spool")
    segment.append(b"simsa-spool 1\n")
    segment.append(frame(ended(opened(4))))
    segment.is_sealed = True
    segment.sync()
    await restore(sqlite_file.url, file, LIMITS, replace=True)
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway:
        found = await gateway.services.store.list_calls()
    assert statuses(found) == {
        "call-000001": CallStatus.OK,
        "call-000002": CallStatus.INTERRUPTED,  # its end was in the database after the backup, and nowhere else
        "call-000004": CallStatus.OK,
    }


def statuses(found: Sequence[Call | CallOpened]) -> dict[str, CallStatus]:
    return {call.opened.id: call.status for call in found if isinstance(call, Call)}
