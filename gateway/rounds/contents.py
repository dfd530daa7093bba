"""All that a closed round's bundle is made of, as one value: read from the store, or made up by a rehearsal.

What of it goes into which bundle belongs in `bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.rounds import AccessEntry, Approval, Clearance, Exclusion, Reviewer, Round, RoundAnswer, VoteEntry
from gateway.rounds.closing import Closing, closing_of, codes_of
from gateway.rounds.life import REVEAL
from gateway.rounds.sealed import MAPPING, PARTS, SALT
from gateway.rounds.store import RoundStore

COMMITMENTS = "commitments"
"""The document that holds the commitments of the sealed parts."""


@dataclass(frozen=True, slots=True)
class RoundContent:
    """A closed round, whole. Models stand in it by name."""

    round: Round
    parts: Mapping[str, Any]
    salts: Mapping[str, str]
    """By part, hexadecimal."""
    commitments: Mapping[str, str]
    closing: Closing
    answers: Sequence[RoundAnswer]
    votes: Sequence[VoteEntry]
    exclusions: Sequence[Exclusion]
    accesses: Sequence[AccessEntry]
    reviewers: Sequence[Reviewer]
    approvals: Sequence[Approval]
    """Of the reveal."""
    clearances: Sequence[Clearance]

    @property
    def codes(self) -> dict[str, str]:
        """By model."""
        return codes_of(self.parts[MAPPING])


async def read_content(store: RoundStore, one: Round) -> RoundContent:
    """The content of a round that is closed."""
    closing = await closing_of(store, one)
    documents, secrets = await store.documents(one.id, {*PARTS, COMMITMENTS}), await store.secrets(one.id)
    return RoundContent(
        round=one,
        parts={name: documents[name] for name in PARTS},
        salts={name: secrets[SALT + name] for name in PARTS},
        commitments=documents[COMMITMENTS],
        closing=closing,
        answers=await store.answers(one.id),
        votes=await store.votes(one.id),
        exclusions=await store.exclusions(one.id),
        accesses=await store.accesses(one.id),
        reviewers=await store.reviewers(one.id),
        approvals=await store.approvals(one.id, REVEAL),
        clearances=await store.clearances(one.id),
    )
