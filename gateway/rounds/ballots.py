"""The votes of a closed round as the ranking reads them: last revisions, by code, each item in exactly one place.

Plain documents in, as the sealed parts and the audit bundle hold them, so that anybody can do it again offline. Which
votes a fit counts is `ranking.votes`'s; what the counted ones amount to is `ranking.analysis`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.domain.ranking.vote_rows import VoteRow, read_votes
from gateway.domain.ranking.votes import Votes
from gateway.domain.rounds import Choice, ItemKind, RoundKind
from gateway.rounds.answer_style import FEATURES, style_of

Document = Mapping[str, Any]


class Place(StrEnum):
    """Where an item of a queue went."""

    COUNTED = "counted"
    CANNOT_JUDGE = "cannot_judge"
    """Judged, and said to be beyond judging: not in the fit."""
    REPEAT = "repeat"
    """Judged a second time: measures consistency, not in the fit."""
    ATTENTION = "attention"
    """Its answers are the round's own: not in the fit."""
    UNDECIDED = "undecided"
    """Begun, without an overall choice."""
    NOT_JUDGED = "not_judged"
    EXCLUDED = "excluded"
    """By a rule, judged or not."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One item and what became of it."""

    item: str
    reviewer: str
    place: Place
    is_voted: bool
    rule: str | None = None
    """The first that excludes it."""
    kind: str | None = None
    """What that rule excluded: reviewer, item or prompt."""


@dataclass(frozen=True, slots=True)
class Ballots:
    votes: Votes
    """Codes as names of models; those of repeats are flagged, attention items are not among them."""
    placed: tuple[Ballot, ...]
    """Every item of every queue, in the order of the sealed items."""
    attention: Mapping[str, tuple[int, int]]
    """By reviewer: attention items judged rightly, and judged at all."""

    def counts(self) -> dict[str, int]:
        """Items by place; together they are all items."""
        found = Counter(ballot.place for ballot in self.placed)
        return {place.value: found[place] for place in Place}

    def excluded(self) -> list[dict[str, Any]]:
        """What each rule left out, in the order of its name."""
        by_rule: dict[tuple[str, str], list[Ballot]] = {}
        for ballot in self.placed:
            if ballot.rule is not None and ballot.kind is not None:
                by_rule.setdefault((ballot.rule, ballot.kind), []).append(ballot)
        return [
            {
                "rule": rule,
                "kind": kind,
                "items": len(some),
                "votes": sum(ballot.is_voted for ballot in some),
                "reviewers": len({ballot.reviewer for ballot in some}),
            }
            for (rule, kind), some in sorted(by_rule.items())
        ]


def read_ballots(
    parts: Mapping[str, Any], votes: Sequence[Document], exclusions: Sequence[Document], answers: Sequence[Document]
) -> Ballots:
    """Ballots from the sealed `parts`, the chain's entries, exclusions and answers (model by code, prompt, shown).

    Raises ValueError for a vote on no item of the round, or by somebody who was not asked.
    """
    items: Sequence[Document] = parts["items"]
    last = last_revisions(votes, items)
    excluded = _Excluded(exclusions)
    styles = _styles(parts, answers)
    strata = {prompt["id"]: prompt["stratum"] for prompt in parts["prompts"]}
    better = {item["id"]: item["better"] for item in parts["practice"]["attention"]}
    placed, rows = [], []
    attention: dict[str, tuple[int, int]] = {}
    for item in items:
        judgement = last.get(item["id"])
        ballot = _placed(item, judgement, excluded.rule_for(item))
        placed.append(ballot)
        if judgement is None or ballot.place in _LEFT_OUT:
            continue
        if ballot.place is Place.ATTENTION:
            right, judged = attention.get(item["reviewer"], (0, 0))
            is_right = item.get(_SIDES.get(judgement["choice"], "")) == better[item["prompt"]]
            attention[item["reviewer"]] = (right + is_right, judged + 1)
        else:
            rows.append(_row(item, judgement, strata.get(item["prompt"]), styles))
    read = read_votes(
        rows,
        models=parts["plan"]["models"],
        criteria=[criterion["id"] for criterion in parts["plan"]["rubric"]],
        features=FEATURES if styles else (),
    )
    return Ballots(read, tuple(placed), attention)


