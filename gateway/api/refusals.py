"""How OpenAPI tells the failures of our own routes.

Which failures a route has stands at the route; what callers get in the end is decided in `errors` and `app`.
"""

from __future__ import annotations

from typing import Any

from gateway.api.schemas import ErrorAnswer

_WORDS = {
    400: "a parameter or the body is not valid; nothing was done",
    401: "missing or invalid key",
    403: "the key does not reach so far; without SIMSA_ADMIN_KEY: a web page of another site may have asked",
    404: "there is no such thing",
    409: "the name means another thing already",
    413: "the body is too large",
    503: "shutting down, the database is away, or as much waits already as may",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's `responses` for these statuses; those that every route with a key has come of themselves."""
    every = sorted({400, 401, 403, *statuses})
    return {status: {"model": ErrorAnswer, "description": _WORDS[status]} for status in every}
