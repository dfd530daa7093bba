"""How often something may be done, by whoever does it: token buckets in bounded memory.

For limits that are of this process alone. What an organisation's key may use is counted in `limits`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class TokenBuckets:
    """One bucket a key. Of more than `most` keys the one that was quiet longest is forgotten, and so full again."""

    def __init__(self, *, burst: int, per_second: float, now: Callable[[], float], most: int = 10_000) -> None:
        """`now`: a monotonic clock in seconds."""
        self._burst, self._per_second, self._now, self._most = burst, per_second, now, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take one token; False where there is none."""
        left = self._filled(key)
        self._keep(key, left - 1 if left >= 1 else left)
        return left >= 1

    def _filled(self, key: str) -> float:
        left, at = self._left.get(key, (float(self._burst), self._now()))
        return min(self._burst, left + (self._now() - at) * self._per_second)

    def _keep(self, key: str, left: float) -> None:
        self._left[key] = (left, self._now())
        self._left.move_to_end(key)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
