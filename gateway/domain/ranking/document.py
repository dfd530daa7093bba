"""An analysis as plain values for JSON: names instead of codes, keys and lists in a fixed order, numbers rounded once.

What has no figure is null beside its reason. Votes in any order give the same document: an analysis sorts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from gateway.domain.ranking.agreement import Agreement
from gateway.domain.ranking.analysis import Analysis, Plan
from gateway.domain.ranking.blinding import Blinding
from gateway.domain.ranking.connectivity import NotComparable
from gateway.domain.ranking.contests import PairTable
from gateway.domain.ranking.estimates import Estimate, Uncertainty
from gateway.domain.ranking.figures import Figure
from gateway.domain.ranking.fragility import Fragility, Removal
from gateway.domain.ranking.position import Position
from gateway.domain.ranking.ranks import CutLine
from gateway.domain.ranking.rao_kupper import Acceptability
from gateway.domain.ranking.reasons import Interval, Reason
from gateway.domain.ranking.sensitivity import Sensitivity
from gateway.domain.ranking.style import StyleControlled

Document = dict[str, Any]
_DIGITS = 9
"""After the point: beyond it machines may differ."""


def as_document(analysis: Analysis) -> Document:
    """The whole analysis. Models stand in the order of their strength, where they are comparable."""
    names, reviewers = analysis.votes.models, analysis.votes.reviewers
    return {
        "plan": _plan(analysis.plan, names),
        "is_ranking": analysis.is_ranking,
        "cautions": list(analysis.cautions),
        "votes": {name: getattr(analysis.counted, name) for name in type(analysis.counted).__slots__},
        "overall": _estimate(analysis.overall, names, reviewers),
        "pairs": _pairs(analysis.overall, analysis.table, names),
        "style_controlled": _controlled(analysis.controlled, analysis.table, names, reviewers),
        "criteria": {name: _estimate(found, names, reviewers) for name, found in analysis.by_criterion.items()},
        "composite": None if analysis.composite is None else _estimate(analysis.composite, names, reviewers),
        "industries": {
            name: {"is_descriptive": True, **_estimate(found, names, reviewers, has_ranks=False)}
            for name, found in analysis.by_industry.items()
        },
        "acceptability": _acceptability(analysis.acceptability, names),
        "sensitivity": [_sensitivity(found, names, reviewers) for found in analysis.sensitivity],
        "position": _position(analysis.position, names),
        "agreement": _agreement(analysis.agreement),
        "fragility": None if analysis.fragility is None else _fragility(analysis.fragility, names, reviewers),
        "anomalies": [
            {
                "reviewer": reviewers[flag.reviewer],
                "sign": flag.sign.value,
                "value": _number(flag.value),
                "threshold": _number(flag.threshold),
                "n": flag.n,
            }
            for flag in analysis.anomalies
        ],
        "blinding": _blinding(analysis.blinding, names),
    }


def _plan(plan: Plan, names: Sequence[str]) -> Document:
    return {
        "primary": plan.primary.value,
        "keep": plan.keep,
        "confidence": plan.confidence,
        "weights": dict(sorted(plan.weights.items())),
        "provenance": {name: plan.provenance[name].value for name in names},
        "anomaly_rules": {name: getattr(plan.anomaly_rules, name) for name in type(plan.anomaly_rules).__slots__},
    }


# --- strengths ----------------------------------------------------------------------------------------------


def _estimate(
    found: Estimate | NotComparable, names: Sequence[str], reviewers: Sequence[str], *, has_ranks: bool = True
) -> Document:
    if isinstance(found, NotComparable):
        return _not_comparable(found, names)
    uncertainty = found.uncertainty
    document: Document = {
        "is_comparable": True,
        "n": found.n,
        "reviewers": found.reviewers,
        "prompts": found.prompts,
        "reason": found.reason,
        "cautions": list(found.cautions),
        "degrees": None if uncertainty is None else uncertainty.covariance.df,
        "models": [_model(found, code, names, has_ranks=has_ranks) for code in found.order],
    }
    if has_ranks:
        ranks = None if uncertainty is None else uncertainty.ranks
        document["not_distinguishable"] = None if ranks is None else [_named(group, names) for group in ranks.groups]
        line = None if uncertainty is None else uncertainty.line
        document["line"] = None if line is None else _line(line, names)
    if found.leave_one_out is not None:
        document["indispensable_reviewers"] = _named(found.leave_one_out.indispensable, reviewers)
    return document


def _not_comparable(found: NotComparable, names: Sequence[str]) -> Document:
    return {
        "is_comparable": False,
        "n": found.n,
        "reason": found.reason.value,
        "components": [_named(group, names) for group in found.components],
    }


def _model(found: Estimate, code: int, names: Sequence[str], *, has_ranks: bool) -> Document:
    sure: Uncertainty | None = found.uncertainty
    document: Document = {
        "model": names[code],
        "strength": _number(found.strengths[code]),
        "strength_interval": _span(None if sure is None else sure.strengths[code]),
        "win_rate": _number(found.win_rates[code]),
        "win_rate_interval": _span(None if sure is None else sure.win_rates[code]),
        "rating": _number(found.ratings[code]),
        "rating_interval": _span(None if sure is None else sure.ratings[code]),
    }
    if has_ranks:
        document["best_rank"] = None if sure is None else int(sure.ranks.best[code])
        document["worst_rank"] = None if sure is None else int(sure.ranks.worst[code])
    if found.leave_one_out is not None:
        errors, others = found.leave_one_out.errors, found.leave_one_out.strengths[:, code]
        seen = others[np.isfinite(others)]
        document["leave_one_reviewer_out"] = {
            "error": None if errors is None else _number(errors[code]),
            "clustered_error": None if sure is None else _number(sure.covariance.errors[code]),
            "lowest": _number(seen.min()) if len(seen) else None,
            "highest": _number(seen.max()) if len(seen) else None,
            "n": len(others),
        }
    return document


def _pairs(overall: Estimate | NotComparable, table: PairTable, names: Sequence[str]) -> list[Document]:
    """Every pair of models, the stronger first: what was cast, and the simultaneous interval of the difference."""
    order = range(len(names)) if isinstance(overall, NotComparable) else overall.order
    met, scored = table.met + table.met.T, table.scored
    found = []
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            pair = {"first": names[first], "second": names[second], "n": int(met[first, second])}
            pair["points_of_first"] = _number(scored[first, second])
            found.append({**pair, **_difference(overall, first, second)})
    return found


def _difference(overall: Estimate | NotComparable, first: int, second: int) -> Document:
    if isinstance(overall, NotComparable):
        return {"difference": None, "simultaneous_interval": None, "is_distinguishable": None}
    gap = float(overall.strengths[first] - overall.strengths[second])
    sure = overall.uncertainty
    if sure is None:
        return {"difference": _number(gap), "simultaneous_interval": None, "is_distinguishable": None}
    off = sure.ranks.reach * float(sure.covariance.cautious_difference_errors[first, second])
    above = sure.ranks.surely_above
    return {
        "difference": _number(gap),
        "simultaneous_interval": [_number(gap - off), _number(gap + off)],
        "is_distinguishable": bool(above[first, second] or above[second, first]),
    }


def _line(line: CutLine, names: Sequence[str]) -> Document:
    return {
        "keep": line.keep,
        "above": _named(line.above, names),
        "is_clear": line.is_clear,
        "contested": _named(line.contested, names),
        "pairs": [
            {
                "above": names[pair.above],
                "below": names[pair.below],
                "difference": _number(pair.difference),
                "p_value": _number(pair.p_value),
                "holm_p_value": _number(pair.adjusted_p),
                "is_separated": pair.is_separated,
            }
            for pair in line.pairs
        ],
    }


def _controlled(
    found: StyleControlled | NotComparable, table: PairTable, names: Sequence[str], reviewers: Sequence[str]
) -> Document:
    if isinstance(found, NotComparable):
        return _not_comparable(found, names)
    effects = {
        effect.feature: {"coefficient": _number(effect.coefficient), "interval": _span(effect.interval)}
        for effect in found.effects
    }
    return {
        **_estimate(found.estimate, names, reviewers),
        "pairs": _pairs(found.estimate, table, names),
        "effects": effects,
        "constant_features": list(found.constant),
        "without_style": found.without_style,
    }


def _sensitivity(found: Sensitivity, names: Sequence[str], reviewers: Sequence[str]) -> Document:
    moved = found.moved
    return {
        "variation": found.variation.value,
        "left_out": found.left_out,
        "moved": moved
        and {
            "largest": _number(moved.largest),
            "turned_pairs": moved.turned_pairs,
            "entered": _named(moved.entered, names),
            "left": _named(moved.left, names),
        },
        "estimate": _estimate(found.estimate, names, reviewers),
    }


# --- the rest -----------------------------------------------------------------------------------------------


def _acceptability(found: Acceptability | NotComparable, names: Sequence[str]) -> Document:
    if isinstance(found, NotComparable):
        return _not_comparable(found, names)
    order = np.lexsort((np.arange(len(names)), -np.round(found.strengths, _DIGITS))).tolist()
    return {
        "is_comparable": True,
        "n": found.n,
        "reason": found.covariance if isinstance(found.covariance, Reason) else None,
        "tie_parameter": _number(found.tie_parameter),
        "cautions": list(found.cautions),
        "models": [
            {
                "model": names[code],
                "strength": _number(found.strengths[code]),
                "acceptable": _number(found.acceptable[code]),
                "acceptable_interval": _span(None if found.intervals is None else found.intervals[code]),
                "line": None if found.lines is None else found.lines[code].value,
            }
            for code in order
        ],
    }


def _position(found: Position | NotComparable, names: Sequence[str]) -> Document:
    if isinstance(found, NotComparable):
        return _not_comparable(found, names)
    return {
        "is_comparable": True,
        "n": found.n,
        "reason": found.reason,
        "advantage": _number(found.advantage),
        "interval": _span(found.interval),
        "share_for_a": _number(found.share_for_a),
        "share_interval": _span(found.share_interval),
        "p_value": _number(found.p_value),
        "largest_change": _number(found.largest_change),
        "shown_first": dict(zip(names, found.shown_first, strict=True)),
        "shown_second": dict(zip(names, found.shown_second, strict=True)),
    }


def _agreement(found: Agreement) -> Document:
    return {
        "shared_items": found.shared_items,
        "alpha": _figure(found.alpha),
        "alpha_by_criterion": {name: _figure(figure) for name, figure in found.alpha_by_criterion.items()},
        "kappa": _figure(found.kappa),
        "consistent": _figure(found.consistent),
        "reversed": _figure(found.reversed),
        "halo": [{"criteria": list(names), **_figure(figure)} for names, figure in found.halo.items()],
        "all_alike": _figure(found.all_alike),
    }


def _fragility(found: Fragility, names: Sequence[str], reviewers: Sequence[str]) -> Document:
    return {
        "n": found.n,
        "reason": found.reason,
        "votes": found.votes and _removal(found.votes, names),
        "reviewers": found.reviewers
        and {**_removal(found.reviewers, names), "names": _named(found.reviewers.reviewers, reviewers)},
    }


def _removal(found: Removal, names: Sequence[str]) -> Document:
    return {
        "at_most": found.count,
        "share": _number(found.share),
        "left": names[found.left],
        "entered": names[found.entered],
    }


def _blinding(found: Blinding, names: Sequence[str]) -> Document:
    return {
        "james": _figure(found.james),
        "bang": {name: _figure(figure) for name, figure in zip(names, found.bang, strict=True)},
        "recognised": _figure(found.recognised),
    }


# --- single values ------------------------------------------------------------------------------------------


def _figure(figure: Figure) -> Document:
    return {
        "value": _number(figure.value),
        "interval": _span(figure.interval),
        "n": figure.n,
        "reason": figure.reason,
    }


def _named(codes: Iterable[int], names: Sequence[str]) -> list[str]:
    return [names[code] for code in codes]


def _span(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]


def _number(value: float | None) -> float | None:
    """Rounded, and without a negative zero."""
    if value is None or not isfinite(value):
        return None
    return round(float(value), _DIGITS) + 0.0
