"""The keys that count at this moment, in memory, by digest: the request path never asks the database.

A change made here counts at once, one made by another gateway when its news come, one made by another process within
`key_refresh_s`, and while the database is away the keys known so far go on counting. A token that is not in here is
answered from memory as well, so that guessing costs the database nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import structlog

from gateway.accounts import Accounts
from gateway.domain.accounts import Caller, Key, Organisation, Terms
from gateway.errors import Unavailable

TOKEN_PREFIX = "simsa-"  # noqa: S105  what every key begins with, so that scanners find leaked ones
PREFIX_LENGTH = 12
"""Characters of a key that may be shown: its first six random ones, of 43."""
_FOREVER = float("inf")


class _Entry(NamedTuple):
    digest: bytes
    caller: Caller
    expires_s: float
    """Epoch seconds."""


class KeyRing:
    """Finds the caller of a token; makes and revokes keys and organisations."""

    def __init__(self, accounts: Accounts, *, wall: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._wall = wall
        self._entries: dict[bytes, _Entry] = {}
        self._changes: int | None = None
        self.on_change: Callable[[], Awaitable[None]] = _tell_nobody
        """Called after each change that was made here."""
        self._changing = asyncio.Lock()
        """Held from a change's or a look's beginning in the database to its end in memory."""
        self.database_failing: str | None = None
        """Why the last look at the database came to nothing; also where nobody calls and nothing is recorded."""
        self._log = structlog.get_logger("simsa.keys")

    def find(self, token: bytes) -> Caller | None:
        """Whose token it is; None where it is unknown, revoked or expired.

        The secret is 256 random bits, which no slow hash could make harder to guess, so one SHA-256 is enough to keep
        a copied database useless. The digest tells nothing about how much of a token was right, however long a
        look-up takes; the comparison is of constant time all the same.
        """
        digest = sha256(token).digest()
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest) or self._wall() >= entry.expires_s:
            return None
        return entry.caller

    def caller_of(self, key_id: str) -> Caller | None:
        """Who a key's bearer is, for what goes on without them; None where the key does not count any more."""
        now = self._wall()
        for entry in self._entries.values():
            if entry.caller.key == key_id and now < entry.expires_s:
                return entry.caller
        return None

    async def load(self) -> None:
        """Take over what the database holds. Raises Unavailable, and then what was known stays."""
        async with self._changing:
            changes = await self._accounts.count_changes()
            if changes != self._changes:
                self._entries = _entries(await self._accounts.list_valid_keys())
                self._changes = changes

    async def watch(self, interval_s: float) -> None:
        """Notice what other processes change."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.load()
                self.database_failing = None
            except Unavailable as error:
                if self.database_failing is None:
                    self._log.error("keys cannot be read; those known so far go on counting", why=error.message)
                self.database_failing = error.message

    async def create_organisation(self, organisation_id: str, name: str) -> Organisation:
        organisation = Organisation(organisation_id, name, self._now())
        await self._accounts.create_organisation(organisation)
        return organisation

    async def revoke_organisation(self, organisation_id: str) -> Organisation:
        """None of its keys counts when this returns."""
        async with self._changing:
            revoked = await self._accounts.revoke_organisation(organisation_id, self._now())
            self._keep(lambda caller: caller.organisation != organisation_id)
        await self.on_change()
        return revoked

    async def create_key(
        self, organisation: str, name: str, terms: Terms, expires_at: datetime | None
    ) -> tuple[Key, str]:
        """The key and its secret, which is in no other place from now on."""
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        key = Key(
            id=f"key-{secrets.token_hex(6)}",
            organisation=organisation,
            name=name,
            prefix=secret[:PREFIX_LENGTH],
            created_at=self._now(),
            expires_at=expires_at,
            revoked_at=None,
            terms=terms,
        )
        digest = sha256(secret.encode()).hexdigest()
        async with self._changing:
            await self._accounts.create_key(key, digest)
            self._entries |= _entries([(digest, key)])
        await self.on_change()
        return key, secret

    async def change_key(self, key_id: str, change: Callable[[Key], Key]) -> Key:
        """What the key says is another thing when this returns; what was used stays. Raises what `change` raises."""
        async with self._changing:
            digest, changed = await self._accounts.change_key(key_id, change)
            made = _entries([(digest, changed)])
            self._entries |= {known: entry for known, entry in made.items() if known in self._entries}
        await self.on_change()
        return changed

    async def revoke_key(self, key_id: str) -> Key:
        """The key does not count when this returns."""
        async with self._changing:
            revoked = await self._accounts.revoke_key(key_id, self._now())
            self._keep(lambda caller: caller.key != key_id)
        await self.on_change()
        return revoked

    def _keep(self, wanted: Callable[[Caller], bool]) -> None:
        self._entries = {digest: entry for digest, entry in self._entries.items() if wanted(entry.caller)}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)


async def _tell_nobody() -> None:
    """There is no other gateway."""


def _entries(keys: Sequence[tuple[str, Key]]) -> dict[bytes, _Entry]:
    entries = {}
    for text, key in keys:
        digest = bytes.fromhex(text)
        expires_s = key.expires_at.timestamp() if key.expires_at is not None else _FOREVER
        entries[digest] = _Entry(digest, Caller(key.id, key.organisation, key.terms), expires_s)
    return entries
