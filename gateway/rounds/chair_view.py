"""Rounds as their pages show them: moments, the line of a round's life, words for states and rules.

Values in, values out; what a page needs to know is gathered in `api.chair`. Nothing here holds a model's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.domain.rounds import Exclusion, Round, RoundStatus
from gateway.rounds.figure_words import KOREA
from gateway.web import word

STATUS: Mapping[str, str] = {
    "draft": word("Draft"),
    "sealed": word("Sealed"),
    "open": word("Open"),
    "paused": word("Paused"),
    "closed": word("Closed"),
    "revealed": word("Revealed"),
    "archived": word("Archived"),
}
STATES: Mapping[str, str] = {
    "invited": word("invited"),
    "held": word("waits for the chair: many conflicts of interest"),
    "consented": word("has agreed"),
    "judging": word("is judging"),
    "ready": word("can submit"),
    "submitted": word("has submitted"),
    "revoked": word("let in no more"),
}
PROVENANCE: Mapping[str | None, str] = {
    None: word("No answers are collected yet."),
    "real": word("The answers are real: of the registry's models, on the hardware named."),
    "stand_in": word("A trial: a real engine with random weights answered. There will be no ranking."),
    "simulated": word("A trial: the answers are simulated. There will be no ranking."),
    "unknown": word("Where the answers come from is not known. There will be no ranking."),
}
RULES: Mapping[str, str] = {
    "conflict": word("conflict of interest"),
    "no_answer": word("an answer is missing"),
    "failed": word("an answer is missing"),
    "chair": word("decided by the chair"),
}
KINDS: Mapping[str, str] = {
    "reviewer": word("reviewer"),
    "item": word("item"),
    "prompt": word("question"),
}
"""What can be excluded."""
_LINE = (
    (RoundStatus.DRAFT, "created_at"),
    (RoundStatus.SEALED, "sealed_at"),
    (RoundStatus.OPEN, "opened_at"),
    (RoundStatus.CLOSED, "closed_at"),
    (RoundStatus.REVEALED, "revealed_at"),
    (RoundStatus.ARCHIVED, "archived_at"),
)


def moment(at: datetime | str | None) -> str | None:
    """A moment in Korea, to the minute."""
    if at is None:
        return None
    found = datetime.fromisoformat(at) if isinstance(at, str) else at
    return found.astimezone(KOREA).strftime("%Y-%m-%d %H:%M")


def life_line(one: Round) -> list[dict[str, Any]]:
    """The stations of a round's life in their order; a paused round stands at the one where it was opened."""
    at = RoundStatus.OPEN if one.status is RoundStatus.PAUSED else one.status
    now = [status for status, _ in _LINE].index(at)
    return [
        {
            "label": STATUS["paused" if n == now and one.status is RoundStatus.PAUSED else status.value],
            "at": moment(getattr(one, name)),
            "state": "done" if n < now else "now" if n == now else "ahead",
        }
        for n, (status, name) in enumerate(_LINE)
    ]


def round_row(one: Round, *, language: str, reviewers: int) -> dict[str, Any]:
    """A round in the list."""
    return {
        "id": one.id,
        "name": one.name,
        "title": one.plan.title.document()[language],
        "status": one.status.value,
        "label": STATUS[one.status.value],
        "reviewers": reviewers,
        "prompts": len(one.plan.prompts),
        "created": moment(one.created_at),
    }


def set_aside_rows(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Items that nobody is asked, by rule."""
    return [{"rule": RULES.get(rule, rule), "count": count} for rule, count in sorted(counts.items())]


def exclusion_rows(exclusions: Sequence[Exclusion], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """People's own decisions one by one; what a rule did by itself stands in `rule_rows`."""
    return [
        {
            "at": moment(one.at),
            "rule": RULES.get(one.rule, one.rule),
            "kind": KINDS.get(one.kind, one.kind),
            "subject": labels.get(one.subject, one.subject),
            "reason": one.reason,
            "by": one.by,
        }
        for one in exclusions
        if one.by != "rule"
    ]


def rule_rows(exclusions: Sequence[Exclusion]) -> list[dict[str, Any]]:
    """How often each rule left something out by itself."""
    counts = Counter((one.rule, one.reason) for one in exclusions if one.by == "rule")
    return [
        {"rule": RULES.get(rule, rule), "reason": reason, "count": n} for (rule, reason), n in sorted(counts.items())
    ]
