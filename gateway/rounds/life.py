"""A round's life: who may take which step, and what each step makes sure of before it is taken.

draft → sealed → open ⇄ paused → closed → revealed → archived, and never back. Every step is noted with who took it.
Answers are `answering`'s work, what is fixed by sealing is put together in `sealed`, votes are `voting`'s.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.domain.accounts import Caller, Role
from gateway.domain.rounds import (
    AFTER_CLOSING,
    NEXT,
    AccessEntry,
    Approval,
    Clearance,
    Exclusion,
    Reviewer,
    Round,
    RoundPlan,
    RoundStatus,
)
from gateway.errors import Conflict, NotFound, PermissionDenied
from gateway.rounds.clearing import CLEAR, Comment, comments_of, require_clearable
from gateway.rounds.reading import Records
from gateway.rounds.store import RoundStore, WrongStatus
from gateway.store import RowRefused

LEADING = frozenset({Role.CHAIR, Role.OPERATOR, Role.ADMIN})
"""Who sees how far a round is, and moves it on."""
OPERATING = frozenset({Role.OPERATOR, Role.ADMIN})
"""Who may know which model is which before the reveal: they have the answers made."""
READING = LEADING | {Role.AUDITOR}
"""Who may see a round at all; an auditor everything of it, once it is closed."""
ADMIN = "admin"
"""What the environment's admin key is called where people are told apart."""
REVEAL = "reveal"
APPROVE = "reveal.approve"
"""What the access log calls an approval of it."""
_EXCLUDABLE = frozenset({RoundStatus.SEALED, RoundStatus.OPEN, RoundStatus.PAUSED})
_CLEARABLE = AFTER_CLOSING - {RoundStatus.ARCHIVED}
_STAMPS = {
    RoundStatus.OPEN: "opened_at",
    RoundStatus.CLOSED: "closed_at",
    RoundStatus.REVEALED: "revealed_at",
    RoundStatus.ARCHIVED: "archived_at",
}


