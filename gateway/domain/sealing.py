"""Promises that are kept hidden and shown later: salted commitments, and one root over all of a round's.

Before a round opens, its prompts, design, rubric, weights and the names behind the slots are each committed to, and
the root over the commitments is published; whoever has the root can later tell that what is shown is what was sealed.
Pure and offline: salts come as arguments. The chain of votes belongs to `hash_chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from gateway.domain.canonical_json import Json, canonical_json
from gateway.domain.merkle import InclusionProof, inclusion_proof, is_included, merkle_root

SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opening:
    """What a commitment hides."""

    salt: bytes
    value: Json


@dataclass(frozen=True, slots=True)
class SealCheck:
    """What does not hold, by name; all empty for a seal that holds."""

    altered: tuple[str, ...]
    """The value or its salt is not what was committed to."""
    unknown: tuple[str, ...]
    """Shown, but never committed to."""
    root_holds: bool
    """Whether the commitments are those under the published root."""

    @property
    def holds(self) -> bool:
        return self.root_holds and not self.altered and not self.unknown


def digest(value: Json) -> str:
    """SHA-256 of the value's canonical JSON, in hexadecimal."""
    return sha256(canonical_json(value)).hexdigest()


def commit(value: Json, *, salt: bytes) -> str:
    """SHA-256 of the canonical JSON of {"salt": in hexadecimal, "value": value}, in hexadecimal."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"salt: expected {SALT_BYTES} bytes, got {len(salt)}")
    return digest({"salt": salt.hex(), "value": value})


def opens(commitment: str, opening: Opening) -> bool:
    """Whether the opening is what was committed to; False too for one that could never have been."""
    try:
        return commit(opening.value, salt=opening.salt) == commitment
    except ValueError:
        return False


def seal_root(commitments: Mapping[str, str]) -> str:
    """The Merkle root over commitments by name, in hexadecimal, whatever their order.

    A leaf is the canonical JSON of {"commitment": …, "name": …}; leaves stand in the order of their names' UTF-16
    code units, as keys do in canonical JSON.
    """
    return merkle_root([_leaf(name, commitments[name]) for name in _ordered(commitments)]).hex()


def prove_commitment(commitments: Mapping[str, str], name: str) -> InclusionProof:
    """Proof for one name against `seal_root`. Raises ValueError for a name that is not among them."""
    if name not in commitments:
        raise ValueError(f"name: expected one of {', '.join(_ordered(commitments))}, got {name}")
    names = _ordered(commitments)
    return inclusion_proof([_leaf(each, commitments[each]) for each in names], names.index(name))


def is_sealed(name: str, commitment: str, proof: InclusionProof, root: str) -> bool:
    """Whether the proof shows that name and commitment are under the root; False too for a root that is none."""
    try:
        return is_included(_leaf(name, commitment), proof, bytes.fromhex(root))
    except ValueError:
        return False


def check_seal(commitments: Mapping[str, str], openings: Mapping[str, Opening], root: str) -> SealCheck:
    """Hold what is shown against what was published. What is committed to and not shown (yet) is no fault."""
    return SealCheck(
        altered=tuple(n for n in _ordered(openings) if n in commitments and not opens(commitments[n], openings[n])),
        unknown=tuple(name for name in _ordered(openings) if name not in commitments),
        root_holds=seal_root(commitments) == root,
    )


def _ordered(named: Mapping[str, object]) -> list[str]:
    return sorted(named, key=lambda name: name.encode("utf-16-be"))


def _leaf(name: str, commitment: str) -> bytes:
    return canonical_json({"commitment": commitment, "name": name})
