"""What an engine's answer other than 200 means for the caller: passed on, translated, or a reason to try elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gateway.domain.breaker import Outcome
from gateway.domain.engine_errors import error_kind, error_text
from gateway.error_shapes import ErrorShape
from gateway.errors import SimsaError, Unavailable, UpstreamAuth, UpstreamError

RETRY_AFTER_S = 2
"""What a client is told to wait where nobody knows better."""
LONGEST_RETRY_AFTER_S = 120
"""Past it the usual clients give up instead of waiting."""
_RETRIED_STATUSES = frozenset({502, 503, 504})
_PASSED_STATUSES = frozenset({400, 404, 413, 422})
_NO_ROUTE = {"detail": "Not Found"}
_NO_ROUTE_WORDS = "The engine has no such route: the model that it serves does not offer it."
_SHUTTING_DOWN = b"cannot schedule new futures after shutdown"


class EngineRefused(SimsaError):
    """The engine's own 400, 404, 413 or 422: passed on unchanged."""

    kind = "invalid_request_error"
    code = "engine_refused"

    def __init__(self, status: int, body: bytes) -> None:
        parsed = _json_in(body)
        has_no_route = status == 404 and parsed == _NO_ROUTE
        super().__init__(_NO_ROUTE_WORDS if has_no_route else message_in(body), recorded=_recorded(status, body))
        self.status = status
        self._body = body
        self._parsed = parsed

    def written_in(self, shape: ErrorShape) -> bytes:
        """The engine's own bytes where they have the form that the route's clients expect, else its words in it."""
        if isinstance(self._parsed, dict) and shape.is_own(self._parsed):
            return self._body
        return msgspec.json.encode(shape.body(self))


@dataclass(frozen=True, slots=True)
class EngineFailure:
    error: SimsaError
    """What the caller gets when no other replica is tried."""
    is_retriable: bool
    outcome: Outcome = Outcome.NEUTRAL
    """What it says of the replica."""
    pause_s: int | None = None
    """How long the engine asked to be left alone, where it did."""


def read_failure(status: int, body: bytes, retry_after: bytes | None) -> EngineFailure:
    """What an answer with a status other than 200 means. The engine's 401 and 403 never blame the caller."""
    if status in _PASSED_STATUSES:
        return EngineFailure(EngineRefused(status, body), is_retriable=False)
    if status in (401, 403):
        return EngineFailure(UpstreamAuth("The engine does not accept the gateway's credentials."), is_retriable=False)
    if status in (429, 503) or (status == 500 and _SHUTTING_DOWN in body):
        pause_s = _retry_after(retry_after)
        busy = Unavailable(
            f"The engine is busy (it answered {status}).", code="upstream_busy", retry_after_s=pause_s or RETRY_AFTER_S
        )
        return EngineFailure(busy, is_retriable=status != 429, pause_s=pause_s)
    error = UpstreamError(f"The engine answered {status}: {message_in(body)}", recorded=_recorded(status, body))
    outcome = Outcome.NEUTRAL if 400 <= status < 500 else Outcome.FAULT
    return EngineFailure(error, is_retriable=status in _RETRIED_STATUSES, outcome=outcome)


def _recorded(status: int, body: bytes) -> str:
    """What a record keeps: the engine's own words may quote the prompt."""
    parsed = _json_in(body)
    kind = error_kind(parsed) if isinstance(parsed, dict) else ""
    return f"the engine answered {status}{kind}; its words may quote the prompt and are not kept"


def message_in(body: bytes) -> str:
    """An engine's error in words, shortened; its body may be anything."""
    parsed = _json_in(body)
    text = error_text(parsed) if isinstance(parsed, dict) else body[:200].decode("utf-8", "replace")
    return text[:300] or "no message given"


def _json_in(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _retry_after(value: bytes | None) -> int | None:
    """The engine's Retry-After in seconds, kept within 1 to 120, past which clients give up; None where it is none."""
    if value is not None and value.isdigit():
        return min(LONGEST_RETRY_AFTER_S, max(1, int(value)))
    return None
