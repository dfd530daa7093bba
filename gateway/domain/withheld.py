"""Documents of which some fields may be kept back, and shown later or to some: each stands behind a salted commitment.

An outline is a document without those fields, with a commitment for each of them. Chains and roots are made of
outlines, so they hold for whoever is shown the fields and for whoever is not. Which fields those are belongs to the
callers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256

from gateway.domain.canonical_json import Json
from gateway.domain.sealing import Opening, commit, opens

WITHHELD = "withheld"
"""The field of an outline that holds the commitments, by the name of what is kept back."""


@dataclass(frozen=True, slots=True)
class Veiled:
    """A document in its outline, and what opens the rest."""

    outline: Mapping[str, Json]
    openings: Mapping[str, Opening]

    def shown(self, names: Collection[str]) -> dict[str, Json]:
        """The openings of those names that there are, as they are written down beside the outline."""
        return {
            name: {"salt": opening.salt.hex(), "value": opening.value}
            for name, opening in self.openings.items()
            if name in names
        }


def withhold(document: Mapping[str, Json], names: Collection[str], *, salt: bytes) -> Veiled:
    """Keep back those fields that the document has. `salt`: 32 bytes of this document's own.

    Each field's salt is made of it, so that opening one helps to guess no other.
    """
    hidden = {
        name: Opening(sha256(salt + name.encode()).digest(), value) for name, value in document.items() if name in names
    }
    outline = {name: value for name, value in document.items() if name not in names}
    if hidden:
        outline[WITHHELD] = {name: commit(opening.value, salt=opening.salt) for name, opening in hidden.items()}
    return Veiled(outline, hidden)


def read_openings(written: Mapping[str, Mapping[str, str]]) -> dict[str, Opening]:
    """What `Veiled.shown` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    return {name: Opening(bytes.fromhex(one["salt"]), one["value"]) for name, one in written.items()}


def unfit(outline: Mapping[str, Json], openings: Mapping[str, Opening]) -> list[str]:
    """Names of openings that are not what the outline committed to."""
    commitments = outline.get(WITHHELD, {})
    if not isinstance(commitments, Mapping):
        return list(openings)
    return [name for name, opening in openings.items() if not opens(str(commitments.get(name)), opening)]


def joined(outline: Mapping[str, Json], openings: Mapping[str, Opening]) -> dict[str, Json]:
    """The document with the fields that were opened, without the others and without commitments."""
    kept = {name: value for name, value in outline.items() if name != WITHHELD}
    return {**kept, **{name: opening.value for name, opening in openings.items()}}
