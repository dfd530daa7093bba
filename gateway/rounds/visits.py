"""Where a reviewer stands in a round, and what they have before them, as values.

What they may do there belongs in `voting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from gateway.domain.rounds import AFTER_CLOSING, AFTER_REVEAL, Reviewer, Round, RoundItem, RoundStatus, VoteEntry
from gateway.rounds.judgement import Judgement, is_complete
from gateway.rounds.links import Session

MAX_CONFLICTS = 2
"""Consortia that a reviewer may declare a conflict with on their own word. Whoever names all but two would have only
those two before them, and know which they are."""


class Stage(StrEnum):
    """Where a reviewer stands, and so what they are shown."""

    NOT_OPEN = "not_open"
    PAUSED = "paused"
    CLOSED = "closed"
    """It ended before they submitted; what they saved counts."""
    CONSENT = "consent"
    HELD = "held"
    """They declared more conflicts than one may; the chair decides, by a new link or by revoking the old one."""
    TRAINING = "training"
    JUDGING = "judging"
    QUESTIONNAIRE = "questionnaire"
    DONE = "done"
    REVEALED = "revealed"


@dataclass(frozen=True, slots=True)
class Visit:
    """A reviewer who was let in, and the round that they judge in."""

    round: Round
    reviewer: Reviewer
    session: Session

    @property
    def stage(self) -> Stage:
        return stage_of(self.round, self.reviewer)


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One of a reviewer's own items, as the list of them shows it."""

    item: RoundItem
    vote: VoteEntry | None

    @property
    def is_done(self) -> bool:
        return self.vote is not None and is_complete(self.vote.judgement)

    @property
    def state(self) -> str:
        """open | begun | done"""
        return "done" if self.is_done else "open" if self.vote is None else "begun"

    @property
    def judgement(self) -> Judgement:
        return {} if self.vote is None else self.vote.judgement

    @property
    def revision(self) -> int:
        return 0 if self.vote is None else self.vote.revision


@dataclass(frozen=True, slots=True)
class Pair:
    """What is read to judge: a prompt and what stands on the two sides."""

    language: str
    prompt: str
    a: str
    b: str


def stage_of(round_: Round, reviewer: Reviewer) -> Stage:
    """Where a reviewer stands in a round."""
    if round_.status in AFTER_REVEAL:
        return Stage.REVEALED
    if reviewer.submitted_at is not None:
        return Stage.QUESTIONNAIRE if reviewer.questionnaire is None else Stage.DONE
    if round_.status in AFTER_CLOSING:
        return Stage.CLOSED
    if round_.status is RoundStatus.PAUSED:
        return Stage.PAUSED
    if round_.status is not RoundStatus.OPEN:
        return Stage.NOT_OPEN
    if reviewer.consented_at is None:
        return Stage.HELD if len(reviewer.conflicts) > MAX_CONFLICTS else Stage.CONSENT
    if reviewer.trained_at is None and round_.plan.training:
        return Stage.TRAINING
    return Stage.JUDGING


def seconds_left(entries: Sequence[QueueEntry]) -> int | None:
    """An estimate from the median of what was done; None before three items say anything."""
    spent = [entry.judgement["seconds"] for entry in entries if entry.is_done and "seconds" in entry.judgement]
    if len(spent) < 3:
        return None
    return int(median(spent) * sum(not entry.is_done for entry in entries))
