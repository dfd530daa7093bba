"""What a rule of self-claims is: a name of some kind, and the words before and after it.

Sentences are read with their names masked, one sign a name, so that a rule says where a name stands and not which.
The rules themselves stand in `korean` and `english`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SURE = "\ue000"
"""A model's name that is no everyday word, or is followed by a version."""
ORDINARY = "\ue001"
"""A model's name that is an everyday word too."""
COMPANY = "\ue002"
MODEL = f"[{SURE}{ORDINARY}]"
ANY = f"[{SURE}{ORDINARY}{COMPANY}]"
REACH = 120
"""Signs before a name that a rule may look at; as many after it. Bounds the work a name makes."""


@dataclass(frozen=True, slots=True)
class Place:
    """A masked name with what stands around it. `subject` finds the speaker in `left`."""

    mask: str
    left: str
    right: str
    before: str
    """The sentence before, masked; empty where there is none."""
    is_whole_left: bool
    """Whether `left` reaches back to the start of the sentence."""


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    of: str
    """Masks that it applies to."""
    right: re.Pattern[str]
    """Matched from the name's end on."""
    left: re.Pattern[str] | None = None
    """Searched before the name; None = anything."""
    condition: Callable[[Place], bool] | None = None
    """What a pattern cannot say, such as that the speaker is the sentence's subject."""
    beside: str = ""
    """Masks that it applies to only where another sentence of the same text is a claim: people say the same of
    a neighbour called Claude, and of their solar panels."""

    def holds(self, place: Place, *, beside_claim: bool = False) -> bool:
        return (
            place.mask in (self.of + self.beside if beside_claim else self.of)
            and (self.left is None or self.left.search(place.left) is not None)
            and self.right.match(place.right) is not None
            and (self.condition is None or self.condition(place))
        )


ANYTHING = re.compile("")


def any_of(*lines: str) -> str:
    """A pattern for any of these words; `_` is a space that may be left out, as Korean writers do."""
    return f"(?:{'|'.join(word.replace('_', ' ?') for line in lines for word in line.split())})"
