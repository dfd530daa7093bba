"""A reviewer's way in: signed links that expire and can be revoked, and the one session that a link opens.

A link's token names round and reviewer and is signed with the round's own key; nothing of it is stored. Of a session
only a digest is stored. When a link is made and to whom it goes belongs to whoever invites; cookies belong in `api`.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from gateway.domain.rounds import Reviewer
from gateway.rounds.store import RoundStore

ENTRANCE = "/review/enter"
LINK_KEY = "links"
"""The name of a round's key among its secrets, hexadecimal."""
MAX_TOKEN_CHARACTERS = 1_000


class LinkRefused(Exception):
    """The link opens nothing. `why`: invalid | expired | replaced | revoked."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Session:
    """What the reviewer's browser holds: 256 random bits, of which the store knows `digest` only."""

    secret: str

    @property
    def digest(self) -> str:
        return sha256(self.secret.encode()).hexdigest()

    @property
    def form_token(self) -> str:
        """Goes into each form: another site can neither read nor guess it (CSRF)."""
        return hmac.digest(self.secret.encode(), b"form", "sha256").hex()

    def owns(self, form_token: str) -> bool:
        return hmac.compare_digest(self.form_token.encode(), form_token.encode())


@dataclass(frozen=True, slots=True)
class Entrance:
    """A link that was taken: whose it is, the session that is in force now, and whether another one ended by it."""

    round_id: str
    reviewer: Reviewer
    session: Session
    ended_another: bool


def make_token(key: str, round_id: str, reviewer: Reviewer, *, expires_at: datetime) -> str:
    """The secret part of a reviewer's link. `key`: the round's, hexadecimal; `expires_at` counts to the second."""
    payload = [round_id, reviewer.id, reviewer.link_serial, int(expires_at.timestamp())]
    body = urlsafe_b64encode(msgspec.json.encode(payload)).rstrip(b"=").decode()
    return f"{body}.{_sign(key, body)}"


def link_path(token: str) -> str:
    """The link without the host. The token stands behind '#': browsers send that to nobody, so no log has it."""
    return f"{ENTRANCE}#{token}"


async def enter(
    store: RoundStore, token: str, *, now: datetime, may_enter: Callable[[str], None] = lambda _reviewer: None
) -> Entrance:
    """Take a link: a new session, in place of the one there may have been. Raises LinkRefused.

    `may_enter` is told the round and the reviewer of a link that is right, and raises where it is not to be taken.
    """
    round_id, reviewer_id, serial, expires = _payload(token)
    key = (await store.secrets(round_id)).get(LINK_KEY)
    body, _, signature = token.rpartition(".")
    if key is None or not hmac.compare_digest(_sign(key, body).encode(), signature.encode()):
        raise LinkRefused("invalid")
    reviewer = await store.reviewer(round_id, reviewer_id)
    if reviewer is None:
        raise LinkRefused("invalid")
    if reviewer.revoked_at is not None:
        raise LinkRefused("revoked")
    if reviewer.link_serial != serial:
        raise LinkRefused("replaced")
    if now >= datetime.fromtimestamp(expires, UTC):
        raise LinkRefused("expired")
    may_enter(f"{round_id} {reviewer_id}")
    session = Session(secrets.token_urlsafe(32))
    await store.update_reviewer(round_id, reviewer_id, session=session.digest, seen_at=now)
    return Entrance(round_id, reviewer, session, ended_another=reviewer.session is not None)


def _payload(token: str) -> tuple[str, str, int, int]:
    """What a token says, signature unread. Raises LinkRefused for what none of ours looks like."""
    body, _, signature = token.rpartition(".")
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii() or len(signature) != 64:
        raise LinkRefused("invalid")
    try:
        raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
        round_id, reviewer, serial, expires = msgspec.json.decode(raw, type=tuple[str, str, int, int])
        datetime.fromtimestamp(expires, UTC)
    except (NotBase64, msgspec.DecodeError, ValueError, OverflowError, OSError) as error:
        raise LinkRefused("invalid") from error
    if "\0" in round_id + reviewer:
        raise LinkRefused("invalid")
    return round_id, reviewer, serial, expires


def _sign(key: str, body: str) -> str:
    return hmac.digest(bytes.fromhex(key), f"simsa review link {body}".encode(), "sha256").hex()
