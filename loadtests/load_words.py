"""A load in words, as its kind, and as one number where it has one."""

from __future__ import annotations

from loadtests.plan import Arrivals, Closed, Load, Open


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
