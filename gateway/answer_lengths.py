"""How many characters a model's Korean answers have to a token, from the texts that comparisons keep.

The gateway keeps no text of ordinary calls. Where comparisons' texts were removed, or nobody asked in Korean, there is
nothing to count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from gateway.store import Comparison, Store

COMPARISONS_READ = 200
"""The newest ones that a figure looks at."""
COMPARISONS_AT_ONCE = 5
"""Made of what the database gave before the event loop gets its turn."""
_SYLLABLES = range(0xAC00, 0xD7A4)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of answers of one provenance together."""

    answers: int = 0
    characters: int = 0
    """Unicode code points of answer and reasoning, spaces included."""
    tokens: int = 0
    """Completion tokens by the engine's own count."""

    def plus(self, characters: int, tokens: int) -> Lengths:
        return Lengths(self.answers + 1, self.characters + characters, self.tokens + tokens)


async def korean_lengths(store: Store) -> dict[tuple[str, str], Lengths]:
    """By model and provenance, of the newest comparisons' whole answers that are mostly Korean."""
    found: dict[tuple[str, str], Lengths] = {}
    read = 0
    async for comparison in store.iter_comparisons(page=COMPARISONS_AT_ONCE):
        for model, provenance, characters, tokens in await asyncio.to_thread(_answers, comparison):
            at = model, provenance
            found[at] = found.get(at, Lengths()).plus(characters, tokens)
        read += 1
        if read == COMPARISONS_READ:
            break
    return found


def is_mostly_korean(text: str) -> bool:
    """At least half of its letters are Hangul syllables."""
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and 2 * sum(ord(c) in _SYLLABLES for c in letters) >= len(letters)


def _answers(comparison: Comparison) -> list[tuple[str, str, int, int]]:
    answers: list[tuple[str, str, int, int]] = []
    for side in comparison.sides:
        output: dict[str, Any] = side.output or {}
        usage: dict[str, Any] = side.facts.get("usage") or {}
        tokens, text = usage.get("completion_tokens"), output.get("content") or ""
        if not tokens or usage.get("source") != "engine" or output.get("tool_calls"):
            continue
        if side.status == "ok" and is_mostly_korean(text):
            characters = len(text) + len(output.get("reasoning") or "")
            answers.append((side.model, side.facts.get("provenance", "unknown"), characters, tokens))
    return answers
