"""The reviewers' own address: what comes to it gets reviewers' pages or nothing, so that models cannot be learnt of.

A name in a request's head can only take away here, so it is believed whoever wrote it: `x-forwarded-host` too, from any
proxy. What is served at every other address, reviewers' pages among it, is decided in `api.review_door`.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import structlog

from gateway.asgi import RawHeaders, Scope
from gateway.settings import Settings

PAGES = "/review"
NOWHERE = "/review/none"
"""An address that no page has; whatever is not for reviewers is answered as it is, to the byte."""
_LIVENESS = "/health"
_NAMING = frozenset({b"host", b"x-forwarded-host", b"forwarded"})
_MARK = "came_to_review_address"


class ReviewAddress:
    """Knows which requests came to the reviewers' address. The port does not count, nor do case and a final dot."""

    def __init__(self, url: str) -> None:
        self._name = (urlsplit(url).hostname or "").encode("ascii")
        self._whole_name = re.compile(rb"(?<![\w.-])" + re.escape(self._name) + rb"\.*(?![\w.-])")

    def is_named_by(self, headers: RawHeaders) -> bool:
        """Whether any of the headers that name a host, however often they come, names this one."""
        for name, value in headers:
            if name in _NAMING:
                lower = value.lower()
                if self._name in lower and self._whole_name.search(lower) is not None:
                    return True
        return False

    def narrowed(self, scope: Scope) -> Scope:
        """The request as it may be answered: at the reviewers' address all but their pages is one that no page has."""
        if not self.is_named_by(scope["headers"]):
            return scope
        own: Scope = {**scope, "state": {**scope.get("state", {}), _MARK: True}}
        path = scope["path"]
        if path not in (_LIVENESS, PAGES) and not path.startswith(f"{PAGES}/"):
            own.update(method="GET", path=NOWHERE, raw_path=NOWHERE.encode("ascii"), query_string=b"")
        return own


def came_to_review_address(scope: Scope) -> bool:
    """Whether `narrowed` found the reviewers' address in this request."""
    return _MARK in scope.get("state", {})


def warn_of_shared_address(settings: Settings, *rounds: str) -> None:
    """Tell the operator where reviewers of these open rounds, by name, can reach everything else that is served."""
    if rounds and settings.reviewers_share_address:
        structlog.get_logger("simsa").warning(
            "reviewers reach their pages under the same address as the API: whoever is in their network can read "
            "/metrics and /docs, which name models without a key. Give reviewers an address of their own: "
            "SIMSA_REVIEW_URL",
            rounds=list(rounds),
        )
