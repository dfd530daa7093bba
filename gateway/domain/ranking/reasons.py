"""Codes for what an analysis cannot say, and for what stands beside what it says. Words belong to pages and reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why there is no figure."""

    NO_VOTES = "no_votes"
    """Nothing that may be counted."""
    NOT_CONNECTED = "not_connected"
    """Some models never scored against others, so their distance from these is unbounded or unknown."""
    TOO_FEW_CLUSTERS = "too_few_clusters"
    """Fewer than two reviewers or two prompts: nothing shows how much these differ."""
    DEGENERATE = "degenerate"
    """Reviewers or prompts happen to differ so little that intervals would have hardly any width."""
    NO_CONVERGENCE = "no_convergence"
    """The votes do not hold every parameter of this model down to a finite value."""
    NO_VARIATION = "no_variation"
    """All values are the same, so there is nothing to measure against."""
    NOT_RECORDED = "not_recorded"
    """The votes carry no such values."""
    NO_BOTH_BAD = "no_both_bad"
    """Nobody said both bad, so nothing shows where acceptable begins."""
    TOO_FEW_UNITS = "too_few_units"
    """Fewer than ten items, or reviewers, that could be left out in turn: no interval."""
    NO_SHARED_ITEMS = "no_shared_items"
    """No item was judged by two reviewers."""
    NO_REPEATS = "no_repeats"
    NO_GUESSES = "no_guesses"
    NO_CUT_LINE = "no_cut_line"
    """The plan draws no line, or draws it below the last model."""
    LINE_HOLDS = "line_holds"
    """No removal that was tried moves the line."""


class Caution(StrEnum):
    """What stands beside figures that are shown."""

    FEW_REVIEWERS = "few_reviewers"
    """Fewer than 30: intervals lean on the t distribution and on reviewers being alike."""
    FEW_PROMPTS = "few_prompts"
    """Fewer than 100."""
    NOT_REAL = "not_real"
    """Some answers are not known to come from the models named: for trying and planning, no ranking."""
    CLIPPED = "clipped"
    """The clustered covariance had negative directions, which were set to 0."""
    TIES_ABSENT = "ties_absent"
    """No tie was cast; the tie parameter stands at its bound."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float
