"""Organisations, keys and use in the database: what comes back, what is summed up, what is counted as a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from databases import ScratchDatabase

from gateway.accounts import Accounts
from gateway.domain.accounts import Budget, Key, Limits, Organisation, Period, Role, Terms
from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Priority, Provenance, Timing, Usage
from gateway.errors import InvalidRequest, NotFound, Unavailable
from gateway.key_ring import KeyRing
from gateway.limits import Limiter
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


async def test_what_was_spent_is_restored_into_its_day_and_month(store: Store, accounts: Accounts) -> None:
    calls = [call(1, NOON), call(2, NOON + timedelta(days=3)), call(3, NOON + timedelta(days=3), who=None)]
    await store.upsert_calls(calls)
    wall = (NOON + timedelta(days=3, hours=1)).timestamp()
    limiter = Limiter(now=lambda: 0.0, wall=lambda: wall)
    await limiter.restore(accounts.usage(NOON.date(), NOON.date() + timedelta(days=3)))
    ledgers = limiter.ledgers("key-1")
    assert ledgers is not None
    assert [ledger.spent("tokens") for ledger in ledgers] == [20, 40]
    assert [ledger.spent("KRW") for ledger in ledgers] == [Decimal("0.1"), Decimal("0.2")]


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
