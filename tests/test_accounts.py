"""Organisations, keys and use in the database: what comes back, what is summed up, what is counted as a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from alembic import command
from databases import ScratchDatabase
from test_store import on_schema, steps_on

from gateway.accounts import Accounts
from gateway.books import OwnBooks
from gateway.database import upgrade
from gateway.domain.accounts import Budget, Key, Limits, Organisation, Period, Role, Terms
from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Priority, Provenance, Timing, Usage
from gateway.errors import InvalidRequest, NotFound, Unavailable
from gateway.key_ring import KeyRing
from gateway.store import Store
from gateway.use_by_day import UsageRow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACME = Organisation("acme", "수요기관", NOON)
EVERY_TERM = Terms(
    roles=frozenset({Role.OPERATOR, Role.AUDITOR}),
    models=frozenset({"a", "b"}),
    routes=frozenset({"chat_completions"}),
    licences=frozenset({"NC"}),
    limits=Limits(1, 2, 3, (Budget(Period.DAY, "KRW", Decimal("0.10")), Budget(Period.MONTH, "tokens", Decimal(7))), 9),
    priority=Priority.BATCH,
    may_set_priority=True,
    may_use_background=True,
)


def key(number: int = 1, **changes: object) -> Key:
    made = Key(f"key-{number}", "acme", "시험", "simsa-abcdef", NOON, None, None, EVERY_TERM)
    return replace(made, **changes)  # type: ignore[arg-type]


def call(number: int, at: datetime, *, who: str | None = "key-1", cost: Cost | None = None, **changes: object) -> Call:
    opened = CallOpened(
        f"call-{number:04d}",
        "request",
        at,
        "a",
        "chat_completions",
        True,
        organisation="acme" if who else None,
        key=who,
        prompt_estimate=100,
    )
    made = Call(
        opened,
        at + timedelta(seconds=1),
        CallStatus.OK,
        200,
        "a/0",
        Provenance.REAL,
        1,
        None,
        None,
        None,
        "stop",
        Usage(12, 8, 4, None, "engine"),
        Timing(),
        cost or Cost(Decimal("0.1"), "KRW", "api_price"),
        charged_tokens=20,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


@pytest.fixture
async def accounts(store: Store) -> Accounts:
    accounts = Accounts(store)
    await accounts.create_organisation(ACME)
    return accounts


async def rows_of(accounts: Accounts, days: int = 1) -> list[UsageRow]:
    """Of so many days from the first of March on."""
    first = NOON.date()
    return [row async for row in accounts.usage(first, first + timedelta(days=days - 1))]


async def test_organisation_and_key_come_back_fact_for_fact(accounts: Accounts) -> None:
    made = key(expires_at=NOON + timedelta(days=1))
    await accounts.create_key(made, "d1")
    await accounts.create_key(key(2, terms=Terms()), "d2")
    assert await accounts.list_organisations() == [ACME]
    assert await accounts.list_keys() == [made, key(2, terms=Terms())]
    assert await accounts.list_keys("acme") == await accounts.list_keys()
    assert await accounts.list_keys("other") == []
    assert await accounts.list_valid_keys() == [("d1", made), ("d2", key(2, terms=Terms()))]


async def test_revoked_keys_and_organisations_keep_their_first_moment_and_count_no_more(accounts: Accounts) -> None:
    for number in (1, 2):
        await accounts.create_key(key(number), f"d{number}")
    for later in (0, 1):
        assert (await accounts.revoke_key("key-1", NOON + timedelta(hours=later))).revoked_at == NOON
    assert [digest for digest, _ in await accounts.list_valid_keys()] == ["d2"]
    assert (await accounts.revoke_organisation("acme", NOON)).revoked_at == NOON
    assert await accounts.list_valid_keys() == []
    with pytest.raises(NotFound):
        await accounts.create_key(key(3), "d3")


async def test_every_change_is_counted_and_a_failed_one_is_none(accounts: Accounts) -> None:
    count = await accounts.count_changes()
    await accounts.create_key(key(), "d1")
    await accounts.revoke_key("key-1", NOON)
    assert await accounts.count_changes() == count + 2
    with pytest.raises(InvalidRequest, match="'acme' already"):
        await accounts.create_organisation(ACME)
    with pytest.raises(NotFound):
        await accounts.revoke_key("key-9", NOON)
    assert await accounts.count_changes() == count + 2


async def test_use_is_summed_by_day_and_kind_of_cost_to_the_last_digit(store: Store, accounts: Accounts) -> None:
    tenth = Decimal("0.1000000000000000000001")
    calls = [call(n, NOON, cost=Cost(tenth, "KRW", "api_price")) for n in range(30)]
    calls += [call(30, NOON, cost=Cost(tenth, "USD", "api_price"))]
    calls += [call(31, NOON, cost=Cost(None, None, "unknown", "no price"))]
    calls += [call(32, NOON, provenance=Provenance.SIMULATED)]
    calls += [call(33, NOON + timedelta(days=1), who=None)]
    await store.upsert_calls([*calls, calls[0].opened, replace(calls[0].opened, id="open")])
    rows = await rows_of(accounts, 2)
    facts = [(r.day.day, r.key, r.provenance, r.currency, r.calls, r.cost, r.calls_without_cost) for r in rows]
    assert sorted(facts, key=str) == sorted(
        [
            (1, "key-1", "real", None, 1, None, 1),
            (1, "key-1", "real", "KRW", 30, 30 * tenth, 0),
            (1, "key-1", "real", "USD", 1, tenth, 0),
            (1, "key-1", "simulated", "KRW", 1, Decimal("0.1"), 0),
            (2, None, "real", "KRW", 1, Decimal("0.1"), 0),
        ],
        key=str,
    )
    first = next(row for row in rows if row.calls == 30)
    assert (first.prompt_tokens, first.completion_tokens, first.cached_tokens) == (360, 240, 120)
    assert (first.charged_tokens, first.day) == (600, date(2026, 3, 1))


async def test_days_of_use_are_days_of_utc(store: Store, accounts: Accounts) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    moments = [midnight - timedelta(microseconds=1), midnight, midnight + timedelta(days=1)]
    seoul = timezone(timedelta(hours=9))
    await store.upsert_calls([call(number, moment.astimezone(seoul)) for number, moment in enumerate(moments)])
    assert [row.day.day for row in await rows_of(accounts, 5)] == [1, 2, 3]
    assert [row.day.day for row in await rows_of(accounts, 1)] == [1]
    assert await rows_of(accounts, 0) == []


async def test_failures_and_estimates_are_counted(store: Store, accounts: Accounts) -> None:
    unknown = Cost(None, None, "unknown")
    counted = Usage(None, 3, source="counted")
    await store.upsert_calls(
        [
            call(1, NOON, cost=unknown, status=CallStatus.ERROR, usage=Usage(), charged_tokens=0),
            call(2, NOON, cost=unknown, status=CallStatus.CANCELLED, usage=counted, charged_tokens=103),
            replace(call(3, NOON).opened),
        ]
    )
    await store.mark_interrupted(["call-0003"], NOON)
    rows = await rows_of(accounts)
    assert sum(row.failed_calls for row in rows) == 2
    assert sum(row.calls_charged_by_estimate for row in rows) == 2
    assert sum(row.charged_tokens for row in rows) == 103 + 100, "what a killed gateway left open is the estimate"


async def by_hand(store: Store) -> dict[Any, list[Any]]:
    """What the sums must be: the stored calls added up one by one."""
    found: dict[Any, list[Any]] = {}
    for one in await store.list_calls(limit=10_000):
        if not isinstance(one, Call):
            continue
        place = (one.opened.started_at.date(), one.opened.key, one.provenance.value, one.cost.currency, one.cost.basis)
        sums = found.setdefault(place, [0, 0, 0, Decimal(0), Decimal(0)])
        sums[0] += 1
        sums[1] += one.charged_tokens or 0
        sums[2] += one.usage.prompt_tokens or 0
        sums[3] += one.cost.amount or 0
        sums[4] += one.estimated_cost or 0
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_sums_are_those_of_the_calls_whatever_is_written_how_often_and_in_which_order(
    store: Store, accounts: Accounts, seed: int
) -> None:
    random = Random(seed)
    costs = [
        Cost(Decimal("0.10"), "KRW", "api_price"),
        Cost(Decimal("1e-12"), "USD", "gpu_time_provisional"),
        Cost(None, "KRW", "unknown", "nobody counted"),
    ]
    calls = []
    for number in range(60):
        cost = random.choice(costs)
        calls.append(
            call(
                number % 40,
                NOON + timedelta(hours=random.randrange(72)) if number < 40 else calls[number % 40].opened.started_at,
                who=random.choice(["key-1", "key-2", None]) if number < 40 else calls[number % 40].opened.key,
                cost=cost,
                status=random.choice(list(CallStatus)),
                usage=random.choice([Usage(12, 8), Usage(None, 8), Usage()]),
                charged_tokens=random.choice([None, 0, 20, 2**60]),
                estimated_cost=Decimal("0.3") if cost.amount is None else None,
            )
        )
    for _ in range(12):
        some = random.sample(calls, 15)
        await store.upsert_calls([one.opened if random.random() < 0.4 else one for one in some])
        if random.random() < 0.3:
            await store.mark_interrupted([one.opened.id for one in random.sample(calls, 5)], NOON)
    summed = {
        (row.day, row.key, row.provenance, row.currency, row.cost_basis): [
            row.calls,
            row.charged_tokens,
            row.prompt_tokens,
            row.cost or 0,
            row.estimated_cost or 0,
        ]
        for row in await rows_of(accounts, 4)
    }
    assert summed == await by_hand(store)


async def test_calls_of_an_earlier_version_are_summed_up_by_the_step_to_this_one(
    empty_database: ScratchDatabase,
) -> None:
    url = empty_database.url
    await on_schema(url, lambda connection: command.upgrade(steps_on(connection), "0003"))
    moments = {"sqlite": "2026-03-01 12:00:00.000000+00:00", "postgresql": "2026-03-01 12:00:00+00"}
    for number, (tokens, cost, status) in enumerate(
        [(20, "0.1", "ok"), (2**62, "0.2", "ok"), (2**62, None, "error"), (2**62, "1e2", "ok"), (7, "5", "open")]
    ):
        known = ("NULL", "NULL", "'unknown'") if cost is None else (f"'{cost}'", "'KRW'", "'api_price'")
        await empty_database.execute(
            "INSERT INTO calls (id, request_id, started_at, model, endpoint, streamed, status, key, prompt_tokens,"
            " charged_tokens, cost_amount, cost_currency, cost_basis) VALUES"
            f" ('c{number}', 'r', '{moments[empty_database.kind]}', 'm', 'e', {'true'}, '{status}', 'key-1', NULL,"
            f" {tokens}, {', '.join(known)})"
        )
    await upgrade(url)
    store = await Store.open(url)
    try:
        rows = await rows_of(Accounts(store))
        facts = [(row.calls, row.failed_calls, row.charged_tokens, row.cost, row.calls_without_cost) for row in rows]
        assert sorted(facts, key=str) == sorted(
            [(3, 0, 20 + 2**63, Decimal("100.3"), 0), (1, 1, 2**62, None, 1)], key=str
        )
        await store.upsert_calls([replace(call(1, NOON), charged_tokens=2**62)] * 2)
        books = OwnBooks(now=lambda: 0.0, wall=NOON.timestamp)
        await books.restore(Accounts(store).usage(NOON.date(), NOON.date()))
        use = await books.use("key-1")
        assert use is not None
        assert use.day.spent["tokens"] == 20 + 2**63 + 2**62 + 2**62
        assert use.day.unpriced == 1
    finally:
        await store.close()


async def test_what_was_spent_is_restored_into_its_day_and_month(store: Store, accounts: Accounts) -> None:
    calls = [call(1, NOON), call(2, NOON + timedelta(days=3)), call(3, NOON + timedelta(days=3), who=None)]
    await store.upsert_calls(calls)
    wall = (NOON + timedelta(days=3, hours=1)).timestamp()
    books = OwnBooks(now=lambda: 0.0, wall=lambda: wall)
    await books.restore(accounts.usage(NOON.date(), NOON.date() + timedelta(days=3)))
    use = await books.use("key-1")
    assert use is not None
    assert [period.spent["tokens"] for period in (use.day, use.month)] == [20, 40]
    assert [period.spent["KRW"] for period in (use.day, use.month)] == [Decimal("0.1"), Decimal("0.2")]


async def test_ring_keeps_its_keys_while_the_database_is_away(accounts: Accounts, database: ScratchDatabase) -> None:
    ring = KeyRing(accounts)
    await ring.load()
    made, secret = await ring.create_key("acme", "시험", Terms(), None)
    async with database.gone():
        with pytest.raises(Unavailable):
            await ring.load()
        caller = ring.find(secret.encode())
        assert caller is not None
        assert (caller.key, caller.organisation) == (made.id, "acme")
    await ring.revoke_key(made.id)
    assert ring.find(secret.encode()) is None


async def test_key_ends_at_the_moment_of_its_expiry(accounts: Accounts) -> None:
    moment = [NOON.timestamp()]
    ring = KeyRing(accounts, wall=lambda: moment[0])
    _, secret = await ring.create_key("acme", "시험", Terms(), NOON + timedelta(seconds=1))
    assert ring.find(secret.encode()) is not None
    moment[0] += 1
    assert ring.find(secret.encode()) is None
