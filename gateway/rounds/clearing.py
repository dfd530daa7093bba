"""What reviewers wrote in their own words, what in it looks like personal data, and which of it may be published.

Only the words that count are looked at: those of each item's last revision. Keeping clearances belongs in `store`, who
gives them in `life`, what a bundle shows by them in `bundle`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.personal_data import personal_data_in
from gateway.domain.rounds import Clearance, VoteEntry
from gateway.errors import InvalidRequest
from gateway.rounds.chain import FREE_TEXT

CLEAR = "comment.clear"
"""What the access log calls a clearance; its subject is the entry's number."""
_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that looks like personal data."""

    field: str
    kind: str
    masked: str


@dataclass(frozen=True, slots=True)
class Comment:
    """The free words of one vote."""

    number: int
    """Of the entry in the chain: what a comment is called."""
    item: str
    reviewer: str
    words: Mapping[str, str]
    """By field: reason, comment."""
    findings: tuple[Finding, ...]
    clearance: Clearance | None


def comments_of(votes: Sequence[VoteEntry], clearances: Sequence[Clearance]) -> list[Comment]:
    """All words that count, in the order of the chain. Scanning many takes a while: run it in a thread."""
    last = {vote.item: vote for vote in sorted(votes, key=lambda vote: vote.number)}
    cleared = {one.number: one for one in clearances}
    return [
        Comment(vote.number, vote.item, vote.reviewer, words, _findings(words), cleared.get(vote.number))
        for vote in sorted(last.values(), key=lambda vote: vote.number)
        if (words := free_words(vote.judgement))
    ]


def free_words(judgement: Mapping[str, Any]) -> dict[str, str]:
    """What of a judgement is somebody's own words, by field."""
    return {name: text for name in FREE_TEXT if isinstance(text := judgement.get(name), str) and text.strip()}


def require_clearable(comments: Sequence[Comment], numbers: Collection[int]) -> None:
    """Raise InvalidRequest for a number that no words stand under, or words that look like personal data."""
    known = {one.number: one for one in comments}
    if unknown := [number for number in numbers if number not in known]:
        raise InvalidRequest(
            f"entries: no words that count stand under {_named(unknown)}: choose among those that the round's comments "
            "list ('simsa round comments')",
            param="entries",
        )
    if telling := [number for number in numbers if known[number].findings]:
        raise InvalidRequest(
            f"entries: something in {_named(telling)} looks like personal data, so these words stay closed: leave them "
            "out and clear the others",
            param="entries",
        )


def _findings(words: Mapping[str, str]) -> tuple[Finding, ...]:
    return tuple(
        Finding(name, found.kind.value, found.masked)
        for name, text in words.items()
        for found in personal_data_in(text)
    )


def _named(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    return ", ".join(map(str, numbers[:_MOST_NAMED])) + more
