"""Blind review rounds: plans, answers, reviewers, queues, the chain of votes, and who did what.

Types are spelled out here and not taken from `gateway.tables`: a step must go on meaning what it meant.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "rounds",
        *_texts("id", "name"),
        _moment("created_at", is_needed=True),
        *_texts("organisation", "status"),
        _json("plan"),
        *_texts("provenance", "seed", "root", "head", are_needed=False),
        sa.Column("votes", sa.BigInteger(), nullable=False),
        _json("dry_run", is_needed=False),
        *(_moment(f"{name}_at") for name in ("sealed", "opened", "closed", "revealed", "archived")),
        sa.PrimaryKeyConstraint("id", name="pk_rounds"),
        sa.UniqueConstraint("organisation", "name", name="uq_rounds_organisation"),
    )
    _create("round_secrets", ["name"], *_texts("name", "value"))
    _create("round_batches", ["batch_id"], *_texts("batch_id"), _integer("position"))
    _create(
        "round_answers",
        ["prompt_id", "model"],
        *_texts("prompt_id", "model", "status"),
        *_texts("comparison_id", "call_id", are_needed=False),
        *_texts("provenance"),
        _json("text", is_needed=False),
        _json("shown", is_needed=False),
        _json("redactions"),
        _json("facts"),
    )
    _create(
        "round_reviewers",
        ["id"],
        *_texts("id", "label", "stratum", "language"),
        _integer("link_serial"),
        _moment("revoked_at"),
        *_texts("session", are_needed=False),
        _moment("consented_at"),
        _json("conflicts"),
        _moment("trained_at"),
        _moment("submitted_at"),
        _json("questionnaire", is_needed=False),
        _moment("seen_at"),
    )
    op.create_index("ix_round_reviewers_session", "round_reviewers", ["session"])
    _create(
        "round_items",
        ["id"],
        *_texts("id", "reviewer"),
        _integer("position"),
        *_texts("kind", "prompt_id", "left", "right", "left_id", "right_id"),
        *_texts("repeat_of", are_needed=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        *_texts("set_aside", are_needed=False),
        sa.UniqueConstraint("round_id", "reviewer", "position", name="uq_round_items_round_id"),
    )
    _create(
        "round_votes",
        ["number"],
        sa.Column("number", sa.BigInteger(), nullable=False),
        *_texts("item", "reviewer"),
        _integer("revision"),
        _moment("at", is_needed=True),
        _json("judgement"),
        *_texts("previous", "hash"),
        sa.UniqueConstraint("round_id", "item", "revision", name="uq_round_votes_round_id"),
    )
    op.create_index("ix_round_votes_reviewer", "round_votes", ["round_id", "reviewer"])
    _create(
        "round_exclusions",
        ["number"],
        _integer("number"),
        _moment("at", is_needed=True),
        *_texts("rule", "kind", "subject", "reason", "by"),
    )
    _create(
        "round_access",
        ["number"],
        sa.Column("number", sa.BigInteger(), nullable=False),
        _moment("at", is_needed=True),
        *_texts("who", "role", "action"),
        *_texts("subject", are_needed=False),
    )
    _create("round_documents", ["name"], *_texts("name"), _json("content"))
    _create("round_approvals", ["action", "who"], *_texts("action", "who", "role"), _moment("at", is_needed=True))


def downgrade() -> None:
    op.drop_index("ix_round_votes_reviewer", "round_votes")
    op.drop_index("ix_round_reviewers_session", "round_reviewers")
    for name in (
        "approvals",
        "documents",
        "access",
        "exclusions",
        "votes",
        "items",
        "reviewers",
        "answers",
        "batches",
        "secrets",
    ):
        op.drop_table(f"round_{name}")
    op.drop_table("rounds")


def _create(name: str, key: list[str], *columns: Any) -> None:
    op.create_table(
        name,
        sa.Column("round_id", sa.Text(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("round_id", *key, name=f"pk_{name}"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=f"fk_{name}_round_id_rounds"),
    )


def _texts(*names: str, are_needed: bool = True) -> tuple[sa.Column[Any], ...]:
    return tuple(sa.Column(name, sa.Text(), nullable=not are_needed) for name in names)


def _moment(name: str, *, is_needed: bool = False) -> sa.Column[Any]:
    return sa.Column(name, MOMENT, nullable=not is_needed)


def _json(name: str, *, is_needed: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=not is_needed)


def _integer(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=False)
