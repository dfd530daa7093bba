"""How an error looks in each dialect: as the body of a whole answer, and as the last event of a stream that has begun.

Which error it is, and its status, is decided in `errors`. OpenAI's envelope is the usual one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import SimsaError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """The form in which one route's clients expect errors."""

    body: Callable[[SimsaError], Json]
    event: Callable[[SimsaError, int], bytes]
    """The last event of a stream; the number is that of the events before it."""
    is_own: Callable[[Json], bool]
    """Whether an engine's error body has the form already."""


def _openai_event(error: SimsaError, _sent: int) -> bytes:
    return _event(error.envelope())


def _has_error_object(body: Json) -> bool:
    return isinstance(body.get("error"), dict)


def _responses_event(error: SimsaError, sent: int) -> bytes:
    """The fields that the dialect gives an `error` event, and the envelope, which the official client raises."""
    envelope = error.envelope()
    told = {name: envelope["error"][name] for name in ("code", "message", "param")}
    return _event({"type": "error", "sequence_number": sent, **told, **envelope}, name=b"error")


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _anthropic_body(error: SimsaError) -> Json:
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _ANTHROPIC_KINDS.get(error.status, usual)
    return {"type": "error", "error": {"type": kind, "message": error.told}}


def _anthropic_event(error: SimsaError, _sent: int) -> bytes:
    return _event(_anthropic_body(error), name=b"error")


def _is_anthropic(body: Json) -> bool:
    return body.get("type") == "error" and _has_error_object(body)


def _event(data: Json, *, name: bytes = b"") -> bytes:
    event = b"event: %b\n" % name if name else b""
    return event + b"data: " + msgspec.json.encode(data) + b"\n\n"


OPENAI = ErrorShape(SimsaError.envelope, _openai_event, _has_error_object)
RESPONSES = ErrorShape(SimsaError.envelope, _responses_event, _has_error_object)
ANTHROPIC = ErrorShape(_anthropic_body, _anthropic_event, _is_anthropic)
