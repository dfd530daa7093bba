"""The reviewers' own address: what comes to it gets reviewers' pages or nothing, so that models cannot be learnt of.

A name in a request's head can only take away here, so it is believed whoever wrote it: `x-forwarded-host` too, from any
proxy. Where the public address is known, every name that is neither its nor this machine's counts as the reviewers'.
What is served at every other address, reviewers' pages among it, is decided in `api.review_door`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import structlog

from gateway.asgi import RawHeaders, Scope
from gateway.settings import Settings, host_name

PAGES = "/review"
NOWHERE = "/review/none"
"""An address that no page has; whatever is not for reviewers is answered as it is, to the byte."""
_LIVENESS = "/health"
_LISTING = frozenset({b"x-forwarded-host", b"x-original-host"})
_NAMING = frozenset({b"host", b"forwarded"}) | _LISTING
_FORWARDED_HOST = re.compile(rb"(?:^|[;,\s])host\s*=\s*(\"[^\"]*\"|[^;,\s]*)", re.IGNORECASE)
_THIS_MACHINE = rb"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]"
_MARK = "came_to_review_address"


class ReviewAddress:
    """Knows which requests came to the reviewers' address. The port does not count, nor do case and a final dot."""

    def __init__(self, url: str, public_url: str | None = None) -> None:
        self._name = (urlsplit(url).hostname or "").encode("ascii")
        self._whole_name = re.compile(rb"(?<![\w.-])" + re.escape(self._name) + rb"\.*(?![\w.-])")
        self._served_all = None if public_url is None else _served_all(host_name(public_url))

    def is_named_by(self, headers: RawHeaders) -> bool:
        """Whether any of the headers that name a host, however often they come, names this one."""
        for name, value in headers:
            if name in _NAMING:
                lower = value.lower()
                if self._name in lower and self._whole_name.search(lower) is not None:
                    return True
        return False

    def is_for_reviewers(self, headers: RawHeaders) -> bool:
        """Whether the request gets reviewers' pages alone. Without a public address, only where theirs is named."""
        if self.is_named_by(headers):
            return True
        return self._served_all is not None and not all(map(self._served_all.fullmatch, _names_in(headers)))

    def narrowed(self, scope: Scope) -> Scope:
        """The request as it may be answered: at the reviewers' address all but their pages is one that no page has."""
        if not self.is_for_reviewers(scope["headers"]):
            return scope
        own: Scope = {**scope, "state": {**scope.get("state", {}), _MARK: True}}
        path = scope["path"]
        if path not in (_LIVENESS, PAGES) and not path.startswith(f"{PAGES}/"):
            own.update(method="GET", path=NOWHERE, raw_path=NOWHERE.encode("ascii"), query_string=b"")
        return own


def _served_all(public_name: str) -> re.Pattern[bytes]:
    """The hosts that may be asked for everything: the public one and this machine's own."""
    public = f"[{public_name}]" if ":" in public_name else public_name
    names = re.escape(public.encode("ascii")) + b"|" + _THIS_MACHINE
    return re.compile(rb"(?:" + names + rb")\.*(?::[0-9]{1,5})?", re.IGNORECASE)


def _names_in(headers: RawHeaders) -> Iterator[bytes]:
    """Every host that a request's head names. Without a `Host` an empty one, which is nobody's, is among them."""
    if not any(name == b"host" for name, _ in headers):
        yield b""
    for name, value in headers:
        if name == b"host":
            yield value.strip()
        elif name in _LISTING:
            yield from (part.strip().strip(b'"') for part in value.split(b","))
        elif name == b"forwarded":
            yield from (found.strip(b'"') for found in _FORWARDED_HOST.findall(value))


def came_to_review_address(scope: Scope) -> bool:
    """Whether `narrowed` took this request for one to the reviewers' address."""
    return _MARK in scope.get("state", {})


def warn_of_other_names(settings: Settings) -> None:
    """Tell the operator at the start where nothing says which names but the reviewers' own may be asked for all."""
    if settings.review_url is not None and settings.public_url is None:
        structlog.get_logger("simsa").warning(
            "every host name but the reviewers' own reaches the API, /metrics and /docs: a request that names another, "
            "or none, gets everything. Set SIMSA_PUBLIC_URL too: then only its host name and this machine's do",
            review_url=settings.review_url,
        )


def warn_of_shared_address(settings: Settings, *rounds: str) -> None:
    """Tell the operator where reviewers of these open rounds, by name, can reach everything else that is served."""
    if rounds and settings.reviewers_share_address:
        structlog.get_logger("simsa").warning(
            "reviewers reach their pages under the same address as the API: whoever is in their network can read "
            "/metrics and /docs, which name models without a key. Give reviewers an address of their own: "
            "SIMSA_REVIEW_URL",
            rounds=list(rounds),
        )
