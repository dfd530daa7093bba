"""A load in words, as its kind, as one number where it has one, and how long a plan's loads last."""

from __future__ import annotations

from loadtests.plan import Arrivals, Closed, Load, Open, Plan, Through

SEARCH_LEVELS = 8
"""How many levels a search is taken to try."""


def kind_of(load: Load) -> str:
    """open | closed."""
    return "open" if isinstance(load, Open) else "closed"


def level_of(load: Load) -> float | None:
    """Requests a second, or users; None where it changes on the way."""
    if isinstance(load, Open):
        levels = {level for rate in load.rates for level in (rate.begin_per_s, rate.end_per_s)}
    else:
        levels = {float(level) for users in load.users for level in (users.begin, users.end)}
    return levels.pop() if len(levels) == 1 else None


def load_in_words(load: Load) -> str:
    """Such as "40 users at once", "Poisson, 2.5 requests/s", "constant, 1 to 8 requests/s"."""
    if isinstance(load, Closed):
        first, last = load.users[0].begin, load.users[-1].end
        many = f"{first} to {last} users at once" if len({first, last}) > 1 else f"{first} users at once"
        many = "1 user" if (first, last) == (1, 1) else many
        return many + (f", {load.think_s:g} s of thinking" if load.think_s else "")
    if load.arrivals is Arrivals.TRACE:
        return "as a trace" + (f", {load.speed:g} times as fast" if load.speed != 1 else "")
    levels = [level for rate in load.rates for level in (rate.begin_per_s, rate.end_per_s)]
    name = load.arrivals.value.capitalize()
    if len(set(levels)) == 1:
        return f"{name}, {levels[0]:g} requests/s"
    return f"{name}, {min(levels):g} to {max(levels):g} requests/s"


def repeats_in(plan: Plan) -> int:
    """Repeats of all cells and doors; those of searches are a guess."""
    doors = 2 if plan.target.through is Through.BOTH else 1
    return plan.repeats * doors * (len(plan.cells) + SEARCH_LEVELS * len(plan.searches))


def load_s(load: Load) -> float:
    """How long a load lasts; 0 for a trace, which says so itself."""
    spans = load.users if isinstance(load, Closed) else load.rates
    return sum(span.for_s for span in spans)


def planned_s(plan: Plan) -> float:
    """How long all loads of a plan last, one after the other; traces, starts and drains aside."""
    doors = 2 if plan.target.through is Through.BOTH else 1
    fixed = sum(load_s(cell.load) for cell in plan.cells)
    searched = sum(search.for_s for search in plan.searches) * SEARCH_LEVELS
    return plan.repeats * doors * (fixed + searched)


def time_in_words(seconds: float) -> str:
    """Such as "45 s", "12 min", "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
