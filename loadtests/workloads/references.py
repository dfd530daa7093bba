"""Receipt and file numbers that make prompts differ from their first words on. Pure: all comes from the seed."""

from __future__ import annotations

import math

import numpy as np

from loadtests.workloads.words import WORDS

NUMBERS = 10**9
"""So many requests of one seed have numbers of their own, and so many shared parts."""
_PURPOSE = 1
"""Tells these draws from all others of the same seed."""
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


class References:
    """Numbers of one seed. They look drawn and never repeat; those of another seed end in other letters."""

    def __init__(self, seed: int) -> None:
        """Raises ValueError where the seed is negative."""
        factor, offset, tag = np.random.SeedSequence(seed, spawn_key=(_PURPOSE,)).generate_state(3, np.uint64).tolist()
        self._factor = factor % NUMBERS
        while math.gcd(self._factor, NUMBERS) != 1:
            self._factor = (self._factor + 1) % NUMBERS
        self._offset = offset
        self._tag = "".join(_LETTERS[tag // len(_LETTERS) ** place % len(_LETTERS)] for place in range(4))

    def digits(self, number: int) -> str:
        """Nine digits, others for each number below `NUMBERS`."""
        return f"{(self._factor * number + self._offset) % NUMBERS:09d}"

    def request_line(self, language: str, number: int) -> str:
        """A short line of the request's own; what differs comes first."""
        return self._line(WORDS[language].reference, number)

    def group_line(self, language: str, group: int) -> str:
        """The same for a part that a group of requests shares, counted from the other end of the numbers."""
        return self._line(WORDS[language].file, NUMBERS - 1 - group)

    def _line(self, word: str, number: int) -> str:
        digits = self.digits(number)
        return f"{word} {digits[:3]}-{digits[3:6]}-{digits[6:]}-{self._tag}"
