"""What reviewers are promised of what they save, on both kinds of database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from databases import ScratchDatabase
from gateways import registry_text
from hypothesis import given
from hypothesis import strategies as st
from review_rounds import ENTRIES, KEY, NOW, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round

from gateway.domain.hash_chain import verify_chain
from gateway.domain.rounds import RoundStatus, VoteEntry
from gateway.errors import Conflict, InvalidRequest, NotFound, RateLimited
from gateway.registry import parse_registry
from gateway.rounds.chain import chained, text_digests
from gateway.rounds.judgement import is_complete, read_judgement, says_the_same
from gateway.rounds.limits import ReviewLimits
from gateway.rounds.links import Session, make_token
from gateway.rounds.store import RoundStore
from gateway.rounds.tables import round_answers
from gateway.rounds.visits import Stage, Visit
from gateway.rounds.voting import MOST_REVISIONS, SESSION_LASTS, Overtaken, Reviewing
from gateway.store import Store
from gateway.token_buckets import TokenBuckets

FIRST, SECOND, THIRD, ATTENTION = (item_id(REVIEWERS[0], n) for n in range(4))
REGISTRY = parse_registry(registry_text(ENTRIES, **SECTIONS).encode(), path="registry.yaml")
CRITERIA = ("quality", "use")


@dataclass
class Voting:
    opened: Store
    round: ReviewRound
    reviewing: Reviewing

    async def visit(self, reviewer: str = REVIEWERS[0]) -> Visit:
        """The reviewer's round and state as they are now."""
        round_, found = await self.round.store.get(self.round.id), await self.round.store.reviewer("round-1", reviewer)
        assert round_ is not None
        assert found is not None
        return Visit(round_, found, Session("secret"))

    async def save(self, item: str, judgement: Any, base: int | None = None) -> Any:
        return await self.reviewing.save(await self.visit(), item, judgement, base_revision=base)


@pytest.fixture
async def voting(database: ScratchDatabase) -> AsyncIterator[Voting]:
    opened = await Store.open(database.url)
    put = await put_round(opened, trained=True)
    yield Voting(opened, put, Reviewing(put.store, registry=lambda: REGISTRY, clock=lambda: NOW))
    await opened.close()


# --- saving -------------------------------------------------------------------------------------------------


async def test_what_is_sent_again_makes_no_new_revision(voting: Voting) -> None:
    first = await voting.save(FIRST, {"choice": "a", "seconds": 3}, 0)
    assert await voting.save(FIRST, {"choice": "a", "seconds": 3}, 0) == first
    assert await voting.save(FIRST, {"choice": "a", "seconds": 9, "comment": " "}, 1) == first
    second = await voting.save(FIRST, {"choice": "b"}, 1)
    assert (second.number, second.revision, second.previous) == (2, 2, first.hash)
    assert await voting.save(FIRST, {"choice": "b"}, 1) == second


async def test_the_same_request_many_times_at_once_is_one_revision(voting: Voting) -> None:
    visit = await voting.visit()
    saves = (voting.reviewing.save(visit, FIRST, {"choice": "a"}, base_revision=0) for _ in range(8))
    found = await asyncio.gather(*saves, return_exceptions=True)
    (vote,) = await voting.round.store.votes("round-1")
    for one in found:
        assert one == vote or (isinstance(one, Overtaken) and one.current == vote)


async def test_of_different_judgements_at_once_one_counts_and_the_others_are_told(voting: Voting) -> None:
    visit = await voting.visit()
    saves = (voting.reviewing.save(visit, FIRST, {"comment": f"{n}"}, base_revision=0) for n in range(8))
    found = await asyncio.gather(*saves, return_exceptions=True)
    (vote,) = await voting.round.store.votes("round-1")
    assert sum(one == vote for one in found) == 1
    assert sum(isinstance(one, Overtaken) for one in found) == 7


async def test_a_late_judgement_does_not_overwrite_a_newer_one(voting: Voting) -> None:
    await voting.save(FIRST, {"choice": "a"}, 0)
    newer = await voting.save(FIRST, {"choice": "b"}, 1)
    with pytest.raises(Overtaken) as told:
        await voting.save(FIRST, {"choice": "tie"}, 1)
    assert told.value.current == newer
    with pytest.raises(InvalidRequest):
        await voting.save(SECOND, {"choice": "a"}, 4)


async def test_every_entry_hashes_what_it_says_and_what_stands_before_it(voting: Voting) -> None:
    for choice in ("a", "b", "tie"):
        await voting.save(FIRST, {"choice": choice})
    votes = await voting.round.store.votes("round-1")
    assert verify_chain([chained(vote) for vote in votes], round_id="round-1", head=votes[-1].hash, length=3) is None


@pytest.mark.parametrize("status", [RoundStatus.PAUSED, RoundStatus.CLOSED, RoundStatus.REVEALED])
async def test_a_round_that_ended_while_a_page_was_open_takes_nothing(voting: Voting, status: RoundStatus) -> None:
    visit = await voting.visit()
    await voting.round.move(RoundStatus.OPEN, status)
    with pytest.raises(Conflict):
        await voting.reviewing.save(visit, FIRST, {"choice": "a"})
    assert await voting.round.store.votes("round-1") == []


