"""How a judgement becomes an entry of its round's chain, and an entry a document again.

The chain covers what was chosen as it is, what was on the screen by digests, and what was written in free words by
commitments: a bundle without anybody's words holds like one with them. Keeping entries belongs to `store`, the
arithmetic of chains to `domain.hash_chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from gateway.domain.canonical_json import Json
from gateway.domain.hash_chain import Entry, entry_hash, genesis
from gateway.domain.rounds import ItemKind, RoundItem, VoteEntry
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
    shown: Mapping[str, str],
) -> VoteEntry:
    """The entry that follows `before`: number, revision and previous ("" for the first), as the store gives them.

    `salt`: 32 random bytes, kept with the entry where it has free words; `shown`: what `text_digests` gives.
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
        shown=dict(shown),
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
    if entry.shown is not None:
        payload["shown"] = dict(entry.shown)
    return Veiled(payload, judgement.openings)


def chained(entry: VoteEntry) -> Entry:
    """The entry as `domain.hash_chain` verifies it."""
    return Entry(entry.number, veiled_entry(entry).outline, entry.previous, entry.hash)


def text_digests(prompt: str, a: str, b: str) -> dict[str, str]:
    """SHA-256 of what a reviewer has before them, hexadecimal: what an entry says that it judges."""
    texts = {"prompt": prompt, "a": a, "b": b}
    return {name: sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for name, text in texts.items()}


def sealed_digests(parts: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
    """By item, the digests of what was sealed to be shown; of the parts prompts, practice, answers and items."""
    prompts = {one["id"]: text_digests(one["text"], "", "")["prompt"] for one in parts["prompts"]}
    made = {one["id"]: text_digests(one["text"], one["a"], one["b"]) for one in parts["practice"]["attention"]}
    answers = {(one["model"], one["prompt"]): one["shown_sha256"] for one in parts["answers"]}
    found: dict[str, dict[str, str | None]] = {}
    for item in parts["items"]:
        prompt, left, right = item["prompt"], item["left"], item["right"]
        if item["kind"] == ItemKind.ATTENTION.value:
            sides = made[prompt]
            found[item["id"]] = {"prompt": sides["prompt"], "a": sides[left], "b": sides[right]}
        else:
            a, b = answers[left, prompt], answers[right, prompt]
            found[item["id"]] = {"prompt": prompts[prompt], "a": a, "b": b}
    return found
