"""One root over many leaves, and proof that a leaf is among them without showing the others.

The tree of RFC 6962, section 2.1: a leaf's hash is SHA-256(00 ‖ leaf), a node's SHA-256(01 ‖ left ‖ right), and the
left subtree has the largest power of two of leaves below their number. What leaves say belongs to the callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

_DEEPEST = 64
"""No tree that anybody makes has more levels; a longer proof is refused unread."""


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That one leaf stands at one place of a tree of `size` leaves."""

    index: int
    size: int
    siblings: tuple[bytes, ...]
    """From the leaf upwards."""


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """32 bytes; of no leaves SHA-256 of nothing."""
    if not leaves:
        return sha256(b"").digest()
    return _root([leaf_hash(leaf) for leaf in leaves])


def inclusion_proof(leaves: Sequence[bytes], index: int) -> InclusionProof:
    if not 0 <= index < len(leaves):
        raise ValueError(f"index: expected 0 to {len(leaves) - 1}, got {index}")
    return InclusionProof(index, len(leaves), tuple(_siblings([leaf_hash(leaf) for leaf in leaves], index)))


def is_included(leaf: bytes, proof: InclusionProof, root: bytes) -> bool:
    """Whether the leaf, at that place in a tree of that size, leads to that root."""
    if not 0 <= proof.index < proof.size or len(proof.siblings) > _DEEPEST:
        return False
    siblings = list(proof.siblings)
    found = _climbed(leaf_hash(leaf), proof.index, proof.size, siblings)
    return found == root and not siblings


def _climbed(hashed: bytes, index: int, size: int, siblings: list[bytes]) -> bytes | None:
    """The root of the subtree of `size` leaves, taking its siblings off the end of the list; None when they run out."""
    if size == 1:
        return hashed
    if not siblings:
        return None
    sibling, split = siblings.pop(), _split(size)
    if index < split:
        below = _climbed(hashed, index, split, siblings)
        return None if below is None else node_hash(below, sibling)
    below = _climbed(hashed, index - split, size - split, siblings)
    return None if below is None else node_hash(sibling, below)


def _root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return node_hash(_root(hashes[:split]), _root(hashes[split:]))


def _siblings(hashes: Sequence[bytes], index: int) -> list[bytes]:
    if len(hashes) == 1:
        return []
    split = _split(len(hashes))
    if index < split:
        return [*_siblings(hashes[:split], index), _root(hashes[split:])]
    return [*_siblings(hashes[split:], index - split), _root(hashes[:split])]


def _split(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)
