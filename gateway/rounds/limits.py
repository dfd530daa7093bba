"""How often links may be tried, and reviewers may enter, read and post.

What an API key may use is counted in `gateway.limits`.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import RateLimited
from gateway.token_buckets import TokenBuckets


class ReviewLimits:
    """How often strangers may try links, and reviewers may enter, read and post. In memory: a start forgets it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._failures = TokenBuckets(burst=60, per_second=1.0, now=now)
        self._entrances = TokenBuckets(burst=10, per_second=0.1, now=now)
        self._reads = TokenBuckets(burst=240, per_second=8.0, now=now)
        self._posts = TokenBuckets(burst=120, per_second=4.0, now=now)

    def charge_stranger(self, address: str) -> None:
        """Count a link that was none. Raise RateLimited where too many came from there; right ones cost nothing."""
        if not self._failures.take(address):
            raise _too_often()

    def check_entrance(self, reviewer: str) -> None:
        if not self._entrances.take(reviewer):
            raise _too_often()

    def check_read(self, session: str) -> None:
        if not self._reads.take(session):
            raise _too_often()

    def check_post(self, session: str) -> None:
        if not self._posts.take(session):
            raise _too_often()


class ChairLimits:
    """How often keys may be tried at the sign-in of those who run rounds, and how often these may post."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._failures = TokenBuckets(burst=20, per_second=0.2, now=now)
        self._posts = TokenBuckets(burst=60, per_second=2.0, now=now)

    def charge_stranger(self, address: str) -> None:
        """Count a key that was none. Raise RateLimited where too many came from there; right ones cost nothing."""
        if not self._failures.take(address):
            raise _too_often()

    def check_post(self, session: str) -> None:
        if not self._posts.take(session):
            raise _too_often()


def _too_often() -> RateLimited:
    return RateLimited("Too many requests.", retry_after_s=5, limit_headers=[])
