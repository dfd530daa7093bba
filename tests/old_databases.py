"""Databases of every schema that there was, with rows of every kind that it had a place for.

`put_records` writes, with the code of today, what a gateway that knew no later step could have written. What a
database holds is read from a backup of it, where rows of either kind of database look the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from closed_rounds import ID as CLOSED_ROUND
from closed_rounds import count_choices, put_closed_round
from test_energy_watch import row as energy_row
from test_engine_records import REPORT, load
from test_load_runs import small as small_load_run
from test_round_store import ROUND as OPEN_ROUND
from test_round_store import chained, open_round
from test_settlements import at as at_noon
from test_settlements import call as gpu_call
from test_settlements import no_price, presence, price, settle_all
from test_store import NOON, comparison, ended, opened

from gateway.accounts import Accounts
from gateway.backup import back_up, put_rows
from gateway.backup_file import Rows, opened_backup
from gateway.batch_store import Batch, BatchPrompt, BatchStatus, BatchStore, ItemEnd, ItemStatus
from gateway.cost_sums import CostSums
from gateway.database import alone_with
from gateway.domain.accounts import EVERYTHING, Key, Organisation, Terms
from gateway.domain.records import CallStatus, Cost, Usage
from gateway.domain.rounds import Reviewer
from gateway.energy_records import EnergyRecords
from gateway.engine_records import EngineRecords, LoadRow
from gateway.load_run_checks import Document, checked
from gateway.load_runs import LoadRuns
from gateway.rounds.bundle import BundleKind, Tools, build_bundle
from gateway.rounds.chair_sessions import ChairSessions
from gateway.rounds.contents import read_content
from gateway.rounds.store import RoundStore
from gateway.schema_steps import step_up, steps, tables_at
from gateway.settings import DatabaseLimits
from gateway.settlements import Settlements
from gateway.store import Store

HEAD = steps()[-1]
MADE_BY_STEPS = {"use_by_day": "0004", "gpu_days": "0007", "spent_by_day": "0007", "refused_windows": "0007"}
"""Tables that a step fills from what is there: since which one."""
FIRST_DAY, LAST_DAY = date(2026, 1, 1), date(2026, 12, 31)
_SAME_RECORDS = {"0007": "0006", "0010": "0009", "0014": "0013"}
_WRITTEN: dict[str, Written] = {}
_NUMBERS = count(1)
Tables = Mapping[str, list[dict[str, Any]]]


# --- writing ------------------------------------------------------------------------------------------------


async def put_records(store: Store, revision: str = HEAD) -> None:
    """Rows of every kind that the schema after this step has a place for."""
    await _put_calls(store, revision)
    if revision >= "0002":
        await _put_accounts(Accounts(store))
    if revision >= "0003":
        await _put_batch(BatchStore(store), revision)
    if revision >= "0005":
        await store.upsert_calls([gpu_call(21, 0, 30), gpu_call(22, 10, 90), gpu_call(23, 0, 30, gpu="h200")])
        await Settlements(store).note_presences([(presence(-30, 600), at_noon(-30))])
        await settle_all(store, lambda gpu, on: price(gpu, on) if gpu == "h100-sxm" else no_price(gpu, on))
    if revision >= "0006":
        await EngineRecords(store).save([REPORT], [LoadRow(REPORT.id, "gateway-1", NOON, 60, load(0, 1))])
    if revision >= "0008":
        await EnergyRecords(store).save([energy_row(0, readings=6, up_us=60_000_000, millijoules=2**52, reason="왜")])
    if revision >= "0009":
        await _put_rounds(RoundStore(store), revision)
    if revision >= "0013":
        run, spreads = small_load_run()
        await LoadRuns(store).keep(Document(run, spreads), checked(run, {}), EVERYTHING, NOON)
    if revision >= "0015":
        await ChairSessions(store, caller_of=lambda _key: None).begin(EVERYTHING)


async def _put_calls(store: Store, revision: str) -> None:
    owned: dict[str, Any] = {} if revision >= "0002" else {"organisation": None, "key": None, "prompt_estimate": None}
    charged = {"charged_tokens": 46 if revision >= "0002" else None}
    estimated = {"estimated_cost": Decimal("0.5") if revision >= "0004" else None}
    unknown, dear = Cost(None, "KRW", "unknown", "no price"), Decimal("12345678901234567890.1234500")
    uncounted = {"status": CallStatus.ERROR, "usage": Usage(None, None, None, None, "unknown"), "error_type": "timeout"}
    await store.upsert_calls(
        [
            ended(opened(1, comparison_id="cmp-0001", run_id="run-1", **owned), **charged, error_message="널 줄\n바꿈"),
            ended(opened(2, **owned), **charged, **estimated, **uncounted, cost=unknown),
            ended(opened(3, **owned), **charged, cost=Cost(dear, "KRW", "api_price")),
            opened(4, **owned),
        ]
    )
    organisation = {"organisation": "acme"} if revision >= "0002" else {}
    await store.save_comparison(replace(comparison(1, "질문\u0000"), **organisation))


async def _put_accounts(accounts: Accounts) -> None:
    await accounts.create_organisation(Organisation("acme", "수요기관", NOON))
    key = Key("key-1", "acme", "시험", "simsa-ab", NOON, None, None, Terms(models=frozenset({"exaone"})))
    await accounts.create_key(key, "ab" * 32)


async def _put_batch(batches: BatchStore, revision: str) -> None:
    batch = Batch("batch-1", "묶음", NOON, None, BatchStatus.RUNNING, ("exaone", "kanana"), {}, None, 1, "d", "acme")
    await batches.create(batch, [BatchPrompt("p1", [{"role": "user", "content": "하나"}]), BatchPrompt("p2", [], 9)])
    made = replace(comparison(2), batch_id="batch-1", batch_item=0, organisation="acme")
    await batches.keep(made, ItemEnd(ItemStatus.DONE, 1, made.id))


async def _put_rounds(rounds: RoundStore, revision: str) -> None:
    await rounds.create(OPEN_ROUND, {"links": "00"})
    await rounds.add_reviewers(OPEN_ROUND.id, [Reviewer("reviewer-1", "첫째", "expert")])
    await open_round(rounds)
    item = (await rounds.items(OPEN_ROUND.id))[0]
    for _ in range(3):
        await rounds.append_vote(OPEN_ROUND.id, item, chained)
    if revision >= "0011":  # before, no vote said what it had been shown, and none hid free words
        await put_closed_round(rounds, reviewers=3)
    if revision == "0011":
        await rounds.update(CLOSED_ROUND, lexicon=None)


# --- reading ------------------------------------------------------------------------------------------------


async def tables_of(url: str, directory: Path) -> Tables:
    """All rows of a database, by table and in an order that hangs on nothing but them."""
    file = directory / f"{next(_NUMBERS)}.backup"
    await back_up(url, file, DatabaseLimits(), now=datetime.now(UTC))
    return tables_in(file)


def tables_in(file: Path) -> Tables:
    with opened_backup(file) as backup:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in tables_at(backup.header.revision)}
        for rows in backup:
            found[rows.table] += [dict(zip(rows.columns, values, strict=True)) for values in rows.values]
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def as_known_at(revision: str, tables: Tables) -> Tables:
    """What of these rows the schema after this step has a place for."""
    return {
        name: sorted(({column: row[column] for column in columns} for row in tables[name]), key=repr)
        for name, columns in tables_at(revision).items()
    }


def unknown_at(revision: str, tables: Tables) -> list[str]:
    """Tables and columns with something in them that the schema after this step has no place for, nor makes later."""
    kept = tables_at(revision)
    found = [name for name, rows in tables.items() if rows and name not in {*kept, *MADE_BY_STEPS, "account_changes"}]
    for name, columns in kept.items():
        found += [f"{name}.{key}" for row in tables[name] for key in row.keys() - {*columns} if row[key] is not None]
    return found


@dataclass(frozen=True)
class Written:
    """What `put_records` wrote for a schema, straight into the tables of today."""

    backup: bytes
    tables: Tables
    told: Mapping[str, Any]


async def written(directory: Path, revision: str) -> Written:
    """Made once for each schema that has a place for something new."""
    kind = _SAME_RECORDS.get(revision, revision)
    if kind not in _WRITTEN:
        url = f"sqlite:///{directory / f'written-{kind}.db'}"
        store = await Store.open(url)
        try:
            await put_records(store, kind)
            told = await everything_told(store)
        finally:
            await store.close()
        file = directory / f"written-{kind}.backup"
        await back_up(url, file, DatabaseLimits(), now=NOON)
        _WRITTEN[kind] = Written(file.read_bytes(), tables_in(file), told)
    return _WRITTEN[kind]


async def make_old(url: str, revision: str, tables: Tables) -> None:
    """Give an empty database the schema after this step, with these rows."""
    known = as_known_at(revision, tables)
    async with alone_with(url, DatabaseLimits(), doing="made old") as connection:
        await connection.run_sync(step_up, revision)
        for name in reversed(known):
            await connection.execute(sa.delete(sa.table(name)))  # what a step put there itself
        await put_rows(connection, [_as_rows(name, rows) for name, rows in known.items() if rows])


def _as_rows(name: str, rows: Sequence[dict[str, Any]]) -> Rows:
    return Rows(name, tuple(rows[0]), [list(row.values()) for row in rows])


async def everything_told(store: Store) -> dict[str, Any]:
    """What the code that people meet tells of a database that has `put_records`."""
    accounts, batches, rounds, sums = Accounts(store), BatchStore(store), RoundStore(store), CostSums(store)
    days = (FIRST_DAY, LAST_DAY)
    closed = await rounds.get(CLOSED_ROUND)
    bundle = None
    if closed is not None:
        bundle = build_bundle(await read_content(rounds, closed), BundleKind.AUDIT, tools=Tools(count_choices))
    return {
        "calls": await store.list_calls(),
        "open": await store.list_orphans(),
        "comparisons": await store.list_comparisons(limit=10),
        "organisations": await accounts.list_organisations(),
        "keys": await accounts.list_valid_keys(),
        "use": [row async for row in accounts.usage(date(2026, 3, 1), date(2026, 3, 1))],
        "batches": await batches.newest(10),
        "items": await batches.items("batch-1"),
        "spent": await sums.spent(*days, by="model"),
        "GPU time": await sums.gpu_time(*days),
        "unattributed": await sums.unattributed(*days),
        "engines": await EngineRecords(store).list_reports(),
        "energy": await EnergyRecords(store).sums(*days),
        "load runs": [await LoadRuns(store).found(run.id) for run in await LoadRuns(store).newest(10)],
        "rounds": await rounds.newest(10),
        "votes": await rounds.votes(OPEN_ROUND.id),
        "bundle": bundle and bundle.data,
    }
