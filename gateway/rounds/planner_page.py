"""The planner's page as values: what was asked in the form, what a round of that size tells apart, and the curve of it.

The arithmetic is `domain.planner`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.planner import (
    LEAST_PROMPTS,
    LEAST_REVIEWERS,
    Assumptions,
    RoundPlan,
    plan_round,
)
from gateway.web import word

WIDTH, HEIGHT, LEFT, RIGHT = 480, 270, 60, 14
"""Of the chart, in its own units: its size, and what stays free beside it for letters that a phone can show."""
_TOP, _BOTTOM = 14, 50
_POINTS = 60
_LEAST_RATE, _MOST_RATE = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Field:
    """A whole number that the form asks for."""

    name: str
    label: str
    start: int
    least: int
    most: int


FIELDS = (
    Field("models", word("Models"), 10, 2, 20),
    Field("reviewers", word("Reviewers"), 49, 1, 2000),
    Field("prompts", word("Questions"), 120, 1, 2000),
    Field("votes", word("Votes of each reviewer"), 40, 1, 400),
    Field("ties", word("Share of ties, in percent"), 10, 0, 90),
)


def read_sizes(query: Mapping[str, str]) -> tuple[dict[str, int], list[Field]]:
    """What was asked, with the usual values in place of what is missing or no such number; and the fields of these."""
    sizes, wrong = {}, []
    for field in FIELDS:
        text = query.get(field.name, "").strip()
        is_right = text.isascii() and text.isdigit() and len(text) < 6 and field.least <= int(text) <= field.most
        sizes[field.name] = int(text) if is_right else field.start
        if text and not is_right:
            wrong.append(field)
    return sizes, wrong


def planned(sizes: Mapping[str, int], *, votes: int | None = None) -> RoundPlan:
    """What a round of these sizes tells apart. `votes`: of each reviewer, where other than asked."""
    return plan_round(
        models=sizes["models"],
        reviewers=sizes["reviewers"],
        prompts=sizes["prompts"],
        votes_per_reviewer=sizes["votes"] if votes is None else votes,
        assume=Assumptions(tie_share=sizes["ties"] / 100),
    )


def warnings(sizes: Mapping[str, int], plan: RoundPlan) -> list[str]:
    """What makes the figures weaker than they look."""
    found = (
        (
            sizes["reviewers"] < LEAST_REVIEWERS,
            word("With fewer than 30 reviewers intervals are too narrow: what a few people prefer weighs too much."),
        ),
        (
            sizes["prompts"] < LEAST_PROMPTS,
            word("With fewer than 100 questions intervals are too narrow: what suits a few questions weighs too much."),
        ),
        (sizes["votes"] > sizes["prompts"], word("Reviewers are asked some questions more than once.")),
        (plan.votes_per_pair < 1, word("Not every pair of models gets a vote.")),
    )
    return [words for holds, words in found if holds]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines as points for SVG, the round's own place on them, and what stands at the axes."""

    one_pair: str
    all_pairs: str
    here: tuple[tuple[float, float], tuple[float, float]]
    """For one pair and for all pairs."""
    rates: Sequence[tuple[float, str]]
    votes: Sequence[tuple[float, str]]


def chart(sizes: Mapping[str, int]) -> Chart:
    """The smallest win rates against all votes, up to twice those asked for."""
    most = 2 * sizes["votes"]
    each = sorted({max(1, round(most * n / _POINTS)) for n in range(1, _POINTS + 1)})
    plans = [(votes, planned(sizes, votes=votes)) for votes in each]
    lines = [
        " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        for points in (
            [(_x(votes, most), _y(plan.one_pair.win_rate)) for votes, plan in plans],
            [(_x(votes, most), _y(plan.all_pairs.win_rate)) for votes, plan in plans],
        )
    ]
    own, at = planned(sizes), _x(sizes["votes"], most)
    return Chart(
        one_pair=lines[0],
        all_pairs=lines[1],
        here=((at, _y(own.one_pair.win_rate)), (at, _y(own.all_pairs.win_rate))),
        rates=[(_y(percent / 100), f"{percent} %") for percent in range(50, 101, 10)],
        votes=[(_x(most * n / 4, most), f"{sizes['reviewers'] * most * n // 4:,}") for n in range(5)],
    )


def _x(votes: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * votes / most


def _y(rate: float) -> float:
    share = (min(rate, _MOST_RATE) - _LEAST_RATE) / (_MOST_RATE - _LEAST_RATE)
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share
