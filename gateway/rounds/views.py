"""Rounds as callers see them: objects for the API, the command line and the chair's pages.

Values in, values out. Nothing here ever holds a model's name beside an answer, or a standing before the round closed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from gateway.domain.rounds import (
    AFTER_CLOSING,
    AFTER_REVEAL,
    NEXT,
    AccessEntry,
    AnswerStatus,
    Approval,
    Clearance,
    Exclusion,
    ItemKind,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundStatus,
    VoteEntry,
)
from gateway.rounds.answering import AnsweringProgress
from gateway.rounds.clearing import Comment
from gateway.rounds.visits import MAX_CONFLICTS

STUCK_AFTER_S = 2 * 24 * 3600.0
"""A reviewer who began and was not seen for so long may need a word."""


def round_object(
    one: Round, *, reviewers: int, closing: str | None = None, approvals: Sequence[Approval] = ()
) -> dict[str, Any]:
    """A round as the API shows it. The chain's head is published once nothing can be added to it.

    `closing`: the root over what is fixed then besides the votes; `approvals`: of the reveal, shown after it.
    """
    moments = ("created_at", "sealed_at", "opened_at", "closed_at", "revealed_at", "archived_at")
    return {
        "id": one.id,
        "name": one.name,
        "title": one.plan.title.document(),
        "kind": one.plan.kind.value,
        "status": one.status.value,
        **{name: _moment(getattr(one, name)) for name in moments},
        "provenance": one.provenance,
        "root": one.root,
        "head": one.head if one.status in AFTER_CLOSING else None,
        "closing": closing,
        "approvals": None
        if one.status not in AFTER_REVEAL
        else [{"who": given.who, "role": given.role, "at": _moment(given.at)} for given in approvals],
        "prompts": len(one.plan.prompts),
        "models": len(one.plan.models),
        "reviewers": reviewers,
        "votes": one.votes,
        "dry_run": dict(one.dry_run) if one.dry_run is not None else None,
        "next": sorted(status.value for status in NEXT[one.status]),
    }


def answering_object(progress: AnsweringProgress, answers: Sequence[RoundAnswer]) -> dict[str, Any]:
    """How far the answers are, and what is kept of them: counts, and the failures of each model for the operator."""
    failed = [answer for answer in answers if answer.status is AnswerStatus.FAILED]
    codes = Counter((answer.model, (answer.facts.get("error") or {}).get("code")) for answer in failed)
    return {
        "asked": {"total": progress.total, "done": progress.done, "failed": progress.failed},
        "is_over": progress.is_over,
        "waiting_for": progress.waiting_for,
        "batches": [batch.id for batch in progress.batches],
        "kept": {
            "answers": len(answers),
            "failed": len(failed),
            "redacted": sum(1 for answer in answers if answer.redactions),
            "provenance": dict(Counter(a.provenance for a in answers if a.status is AnswerStatus.OK)),
        },
        "failures": [{"model": model, "code": code, "count": count} for (model, code), count in sorted(codes.items())],
    }


def without_models(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What a chair may see of `answering_object` before the reveal: that something waits, and not for whom."""
    waits = None if shown["waiting_for"] is None else "a model or a limit; operators see which"
    return {**shown, "waiting_for": waits, "failures": None}


def progress_object(
    reviewers: Sequence[Reviewer],
    items: Sequence[RoundItem],
    votes: Sequence[VoteEntry],
    exclusions: Sequence[Exclusion],
    *,
    now: datetime,
) -> dict[str, Any]:
    """What the chair watches: how far everybody is, by stratum, who seems stuck; never what they chose."""
    judged: dict[str, dict[str, VoteEntry]] = defaultdict(dict)
    for vote in votes:
        judged[vote.reviewer][vote.item] = vote
    queues: dict[str, list[RoundItem]] = defaultdict(list)
    for item in items:
        if item.set_aside is None:
            queues[item.reviewer].append(item)
    excluded = {one.subject for one in exclusions if one.kind == "reviewer"}
    rows = [_reviewer_row(one, queues[one.id], judged[one.id], one.id in excluded, now) for one in reviewers]
    strata: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        strata[row["stratum"]].append(row)
    return {
        "at": now.isoformat(),
        "reviewers": rows,
        "strata": [
            {
                "stratum": stratum,
                "reviewers": len(some),
                "submitted": sum(1 for row in some if row["state"] == "submitted"),
                "judged": sum(row["judged"] for row in some),
                "items": sum(row["items"] for row in some),
            }
            for stratum, some in sorted(strata.items())
        ],
        "set_aside": dict(Counter(item.set_aside for item in items if item.set_aside is not None)),
        "exclusions": [exclusion_object(one) for one in exclusions],
    }


def exclusion_object(one: Exclusion) -> dict[str, Any]:
    return {
        "at": one.at.isoformat(),
        "rule": one.rule,
        "kind": one.kind,
        "subject": one.subject,
        "reason": one.reason,
        "by": one.by,
    }


def comment_object(one: Comment) -> dict[str, Any]:
    given = one.clearance
    return {
        "entry": one.number,
        "item": one.item,
        "reviewer": one.reviewer,
        "words": dict(one.words),
        "findings": [{"field": f.field, "kind": f.kind, "masked": f.masked} for f in one.findings],
        "cleared_at": None if given is None else given.at.isoformat(),
        "cleared_by": None if given is None else given.by,
    }


def clearance_object(one: Clearance) -> dict[str, Any]:
    return {"entry": one.number, "at": one.at.isoformat(), "by": one.by}


def access_object(one: AccessEntry) -> dict[str, Any]:
    return {"at": one.at.isoformat(), "who": one.who, "role": one.role, "action": one.action, "subject": one.subject}


def is_judged(vote: VoteEntry | None) -> bool:
    """Whether an item's last revision says what it must: an overall choice."""
    return vote is not None and vote.judgement.get("choice") is not None


def _reviewer_row(
    one: Reviewer, queue: Collection[RoundItem], votes: Mapping[str, VoteEntry], is_excluded: bool, now: datetime
) -> dict[str, Any]:
    judged = [vote for item in queue if (vote := votes.get(item.id)) is not None and is_judged(vote)]
    seconds = [s for vote in judged if isinstance(s := vote.judgement.get("seconds"), int | float)]
    last = max([moment for moment in (one.seen_at, *(vote.at for vote in votes.values())) if moment], default=None)
    silent_s = (now - last).total_seconds() if last is not None else None
    state = _state(one, len(judged), len(queue))
    return {
        "id": one.id,
        "label": one.label,
        "stratum": one.stratum,
        "language": one.language,
        "state": state,
        "items": len(queue),
        "judged": len(judged),
        "repeats": sum(1 for item in queue if item.kind is ItemKind.REPEAT),
        "median_seconds": median(seconds) if seconds else None,
        "last_seen": _moment(last),
        "is_stuck": state == "judging" and silent_s is not None and silent_s > STUCK_AFTER_S,
        "is_excluded": is_excluded,
    }


def _state(one: Reviewer, judged: int, items: int) -> str:
    """revoked | submitted | held | invited | consented | judging | ready"""
    if one.revoked_at is not None:
        return "revoked"
    if one.submitted_at is not None:
        return "submitted"
    if one.consented_at is None:
        return "held" if len(one.conflicts) > MAX_CONFLICTS else "invited"
    if judged == 0:
        return "consented"
    return "ready" if judged >= items else "judging"


def may_see_standings(status: RoundStatus) -> bool:
    """Not before closing, for anyone: looking early makes a true null look significant."""
    return status in AFTER_CLOSING


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
