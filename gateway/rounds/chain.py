"""How a judgement becomes an entry of its round's chain, and an entry a document again.

The chain covers what was chosen as it is, and what was written in free words by commitments: a bundle without anybody's
words holds like one with them. Keeping entries belongs to `store`, the arithmetic of chains to `domain.hash_chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.domain.canonical_json import Json
from gateway.domain.hash_chain import Entry, entry_hash, genesis
from gateway.domain.rounds import RoundItem, VoteEntry
from gateway.domain.withheld import Veiled, withhold

FREE_TEXT = ("reason", "comment")
"""Fields of a judgement that the chain covers by commitments."""


def next_entry(
    before: Mapping[str, Any],
    *,
    round_id: str,
    item: RoundItem,
    at: datetime,
    judgement: Mapping[str, Any],
    salt: bytes,
) -> VoteEntry:
    """The entry that follows `before`: number, revision and previous ("" for the first), as the store gives them.

    `salt`: 32 random bytes, kept with the entry where it has free words.
    """
    has_words = any(name in judgement for name in FREE_TEXT)
    entry = VoteEntry(
        number=before["number"],
        item=item.id,
        reviewer=item.reviewer,
        revision=before["revision"],
        at=at,
        judgement=judgement,
        previous=before["previous"] or genesis(round_id),
        hash="",
        salt=salt.hex() if has_words else None,
    )
    return replace(entry, hash=entry_hash(entry.number, veiled_entry(entry).outline, entry.previous))


def veiled_entry(entry: VoteEntry) -> Veiled:
    """What the chain hashes of an entry as the outline; its free words as openings."""
    judgement = withhold(entry.judgement, FREE_TEXT, salt=bytes.fromhex(entry.salt or ""))
    payload: dict[str, Json] = {
        "number": entry.number,
        "item": entry.item,
        "reviewer": entry.reviewer,
        "revision": entry.revision,
        "at": entry.at.astimezone(UTC).isoformat(),
        "judgement": judgement.outline,
    }
    return Veiled(payload, judgement.openings)


def chained(entry: VoteEntry) -> Entry:
    """The entry as `domain.hash_chain` verifies it."""
    return Entry(entry.number, veiled_entry(entry).outline, entry.previous, entry.hash)
