"""Votes as a chain: each entry's hash covers the one before, so that nothing can be changed, dropped or moved unseen.

An entry's hash is SHA-256 of the canonical JSON of {"payload", "previous", "sequence"}; the first follows a hash of
the round's id. Verifying names the first place that does not hold. A chain alone cannot show that its end was cut off:
that takes its published head, or a reviewer's receipt. Storing entries belongs elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from gateway.domain.canonical_json import Json, canonical_json


@dataclass(frozen=True, slots=True)
class Entry:
    sequence: int
    """From 1, without gaps."""
    payload: Json
    previous: str
    """Hash of the entry before, in hexadecimal."""
    hash: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a reviewer gets when a vote is durable."""

    sequence: int
    entry_hash: str
    head: str
    """Hash of the last entry when the vote was acknowledged."""
    head_sequence: int


class FaultKind(StrEnum):
    GAP = "gap"
    """A later entry stands where this one belongs."""
    OUT_OF_ORDER = "out_of_order"
    """An earlier entry stands here, or one stands here twice."""
    ALTERED = "altered"
    """The entry's hash is not that of its content."""
    UNLINKED = "unlinked"
    """The entry does not follow the one before it."""
    CUT_OFF = "cut_off"
    """The chain ends before the head, or the receipt, that it is held against."""
    OTHER_HEAD = "other_head"
    """The entry is in order, and not the one that was published or acknowledged."""


@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first place that does not hold."""

    sequence: int
    """The number that belongs there."""
    kind: FaultKind
    message: str


def genesis(round_id: str) -> str:
    """What the first entry of a round follows: two rounds have no entry in common."""
    return sha256(canonical_json({"chain": "simsa-votes-1", "round": round_id})).hexdigest()


def append(payload: Json, *, after: Entry | None, round_id: str) -> Entry:
    """The next entry, after the last one or, for None, at the beginning."""
    sequence, previous = (after.sequence + 1, after.hash) if after else (1, genesis(round_id))
    return Entry(sequence, payload, previous, entry_hash(sequence, payload, previous))


def entry_hash(sequence: int, payload: Json, previous: str) -> str:
    return sha256(canonical_json({"payload": payload, "previous": previous, "sequence": sequence})).hexdigest()


def receipt_for(entry: Entry, *, head: Entry) -> Receipt:
    return Receipt(entry.sequence, entry.hash, head.hash, head.sequence)


def verify_chain(
    entries: Iterable[Entry], *, round_id: str, head: str | None = None, length: int | None = None
) -> ChainFault | None:
    """The first fault, or None for a chain that holds; `head` and `length` as published when the round was closed."""
    previous, expected = genesis(round_id), 1
    for entry in entries:
        fault = _fault(entry, expected, previous)
        if fault is not None:
            return fault
        previous, expected = entry.hash, expected + 1
    ended = expected - 1
    if length is not None and ended < length:
        return ChainFault(expected, FaultKind.CUT_OFF, f"the chain ends after {ended} of {length} entries")
    if length is not None and ended > length:
        return ChainFault(length + 1, FaultKind.OTHER_HEAD, f"the chain goes on after its {length} published entries")
    if head is not None and previous != head:
        return ChainFault(ended, FaultKind.OTHER_HEAD, f"the chain ends in {previous}, not in the published {head}")
    return None


def verify_receipt(receipt: Receipt, entries: Sequence[Entry], *, round_id: str) -> ChainFault | None:
    """Whether the chain holds, and has the receipt's entry and the head it was given with in their places."""
    fault = verify_chain(entries, round_id=round_id)
    if fault is not None:
        return fault
    for sequence, hashed in ((receipt.sequence, receipt.entry_hash), (receipt.head_sequence, receipt.head)):
        if not 1 <= sequence <= len(entries):
            message = f"the chain has {len(entries)} entries, the receipt speaks of entry {sequence}"
            return ChainFault(sequence, FaultKind.CUT_OFF, message)
        if entries[sequence - 1].hash != hashed:
            message = f"entry {sequence} is {entries[sequence - 1].hash}, the receipt says {hashed}"
            return ChainFault(sequence, FaultKind.OTHER_HEAD, message)
    return None


def _fault(entry: Entry, expected: int, previous: str) -> ChainFault | None:
    if entry.sequence != expected:
        kind = FaultKind.GAP if entry.sequence > expected else FaultKind.OUT_OF_ORDER
        return ChainFault(expected, kind, f"entry {entry.sequence} stands where {expected} belongs")
    if entry.previous != previous:
        message = f"entry {expected} follows {entry.previous}, but the one before is {previous}"
        return ChainFault(expected, FaultKind.UNLINKED, message)
    try:
        hashed = entry_hash(entry.sequence, entry.payload, entry.previous)
    except ValueError as error:
        return ChainFault(expected, FaultKind.ALTERED, f"entry {expected}: {error}")
    if hashed != entry.hash:
        return ChainFault(expected, FaultKind.ALTERED, f"entry {expected} hashes to {hashed}, not to {entry.hash}")
    return None
