"""The tables of blind review rounds. Columns only; statements belong in `rounds.store`.

Texts that people or models wrote are JSON strings, because PostgreSQL's own text refuses a NUL.
"""

from __future__ import annotations

import sqlalchemy as sa

from gateway.tables import Json, Moment, metadata

rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("organisation", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("plan", Json, nullable=False),
    sa.Column("provenance", sa.Text),
    sa.Column("lexicon", sa.Text),
    sa.Column("seed", sa.Text),
    sa.Column("root", sa.Text),
    sa.Column("head", sa.Text),
    sa.Column("votes", sa.BigInteger, nullable=False),
    sa.Column("dry_run", Json),
    sa.Column("sealed_at", Moment),
    sa.Column("opened_at", Moment),
    sa.Column("closed_at", Moment),
    sa.Column("revealed_at", Moment),
    sa.Column("archived_at", Moment),
    sa.UniqueConstraint("organisation", "name", name="uq_rounds_organisation"),
)

chair_sessions = sa.Table(
    "chair_sessions",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("key", sa.Text),
    sa.Column("ends_at", Moment, nullable=False),
)


def _of_round() -> sa.Column[str]:
    return sa.Column("round_id", sa.Text, sa.ForeignKey(rounds.c.id), primary_key=True)


round_secrets = sa.Table(
    "round_secrets",
    metadata,
    _of_round(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),  # salts until they are revealed, the key that signs links
)

round_batches = sa.Table(
    "round_batches",
    metadata,
    _of_round(),
    sa.Column("batch_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)

round_answers = sa.Table(
    "round_answers",
    metadata,
    _of_round(),
    sa.Column("prompt_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("comparison_id", sa.Text),
    sa.Column("call_id", sa.Text),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("text", Json),
    sa.Column("shown", Json),
    sa.Column("redactions", Json, nullable=False),
    sa.Column("facts", Json, nullable=False),
)

round_reviewers = sa.Table(
    "round_reviewers",
    metadata,
    _of_round(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("stratum", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("link_serial", sa.Integer, nullable=False),
    sa.Column("revoked_at", Moment),
    sa.Column("session", sa.Text),
    sa.Column("consented_at", Moment),
    sa.Column("conflicts", Json, nullable=False),
    sa.Column("trained_at", Moment),
    sa.Column("submitted_at", Moment),
    sa.Column("questionnaire", Json),
    sa.Column("seen_at", Moment),
    sa.Index("ix_round_reviewers_session", "session"),
)

round_items = sa.Table(
    "round_items",
    metadata,
    _of_round(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("prompt_id", sa.Text, nullable=False),
    sa.Column("left", sa.Text, nullable=False),
    sa.Column("right", sa.Text, nullable=False),
    sa.Column("left_id", sa.Text, nullable=False),
    sa.Column("right_id", sa.Text, nullable=False),
    sa.Column("repeat_of", sa.Text),
    sa.Column("is_shared", sa.Boolean, nullable=False),
    sa.Column("set_aside", sa.Text),
    sa.UniqueConstraint("round_id", "reviewer", "position", name="uq_round_items_round_id"),
)

round_votes = sa.Table(
    "round_votes",
    metadata,
    _of_round(),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item", sa.Text, nullable=False),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("judgement", Json, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("salt", sa.Text),
    sa.Column("shown", Json),
    sa.UniqueConstraint("round_id", "item", "revision", name="uq_round_votes_round_id"),
    sa.Index("ix_round_votes_reviewer", "round_id", "reviewer"),
)

round_exclusions = sa.Table(
    "round_exclusions",
    metadata,
    _of_round(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)

round_clearances = sa.Table(
    "round_clearances",
    metadata,
    _of_round(),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)

round_access = sa.Table(
    "round_access",
    metadata,
    _of_round(),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
)

round_documents = sa.Table(
    "round_documents",
    metadata,
    _of_round(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("content", Json, nullable=False),  # what was sealed, part by part; the analysis of the closed round
)

round_approvals = sa.Table(
    "round_approvals",
    metadata,
    _of_round(),
    sa.Column("action", sa.Text, primary_key=True),
    sa.Column("who", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("at", Moment, nullable=False),
)