class RoundLife:
    """The steps of rounds. Raises Conflict where a step begins elsewhere than the round stands."""

    def __init__(self, rounds: RoundStore) -> None:
        self.store = rounds

    async def create(self, name: str, plan: RoundPlan, caller: Caller) -> Round:
        """A new draft. Raises Conflict where the caller's organisation has a round of that name."""
        new = Round(
            id=str(uuid.uuid4()),
            name=name,
            created_at=datetime.now(UTC),
            organisation=caller.organisation or "",
            status=RoundStatus.DRAFT,
            plan=plan,
        )
        try:
            await self.store.create(new, {"links": secrets.token_hex(32)})
        except RowRefused as error:
            if await self.store.named(new.organisation, name) is None:
                raise Conflict(f"The database does not take this round: {error}") from error
            raise Conflict(f"There is a round named '{name}' already: choose another name.", param="name") from error
        await self.note(new, caller, "round.create")
        return new

    async def found(self, round_id: str, caller: Caller) -> Round:
        """The round, for whom it concerns: those of its organisation, and who oversees all. Else it is as good as none.

        A chair leads the rounds of their own organisation only: one of a consortium's must not lead the operator's.
        """
        one = await self.store.get(round_id)
        if one is None or caller.own_only not in (None, one.organisation):
            raise NotFound(f"There is no round '{round_id[:128]}'. See GET /api/rounds.")
        return one

    async def replace_plan(self, of: Round, plan: RoundPlan, caller: Caller) -> Round:
        """Another plan for a draft of which nothing was asked yet."""
        if not await self.store.replace_plan(of.id, plan):
            raise Conflict(
                "The plan is fixed: the round is no draft any more, or answers to its prompts were asked already. "
                "Make a new round with the other plan."
            )
        await self.note(of, caller, "plan.replace")
        return await self._again(of)

    async def invite(self, of: Round, people: Sequence[Mapping[str, str]], caller: Caller) -> list[Reviewer]:
        """Add reviewers to a draft: label, stratum, language of each. Their pseudonyms say nothing about them.

        Raises PermissionDenied for who may issue no links.
        """
        require_issuer(caller)
        known = {one.label for one in await self.store.reviewers(of.id)}
        labels = [one["label"] for one in people]
        if twice := sorted({label for label in labels if label in known or labels.count(label) > 1}):
            raise Conflict(f"Each reviewer needs a label of their own; there already: {', '.join(twice)}.")
        new = [Reviewer(f"r-{secrets.token_hex(6)}", one["label"], one["stratum"], one["language"]) for one in people]
        try:
            await self.store.add_reviewers(of.id, new)
        except WrongStatus as error:
            raise Conflict(f"Reviewers are invited while a round is a draft; {error}.") from error
        issued = [self._entry(caller, "link.issue", one.id) for one in new]
        await self.store.note_accesses(of.id, [self._entry(caller, "reviewers.invite", str(len(new))), *issued])
        return new

    async def renew_link(self, of: Round, reviewer_id: str, caller: Caller) -> Reviewer:
        """Make a reviewer's links void, so that a new one can be made; their session ends."""
        require_issuer(caller)
        await self._reviewer(of, reviewer_id)
        await self.store.renew_link(of.id, reviewer_id)
        await self.note(of, caller, "link.renew", reviewer_id)
        return await self._reviewer(of, reviewer_id)

    async def revoke(self, of: Round, reviewer_id: str, caller: Caller) -> None:
        """Let a reviewer in no more. What they judged stays; to leave it out is an exclusion, with a reason."""
        await self._reviewer(of, reviewer_id)
        await self.store.renew_link(of.id, reviewer_id, revoked_at=datetime.now(UTC))
        await self.note(of, caller, "reviewer.revoke", reviewer_id)

    async def exclude(self, of: Round, caller: Caller, *, kind: str, subject: str, rule: str, reason: str) -> Exclusion:
        """Leave votes out of the result by a rule, for all to see. Not after closing: standings exist then."""
        if of.status not in _EXCLUDABLE:
            raise Conflict(
                f"Votes are excluded from sealing until closing, before there are standings; the round is {of.status}."
            )
        await self._require_subject(of, kind, subject)
        exclusion = Exclusion(datetime.now(UTC), rule, kind, subject, reason, who(caller))
        try:
            await self.store.exclude(of.id, exclusion)
        except WrongStatus as error:
            raise Conflict(f"Votes are excluded before there are standings; {error}.") from error
        await self.note(of, caller, "exclude", f"{kind} {subject}")
        return exclusion

    async def comments(self, of: Round, caller: Caller) -> list[Comment]:
        """What reviewers wrote in their own words, with what looks like personal data; that it was read is noted.

        Raises Conflict before closing: a chair sees progress only.
        """
        if of.status not in AFTER_CLOSING:
            raise Conflict(
                f"What reviewers wrote is read once a round is closed; this one is {of.status}.", code="wrong_status"
            )
        await self.note(of, caller, "comments.read")
        return await self._comments(of)

    async def clear(self, of: Round, numbers: Collection[int], caller: Caller) -> list[Clearance]:
        """Let the words of these entries into public bundles, each noted in the access log; those not cleared before.

        Raises InvalidRequest for what is no comment or looks like personal data.
        """
        require_clearable(await self._comments(of), numbers)
        now = datetime.now(UTC)
        new = [Clearance(number, now, who(caller)) for number in sorted(set(numbers))]

        def entry(one: Clearance) -> AccessEntry:
            return self._entry(caller, CLEAR, str(one.number), at=one.at)

        try:
            return await self.store.clear(of.id, new, entry=entry, before=_CLEARABLE)
        except WrongStatus as error:
            raise Conflict(
                f"Comments are cleared from closing until the round is archived; {error}.", code="wrong_status"
            ) from error

    async def _comments(self, of: Round) -> list[Comment]:
        votes, clearances = await self.store.votes(of.id), await self.store.clearances(of.id)
        return await asyncio.to_thread(comments_of, votes, clearances)

    async def move(self, of: Round, after: RoundStatus, caller: Caller) -> Round:
        """Open, pause or archive. Sealing, closing and the reveal are steps of their own."""
        before = _before(after)
        stamps: dict[str, Any] = {}
        if (stamp := _STAMPS.get(after)) is not None and getattr(of, stamp) is None:
            stamps[stamp] = datetime.now(UTC)
        if not await self.store.move(of.id, before, after, **stamps):
            raise _wrong_step(await self._again(of), after, before)
        await self.note(of, caller, f"round.{after}")
        return await self._again(of)

    async def close(self, of: Round, caller: Caller, conclude: Callable[[Records], Mapping[str, Any]]) -> Round:
        """End the judging, with the documents that `conclude` makes of what is kept at that moment."""
        after, now = RoundStatus.CLOSED, datetime.now(UTC)
        entry = self._entry(caller, f"round.{after}", at=now)
        if not await self.store.close(of.id, _before(after), entry=entry, conclude=conclude, closed_at=now):
            raise _wrong_step(await self._again(of), after, _before(after))
        return await self._again(of)

    async def approve_reveal(self, of: Round, caller: Caller) -> tuple[Round, list[str]]:
        """Note that this person wants the names opened; done once a chair and an operator, two people, do.

        What is still missing, in words, where anything is.
        """
        if of.status is not RoundStatus.CLOSED:
            raise _wrong_step(of, RoundStatus.REVEALED, {RoundStatus.CLOSED})
        role = Role.CHAIR if Role.CHAIR in caller.terms.roles and not caller.is_admin else Role.OPERATOR
        if role is Role.OPERATOR and not caller.has_any(OPERATING):
            raise PermissionDenied("A reveal is approved by a chair and an operator.", code="role_required")
        given = Approval(who(caller), role.value, datetime.now(UTC))
        entry = self._entry(caller, APPROVE, at=given.at)
        try:
            approved = await self.store.approve(of.id, REVEAL, given, entry=entry, before={RoundStatus.CLOSED})
        except WrongStatus as error:
            raise _wrong_step(await self._again(of), RoundStatus.REVEALED, {RoundStatus.CLOSED}) from error
        roles = {one.role for one in approved}
        missing = [wanted.value for wanted in (Role.CHAIR, Role.OPERATOR) if wanted not in roles]
        if missing:
            return of, missing
        return await self.move(of, RoundStatus.REVEALED, caller), []

    async def note(self, of: Round, caller: Caller, action: str, subject: str | None = None) -> None:
        """Write down who did or read what."""
        await self.store.note_access(of.id, self._entry(caller, action, subject))

    def _entry(
        self, caller: Caller, action: str, subject: str | None = None, *, at: datetime | None = None
    ) -> AccessEntry:
        return AccessEntry(at or datetime.now(UTC), who(caller), role_of(caller), action, subject)

    async def _again(self, of: Round) -> Round:
        found = await self.store.get(of.id)
        assert found is not None, "rounds are never removed"
        return found

    async def _reviewer(self, of: Round, reviewer_id: str) -> Reviewer:
        found = await self.store.reviewer(of.id, reviewer_id)
        if found is None:
            raise NotFound(f"This round has no reviewer '{reviewer_id[:64]}'.")
        return found

    async def _require_subject(self, of: Round, kind: str, subject: str) -> None:
        if kind == "reviewer":
            await self._reviewer(of, subject)
        elif kind == "item" and await self.store.item(of.id, subject) is None:
            raise NotFound(f"This round has no item '{subject[:64]}'.")
        elif kind == "prompt" and subject not in {prompt.id for prompt in of.plan.prompts}:
            raise NotFound(f"This round has no prompt '{subject[:64]}'.")


