"""How fine a difference a round of blind review can tell apart, and how many votes a difference takes.

For a balanced design over K models with n votes a pair, the variance of the difference of two Bradley–Terry strengths
is about 8/(nK) near equal strength: a vote between equals carries the information 1/4, and K - 1 pairs besides the
direct one speak to each difference. So with d = the smallest difference in log odds that is found with `power`,

    d = (z(1 - alpha/2) + z(power)) × √(8 / (nK)),    n = R × v × (1 - tie share) / design effect / (K(K - 1)/2),

and the win rate is 1/(1 + exp(-d)). For all pairs at once alpha is divided by their number (Bonferroni). Results of
a round, and designs, do not belong here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

FEW_REVIEWERS, MANY_REVIEWERS = 10, 50
MOST_DESIGN_EFFECT, LEAST_DESIGN_EFFECT = 3.0, 1.5
LEAST_REVIEWERS, LEAST_PROMPTS = 30, 100
"""Below either, intervals from a round are too optimistic however they are made."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    tie_share: float = 0.1
    """Share of votes without a winner; they are counted as if they told nothing of the difference."""
    design_effect: float | None = None
    """By how much votes of one reviewer and on one prompt resemble one another; None = by the number of reviewers."""
    alpha: float = 0.05
    """Two-sided."""
    power: float = 0.8


@dataclass(frozen=True, slots=True)
class Resolution:
    """The smallest difference that the round finds with the power asked for."""

    log_odds: float
    win_rate: float
    """Of the better of two, without ties: 0.5 to 1."""
    comparisons: int
    """Differences that are judged at once: 1, or all pairs."""


@dataclass(frozen=True, slots=True)
class RoundPlan:
    votes: int
    votes_per_pair: float
    telling_votes_per_pair: float
    """Without ties, divided by the design effect."""
    design_effect: float
    one_pair: Resolution
    all_pairs: Resolution
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VotesNeeded:
    votes: int
    votes_per_pair: int
    votes_per_reviewer: int
    comparisons: int


def design_effect(reviewers: int) -> float:
    """3 for up to ten reviewers, 1.5 from fifty; between, falling with the logarithm of their number."""
    if reviewers < 1:
        raise ValueError(f"reviewers: expected at least 1, got {reviewers}")
    share = math.log(reviewers / FEW_REVIEWERS) / math.log(MANY_REVIEWERS / FEW_REVIEWERS)
    share = min(1.0, max(0.0, share))
    return MOST_DESIGN_EFFECT - share * (MOST_DESIGN_EFFECT - LEAST_DESIGN_EFFECT)


def plan_round(
    *, models: int, reviewers: int, prompts: int, votes_per_reviewer: int, assume: Assumptions | None = None
) -> RoundPlan:
    """What a round of that size can tell apart. Raises ValueError for sizes and shares that cannot be."""
    assume = assume or Assumptions()
    _require_sizes(models=models, reviewers=reviewers, prompts=prompts, votes_per_reviewer=votes_per_reviewer)
    effect = _effect(assume, reviewers)
    votes, pairs = reviewers * votes_per_reviewer, _pairs(models)
    telling = votes * (1 - assume.tie_share) / effect / pairs
    return RoundPlan(
        votes=votes,
        votes_per_pair=votes / pairs,
        telling_votes_per_pair=telling,
        design_effect=effect,
        one_pair=_resolution(models, telling, assume, comparisons=1),
        all_pairs=_resolution(models, telling, assume, comparisons=pairs),
        warnings=_warnings(reviewers, prompts, votes_per_reviewer, votes / pairs),
    )


def votes_needed(
    log_odds: float, *, models: int, reviewers: int, comparisons: int = 1, assume: Assumptions | None = None
) -> VotesNeeded:
    """Votes for a balanced round that finds a difference of `log_odds` with the power asked for.

    `comparisons` = 1 for one pair named beforehand, K(K - 1)/2 for all. Pairs, and reviewers, get whole votes: up.
    """
    assume = assume or Assumptions()
    _require_sizes(models=models, reviewers=reviewers, comparisons=comparisons)
    if not (math.isfinite(log_odds) and log_odds > 0):
        raise ValueError(f"log_odds: expected a number above 0, got {log_odds}")
    telling = _z_sum(assume, comparisons) ** 2 * 8 / (models * log_odds**2)
    votes_per_pair = math.ceil(telling * _effect(assume, reviewers) / (1 - assume.tie_share))
    votes = votes_per_pair * _pairs(models)
    return VotesNeeded(votes, votes_per_pair, -(-votes // reviewers), comparisons)


def log_odds_of(win_rate: float) -> float:
    if not 0 < win_rate < 1:
        raise ValueError(f"win_rate: expected a share between 0 and 1, got {win_rate}")
    return math.log(win_rate / (1 - win_rate))


def win_rate_of(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else 1 - win_rate_of(-log_odds)


def _resolution(models: int, telling: float, assume: Assumptions, *, comparisons: int) -> Resolution:
    log_odds = _z_sum(assume, comparisons) * math.sqrt(8 / (models * telling))
    return Resolution(log_odds, win_rate_of(log_odds), comparisons)


def _z_sum(assume: Assumptions, comparisons: int) -> float:
    normal = NormalDist()
    return -normal.inv_cdf(assume.alpha / comparisons / 2) + normal.inv_cdf(assume.power)


def _pairs(models: int) -> int:
    return models * (models - 1) // 2


def _effect(assume: Assumptions, reviewers: int) -> float:
    if not 0 <= assume.tie_share < 1:
        raise ValueError(f"tie_share: expected a share from 0 to below 1, got {assume.tie_share}")
    if not 0 < assume.alpha < 1:
        raise ValueError(f"alpha: expected a share between 0 and 1, got {assume.alpha}")
    if not 0.5 <= assume.power < 1:
        raise ValueError(f"power: expected a share from 0.5 to below 1, got {assume.power}")
    effect = design_effect(reviewers) if assume.design_effect is None else assume.design_effect
    if not (math.isfinite(effect) and effect >= 1):
        raise ValueError(f"design_effect: expected 1 or more, got {effect}")
    return effect


def _warnings(reviewers: int, prompts: int, votes_per_reviewer: int, votes_per_pair: float) -> tuple[str, ...]:
    found = []
    if reviewers < LEAST_REVIEWERS:
        found.append(f"{reviewers} reviewers: with fewer than {LEAST_REVIEWERS}, intervals are too narrow")
    if prompts < LEAST_PROMPTS:
        found.append(f"{prompts} prompts: with fewer than {LEAST_PROMPTS}, intervals are too narrow")
    if votes_per_reviewer > prompts:
        found.append(f"{votes_per_reviewer} votes on {prompts} prompts: reviewers see prompts more than once")
    if votes_per_pair < 1:
        found.append("not every pair gets a vote")
    return tuple(found)


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        least = 2 if name == "models" else 1
        if size < least:
            raise ValueError(f"{name}: expected at least {least}, got {size}")