def last_revisions(votes: Sequence[Document], items: Sequence[Document]) -> dict[str, Document]:
    """The judgement that counts of each item: the one with the highest revision."""
    asked = {item["id"]: item["reviewer"] for item in items}
    last: dict[str, Document] = {}
    for vote in votes:
        if asked.get(vote["item"]) != vote["reviewer"]:
            raise ValueError(f"vote {vote['number']}: {vote['reviewer']} was not asked about item {vote['item']}")
        if vote["item"] not in last or vote["revision"] > last[vote["item"]]["revision"]:
            last[vote["item"]] = vote
    return {item: vote["judgement"] for item, vote in last.items()}


_LEFT_OUT = frozenset({Place.EXCLUDED, Place.UNDECIDED, Place.NOT_JUDGED})
_SIDES = {Choice.A.value: "left", Choice.B.value: "right"}


class _Excluded:
    """Which rule leaves an item out, if any does; of several the one that was written down first."""

    def __init__(self, exclusions: Sequence[Document]) -> None:
        self._rules: dict[tuple[str, str], tuple[int, str]] = {}
        for number, one in enumerate(exclusions):
            if one["kind"] not in _EXCLUDES:
                raise ValueError(f"exclusion {number}: expected a kind of {', '.join(_EXCLUDES)}, got {one['kind']!r}")
            self._rules.setdefault((one["kind"], one["subject"]), (number, one["rule"]))

    def rule_for(self, item: Document) -> tuple[str, str] | None:
        """Rule and kind."""
        found = [
            (*self._rules[kind, item[name]], kind)
            for kind, name in _EXCLUDES.items()
            if (kind, item[name]) in self._rules
        ]
        return min(found)[1:] if found else None


_EXCLUDES = {"reviewer": "reviewer", "item": "id", "prompt": "prompt"}
"""Kinds of exclusion, and the field of an item that each names."""


def _placed(item: Document, judgement: Document | None, rule: tuple[str, str] | None) -> Ballot:
    is_voted = judgement is not None and judgement.get("choice") is not None
    name, kind = rule or (None, None)
    return Ballot(item["id"], item["reviewer"], _place(item, judgement, rule is not None), is_voted, name, kind)


def _place(item: Document, judgement: Document | None, is_excluded: bool) -> Place:
    if is_excluded:
        return Place.EXCLUDED
    if judgement is None:
        return Place.NOT_JUDGED
    if judgement.get("choice") is None:
        return Place.UNDECIDED
    kind = ItemKind(item["kind"])
    if kind is not ItemKind.VOTE:
        return Place.REPEAT if kind is ItemKind.REPEAT else Place.ATTENTION
    return Place.CANNOT_JUDGE if judgement["choice"] == Choice.CANNOT_JUDGE.value else Place.COUNTED


def _row(
    item: Document,
    judgement: Document,
    industry: str | None,
    styles: Mapping[tuple[str, str], Mapping[str, float]],
) -> VoteRow:
    """A vote in the ranking's words. A reviewer's grade rises towards B, the ranking's towards A."""
    return VoteRow(
        reviewer=item["reviewer"],
        prompt=item["prompt"],
        model_a=item["left"],
        model_b=item["right"],
        outcome=judgement["choice"],
        grades={criterion: -grade for criterion, grade in judgement.get("grades", {}).items()},
        is_repeat=item["kind"] == ItemKind.REPEAT.value,
        recognised=bool(judgement.get("recognised")),
        industry=industry,
        seconds=judgement.get("seconds"),
        style_a=styles.get((item["left"], item["prompt"])),
        style_b=styles.get((item["right"], item["prompt"])),
    )


def _styles(parts: Mapping[str, Any], answers: Sequence[Document]) -> dict[tuple[str, str], Mapping[str, float]]:
    """Features of what was shown, by code and prompt; none where cards are judged, which all look alike."""
    if parts["plan"]["kind"] == RoundKind.CARDS.value:
        return {}
    return {
        (answer["model"], answer["prompt"]): style_of(answer["shown"])
        for answer in answers
        if answer.get("shown") is not None
    }
