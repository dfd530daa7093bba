"""How the facts of a round lie in the rows of its tables, and come back out of them."""

from __future__ import annotations

from typing import Any

from gateway.domain.rounds import (
    AnswerStatus,
    ItemKind,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundStatus,
    VoteEntry,
    plan_document,
    read_plan,
)
from gateway.rounds.tables import rounds


def round_row(one: Round) -> dict[str, Any]:
    row = {column.name: getattr(one, column.name) for column in rounds.columns}
    return {**row, "status": one.status.value, "plan": plan_document(one.plan)}


def round_from(row: Any) -> Round:
    fields = {name: row[name] for name in Round.__slots__}
    return Round(**{**fields, "status": RoundStatus(row["status"]), "plan": read_plan(row["plan"])})


def answer_row(round_id: str, answer: RoundAnswer) -> dict[str, Any]:
    fields = {name: getattr(answer, name) for name in RoundAnswer.__slots__}
    return {"round_id": round_id, **fields, "redactions": list(answer.redactions), "facts": dict(answer.facts)}


def answer_from(row: Any) -> RoundAnswer:
    fields = {name: row[name] for name in RoundAnswer.__slots__}
    return RoundAnswer(**{**fields, "status": AnswerStatus(row["status"]), "redactions": tuple(row["redactions"])})


def reviewer_row(round_id: str, reviewer: Reviewer) -> dict[str, Any]:
    fields = {name: getattr(reviewer, name) for name in Reviewer.__slots__}
    return {"round_id": round_id, **fields, "conflicts": list(reviewer.conflicts)}


def reviewer_from(row: Any) -> Reviewer:
    fields = {name: row[name] for name in Reviewer.__slots__}
    return Reviewer(**{**fields, "conflicts": tuple(row["conflicts"])})


def item_row(round_id: str, item: RoundItem) -> dict[str, Any]:
    return {"round_id": round_id, **{name: getattr(item, name) for name in RoundItem.__slots__}}


def item_from(row: Any) -> RoundItem:
    fields = {name: row[name] for name in RoundItem.__slots__}
    return RoundItem(**{**fields, "kind": ItemKind(row["kind"])})


def vote_from(row: Any) -> VoteEntry:
    return VoteEntry(**{name: row[name] for name in VoteEntry.__slots__})
