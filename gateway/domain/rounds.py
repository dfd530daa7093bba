"""The facts of a blind review round, as frozen values: its plan, its life, and what people did in it.

A plan is what is fixed before anybody judges; `plan_document` is the form of it that is sealed. Who judges what belongs
in `assignment`, what the votes may claim in `ranking`, hashes in `sealing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any


class RoundStatus(StrEnum):
    DRAFT = "draft"
    """The plan may change; answers are made and redacted."""
    SEALED = "sealed"
    """Everything is fixed and its commitment published; nobody votes yet."""
    OPEN = "open"
    PAUSED = "paused"
    """Reviewers see that it rests; what they saved stays."""
    CLOSED = "closed"
    """No vote is taken any more; standings exist, without names."""
    REVEALED = "revealed"
    """Two people opened the names."""
    ARCHIVED = "archived"
    """Read only, for as long as the plan's retention says."""


NEXT: Mapping[RoundStatus, frozenset[RoundStatus]] = {
    RoundStatus.DRAFT: frozenset({RoundStatus.SEALED}),
    RoundStatus.SEALED: frozenset({RoundStatus.OPEN}),
    RoundStatus.OPEN: frozenset({RoundStatus.PAUSED, RoundStatus.CLOSED}),
    RoundStatus.PAUSED: frozenset({RoundStatus.OPEN, RoundStatus.CLOSED}),
    RoundStatus.CLOSED: frozenset({RoundStatus.REVEALED}),
    RoundStatus.REVEALED: frozenset({RoundStatus.ARCHIVED}),
    RoundStatus.ARCHIVED: frozenset(),
}
"""The steps of a round's life. There is no way back: what was seen cannot be unseen."""
AFTER_CLOSING = frozenset({RoundStatus.CLOSED, RoundStatus.REVEALED, RoundStatus.ARCHIVED})
"""When standings may exist at all."""
AFTER_REVEAL = frozenset({RoundStatus.REVEALED, RoundStatus.ARCHIVED})
"""When names may stand beside answers."""


class RoundKind(StrEnum):
    """What is judged."""

    ANSWERS = "answers"
    """What the models wrote."""
    CARDS = "cards"
    """What is known of each candidate's serving plan, in bins: realism cannot be judged from text."""


class ReasoningPolicy(StrEnum):
    """What reviewers see of the models' reasoning: the same for all."""

    HIDDEN = "hidden"
    SHOWN = "shown"
    """After redaction, for all that have any."""


class PrimaryRanking(StrEnum):
    """Which of the two rankings leads; named before anybody votes."""

    RAW = "raw"
    STYLE_CONTROLLED = "style_controlled"


class ItemKind(StrEnum):
    VOTE = "vote"
    REPEAT = "repeat"
    """The same pair again with sides swapped: measures the reviewer's consistency, stays out of the fit."""
    ATTENTION = "attention"
    """One side is plainly worse; stays out of the fit."""
    TRAINING = "training"
    """Before the queue; never counted."""


class Choice(StrEnum):
    """The overall judgement of an item. What `ranking.votes.Outcome` calls it too."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    CANNOT_JUDGE = "cannot_judge"


@dataclass(frozen=True, slots=True)
class Text:
    """The same words in both languages."""

    ko: str
    en: str

    def document(self) -> dict[str, str]:
        return {"ko": self.ko, "en": self.en}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question that each item is judged by, graded from -2 (A much better) to +2 (B much better).

    `weight`: its share of the composite; those of a rubric add up to 1.
    """

    id: str
    title: Text
    question: Text
    weight: Decimal


@dataclass(frozen=True, slots=True)
class RoundPrompt:
    """What is asked. `stratum` is the industry; `language` that of the prompt, ko or en."""

    id: str
    stratum: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class PracticeItem:
    """A pair written by hand for training or attention: nothing of it comes from a candidate.

    `better`: the side that is plainly better as written here, a or b; `why` is shown after a training answer.
    """

    id: str
    language: str
    text: str
    a: str
    b: str
    better: Choice
    why: Text


