"""Who is signed in to the pages of those who run rounds: sessions that end with time or with their key.

They stand in the database, so that every gateway on it knows them, and a start forgets none. Reviewers are not among
them: their one session each is `links`'. Cookies belong in `api`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import scrypt

import sqlalchemy as sa
from pydantic import SecretStr

from gateway.domain.accounts import EVERYTHING, Caller
from gateway.rounds.links import Session
from gateway.rounds.tables import chair_sessions
from gateway.store import Store

SESSION_LASTS = timedelta(hours=8)
MOST_SESSIONS = 1_000
"""Beyond it the oldest ones end: only people with a key begin sessions."""


class ChairSessions:
    """Begins, finds and ends sessions. Of a session's secret only the digest is kept. Raises Unavailable."""

    def __init__(
        self,
        store: Store,
        *,
        caller_of: Callable[[str], Caller | None],
        admin_key: SecretStr | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`caller_of`: who bears a key, None once it does not count.

        `admin_key`: the admin's sessions are those of this one; with another key, or none, they have ended.
        """
        self._admin_key = admin_key.get_secret_value() if admin_key is not None else ""
        self._transaction = store.transaction
        self._caller_of = caller_of
        self._now = now

    @cached_property
    def _admin(self) -> str:
        """What stands in place of a key's id: whoever reads it does not guess the admin key by it."""
        return f"admin {scrypt(self._admin_key.encode(), salt=b'simsa chair sessions', n=2**14, r=8, p=1).hex()}"

    async def begin(self, caller: Caller) -> Session:
        """A session for whoever has just shown this key."""
        session, table, now = Session(secrets.token_urlsafe(32)), chair_sessions, self._now()
        row = {"digest": session.digest, "key": caller.key or self._admin, "ends_at": now + SESSION_LASTS}
        newest = sa.select(table.c.digest).order_by(table.c.ends_at.desc(), table.c.digest).limit(MOST_SESSIONS)
        async with self._transaction() as connection:
            await connection.execute(sa.delete(table).where(table.c.ends_at <= now))
            await connection.execute(sa.insert(table).values(row))
            await connection.execute(sa.delete(table).where(table.c.digest.not_in(newest)))
        return session

    async def caller(self, session: Session) -> Caller | None:
        """Whose session it is, with what their key allows at this moment; None where it has ended."""
        statement = sa.select(chair_sessions).where(chair_sessions.c.digest == session.digest)
        async with self._transaction() as connection:
            kept = (await connection.execute(statement)).mappings().first()
        if kept is None or self._now() >= kept["ends_at"]:
            return None
        return EVERYTHING if kept["key"] == self._admin else self._caller_of(kept["key"])

    async def end(self, session: Session) -> None:
        async with self._transaction() as connection:
            await connection.execute(sa.delete(chair_sessions).where(chair_sessions.c.digest == session.digest))