async def test_a_conflict_that_was_declared_twice_is_noted_once(voting: Voting) -> None:
    await voting.round.store.update_reviewer("round-1", REVIEWERS[0], consented_at=None, trained_at=None)
    visit = await voting.visit()
    await voting.reviewing.consent(visit, ["family-2"])
    await voting.reviewing.consent(visit, ["family-2"])
    assert [one.subject for one in await voting.round.store.exclusions("round-1")] == [FIRST, SECOND, THIRD]
    visit = await voting.visit()
    assert visit.stage is Stage.TRAINING
    await voting.reviewing.finish_training(visit)
    assert [entry.item.id for entry in await voting.reviewing.queue(await voting.visit())] == [ATTENTION]
    with pytest.raises(NotFound):
        await voting.save(FIRST, {"choice": "a"})


async def test_who_consented_declares_no_other_conflicts_from_an_older_page(voting: Voting) -> None:
    store = voting.round.store
    await store.update_reviewer("round-1", REVIEWERS[0], consented_at=None, trained_at=None)
    older = await voting.visit()
    await voting.reviewing.consent(older, ["family-1"])
    for others in (["family-2"], [], ["family-1", "family-2", "family-3"]):
        with pytest.raises(Conflict):
            await voting.reviewing.consent(older, others)
    reviewer = await store.reviewer("round-1", REVIEWERS[0])
    assert reviewer is not None
    assert reviewer.conflicts == ("family-1",)
    assert [one.subject for one in await store.exclusions("round-1")] == [FIRST, THIRD]


async def test_a_receipt_that_a_crash_kept_from_being_made_is_made_later(voting: Voting) -> None:
    for item in (FIRST, SECOND, THIRD, ATTENTION):
        await voting.save(item, {"choice": "a"})
    await voting.round.store.update_reviewer("round-1", REVIEWERS[0], submitted_at=NOW)
    visit = await voting.visit()
    receipt = await voting.reviewing.receipt(visit)
    assert receipt["head"]["number"] == 4
    assert await voting.reviewing.receipt(visit) == receipt
    assert await voting.reviewing.submit(visit) == []


async def test_a_judgement_that_waits_for_a_submission_comes_too_late(voting: Voting) -> None:
    for item in (FIRST, SECOND, THIRD, ATTENTION):
        await voting.save(item, {"choice": "a"})
    visit, late = (
        await voting.visit(),
        Reviewing(RoundStore(voting.opened), registry=lambda: REGISTRY, clock=lambda: NOW),
    )
    changes = (late.save(visit, FIRST, {"choice": "b", "comment": f"{n}"}) for n in range(8))
    *saved, missing = await asyncio.gather(*changes, voting.reviewing.submit(visit), return_exceptions=True)
    assert missing == []
    receipt = await voting.reviewing.receipt(await voting.visit())
    votes = await voting.round.store.votes("round-1")
    assert receipt["head"] == {"number": votes[-1].number, "hash": votes[-1].hash}
    assert all(isinstance(one, Conflict | Overtaken | VoteEntry) for one in saved)


async def test_two_submissions_at_once_make_one_receipt_and_one_entry(voting: Voting) -> None:
    for item in (FIRST, SECOND, THIRD, ATTENTION):
        await voting.save(item, {"choice": "a"})
    visit = await voting.visit()
    other = Reviewing(RoundStore(voting.opened), registry=lambda: REGISTRY, clock=lambda: NOW + timedelta(seconds=1))
    assert await asyncio.gather(voting.reviewing.submit(visit), other.submit(visit)) == [[], []]
    noted = [one for one in await voting.round.store.accesses("round-1") if one.action == "submit"]
    receipt = await voting.reviewing.receipt(await voting.visit())
    assert [one.at.isoformat() for one in noted] == [receipt["submitted_at"]]


async def test_a_vote_says_what_was_on_the_screen(voting: Voting) -> None:
    entry = await voting.save(FIRST, {"choice": "a"})
    item = await voting.round.store.item("round-1", FIRST)
    assert item is not None
    pair = await voting.reviewing.pair(await voting.visit(), item)
    assert entry.shown == text_digests(pair.prompt, pair.a, pair.b)
    assert chained(entry).payload["shown"] == entry.shown
    assert chained(replace(entry, shown={**entry.shown, "a": "00"})).payload != chained(entry).payload


async def test_an_answer_that_is_not_the_sealed_one_is_neither_shown_nor_judged(voting: Voting) -> None:
    item = await voting.round.store.item("round-1", FIRST)
    assert item is not None
    async with voting.opened.transaction() as connection:
        await connection.execute(sa.update(round_answers).values(shown="another"))
    with pytest.raises(Conflict, match="not what was sealed"):
        await voting.reviewing.pair(await voting.visit(), item)
    with pytest.raises(Conflict, match="not what was sealed"):
        await voting.save(FIRST, {"choice": "a"})
    assert await voting.round.store.votes("round-1") == []