@dataclass(frozen=True, slots=True)
class DesignOptions:
    """How the queues are made; see `assignment`."""

    votes_per_reviewer: int
    overlap_share: float = 0.15
    repeats_per_reviewer: int = 2
    attention_per_reviewer: int = 1


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """Everything that is fixed before a round opens."""

    title: Text
    models: tuple[str, ...]
    prompts: tuple[RoundPrompt, ...]
    rubric: tuple[Criterion, ...]
    design: DesignOptions
    sampling: Mapping[str, Any]
    """Parameters of the answers, as a comparison takes them: temperature, max_tokens, seed ..."""
    kind: RoundKind = RoundKind.ANSWERS
    samples: int = 1
    """Answers of each model to each prompt; the first that is there is judged."""
    reasoning: ReasoningPolicy = ReasoningPolicy.HIDDEN
    primary: PrimaryRanking = PrimaryRanking.RAW
    cut: int | None = None
    """How many candidates go on: the line between rank `cut` and `cut` + 1 is the one disputed; None = no line."""
    training: tuple[PracticeItem, ...] = ()
    attention: tuple[PracticeItem, ...] = ()
    retention_until: date | None = None
    """When names of reviewers and comments are to be erased."""
    evidence_runs: tuple[str, ...] = ()
    """Of a round of cards: load runs whose calls count; none = all calls of the last `evidence_days`."""
    evidence_days: int = 30
    notice: Text | None = None
    """Shown to reviewers before they consent: who asks, what for, what is kept."""


def plan_document(plan: RoundPlan) -> dict[str, Any]:
    """The plan as plain JSON values, of which `read_plan` makes the same plan again. Money and weights are strings."""
    return {
        "title": plan.title.document(),
        "models": list(plan.models),
        "prompts": [{"id": p.id, "stratum": p.stratum, "language": p.language, "text": p.text} for p in plan.prompts],
        "rubric": [
            {"id": c.id, "title": c.title.document(), "question": c.question.document(), "weight": str(c.weight)}
            for c in plan.rubric
        ],
        "design": {
            "votes_per_reviewer": plan.design.votes_per_reviewer,
            "overlap_share": plan.design.overlap_share,
            "repeats_per_reviewer": plan.design.repeats_per_reviewer,
            "attention_per_reviewer": plan.design.attention_per_reviewer,
        },
        "sampling": dict(plan.sampling),
        "kind": plan.kind.value,
        "samples": plan.samples,
        "reasoning": plan.reasoning.value,
        "primary": plan.primary.value,
        "cut": plan.cut,
        "training": [_practice_document(item) for item in plan.training],
        "attention": [_practice_document(item) for item in plan.attention],
        "retention_until": plan.retention_until.isoformat() if plan.retention_until is not None else None,
        "evidence_runs": list(plan.evidence_runs),
        "evidence_days": plan.evidence_days,
        "notice": plan.notice.document() if plan.notice is not None else None,
    }


def read_plan(document: Mapping[str, Any]) -> RoundPlan:
    """The plan that a document holds, which `plan_document` made."""
    kept, notice = document["retention_until"], document["notice"]
    return RoundPlan(
        title=Text(**document["title"]),
        models=tuple(document["models"]),
        prompts=tuple(RoundPrompt(**prompt) for prompt in document["prompts"]),
        rubric=tuple(
            Criterion(c["id"], Text(**c["title"]), Text(**c["question"]), Decimal(c["weight"]))
            for c in document["rubric"]
        ),
        design=DesignOptions(**document["design"]),
        sampling=document["sampling"],
        kind=RoundKind(document["kind"]),
        samples=document["samples"],
        reasoning=ReasoningPolicy(document["reasoning"]),
        primary=PrimaryRanking(document["primary"]),
        cut=document["cut"],
        training=tuple(_practice_item(item) for item in document["training"]),
        attention=tuple(_practice_item(item) for item in document["attention"]),
        retention_until=date.fromisoformat(kept) if kept is not None else None,
        evidence_runs=tuple(document["evidence_runs"]),
        evidence_days=document["evidence_days"],
        notice=Text(**notice) if notice is not None else None,
    )


def _practice_document(item: PracticeItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "language": item.language,
        "text": item.text,
        "a": item.a,
        "b": item.b,
        "better": item.better.value,
        "why": item.why.document(),
    }


def _practice_item(fields: Mapping[str, Any]) -> PracticeItem:
    return PracticeItem(**{**fields, "better": Choice(fields["better"]), "why": Text(**fields["why"])})


