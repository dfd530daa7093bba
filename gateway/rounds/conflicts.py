"""The rule of conflicts of interest: what a reviewer is not asked about, for what they declared before beginning.

The gateway puts items aside by it and a verifier recomputes it, both from what was sealed. Keeping what came of it
belongs in `store`, saying where it was not kept in `verify_people`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.domain.rounds import ItemKind

CONFLICT = "conflict"
"""What exclusions by this rule are called."""
_OF_CANDIDATES = frozenset({ItemKind.VOTE, ItemKind.REPEAT})


def is_conflict(
    kind: ItemKind, sides: Collection[str], consortia: Mapping[str, str | None], declared: Collection[str]
) -> bool:
    """Whether a side of the item is of a consortium that was declared. `consortia`: by what sides are called."""
    return kind in _OF_CANDIDATES and any(consortia.get(side) in declared for side in sides)


def consortia_of_models(mapping: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Consortia by model, from the sealed part that says which code is which."""
    return {one["model"]: one["consortium"] for one in mapping.values()}


def consortia_of_codes(mapping: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Consortia by code."""
    return {code: one["consortium"] for code, one in mapping.items()}
