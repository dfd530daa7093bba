"""Numbers from a seed that anybody can make again, in any language and any version of it: SHA-256 over a counter.

Block i is SHA-256(SHA-256(seed) ‖ SHA-256(purpose in UTF-8) ‖ i in 8 bytes, big-endian), i from 0. A block gives four
words of 8 bytes, big-endian, first to last. What is drawn with them belongs to the modules that draw.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")
GENERATOR = "sha256-counter-1"
"""Names this module's rules in what is published."""
_WORDS = 2**64


def seed_bytes(seed: int | bytes) -> bytes:
    """A number counts as its decimal digits in ASCII; bytes as they are. Raises ValueError for negative or none."""
    if isinstance(seed, int):
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}")
        return str(seed).encode()
    if not seed:
        raise ValueError("seed: expected at least one byte, got none")
    return seed


class SeededStream:
    """One endless stream of words. Streams of one seed with different purposes do not depend on each other."""

    def __init__(self, seed: int | bytes, purpose: str) -> None:
        self._prefix = sha256(seed_bytes(seed)).digest() + sha256(purpose.encode()).digest()
        self._counter = 0
        self._words: list[int] = []

    def word(self) -> int:
        """The next 64 bits."""
        if not self._words:
            block = sha256(self._prefix + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
            self._words = [int.from_bytes(block[at : at + 8], "big") for at in (24, 16, 8, 0)]
        return self._words.pop()

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1, each equally likely: words in the last, incomplete multiple of n are skipped.

        The number is the word modulo n; n = 1 takes no word. Raises ValueError outside 1..2⁶⁴.
        """
        if not 1 <= n <= _WORDS:
            raise ValueError(f"n: expected 1 to 2**64, got {n}")
        if n == 1:
            return 0
        usable = _WORDS - _WORDS % n
        while (word := self.word()) >= usable:
            pass
        return word % n

    def shuffle(self, items: MutableSequence[T]) -> None:
        """Fisher and Yates, in place: for i from the last down to 1, swap i with below(i + 1)."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        copy = list(items)
        self.shuffle(copy)
        return copy

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]
