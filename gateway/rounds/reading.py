"""What is read of a round inside a transaction that somebody else began.

Writing, and when a transaction begins, belong in `rounds.store`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.rounds import (
    AccessEntry,
    Approval,
    Clearance,
    Exclusion,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    VoteEntry,
)
from gateway.rounds.rows import answer_from, item_from, reviewer_from, round_from, vote_from
from gateway.rounds.tables import (
    round_access,
    round_answers,
    round_approvals,
    round_clearances,
    round_documents,
    round_exclusions,
    round_items,
    round_reviewers,
    round_votes,
    rounds,
)


@dataclass(frozen=True, slots=True)
class Records:
    """What is kept of a round besides its votes and queues, at one moment."""

    round: Round
    documents: Mapping[str, Any]
    """By name: the sealed parts of what is sealed."""
    answers: Sequence[RoundAnswer]
    exclusions: Sequence[Exclusion]
    accesses: Sequence[AccessEntry]
    reviewers: Sequence[Reviewer]


async def read_records(connection: AsyncConnection, round_id: str) -> Records:
    statement = sa.select(rounds).where(rounds.c.id == round_id)
    return Records(
        round=round_from((await connection.execute(statement)).mappings().one()),
        documents=await read_documents(connection, round_id, None),
        answers=await read_answers(connection, round_id),
        exclusions=[Exclusion(**row) for row in await read_numbered(connection, round_exclusions, round_id)],
        accesses=[AccessEntry(**row) for row in await read_numbered(connection, round_access, round_id)],
        reviewers=await read_reviewers(connection, round_id),
    )


async def read_answers(connection: AsyncConnection, round_id: str) -> list[RoundAnswer]:
    statement = sa.select(round_answers).where(round_answers.c.round_id == round_id)
    ordered = statement.order_by(round_answers.c.prompt_id, round_answers.c.model)
    return [answer_from(row) for row in (await connection.execute(ordered)).mappings()]


async def read_reviewers(connection: AsyncConnection, round_id: str) -> list[Reviewer]:
    statement = sa.select(round_reviewers).where(round_reviewers.c.round_id == round_id)
    rows = (await connection.execute(statement.order_by(round_reviewers.c.id))).mappings()
    return [reviewer_from(row) for row in rows]


async def read_items(connection: AsyncConnection, round_id: str, reviewer: str | None) -> list[RoundItem]:
    statement = sa.select(round_items).where(round_items.c.round_id == round_id)
    if reviewer is not None:
        statement = statement.where(round_items.c.reviewer == reviewer)
    ordered = statement.order_by(round_items.c.reviewer, round_items.c.position)
    return [item_from(row) for row in (await connection.execute(ordered)).mappings()]


async def read_votes_of(connection: AsyncConnection, round_id: str, reviewer: str) -> dict[str, VoteEntry]:
    at = round_votes.c
    statement = sa.select(round_votes).where(at.round_id == round_id, at.reviewer == reviewer).order_by(at.number)
    return {row["item"]: vote_from(row) for row in (await connection.execute(statement)).mappings()}


async def read_numbered(connection: AsyncConnection, table: sa.Table, round_id: str) -> list[dict[str, Any]]:
    columns = [column for column in table.columns if column.name not in ("round_id", "number")]
    statement = sa.select(*columns).where(table.c.round_id == round_id).order_by(table.c.number)
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def read_clearances(connection: AsyncConnection, round_id: str) -> list[Clearance]:
    """In the order of the chain."""
    at = round_clearances.c
    statement = sa.select(at.number, at.at, at.by).where(at.round_id == round_id).order_by(at.number)
    return [Clearance(**row) for row in (await connection.execute(statement)).mappings()]


async def read_approvals(connection: AsyncConnection, round_id: str, action: str) -> list[Approval]:
    """In the order in which they were given."""
    at = round_approvals.c
    statement = sa.select(at.who, at.role, at.at).where(at.round_id == round_id, at.action == action)
    return [Approval(**row) for row in (await connection.execute(statement.order_by(at.at, at.who))).mappings()]


async def read_documents(connection: AsyncConnection, round_id: str, names: Collection[str] | None) -> dict[str, Any]:
    at = round_documents.c
    statement = sa.select(at.name, at.content).where(at.round_id == round_id)
    if names is not None:
        statement = statement.where(at.name.in_(list(names)))
    return {name: content for name, content in await connection.execute(statement)}  # noqa: C416  typed rows
