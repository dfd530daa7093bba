"""Everything that a closed round's votes may claim, by a plan that was sealed before: one call, one value.

What is asked for here is fixed by the plan, never by the votes. How an analysis is written down is `document`; in which
words it is told, and to whom, belongs to pages and reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.ranking.agreement import Agreement, agreement
from gateway.domain.ranking.anomalies import AnomalyRules, Flag, anomalies
from gateway.domain.ranking.blinding import Blinding, Guess, blinding
from gateway.domain.ranking.bradley_terry import fit_strengths
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import Contests, PairTable, contests_of, pair_table
from gateway.domain.ranking.estimates import (
    Estimate,
    Grounds,
    Said,
    composite,
    estimate,
    estimate_on,
    estimate_with_jackknife,
    grounds_of,
    ordered_weights,
)
from gateway.domain.ranking.fragility import Fragility, fragility
from gateway.domain.ranking.position import Position, position_effect
from gateway.domain.ranking.rao_kupper import Acceptability, fit_acceptability
from gateway.domain.ranking.reasons import Caution
from gateway.domain.ranking.sensitivity import Sensitivity, vary
from gateway.domain.ranking.style import StyleControlled, style_controlled
from gateway.domain.ranking.votes import CANNOT_JUDGE, Votes
from gateway.domain.records import Provenance


class Primary(StrEnum):
    """Which of two estimates the round named as its result."""

    RAW = "raw"
    STYLE_CONTROLLED = "style_controlled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was written down when the round was sealed."""

    provenance: Mapping[str, Provenance]
    """Of each model's answers, by name."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the criteria in the composite; empty: no composite."""
    keep: int | None = None
    """Models above the cut line."""
    primary: Primary = Primary.RAW
    confidence: float = 0.95
    anomaly_rules: AnomalyRules = field(default_factory=AnomalyRules)

    @property
    def said(self) -> Said:
        return Said(self.keep, self.confidence)


@dataclass(frozen=True, slots=True)
class Counted:
    """Where the votes went: `counted` enter the fits; of the others each is in one place, attention items first."""

    votes: int
    counted: int
    repeats: int
    attention: int
    cannot_judge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """By model code, as in `votes.models`."""

    plan: Plan
    votes: Votes
    counted: Counted
    table: PairTable
    overall: Estimate | NotComparable
    """Of the overall choice: the raw estimate."""
    controlled: StyleControlled | NotComparable
    by_criterion: Mapping[str, Estimate | NotComparable]
    composite: Estimate | NotComparable | None
    """None where the plan has no weights; not comparable where a criterion with weight is not."""
    by_industry: Mapping[str, Estimate | NotComparable]
    """Descriptive only: no ranks are claimed of a slice."""
    acceptability: Acceptability | NotComparable
    sensitivity: tuple[Sensitivity, ...]
    position: Position | NotComparable
    agreement: Agreement
    fragility: Fragility | None
    """None where the models are not comparable."""
    anomalies: tuple[Flag, ...]
    blinding: Blinding

    @property
    def result(self) -> Estimate | NotComparable:
        """The estimate that the plan named as primary."""
        if self.plan.primary is Primary.RAW:
            return self.overall
        return self.controlled if isinstance(self.controlled, NotComparable) else self.controlled.estimate

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Facts to be put into words wherever the result is shown."""
        result = self.result
        found = result.cautions if isinstance(result, Estimate) else ()
        return found if self.is_ranking else (Caution.NOT_REAL, *found)

    @property
    def is_ranking(self) -> bool:
        """Every model's answers are really its own; otherwise this is for trying and planning, and says so."""
        return all(self.plan.provenance[model] is Provenance.REAL for model in self.votes.models)


def analyse(votes: Votes, plan: Plan, guesses: Sequence[Guess] = ()) -> Analysis:
    """The whole analysis. Raises ValueError for a plan that does not fit the votes: weights, provenance, cut line."""
    _check(votes, plan)
    votes = votes.in_order()
    contests = contests_of(votes)
    overall = estimate_with_jackknife(contests, plan.said)
    criteria = {name: grounds_of(contests_of(votes.by_criterion(name))) for name in votes.criteria}
    return Analysis(
        plan=plan,
        votes=votes,
        counted=_counted(votes),
        table=pair_table(contests),
        overall=overall,
        controlled=style_controlled(votes, plan.said),
        by_criterion={name: _of_criterion(grounds, plan.said) for name, grounds in criteria.items()},
        composite=_composite(criteria, plan),
        by_industry={
            name: estimate(contests_of(votes.of_industry(name)), Said(None, plan.confidence))
            for name in votes.industries
        },
        acceptability=fit_acceptability(votes, confidence=plan.confidence),
        sensitivity=vary(votes, overall, plan.said) if isinstance(overall, Estimate) else (),
        position=_position(contests, overall, plan.said),
        agreement=agreement(votes, confidence=plan.confidence),
        fragility=_fragility(contests, plan.keep),
        anomalies=anomalies(votes, plan.anomaly_rules),
        blinding=blinding(guesses, votes, confidence=plan.confidence),
    )


def _check(votes: Votes, plan: Plan) -> None:
    missing = [model for model in votes.models if model not in plan.provenance]
    if missing:
        raise ValueError(f"provenance: expected one for every model, none for {', '.join(missing)}")
    if plan.weights:
        ordered_weights(plan.weights, votes.criteria)
    if plan.keep is not None and not 0 < plan.keep < len(votes.models):
        raise ValueError(f"keep: expected 1 to {len(votes.models) - 1} models above the line, got {plan.keep}")
    if not 0.5 <= plan.confidence < 1:
        raise ValueError(f"confidence: expected a share from 0.5 to below 1, got {plan.confidence}")


def _counted(votes: Votes) -> Counted:
    fresh = ~votes.is_attention & ~votes.is_repeat
    return Counted(
        votes=len(votes),
        counted=int(votes.counts.sum()),
        repeats=int((votes.is_repeat & ~votes.is_attention).sum()),
        attention=int(votes.is_attention.sum()),
        cannot_judge=int((fresh & (votes.outcome == CANNOT_JUDGE)).sum()),
    )


def _of_criterion(grounds: Grounds | NotComparable, said: Said) -> Estimate | NotComparable:
    return grounds if isinstance(grounds, NotComparable) else estimate_on(grounds, said)


def _composite(criteria: Mapping[str, Grounds | NotComparable], plan: Plan) -> Estimate | NotComparable | None:
    weighted = {name: weight for name, weight in plan.weights.items() if weight}
    if not weighted:
        return None
    parts = [criteria[name] for name in weighted]
    unfit = next((part for part in parts if isinstance(part, NotComparable)), None)
    if unfit is not None:
        return unfit
    fitted = [part for part in parts if isinstance(part, Grounds)]
    return composite(fitted, list(weighted.values()), plan.said)


def _position(contests: Contests, overall: Estimate | NotComparable, said: Said) -> Position | NotComparable:
    return overall if isinstance(overall, NotComparable) else position_effect(contests, overall, said)


def _fragility(contests: Contests, keep: int | None) -> Fragility | None:
    fit = fit_strengths(contests)
    return None if isinstance(fit, NotComparable) else fragility(fit, contests, keep)
