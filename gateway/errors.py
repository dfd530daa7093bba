"""Every way a request can fail, as exceptions that know their OpenAI error envelope.

Raise the most telling one where the problem is known; `relay` and `api` turn it into a response in one place each.

    SimsaError
    ├── InvalidRequest            400 invalid_request_error
    │   ├── RequestTooLarge       413 request_too_large
    │   ├── NotFound              404 not_found
    │   │   └── ResponseNotFound  404 response_not_found
    │   ├── Conflict              409 conflict
    │   └── ModelNotFound         404 model_not_found
    ├── RouteNotFound             404 / 405
    ├── AuthenticationFailed      401 invalid_api_key
    ├── PageRefused               403 host_not_allowed, origin_not_allowed
    ├── PermissionDenied          403 model_not_allowed, role_required, parameter_not_allowed
    ├── RateLimited               429 rate_limit_exceeded
    ├── QuotaExhausted            429 insufficient_quota
    ├── InternalError             500 internal_error
    ├── NoReplica                 503 no_replica
    ├── Unavailable               503 draining, recorder_unavailable, upstream_busy, queue_full
    │   └── DatabaseUnavailable   503 database_unavailable
    └── UpstreamError             502 upstream_error
        ├── UpstreamAuth          502 upstream_auth
        ├── UpstreamTimeout       504 upstream_timeout
        └── UpstreamTruncated     502 upstream_truncated (an event, after the first byte)
"""

from __future__ import annotations

from typing import Any, ClassVar


class SimsaError(Exception):
    """Base of all. `message` says what was wrong, where, and what would be right."""

    status: int = 500
    kind: ClassVar[str] = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        recorded: str | None = None,
    ) -> None:
        """`recorded`: what records keep instead where the message quotes an engine: it may quote the prompt."""
        super().__init__(message)
        self.message = message
        self.recorded_message = (recorded or message)[:500]
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    @property
    def told(self) -> str:
        """The message for the caller."""
        return self.message

    def envelope(self) -> dict[str, Any]:
        """The OpenAI error body."""
        return {"error": {"message": self.told, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> list[tuple[str, str]]:
        return [("retry-after", str(self.retry_after_s))] if self.retry_after_s is not None else []


class InternalError(SimsaError):
    """Our own fault; the log has the details, the caller does not."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("The gateway failed on this request; its log has the details.")


class InvalidRequest(SimsaError):
    status = 400
    kind = "invalid_request_error"


class RequestTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class ModelNotFound(InvalidRequest):
    status = 404
    code = "model_not_found"


class RouteNotFound(InvalidRequest):
    status = 404
    code = "route_not_found"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[str, str]]:
        return [("allow", self.allow)]


class NotFound(InvalidRequest):
    """One of our own resources does not exist."""

    status = 404
    code = "not_found"


class ResponseNotFound(NotFound):
    """No engine in use keeps the response, or none that this caller may know of."""

    code = "response_not_found"


class Conflict(InvalidRequest):
    """What is asked for contradicts what exists."""

    status = 409
    code = "conflict"


class AuthenticationFailed(SimsaError):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"

    def headers(self) -> list[tuple[str, str]]:
        return [("www-authenticate", "Bearer")]


class PageRefused(SimsaError):
    """A gateway without a key was called as only a web page of another site calls."""

    status = 403
    kind = "permission_error"


class PermissionDenied(SimsaError):
    """The key is right, but does not reach as far as this model, route or field."""

    status = 403
    kind = "permission_error"
    code = "model_not_allowed"


class RateLimited(SimsaError):
    """A limit of the caller's own key. `limit_headers`: x-ratelimit-*, as on answers."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_s: int | None, limit_headers: list[tuple[str, str]], param: str | None = None
    ) -> None:
        """`retry_after_s` None: the same request can never pass."""
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self._limit_headers = limit_headers

    def headers(self) -> list[tuple[str, str]]:
        never = [("x-should-retry", "false")] if self.retry_after_s is None else []
        return [*super().headers(), *never, *self._limit_headers]


class QuotaExhausted(SimsaError):
    """A budget of the caller's own key is used up; clients are told not to try again."""

    status = 429
    kind = "insufficient_quota"
    code = "insufficient_quota"

    def headers(self) -> list[tuple[str, str]]:
        return [("x-should-retry", "false")]


class NoReplica(SimsaError):
    status = 503
    code = "no_replica"


class Unavailable(SimsaError):
    """The gateway cannot take the request now; trying again later may work."""

    status = 503
    code = "unavailable"


class DatabaseUnavailable(Unavailable):
    """The database is away or does not answer. Where it is and what its driver says is the operator's to know."""

    code = "database_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=1)

    @property
    def told(self) -> str:
        return "The database does not answer at the moment; the operator's log says why."


class UpstreamError(SimsaError):
    """The engine could not be reached or answered with a failure of its own."""

    status = 502
    kind = "upstream_error"
    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """No connection, or one closed without an answer: another replica may be tried."""

    code = "upstream_unreachable"


class UpstreamAuth(UpstreamError):
    code = "upstream_auth"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class UpstreamTruncated(UpstreamError):
    """The engine failed after the first byte of its answer; tried elsewhere only while the client has had nothing."""

    code = "upstream_truncated"


class RegistryInvalid(Exception):
    """The registry file has errors; `problems` has one line each."""

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: {len(problems)} problem(s)\n" + "\n".join(problems))
        self.path = path
        self.problems = problems


class StartRefused(Exception):
    """The gateway will not start; the message says why and how to mend it. Exit code 2."""


class CheckpointUnreadable(Exception):
    """A checkpoint's facts cannot be had; the message says which file, why, and how to mend it."""
