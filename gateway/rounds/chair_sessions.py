"""Who is signed in to the pages of those who run rounds: sessions in memory, which end with time or with their key.

A start forgets them all. Reviewers are not among them: their one session each is `links`' and stands in the database.
Cookies belong in `api`.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.accounts import EVERYTHING, Caller
from gateway.rounds.links import Session

SESSION_S = 8 * 3600.0
MOST_SESSIONS = 1_000
"""Beyond it the oldest one ends: only people with a key begin sessions."""


@dataclass(frozen=True, slots=True)
class _Kept:
    key: str | None
    """The key's id; None for the admin, who has none."""
    ends_s: float


class ChairSessions:
    """Begins, finds and ends sessions. Of a session's secret only the digest is kept."""

    def __init__(self, *, caller_of: Callable[[str], Caller | None], now: Callable[[], float]) -> None:
        """`caller_of`: who bears a key, None once it does not count; `now`: a monotonic clock in seconds."""
        self._caller_of = caller_of
        self._now = now
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def begin(self, caller: Caller) -> Session:
        """A session for whoever has just shown this key."""
        session = Session(secrets.token_urlsafe(32))
        self._kept[session.digest] = _Kept(caller.key, self._now() + SESSION_S)
        if len(self._kept) > MOST_SESSIONS:
            self._kept.popitem(last=False)
        return session

    def caller(self, session: Session) -> Caller | None:
        """Whose session it is, with what their key allows at this moment; None where it has ended."""
        kept = self._kept.get(session.digest)
        if kept is None:
            return None
        caller = None if self._now() >= kept.ends_s else EVERYTHING if kept.key is None else self._caller_of(kept.key)
        if caller is None:
            self.end(session)
        return caller

    def end(self, session: Session) -> None:
        self._kept.pop(session.digest, None)
