"""Who of several gateways is gone, told from looks at who lives. Arithmetic alone: `together` looks, and acts on it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

GONE_S = 5.0
"""How long a gateway must be missing to be gone: a database that was restarted has ended the sessions of all, and some
are back sooner than others."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look showed, in numbers of gateways."""

    is_news: bool
    """Somebody may have gone: since the look before, or before the first."""
    spared: frozenset[int]
    """Those that live, and those that are missing and not gone."""
    gone: frozenset[int]
    """Those that are gone from this look on."""


class RollCall:
    """`look` again and again, at the numbers under which gateways hold their locks in the database."""

    def __init__(self) -> None:
        self._known: frozenset[int] | None = None
        """Those that were seen and are not gone; None before the first look."""
        self._missing_since_s: dict[int, float] = {}

    def look(self, living: Set[int], now_s: float) -> Looked:
        known = frozenset(living) | (self._known or frozenset())
        missing = {number: self._missing_since_s.get(number, now_s) for number in known - living}
        gone = frozenset(number for number, since_s in missing.items() if now_s - since_s >= GONE_S)
        is_news = self._known is None or not missing.keys() <= self._missing_since_s.keys()
        self._known = known - gone
        self._missing_since_s = {number: missing[number] for number in missing.keys() - gone}
        return Looked(is_news, self._known, gone)