# --- what is kept of a round --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """A round as it stands."""

    id: str
    name: str
    created_at: datetime
    organisation: str
    """Whose it is; "" is the operator."""
    status: RoundStatus
    plan: RoundPlan
    provenance: str | None = None
    """Of the answers: the weakest of them; None before there is one."""
    lexicon: str | None = None
    """Digest of the names that the kept answers were redacted with; None before there are any, and of cards."""
    seed: str | None = None
    """Of the design, hexadecimal; drawn when it is sealed."""
    root: str | None = None
    """The published commitment to everything that is fixed, from SEALED on."""
    head: str | None = None
    """Of the chain of votes: the last entry's hash; None before the first vote."""
    votes: int = 0
    """Entries of that chain, revisions included."""
    dry_run: Mapping[str, Any] | None = None
    """What the last dry run found, with the digest of the plan that it was made for."""
    sealed_at: datetime | None = None
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    revealed_at: datetime | None = None
    archived_at: datetime | None = None


class AnswerStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    """No answer by the rule fixed beforehand; the pairs that need it are put aside."""


@dataclass(frozen=True, slots=True)
class RoundAnswer:
    """One model's answer to one prompt, as it came and as reviewers see it."""

    prompt_id: str
    model: str
    status: AnswerStatus
    comparison_id: str | None
    call_id: str | None
    provenance: str
    text: str | None
    """As the model wrote it: the visible text, behind the reasoning where the policy shows that."""
    shown: str | None
    """After redaction."""
    redactions: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any]
    """usage, timing, cost, finish_reason, error, attempts, as the comparison recorded them."""


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Somebody who judges. Their name and address are not here: `label` is whatever the chair tells them apart by."""

    id: str
    """What the bundle calls them: a pseudonym."""
    label: str
    stratum: str
    language: str = "ko"
    link_serial: int = 0
    """Goes up when their link is made anew; older links are void."""
    revoked_at: datetime | None = None
    session: str | None = None
    """Digest of the one session that is in force."""
    consented_at: datetime | None = None
    conflicts: tuple[str, ...] = ()
    """Consortia that they declared a conflict with."""
    trained_at: datetime | None = None
    submitted_at: datetime | None = None
    questionnaire: Mapping[str, Any] | None = None
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RoundItem:
    """One place in a reviewer's queue. Reviewers see `id`, `left_id`, `right_id` and nothing else of it."""

    id: str
    """128 random bits: means nothing anywhere else."""
    reviewer: str
    position: int
    """From 0."""
    kind: ItemKind
    prompt_id: str
    """Of a prompt, or of a practice item."""
    left: str
    """The model on side A; for a practice item its own a or b."""
    right: str
    left_id: str
    right_id: str
    repeat_of: str | None = None
    """The item that this one repeats with sides swapped."""
    is_shared: bool = False
    """Judged by at least three reviewers, for agreement."""
    set_aside: str | None = None
    """Why nobody is asked: a rule's name."""


@dataclass(frozen=True, slots=True)
class VoteEntry:
    """One link of the chain of votes: a revision of an item's judgement. The last revision of an item counts."""

    number: int
    """From 1, without gaps."""
    item: str
    reviewer: str
    revision: int
    """Of this item, from 1."""
    at: datetime
    judgement: Mapping[str, Any]
    """choice, grades, reason, comment, recognised, seconds; what was not said yet is absent."""
    previous: str
    hash: str
    salt: str | None = None
    """Hexadecimal: hides the free words in the chain; None where there are none."""
    shown: Mapping[str, str] | None = None
    """SHA-256 of prompt, a and b as they were on the screen, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A vote, a pair or a reviewer that does not count, by a rule, for the chair to see."""

    at: datetime
    rule: str
    kind: str
    """reviewer | item | pair | prompt"""
    subject: str
    reason: str
    by: str
    """The key that did it, or "rule"."""


@dataclass(frozen=True, slots=True)
class Clearance:
    """The free words of one vote may be published."""

    number: int
    """Of the entry in the chain."""
    at: datetime
    by: str
    """The key that cleared them, or "admin"."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody's word for a step that takes two people."""

    who: str
    """The key that gave it, or "admin"."""
    role: str
    """As what they approved: chair or operator."""
    at: datetime


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """Who did or read what of a round, and when."""

    at: datetime
    who: str
    """A reviewer's pseudonym, a key's id, or "admin"."""
    role: str
    action: str
    subject: str | None = None