def require_issuer(caller: Caller) -> None:
    """Raise PermissionDenied for who may not have reviewers' links: who knows which model is which could vote by one.

    The environment's admin key may, as a gateway on a laptop has no other; the access log says that it did.
    """
    if caller.is_admin:
        return
    if Role.CHAIR not in caller.terms.roles or caller.has_any(OPERATING):
        raise PermissionDenied(
            "Reviewers' links are issued by a chair: a key with the role chair, without operator and admin.",
            code="role_required",
        )


def who(caller: Caller) -> str:
    """By what name a person stands in a round's books."""
    return caller.key or ADMIN


def role_of(caller: Caller) -> str:
    if caller.is_admin:
        return Role.ADMIN.value
    order = (Role.CHAIR, Role.OPERATOR, Role.ADMIN, Role.AUDITOR, Role.REVIEWER, Role.INTEGRATOR)
    return next((role.value for role in order if role in caller.terms.roles), "none")


def _before(after: RoundStatus) -> set[RoundStatus]:
    """Where the step to `after` begins."""
    return {status for status, following in NEXT.items() if after in following}


def _wrong_step(of: Round, after: RoundStatus, before: set[RoundStatus]) -> Conflict:
    from_where = " or ".join(sorted(status.value for status in before))
    following = ", ".join(sorted(status.value for status in NEXT[of.status])) or "nothing"
    return Conflict(
        f"A round becomes {after} from {from_where}; this one is {of.status}, after which comes {following}.",
        code="wrong_status",
    )
