"""Figures of a result in words: shares, numbers, counts, ranks and days, the same in sentences, drawings and tables."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from gateway.rounds.conclusion_words import NOUNS, Language

MINUS = "\N{MINUS SIGN}"
KOREA = timezone(timedelta(hours=9))


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}%".replace("-", MINUS)


def share_words(share: float) -> str:
    """A share that may be small, with one decimal below ten per cent."""
    return percent(share, 0 if share >= 0.1 or share == 0 else 1)


def number_words(value: float) -> str:
    """Two decimals, three for what would look like 0 and is not; a real minus, and no negative zero."""
    digits = 3 if 0 < abs(value) < 0.005 else 2
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def counted(n: int, noun: str, language: Language) -> str:
    korean, one, many = NOUNS[noun]
    return (korean if language == "ko" else one if n == 1 else many).format(n=f"{n:,}")


def rank_words(best: int | str, worst: int | str) -> str:
    return str(best) if best == worst else f"{best}–{worst}"


def day_words(moment: str) -> str:
    """The day that it was in Korea at a moment written as ISO 8601 has it, with its offset."""
    return datetime.fromisoformat(moment).astimezone(KOREA).strftime("%Y-%m-%d")
