"""What is kept of a round, on both kinds of database: its life has one direction, its votes are one chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
import sqlalchemy as sa
from databases import ScratchDatabase

from gateway.domain.rounds import (
    AccessEntry,
    AnswerStatus,
    Approval,
    Choice,
    Clearance,
    Criterion,
    DesignOptions,
    Exclusion,
    ItemKind,
    PracticeItem,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundPlan,
    RoundPrompt,
    RoundStatus,
    Text,
    VoteEntry,
    plan_document,
    read_plan,
)
from gateway.rounds.reading import Records
from gateway.rounds.store import DraftChanged, RoundStore, WrongStatus
from gateway.rounds.tables import round_reviewers, rounds
from gateway.store import RowRefused, Store

NOW = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)
PLAN = RoundPlan(
    title=Text("1차 심사", "First round"),
    models=("a", "b"),
    prompts=(RoundPrompt("p1", "finance", "ko", "환율을 설명해 주세요."),),
    rubric=(
        Criterion("quality", Text("품질", "Quality"), Text("어느 쪽이 낫습니까?", "Which is better?"), Decimal(1)),
    ),
    design=DesignOptions(votes_per_reviewer=1, repeats_per_reviewer=0, attention_per_reviewer=0),
    sampling={"temperature": 0.7, "max_tokens": 512},
    training=(PracticeItem("t1", "ko", "1+1은?", "2", "3", Choice.A, Text("A가 맞습니다.", "A is right.")),),
)
ROUND = Round("r1", "first", NOW, "", RoundStatus.DRAFT, PLAN)
ITEM = RoundItem("i1", "reviewer-1", 0, ItemKind.VOTE, "p1", "a", "b", "x1", "x2")


@pytest.fixture
async def opened(database: ScratchDatabase) -> AsyncIterator[Store]:
    opened = await Store.open(database.url)
    yield opened
    await opened.close()


@pytest.fixture
async def store(opened: Store) -> RoundStore:
    store = RoundStore(opened)
    await store.create(ROUND, {"links": "00"})
    await store.add_reviewers("r1", [Reviewer("reviewer-1", "첫째", "expert")])
    return store


async def open_round(store: RoundStore) -> None:
    assert await store.seal(
        "r1", items=[ITEM], documents={"plan": 1}, secrets={"plan": "ff"}, root="abc", sealed_at=NOW
    )
    assert await store.move("r1", {RoundStatus.SEALED}, RoundStatus.OPEN, opened_at=NOW)


def chained(before: Mapping[str, Any]) -> VoteEntry:
    """An entry as the chain makes them, with a hash of its own kind."""
    digest = sha256(f"{before}".encode()).hexdigest()
    return VoteEntry(before["number"], "i1", "reviewer-1", before["revision"], NOW, {}, before["previous"], digest)


def test_a_plan_comes_back_from_its_document() -> None:
    assert read_plan(plan_document(PLAN)) == PLAN


async def test_a_round_comes_back_as_it_was_kept(store: RoundStore) -> None:
    assert await store.get("r1") == ROUND
    assert await store.named("", "first") == ROUND
    assert await store.newest(10) == [ROUND]
    with pytest.raises(RowRefused):
        await store.create(replace(ROUND, id="r2"), {"links": "00"})


async def test_a_draft_is_sealed_once(store: RoundStore) -> None:
    await open_round(store)
    assert not await store.seal("r1", items=[ITEM], documents={}, secrets={})
    assert await store.items("r1") == [ITEM]
    assert await store.documents("r1") == {"plan": 1}
    assert await store.secrets("r1") == {"links": "00", "plan": "ff"}
    assert not await store.replace_plan("r1", PLAN)
    with pytest.raises(WrongStatus):
        await store.add_reviewers("r1", [Reviewer("late", "늦은", "expert")])


async def test_a_step_is_taken_only_from_where_it_begins(store: RoundStore) -> None:
    assert not await store.move("r1", {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=NOW)
    found = await store.get("r1")
    assert found is not None
    assert (found.status, found.closed_at) == (RoundStatus.DRAFT, None)


async def test_votes_of_many_at_once_are_one_chain_without_gaps(store: RoundStore) -> None:
    await open_round(store)
    entries = await asyncio.gather(*(store.append_vote("r1", ITEM, chained) for _ in range(20)))
    kept = await store.votes("r1")
    assert sorted(entries, key=lambda entry: entry.number if entry else 0) == kept
    assert [entry.number for entry in kept] == [entry.revision for entry in kept] == list(range(1, 21))
    assert [entry.previous for entry in kept] == ["", *(entry.hash for entry in kept[:-1])]
    found = await store.get("r1")
    assert found is not None
    assert (found.head, found.votes) == (kept[-1].hash, 20)
    assert await store.votes_of("r1", "reviewer-1") == {"i1": kept[-1]}


@pytest.mark.parametrize("status", [RoundStatus.PAUSED, RoundStatus.CLOSED])
async def test_a_round_that_is_not_open_takes_no_vote(store: RoundStore, status: RoundStatus) -> None:
    await open_round(store)
    assert await store.move("r1", {RoundStatus.OPEN}, status)
    assert await store.append_vote("r1", ITEM, chained) is None
    assert await store.votes("r1") == []


async def test_a_reviewer_who_submitted_changes_nothing(store: RoundStore) -> None:
    await open_round(store)
    await store.update_reviewer("r1", "reviewer-1", submitted_at=NOW)
    assert await store.append_vote("r1", ITEM, chained) is None


@pytest.mark.parametrize(
    "step",
    [
        sa.update(rounds).values(status="closed"),
        sa.update(round_reviewers).values(submitted_at=NOW),
        sa.update(round_reviewers).values(revoked_at=NOW),
    ],
    ids=["closing", "submission", "revocation"],
)
async def test_a_vote_that_waits_for_a_step_is_not_taken_once_that_is_done(
    store: RoundStore, opened: Store, step: sa.Update
) -> None:
    await open_round(store)
    assert await meanwhile(store, opened, step, lambda: store.append_vote("r1", ITEM, chained)) is None
    assert await store.votes("r1") == []


async def test_an_exclusion_that_waits_for_the_closing_is_not_taken(store: RoundStore, opened: Store) -> None:
    await open_round(store)
    late = Exclusion(NOW, "chair", "reviewer", "reviewer-1", "late", "key")
    with pytest.raises(WrongStatus):
        await meanwhile(store, opened, sa.update(rounds).values(status="closed"), lambda: store.exclude("r1", late))
    assert await store.exclusions("r1") == []


async def meanwhile(store: RoundStore, opened: Store, step: sa.Update, work: Callable[[], Any]) -> Any:
    """What comes of work that begins while another transaction has the round and takes a step."""
    async with opened.transaction() as connection:
        await connection.execute(sa.update(rounds).values(votes=rounds.c.votes))
        await connection.execute(step)
        begun = asyncio.create_task(work())
        await asyncio.wait({begun}, timeout=0.2)
    return await begun


async def test_what_closes_a_round_is_made_of_what_nothing_is_added_to(store: RoundStore, opened: Store) -> None:
    await open_round(store)
    other, begun = RoundStore(opened), []
    loop = asyncio.get_running_loop()

    def conclude(kept: Records) -> Mapping[str, Any]:
        begun.append(asyncio.run_coroutine_threadsafe(other.append_vote("r1", ITEM, chained), loop))
        return {"closing": [kept.round.votes, kept.round.status.value, [one.action for one in kept.accesses]]}

    await store.append_vote("r1", ITEM, chained)
    entry = AccessEntry(NOW, "key", "chair", "round.closed")
    assert await store.close("r1", {RoundStatus.OPEN}, entry=entry, conclude=conclude, closed_at=NOW)
    assert await asyncio.wrap_future(begun[0]) is None
    assert await store.document("r1", "closing") == [1, "closed", ["round.closed"]]
    assert not await store.close("r1", {RoundStatus.OPEN}, entry=entry, conclude=conclude)


async def test_a_draft_that_changed_is_not_sealed(store: RoundStore) -> None:
    with pytest.raises(DraftChanged):
        await store.seal("r1", items=[ITEM], documents={}, secrets={}, is_same=lambda kept: not kept.reviewers)
    found = await store.get("r1")
    assert found is not None
    assert found.status is RoundStatus.DRAFT


async def test_answers_take_the_place_of_earlier_ones(store: RoundStore) -> None:
    first = RoundAnswer("p1", "a", AnswerStatus.FAILED, "c1", None, "simulated", None, None, (), {"error": "busy"})
    second = replace(first, status=AnswerStatus.OK, text="답\0입니다", shown="답", redactions=({"start": 1},))
    await store.save_answers("r1", [first])
    await store.save_answers("r1", [second, replace(second, model="b", shown="나")])
    assert await store.answers("r1") == [second, replace(second, model="b", shown="나")]
    assert await store.shown_pair("r1", ITEM) == ("답", "나")


async def test_words_are_cleared_once_and_each_clearance_is_in_the_access_log(store: RoundStore) -> None:
    first, second = Clearance(7, NOW, "k1"), Clearance(3, NOW, "k2")

    def entry(one: Clearance) -> AccessEntry:
        return AccessEntry(one.at, one.by, "chair", "comment.clear", str(one.number))

    assert await store.clear("r1", [first], entry=entry, before={RoundStatus.DRAFT}) == [first]
    again = replace(first, by="k2")
    assert await store.clear("r1", [again, second], entry=entry, before={RoundStatus.DRAFT}) == [second]
    assert await store.clearances("r1") == [second, first]
    assert [(one.who, one.subject) for one in await store.accesses("r1")] == [("k1", "7"), ("k2", "3")]
    with pytest.raises(WrongStatus):
        await store.clear("r1", [Clearance(1, NOW, "k1")], entry=entry, before={RoundStatus.CLOSED})


async def test_a_new_link_ends_the_session(store: RoundStore) -> None:
    await store.update_reviewer("r1", "reviewer-1", session="digest")
    found = await store.reviewer_of_session("digest")
    assert found is not None
    assert found[0] == "r1"
    assert await store.renew_link("r1", "reviewer-1") == 1
    assert await store.reviewer_of_session("digest") is None


async def test_exclusions_accesses_and_approvals_are_kept_in_order(store: RoundStore) -> None:
    exclusions = [Exclusion(NOW, "conflict", "item", f"i{n}", "declared", "rule") for n in range(3)]
    for exclusion in exclusions:
        await store.exclude("r1", exclusion)
    assert await store.exclusions("r1") == exclusions
    entry = AccessEntry(NOW, "reviewer-1", "reviewer", "item.read", "i1")
    await asyncio.gather(*(store.note_access("r1", entry) for _ in range(5)))
    assert await store.accesses("r1") == [entry] * 5
    chair, operator = Approval("k2", "chair", NOW), Approval("k1", "operator", NOW + timedelta(seconds=1))
    draft = {RoundStatus.DRAFT}
    assert await store.approve("r1", "reveal", chair, entry=entry, before=draft) == [chair]
    twice = Approval("k2", "operator", NOW + timedelta(seconds=1))
    assert await store.approve("r1", "reveal", twice, entry=entry, before=draft) == [chair]
    assert await store.approve("r1", "reveal", operator, entry=entry, before=draft) == [chair, operator]
    assert await store.approvals("r1", "reveal") == [chair, operator]
    assert await store.accesses("r1") == [entry] * 8
    with pytest.raises(WrongStatus):
        await store.approve("r1", "reveal", chair, entry=entry, before={RoundStatus.CLOSED})
