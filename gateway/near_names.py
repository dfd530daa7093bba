"""What to tell a person who named something that is not there: the near names, or all of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence about a name that the registry has not. Near names where there are some, else all of them."""
    return f"there is no {what} '{name}' in the registry; {meant(name, known)}"


def meant(name: str, known: Iterable[str]) -> str:
    lowered = {one.lower(): one for one in known}
    near = [lowered[one] for one in get_close_matches(name.lower(), lowered, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(sorted(lowered.values()))}" if lowered else "it names none"
