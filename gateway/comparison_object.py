"""The object of a comparison as it is answered, stored, listed and exported: one shape, made in one place.

What is answered is made from the very value that is stored, so the two cannot differ. Asking the sides is
`comparison`'s work; the HTTP schema of the object stands in `api/schemas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.domain.records import Call, CallStatus, Cost, Provenance, Timing, Usage
from gateway.errors import SimsaError
from gateway.store import Comparison, Side

OK, ERROR, SKIPPED = "ok", "error", "skipped"


def asked_side(
    call: Call | None,
    error: SimsaError | None,
    *,
    model: str,
    output: dict[str, Any],
    feasibility: dict[str, Any],
    dropped: Sequence[str] = (),
) -> Side:
    """A side that was asked: its finished call, or the error for which there is none.

    `dropped`: parameters that its API does not know and that were not sent to it.

    `error` also says what went wrong after the call itself had ended well.
    """
    is_ok = call is not None and call.status is CallStatus.OK and error is None
    unknown = Cost(None, None, "unknown", "no engine was reached")
    return Side(
        model=model,
        status=OK if is_ok else ERROR,
        call_id=call.opened.id if call is not None else None,
        finish_reason=call.finish_reason if call is not None else None,
        error=None if is_ok else _failure(call, error),
        facts={
            "usage": usage_object(call.usage if call is not None else Usage()),
            "timing": timing_object(call.timing if call is not None else Timing()),
            "cost": cost_object(call.cost if call is not None else unknown),
            "feasibility": feasibility,
            "provenance": (call.provenance if call is not None else Provenance.UNKNOWN).value,
            "dropped": list(dropped),
        },
        output=output,
    )


def skipped_side(reason: str, *, model: str, feasibility: dict[str, Any]) -> Side:
    """A side whose turn never came."""
    return Side(
        model=model,
        status=SKIPPED,
        call_id=None,
        finish_reason=None,
        error={"message": reason, "type": "server_error", "code": "skipped", "status": None},
        facts={
            "usage": usage_object(Usage()),
            "timing": timing_object(Timing()),
            "cost": cost_object(Cost(None, None, "unknown", "not asked")),
            "feasibility": feasibility,
            "provenance": Provenance.UNKNOWN.value,
            "dropped": [],
        },
        output={"content": None, "reasoning": None, "tool_calls": None},
    )


def side_object(side: Side) -> dict[str, Any]:
    """One side as callers see it. `output` is null where its texts were removed."""
    return {
        "model": side.model,
        "status": side.status,
        "output": side.output,
        "finish_reason": side.finish_reason,
        "dropped": [],  # what was kept before there were adapters does not say
        **side.facts,
        "error": side.error,
        "call_id": side.call_id,
    }


def comparison_object(comparison: Comparison, *, unstored_reason: str | None = None) -> dict[str, Any]:
    """The whole comparison as callers see it. `unstored_reason` says why it could not be kept, where that is so."""
    return {
        "id": comparison.id,
        "created_at": comparison.created_at.isoformat(),
        "schedule": comparison.schedule,
        "params": comparison.params,
        "messages": comparison.messages,
        "sides": [side_object(side) for side in comparison.sides],
        "timing_comparable": comparison.timing_comparable,
        "timing_reason": comparison.timing_reason,
        "summary": comparison.summary,
        "batch": None if comparison.batch_id is None else {"id": comparison.batch_id, "item": comparison.batch_item},
        "stored": unstored_reason is None,
        "stored_reason": unstored_reason,
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "source": usage.source,
    }


def timing_object(timing: Timing) -> dict[str, Any]:
    """Spans in seconds from the moment the side was asked, by the definitions of docs/measurement.md."""
    return {
        "queue_s": timing.queue_s,
        "ttft_s": timing.ttft_s,
        "ttfot_s": timing.ttfot_s,
        "tpot_s": timing.tpot_s,
        "e2e_s": timing.e2e_s,
        "overhead_s": timing.overhead_s,
        "first_event_tokens": timing.first_event_tokens,
        "first_event_source": timing.first_event_source,
    }


def cost_object(cost: Cost) -> dict[str, Any]:
    """Money as a decimal string."""
    amount = f"{cost.amount:f}" if cost.amount is not None else None
    return {"amount": amount, "currency": cost.currency, "basis": cost.basis, "reason": cost.reason}


def _failure(call: Call | None, error: SimsaError | None) -> dict[str, Any]:
    if error is not None:
        status = call.http_status if call is not None else error.status
        return {"message": error.message, "type": error.kind, "code": error.code, "status": status}
    assert call is not None
    return {
        "message": call.error_message or f"the call ended as {call.status.value}",
        "type": call.error_type,
        "code": call.error_code,
        "status": call.http_status,
    }
