"""How an answer looks, in numbers: its length, and how much of Markdown's furniture it has.

What stands inside a fence of code is length and no furniture. What such numbers do to a result belongs in
`domain.ranking.style`.
"""

from __future__ import annotations

import re
import unicodedata

FEATURES = ("eojeol", "characters", "headers", "lists", "bold")
"""어절 (words between white space), characters without white space, headings, list items, bold passages."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADER = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]{1,400}?(?<=\S)\*\*|__(?=\S)[^_\n]{1,400}?(?<=\S)__")


def style_of(markdown: str) -> dict[str, float]:
    """Every feature of `FEATURES`, counted on the text as reviewers were shown it, in NFC."""
    text = unicodedata.normalize("NFC", markdown)
    words = text.split()
    prose = _outside_code(text)
    return {
        "eojeol": float(len(words)),
        "characters": float(sum(map(len, words))),
        "headers": float(sum(1 for line in prose if _HEADER.match(line))),
        "lists": float(sum(1 for line in prose if _ITEM.match(line))),
        "bold": float(sum(len(_BOLD.findall(line)) for line in prose)),
    }


def _outside_code(text: str) -> list[str]:
    """Lines that stand in no fence; a fence that is never closed goes on to the end, as in CommonMark."""
    kept: list[str] = []
    closing: str | None = None
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if closing is not None:
            if fence is not None and fence[1].startswith(closing) and not line.strip(" \t`~"):
                closing = None
        elif fence is not None:
            closing = fence[1]
        else:
            kept.append(line)
    return kept