async def test_an_item_that_is_read_again_in_a_session_is_noted_once(voting: Voting) -> None:
    item = await voting.round.store.item("round-1", FIRST)
    assert item is not None
    visit = await voting.visit()
    for one in (visit, visit, replace(visit, session=Session("another")), visit):
        await voting.reviewing.pair(one, item)
    assert [one.action for one in await voting.round.store.accesses("round-1")] == ["item.read"] * 2


async def test_a_session_ends_by_itself(voting: Voting) -> None:
    token = await voting.round.token(expires_at=NOW + timedelta(days=1))
    secret = (await voting.reviewing.enter(token, may_enter=lambda _who: None)).session.secret
    assert await voting.reviewing.visit(secret) is not None
    late = Reviewing(voting.round.store, registry=lambda: REGISTRY, clock=lambda: NOW + SESSION_LASTS + timedelta(1))
    assert await late.visit(secret) is None


async def test_an_item_is_not_judged_anew_without_end(voting: Voting) -> None:
    for n in range(MOST_REVISIONS):
        await voting.save(FIRST, {"choice": "a", "comment": f"{n}"})
    with pytest.raises(Conflict, match="too often"):
        await voting.save(FIRST, {"choice": "b"})
    assert len(await voting.round.store.votes("round-1")) == MOST_REVISIONS


async def test_what_reviewers_do_is_in_the_access_log(voting: Voting) -> None:
    token = await voting.round.token(expires_at=NOW + timedelta(days=1))
    entrance = await voting.reviewing.enter(token, may_enter=lambda _who: None)
    visit = await voting.reviewing.visit(entrance.session.secret)
    assert visit is not None
    await voting.reviewing.pair(visit, (await voting.reviewing.queue(visit))[0].item)
    entries = await voting.round.store.accesses("round-1")
    assert [(one.who, one.role, one.action, one.subject) for one in entries] == [
        (REVIEWERS[0], "reviewer", "enter", None),
        (REVIEWERS[0], "reviewer", "item.read", FIRST),
    ]


# --- judgements ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([], "judgement"),
        ({"winner": "a"}, "winner"),
        ({"choice": "A"}, "choice"),
        ({"choice": ["a"]}, "choice"),
        ({"grades": [1]}, "grades"),
        ({"grades": {"speed": 1}}, "grades.speed"),
        ({"grades": {"use": 3}}, "grades.use"),
        ({"grades": {"use": True}}, "grades.use"),
        ({"grades": {"use": 1.0}}, "grades.use"),
        ({"comment": 3}, "comment"),
        ({"comment": "가" * 4001}, "comment"),
        ({"comment": "\ud800"}, "comment"),
        ({"reason": "x" * 1001}, "reason"),
        ({"recognised": 1}, "recognised"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 1.5}, "seconds"),
        ({"seconds": 86_401}, "seconds"),
    ],
)
def test_a_judgement_that_is_none_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_judgement(fields, CRITERIA)
    assert refused.value.param == param


JUDGEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "choice": st.sampled_from(["a", "b", "tie", "both_bad", "cannot_judge"]),
        "grades": st.dictionaries(st.sampled_from(CRITERIA), st.integers(-2, 2)),
        "reason": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "comment": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "recognised": st.booleans(),
        "seconds": st.integers(0, 100),
    },
)


@given(JUDGEMENTS)
def test_a_judgement_once_read_stays_as_it_is(fields: dict[str, Any]) -> None:
    said = read_judgement(fields, CRITERIA)
    assert read_judgement(said, CRITERIA) == said
    assert says_the_same(said, {**said, "seconds": 7})
    assert is_complete(said) == ("choice" in said and (said["choice"] != "cannot_judge" or "reason" in said))


# --- links and limits ---------------------------------------------------------------------------------------


async def test_no_changed_character_of_a_link_opens_anything(voting: Voting) -> None:
    reviewer = await voting.round.store.reviewer("round-1", REVIEWERS[0])
    assert reviewer is not None
    token = make_token(KEY, "round-1", reviewer, expires_at=NOW + timedelta(days=1))
    other = make_token(KEY, "round-1", replace(reviewer, link_serial=1), expires_at=NOW + timedelta(days=9))
    body, signature = token.split(".")
    for forged in (f"{other.split('.')[0]}.{signature}", f"{body}.{other.split('.')[1]}", f"{body}A.{signature}"):
        with pytest.raises(Exception, match="invalid"):
            await voting.reviewing.enter(forged, may_enter=lambda _who: None)


def test_a_bucket_fills_again_and_the_quietest_is_forgotten() -> None:
    moment = 0.0
    buckets = TokenBuckets(burst=2, per_second=0.5, now=lambda: moment, most=2)
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    moment = 2.0
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    buckets.take("b")
    buckets.take("c")
    assert buckets.take("a")


def test_wrong_links_from_one_place_are_counted_there_alone() -> None:
    limits = ReviewLimits(lambda: 0.0)
    for _ in range(60):
        limits.charge_stranger("somewhere")
    with pytest.raises(RateLimited):
        limits.charge_stranger("somewhere")
    limits.charge_stranger("elsewhere")
