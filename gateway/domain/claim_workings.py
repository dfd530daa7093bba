"""What was worked out already while claims are checked: the same inputs are computed once, however many claims ask.

A claim's own value, statistic and words change no bound and no estimate, so five hundred claims about one model on one
GPU need few of them. It belongs to one checking: models and GPUs are told apart by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Workings:
    """Results by what they were computed from."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}
        self._held: dict[int, object] = {}
        """What keys name by identity, kept so that no other object gets its number."""

    def once(self, compute: Callable[[], T], of: tuple[object, ...], *inputs: Hashable) -> T:
        """What `compute` gives for `of`, told apart by identity, and for `inputs`, told apart by value."""
        key = (*(id(each) for each in of), *inputs)
        if key not in self._found:
            self._held.update((id(each), each) for each in of)
            self._found[key] = compute()
        found: T = self._found[key]
        return found
