"""What a reviewer may do in a round, from consent to receipt, and the promises that are made to them.

A judgement is acknowledged once it is durable; nothing that was acknowledged is overwritten unseen; who submitted
changes nothing any more. How a page says these things belongs in `api`, links in `links`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from gateway.domain.records import Consortium, Registry
from gateway.domain.rounds import (
    AccessEntry,
    Exclusion,
    ItemKind,
    PracticeItem,
    Reviewer,
    Round,
    RoundItem,
    VoteEntry,
)
from gateway.domain.sealing import SALT_BYTES
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.rounds.chain import next_entry, sealed_digests, text_digests
from gateway.rounds.conflicts import CONFLICT, consortia_of_models, is_conflict
from gateway.rounds.judgement import Judgement, read_judgement, says_the_same
from gateway.rounds.links import Entrance, Session, enter
from gateway.rounds.store import RoundStore, Standing, WrongStatus
from gateway.rounds.visits import MAX_CONFLICTS, Pair, QueueEntry, Stage, Visit

GUESSED_ITEMS = 5
"""Items of a reviewer that the blinding questionnaire asks about, at most."""
RECOGNISED = ("none", "some", "many")
CONFIDENCES = range(1, 4)
SESSION_LASTS = timedelta(days=7)
"""From entering on; the same link opens another."""
_MAPPING = "mapping"
_SHOWN_PARTS = ("prompts", "practice", "answers", "items")
_SEALED_KEPT = 8
"""Rounds, whose digests are a few megabytes each at most."""
_SEEN_KEPT = 100_000
MOST_REVISIONS = 200
"""Of one item: more are no judging."""
_RECEIPT = "receipt "
"""Before a reviewer's id: the name of the document that is their receipt."""


class Overtaken(Exception):
    """An item was judged anew elsewhere since the revision that this judgement began from. `current`: that one."""

    def __init__(self, current: VoteEntry) -> None:
        super().__init__(f"revision {current.revision} came in between")
        self.current = current


