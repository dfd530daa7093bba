"""The tables of the database, and how a call's facts lie flat in one row.

SQLAlchemy Core only, with types that mean the same on SQLite and PostgreSQL. Statements belong in `store`; the
steps from one shape of these tables to the next belong in `migrations/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway.domain.records import Call, CallOpened, CallStatus, Cost, Provenance, Timing, Usage

OPEN = "open"
"""Status of a row whose call was dispatched and has not ended: the one status that is not a `CallStatus`."""

Json = sa.JSON(none_as_null=True)
"""Kept as the text that it is: JSONB would reorder fields, round numbers off and refuse NUL in a string."""


class Moment(TypeDecorator[datetime]):
    """An aware moment, kept in UTC to the microsecond. A naive datetime is refused: it names no moment.

    On SQLite it is ISO 8601 text of fixed width, so that the order of the texts is the order of the moments.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.DateTime(timezone=True) if _is_postgresql(dialect) else sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected an aware datetime, got {value!r}")
        moment = value if value.tzinfo is UTC else value.astimezone(UTC)
        return moment if _is_postgresql(dialect) else moment.isoformat(" ", "microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value if _is_postgresql(dialect) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


class Money(TypeDecorator[Decimal]):
    """An exact amount that comes back digit for digit: NUMERIC, or text on SQLite, whose numbers are binary floats.

    Add amounts up in Python on SQLite: its SUM() would go through floats.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Numeric() if _is_postgresql(dialect) else sa.Text())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return value if value is None or _is_postgresql(dialect) else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Total(TypeDecorator[int]):
    """A sum of whole numbers, however large: NUMERIC, or text on SQLite. Added up in Python."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Numeric() if _is_postgresql(dialect) else sa.Text())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return Decimal(value) if _is_postgresql(dialect) else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def _is_postgresql(dialect: Dialect) -> bool:
    return dialect.name == "postgresql"


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("started_at", Moment, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("streamed", sa.Boolean, nullable=False),
    sa.Column("comparison_id", sa.Text, index=True),
    sa.Column("run_id", sa.Text, index=True),
    sa.Column("client_retry", sa.Integer),
    sa.Column("ended_at", Moment),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("gateway", sa.Integer),  # in which it is open, where several serve the database
    sa.Column("http_status", sa.Integer),
    sa.Column("replica", sa.Text),
    sa.Column("provenance", sa.Text),
    sa.Column("attempts", sa.Integer),
    sa.Column("error_type", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("finish_reason", sa.Text),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("completion_tokens", sa.BigInteger),
    sa.Column("cached_tokens", sa.BigInteger),
    sa.Column("reasoning_tokens", sa.BigInteger),
    sa.Column("usage_source", sa.Text),
    sa.Column("queue_s", sa.Double),
    sa.Column("ttft_s", sa.Double),
    sa.Column("ttfot_s", sa.Double),
    sa.Column("tpot_s", sa.Double),
    sa.Column("e2e_s", sa.Double),
    sa.Column("overhead_s", sa.Double),
    sa.Column("token_events", sa.BigInteger),
    sa.Column("first_event_tokens", sa.BigInteger),
    sa.Column("first_event_source", sa.Text),
    sa.Column("cost_amount", Money),
    sa.Column("cost_currency", sa.Text),
    sa.Column("cost_basis", sa.Text),
    sa.Column("cost_reason", sa.Text),
    sa.Column("feasibility", sa.Text),
    sa.Column("feasibility_gpu", sa.Text),
    sa.Column("organisation", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("prompt_estimate", sa.BigInteger),
    sa.Column("charged_tokens", sa.BigInteger),
    sa.Column("estimated_cost", Money),
    sa.Column("dispatched_at", Moment),
    sa.Column("gpu", sa.Text),
    sa.Column("gpus", sa.Integer),
    sa.Column("settled_cost", Money),  # takes the place of cost_amount once the call's windows are settled
    sa.Column("settled_currency", sa.Text),
    sa.Index("ix_calls_organisation_started_at", "organisation", "started_at"),
)
_HAS_NO_SETTLED_COST = sa.and_(calls.c.gpu.is_not(None), calls.c.settled_cost.is_(None))
sa.Index(
    "ix_calls_unsettled_started_at",
    calls.c.started_at,
    sqlite_where=_HAS_NO_SETTLED_COST,
    postgresql_where=_HAS_NO_SETTLED_COST,
)

comparisons = sa.Table(
    "comparisons",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_at", Moment, nullable=False, index=True),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("params", Json, nullable=False),
    sa.Column("timing_comparable", sa.Boolean),
    sa.Column("timing_reason", sa.Text),
    sa.Column("summary", Json),
    sa.Column("organisation", sa.Text, index=True),
    sa.Column("batch_id", sa.Text, index=True),  # no foreign key, so that either may be removed without the other
    sa.Column("batch_item", sa.Integer),
)

comparison_contents = sa.Table(
    "comparison_contents",
    metadata,
    sa.Column("comparison_id", sa.Text, sa.ForeignKey("comparisons.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("messages", Json, nullable=False),
    sa.Column("outputs", Json, nullable=False),  # what each side answered, by position; null where nothing came
)

comparison_sides = sa.Table(
    "comparison_sides",
    metadata,
    sa.Column("comparison_id", sa.Text, sa.ForeignKey("comparisons.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("call_id", sa.Text),  # no foreign key: the call's own row arrives later, by the recorder's batches
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("finish_reason", sa.Text),
    sa.Column("error", Json),
    sa.Column("facts", Json, nullable=False),
)

organisations = sa.Table(
    "organisations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("revoked_at", Moment),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("organisation", sa.Text, sa.ForeignKey("organisations.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),  # SHA-256 of the secret, in hexadecimal
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment),
    sa.Column("revoked_at", Moment),
    sa.Column("terms", Json, nullable=False),
)

account_changes = sa.Table(
    "account_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # there is one row
    sa.Column("count", sa.BigInteger, nullable=False),  # of changes to organisations and keys, so that others notice
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False, index=True),
    sa.Column("ended_at", Moment),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("models", Json, nullable=False),
    sa.Column("params", Json, nullable=False),
    sa.Column("schedule", sa.Text),
    sa.Column("repeats", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),  # of everything asked for: the same name may not mean another thing
    sa.Column("organisation", sa.Text, nullable=False),  # "" is the operator, so that names are unique there too
    sa.Column("key", sa.Text),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("organisation", "name"),
)

batch_prompts = sa.Table(
    "batch_prompts",
    metadata,
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("prompt_id", sa.Text, nullable=False),
    sa.Column("messages", Json, nullable=False),
    sa.Column("max_tokens", sa.Integer),
)

batch_items = sa.Table(
    "batch_items",
    metadata,
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # the order in which items are asked
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("comparison_id", sa.Text),
    sa.Column("error", Json),
    sa.Index("ix_batch_items_turn", "batch_id", "status", "number"),
)

CALL_COLUMNS = tuple(column.name for column in calls.columns if column.name != "gateway")
OPENED_COLUMNS = (*(field.name for field in fields(CallOpened)), "status", "gateway")


def opened_row(opened: CallOpened) -> dict[str, Any]:
    """The row of a call that has not ended; every column that the end would fill is left out."""
    return {
        "id": opened.id,
        "request_id": opened.request_id,
        "started_at": opened.started_at,
        "model": opened.model,
        "endpoint": opened.endpoint,
        "streamed": opened.streamed,
        "comparison_id": opened.comparison_id,
        "run_id": opened.run_id,
        "client_retry": opened.client_retry,
        "organisation": opened.organisation,
        "key": opened.key,
        "prompt_estimate": opened.prompt_estimate,
        "status": OPEN,
    }


def call_row(call: Call) -> dict[str, Any]:
    """The whole row of a call that has ended."""
    usage, timing, cost = call.usage, call.timing, call.cost
    row = opened_row(call.opened)
    row.update(
        ended_at=call.ended_at,
        status=call.status.value,
        http_status=call.http_status,
        replica=call.replica,
        provenance=call.provenance.value,
        attempts=call.attempts,
        error_type=call.error_type,
        error_code=call.error_code,
        error_message=call.error_message,
        finish_reason=call.finish_reason,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        usage_source=usage.source,
        queue_s=timing.queue_s,
        ttft_s=timing.ttft_s,
        ttfot_s=timing.ttfot_s,
        tpot_s=timing.tpot_s,
        e2e_s=timing.e2e_s,
        overhead_s=timing.overhead_s,
        token_events=timing.token_events,
        first_event_tokens=timing.first_event_tokens,
        first_event_source=timing.first_event_source,
        cost_amount=cost.amount,
        cost_currency=cost.currency,
        cost_basis=cost.basis,
        cost_reason=cost.reason,
        feasibility=call.feasibility,
        feasibility_gpu=call.feasibility_gpu,
        charged_tokens=call.charged_tokens,
        estimated_cost=call.estimated_cost,
        dispatched_at=call.dispatched_at,
        gpu=call.gpu,
        gpus=call.gpus,
        settled_cost=None,
        settled_currency=None,
    )
    return row


def interrupted_columns(ended_at: datetime) -> dict[str, Any]:
    """What is known about the end of a call whose gateway died: only that it was found unfinished at `ended_at`."""
    return {
        "status": CallStatus.INTERRUPTED.value,
        "ended_at": ended_at,
        "provenance": Provenance.UNKNOWN.value,
        "usage_source": "unknown",
        "cost_basis": "unknown",
        "cost_reason": "the gateway stopped before the call ended",
        "charged_tokens": calls.c.prompt_estimate,
    }


def call_from_row(row: Mapping[str, Any]) -> Call | CallOpened:
    """The facts of a row: CallOpened while it is open, Call once it has ended.

    An interrupted call has no attempts or token events in its row; `Call` has no word for unknown there and shows 0.
    """
    opened = CallOpened(
        id=row["id"],
        request_id=row["request_id"],
        started_at=row["started_at"],
        model=row["model"],
        endpoint=row["endpoint"],
        streamed=row["streamed"],
        comparison_id=row["comparison_id"],
        run_id=row["run_id"],
        client_retry=row["client_retry"],
        organisation=row["organisation"],
        key=row["key"],
        prompt_estimate=row["prompt_estimate"],
    )
    if row["status"] == OPEN:
        return opened
    return Call(
        opened=opened,
        ended_at=row["ended_at"],
        status=CallStatus(row["status"]),
        http_status=row["http_status"],
        replica=row["replica"],
        provenance=Provenance(row["provenance"]),
        attempts=row["attempts"] or 0,
        error_type=row["error_type"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        finish_reason=row["finish_reason"],
        usage=_usage(row),
        timing=_timing(row),
        cost=cost_of(row),
        feasibility=row["feasibility"],
        feasibility_gpu=row["feasibility_gpu"],
        charged_tokens=row["charged_tokens"],
        estimated_cost=row["estimated_cost"],
        dispatched_at=row["dispatched_at"],
        gpu=row["gpu"],
        gpus=row["gpus"],
    )


def cost_of(row: Mapping[Any, Any]) -> Cost:
    """The settled cost where it is known, else what was known at the call's end."""
    if row["settled_cost"] is not None:
        return Cost(row["settled_cost"], row["settled_currency"], "gpu_time")
    return Cost(row["cost_amount"], row["cost_currency"], row["cost_basis"], row["cost_reason"])


def _usage(row: Mapping[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        source=row["usage_source"],
    )


def _timing(row: Mapping[str, Any]) -> Timing:
    return Timing(
        queue_s=row["queue_s"],
        ttft_s=row["ttft_s"],
        ttfot_s=row["ttfot_s"],
        tpot_s=row["tpot_s"],
        e2e_s=row["e2e_s"],
        overhead_s=row["overhead_s"],
        token_events=row["token_events"] or 0,
        first_event_tokens=row["first_event_tokens"],
        first_event_source=row["first_event_source"],
    )