class Reviewing:
    """The reviewers' side of every round."""

    def __init__(self, store: RoundStore, *, registry: Callable[[], Registry], clock: Callable[[], datetime]) -> None:
        """`clock`: the moment, aware, in UTC."""
        self._store = store
        self._registry = registry
        self._clock = clock
        self._sealed: dict[str, Mapping[str, Mapping[str, str | None]]] = {}
        """By round: the digests of what was sealed to be shown, by item. They never change."""
        self._seen: dict[tuple[str, str], None] = {}
        """Sessions' digests and items: what was noted as read."""

    # --- coming in ------------------------------------------------------------------------------------------

    async def enter(self, token: str, *, may_enter: Callable[[str], None]) -> Entrance:
        """Take a link. `may_enter` is told whose it is and may raise. Raises LinkRefused."""
        entrance = await enter(self._store, token, now=self._clock(), may_enter=may_enter)
        await self._note(entrance.round_id, entrance.reviewer, "enter")
        return entrance

    async def visit(self, secret: str) -> Visit | None:
        """Whose session this is; None for one that ended or never was."""
        session = Session(secret)
        found = await self._store.reviewer_of_session(session.digest)
        if found is None or found[1].revoked_at is not None:
            return None
        seen_at = found[1].seen_at
        if seen_at is not None and self._clock() - seen_at > SESSION_LASTS:
            return None
        round_ = await self._store.get(found[0])
        return None if round_ is None else Visit(round_, found[1], session)

    async def leave(self, visit: Visit) -> None:
        await self._store.update_reviewer(visit.round.id, visit.reviewer.id, session=None)

    async def speak(self, visit: Visit, language: str) -> None:
        """Show the pages in another language from now on."""
        await self._store.update_reviewer(visit.round.id, visit.reviewer.id, language=language)

    # --- before the queue -----------------------------------------------------------------------------------

    def consortia(self) -> Sequence[Consortium]:
        """All of the registry, whichever take part: what reviewers may have a conflict with."""
        return list(self._registry().consortia.values())

    async def consent(self, visit: Visit, conflicts: Collection[str]) -> None:
        """Note consent and conflicts; items with a model of those consortia are asked of this reviewer no more.

        With more than MAX_CONFLICTS nothing is set aside and no consent noted: they are held until the chair decides.
        Raises InvalidRequest for a consortium that there is not, Conflict at any other stage.
        """
        _require(visit, Stage.CONSENT)
        declared = tuple(one.id for one in self.consortia() if one.id in conflicts)
        if len(declared) != len(set(conflicts)):
            raise InvalidRequest("conflicts: expected ids of consortia as the page lists them", param="conflicts")
        now, who, is_held = self._clock(), visit.reviewer.id, len(declared) > MAX_CONFLICTS
        said: dict[str, Any] = {
            "entry": AccessEntry(now, who, "reviewer", "held" if is_held else "consent"),
            "consented_at": None if is_held else now,
            "aside": [] if is_held else await self._conflicting(visit, declared, now),
        }
        try:
            is_new = await self._store.declare(visit.round.id, who, declared, **said)
        except WrongStatus as error:
            raise Conflict(f"Consent comes too late: {error}.", code="wrong_stage") from error
        kept = None if is_new else await self._store.reviewer(visit.round.id, who)
        if kept is not None and set(kept.conflicts) != set(declared):
            raise Conflict("Consent was given already, with other conflicts.", code="wrong_stage")

    async def _conflicting(self, visit: Visit, declared: Collection[str], now: datetime) -> list[Exclusion]:
        """What is put aside for these conflicts, by the consortia that were sealed."""
        reason = "the reviewer declared a conflict of interest with a consortium on one side"
        consortia = consortia_of_models(await self._store.document(visit.round.id, _MAPPING))
        return [
            Exclusion(now, CONFLICT, "item", item.id, reason, "rule")
            for item in await self._store.items(visit.round.id, visit.reviewer.id)
            if item.set_aside is None and is_conflict(item.kind, (item.left, item.right), consortia, declared)
        ]

    def practice(self, visit: Visit, number: int) -> PracticeItem:
        """The training pair of that number, from 1. Raises NotFound."""
        if not 1 <= number <= len(visit.round.plan.training):
            raise NotFound("There is no such practice item.")
        return visit.round.plan.training[number - 1]

    async def finish_training(self, visit: Visit) -> None:
        _require(visit, Stage.TRAINING)
        await self._store.update_reviewer(visit.round.id, visit.reviewer.id, trained_at=self._clock())

    # --- the queue ------------------------------------------------------------------------------------------

    async def queue(self, visit: Visit) -> list[QueueEntry]:
        """A reviewer's own items in their order, without those set aside."""
        items = await self._store.items(visit.round.id, visit.reviewer.id)
        votes = await self._store.votes_of(visit.round.id, visit.reviewer.id)
        return _queue(items, votes)

    async def pair(self, visit: Visit, item: RoundItem) -> Pair:
        """What stands on an item's sides, both at once. That it was read is noted, once in a session.

        Raises Conflict where it is not what was sealed.
        """
        pair = await self._sealed_pair(visit, item)
        seen = (visit.session.digest, item.id)
        if seen not in self._seen:
            await self._note(visit.round.id, visit.reviewer, "item.read", item.id)
            self._seen[seen] = None
            while len(self._seen) > _SEEN_KEPT:
                del self._seen[next(iter(self._seen))]
        return pair

    async def _sealed_pair(self, visit: Visit, item: RoundItem) -> Pair:
        pair = await self._kept_pair(visit, item)
        if visit.round.id not in self._sealed:
            while len(self._sealed) >= _SEALED_KEPT:
                del self._sealed[next(iter(self._sealed))]
            parts = await self._store.documents(visit.round.id, _SHOWN_PARTS)
            self._sealed[visit.round.id] = await asyncio.to_thread(sealed_digests, parts)
        if self._sealed[visit.round.id].get(item.id) != text_digests(pair.prompt, pair.a, pair.b):
            raise Conflict("What is kept of this item is not what was sealed.", code="item_changed")
        return pair

    async def _kept_pair(self, visit: Visit, item: RoundItem) -> Pair:
        plan = visit.round.plan
        if item.kind in (ItemKind.ATTENTION, ItemKind.TRAINING):
            pool = plan.attention if item.kind is ItemKind.ATTENTION else plan.training
            made = next(one for one in pool if one.id == item.prompt_id)
            sides = {"a": made.a, "b": made.b}
            return Pair(made.language, made.text, sides[item.left], sides[item.right])
        prompt = next(one for one in plan.prompts if one.id == item.prompt_id)
        left, right = await self._store.shown_pair(visit.round.id, item)
        if left is None or right is None:
            raise NotFound("This item has no answers.")
        return Pair(prompt.language, prompt.text, left, right)

    async def save(self, visit: Visit, item_id: str, fields: Any, *, base_revision: int | None = None) -> VoteEntry:
        """Keep a judgement of an item; it is durable when this returns.

        What says the same as the revision that counts makes no new one, so that a request may be sent again.
        `base_revision`: the one that the reviewer saw (0 before the first); Overtaken is raised where another has
        come since. None overwrites whatever there is. Raises InvalidRequest, NotFound, Conflict.
        """
        _require(visit, Stage.JUDGING)
        item = await self._own_item(visit, item_id)
        said = read_judgement(fields, [criterion.id for criterion in visit.round.plan.rubric])
        current = await self._store.last_vote(visit.round.id, item_id)
        if current is not None and says_the_same(current.judgement, said):
            await self._store.make_durable()
            return current
        known = 0 if current is None else current.revision
        if base_revision is not None and base_revision != known:
            if current is None:
                raise InvalidRequest(f"base_revision: there is no revision {base_revision}", param="base_revision")
            raise Overtaken(current)
        if known >= MOST_REVISIONS:
            raise Conflict("This item was judged anew too often.", code="too_many_revisions")
        entry = await self._append(visit, item, said, after=known)
        if entry is None:
            raise Conflict("The round takes no judgements now.", code="round_not_open")
        return entry

    async def _append(self, visit: Visit, item: RoundItem, said: Judgement, *, after: int) -> VoteEntry | None:
        """Add it as the revision behind `after`. Raises Overtaken where there is one by now."""
        pair = await self._sealed_pair(visit, item)
        shown = text_digests(pair.prompt, pair.a, pair.b)

        def link(before: Mapping[str, Any]) -> VoteEntry:
            if before["revision"] != after + 1:
                raise _Raced
            salt = secrets.token_bytes(SALT_BYTES)
            return next_entry(
                before, round_id=visit.round.id, item=item, at=now, judgement=said, salt=salt, shown=shown
            )

        now = self._clock()
        try:
            return await self._store.append_vote(visit.round.id, item, link)
        except _Raced:
            current = await self._store.last_vote(visit.round.id, item.id)
            assert current is not None
            raise Overtaken(current) from None

    # --- submitting -----------------------------------------------------------------------------------------

    async def submit(self, visit: Visit) -> list[QueueEntry]:
        """End a reviewer's judging for good; where items are not complete, nothing happens and they come back."""
        if visit.reviewer.submitted_at is not None:
            return []
        _require(visit, Stage.JUDGING)
        missing: list[QueueEntry] = []

        def conclude(
            standing: Standing, items: Sequence[RoundItem], votes: Mapping[str, VoteEntry]
        ) -> Mapping[str, Any] | None:
            missing.extend(entry for entry in _queue(items, votes) if not entry.is_done)
            return None if missing else _receipt(visit.round, visit.reviewer.id, now, standing, votes)

        now, who = self._clock(), visit.reviewer.id
        entry = AccessEntry(now, who, "reviewer", "submit")
        try:
            await self._store.submit(visit.round.id, who, entry=entry, receipt=_RECEIPT + who, conclude=conclude)
        except WrongStatus as error:
            raise Conflict("The round takes no judgements now.", code="round_not_open") from error
        return missing

    async def receipt(self, visit: Visit) -> Mapping[str, Any]:
        """What proves later that nothing of a reviewer was changed. Raises Conflict before they submitted."""
        submitted = visit.reviewer.submitted_at
        if submitted is None:
            raise Conflict("There is a receipt once you have submitted.", code="not_submitted")
        name, who = _RECEIPT + visit.reviewer.id, visit.reviewer.id
        kept = await self._store.document(visit.round.id, name)
        if kept is None:
            votes, of = await self._store.votes_of(visit.round.id, who), await self._store.get(visit.round.id)
            assert of is not None
            made = _receipt(of, who, submitted, Standing(of.status, of.head, of.votes), votes)
            kept = (await self._store.keep_documents(of.id, {name: made}))[name]
        found: Mapping[str, Any] = kept
        return found

    async def note_result_read(self, visit: Visit) -> None:
        """Write down that a reviewer looked at the result."""
        await self._note(visit.round.id, visit.reviewer, "results.read")

    # --- the blinding questionnaire -------------------------------------------------------------------------

    async def asked_items(self, visit: Visit) -> list[QueueEntry]:
        """The items that the questionnaire asks about: the same ones each time, candidates on both sides."""
        judged = [
            entry for entry in await self.queue(visit) if entry.item.kind is ItemKind.VOTE and entry.vote is not None
        ]
        drawn = sorted(judged, key=lambda entry: sha256(entry.item.id.encode()).digest())[:GUESSED_ITEMS]
        return sorted(drawn, key=lambda entry: entry.item.position)

    async def answer_questionnaire(
        self, visit: Visit, recognised: str, guesses: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Keep whom a reviewer believes to have judged, once.

        `guesses` by item: a and b (a consortium or None), confidence.

        Raises InvalidRequest naming the field, Conflict at any other stage.
        """
        _require(visit, Stage.QUESTIONNAIRE)
        if recognised not in RECOGNISED:
            raise InvalidRequest(f"recognised: expected one of {', '.join(RECOGNISED)}", param="recognised")
        asked = {entry.item.id for entry in await self.asked_items(visit)}
        families = {one.id for one in self.consortia()}
        kept = [{"item": item, **_guess(item, guess, asked, families)} for item, guess in guesses.items()]
        await self._store.update_reviewer(
            visit.round.id, visit.reviewer.id, questionnaire={"recognised": recognised, "guesses": kept}
        )

    # --- small parts ----------------------------------------------------------------------------------------

    async def _own_item(self, visit: Visit, item_id: str) -> RoundItem:
        item = await self._store.item(visit.round.id, item_id)
        if item is None or item.reviewer != visit.reviewer.id or item.set_aside is not None:
            raise NotFound("There is no such item in your queue.")
        return item

    async def _note(self, round_id: str, reviewer: Reviewer, action: str, subject: str | None = None) -> None:
        await self._store.note_access(round_id, AccessEntry(self._clock(), reviewer.id, "reviewer", action, subject))


class _Raced(Exception):
    """Another request wrote the revision that was to be written."""


def _require(visit: Visit, stage: Stage) -> None:
    if visit.stage is not stage:
        raise Conflict(f"This is not the moment for it: you are at '{visit.stage}'.", code="wrong_stage")


def _queue(items: Sequence[RoundItem], votes: Mapping[str, VoteEntry]) -> list[QueueEntry]:
    return [QueueEntry(item, votes.get(item.id)) for item in items if item.set_aside is None]


def _receipt(
    of: Round, reviewer: str, submitted_at: datetime, standing: Standing, votes: Mapping[str, VoteEntry]
) -> Mapping[str, Any]:
    """The reviewer's last votes, and where the chain stands as their judging ends."""
    return {
        "kind": "simsa.review.receipt.v1",
        "round": of.id,
        "root": of.root,
        "reviewer": reviewer,
        "submitted_at": submitted_at.astimezone(UTC).isoformat(),
        "head": {"number": standing.votes, "hash": standing.head},
        "items": [
            {
                "item": vote.item,
                "number": vote.number,
                "revision": vote.revision,
                "hash": vote.hash,
                "shown": vote.shown,
            }
            for vote in sorted(votes.values(), key=lambda vote: vote.number)
        ],
    }


def _guess(item: str, guess: Mapping[str, Any], asked: Collection[str], families: Collection[str]) -> dict[str, Any]:
    if item not in asked:
        raise InvalidRequest("guesses: an item that was not asked about", param="guesses")
    for side in ("a", "b"):
        if guess.get(side) is not None and guess[side] not in families:
            raise InvalidRequest(f"guesses.{side}: expected a consortium as the page lists them", param="guesses")
    confidence = guess.get("confidence")
    if confidence is not None and confidence not in CONFIDENCES:
        raise InvalidRequest("guesses.confidence: expected 1, 2 or 3", param="guesses")
    return {"a": guess.get("a"), "b": guess.get("b"), "confidence": confidence}
