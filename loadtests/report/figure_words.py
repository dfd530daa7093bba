"""Figures of a run in words: spans, rates, shares, money, loads, the same in sentences, drawings and tables."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from gateway.console import significant
from loadtests.cells import CellSeen, ObjectiveSeen
from loadtests.readings import is_at_least
from loadtests.report.terms import METRICS, UNITS, Language, say
from loadtests.report.words import WORDS

MINUS = "\N{MINUS SIGN}"
_SHOWN_IN = {"ms": 1000.0}


def in_unit(metric: str, value: float) -> float:
    """A value of a metric in the unit in which it is shown."""
    return value * _SHOWN_IN.get(METRICS[metric][1], 1.0)


def unit_of(metric: str, language: Language) -> str:
    return say(UNITS[METRICS[metric][1]], language)


def metric_name(metric: str, language: Language) -> str:
    """A metric's name; one that is not known here as it is."""
    return say(METRICS[metric][0], language) if metric in METRICS else metric


def with_unit(figure: str, unit: str) -> str:
    """A figure and its unit; Korean units follow without a space."""
    is_korean = unit[:1] >= "\N{HANGUL SYLLABLE GA}"
    return f"{figure}{unit}" if is_korean else f"{figure} {unit}".rstrip()


def number(value: float, digits: int = 4) -> str:
    """So many significant digits, never an exponent, whole from a thousand upwards."""
    return significant(value, digits).replace("-", MINUS)


def seconds(value: float, language: Language) -> str:
    """A span in words: milliseconds below one second."""
    if abs(value) < 1:
        return f"{number(value * 1000, 3)} ms"
    return with_unit(number(value, 3), say(UNITS["s"], language))


def milliseconds(value_s: float) -> str:
    """A difference of spans to hundredths of a millisecond; no negative zero."""
    return f"{round(1000 * value_s, 2) + 0.0:,.2f}".replace("-", MINUS)


def about(share: float) -> str:
    """A share in a sentence: whole per cents from ten upwards."""
    return f"{100 * share:,.{0 if abs(share) >= 0.1 else 1}f}%".replace("-", MINUS)


def share(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}%".replace("-", MINUS)


def money(value: float | str) -> str:
    """Four significant digits of an amount."""
    try:
        return significant(Decimal(str(value)), 4)
    except InvalidOperation:
        return str(value)


def level_words(over: str, level: float, language: Language) -> str:
    """A load as one number. `over`: rate or open, users or closed."""
    if over in ("users", "closed"):
        name = "user" if level == 1 else "users"
        return say(WORDS[name], language).format(level=f"{level:,.0f}")
    return say(WORDS["rate" if level == 1 else "rates"], language).format(level=f"{level:.4g}")


def load_words(cell: CellSeen, language: Language) -> str | None:
    """A cell's load in words of ours; None where only the plan's own words say it."""
    if cell.level is None or not cell.is_steady:
        return None
    return level_words(cell.kind, cell.level, language)


def objective_words(one: ObjectiveSeen, language: Language) -> str:
    """An objective with its limit: "TTFT p95 ≤ 2 s"."""
    limit, unit = _limit(one, language)
    name = metric_name(one.metric, language)
    sign = "≥" if is_at_least(one.metric) else "≤"
    statistic = one.statistic
    if statistic == "attainment":
        statistic = say(WORDS["attainment"], language).format(percent=one.attainment_percent)
    return f"{name} {statistic} {sign} {with_unit(limit, unit)}"


def _limit(one: ObjectiveSeen, language: Language) -> tuple[str, str]:
    """The limit as it was written, in the unit in which the metric is shown."""
    if one.metric not in METRICS:
        return one.limit, ""
    try:
        value = Decimal(one.limit) * Decimal(str(_SHOWN_IN.get(METRICS[one.metric][1], 1)))
    except InvalidOperation:
        return one.limit, unit_of(one.metric, language)
    return f"{value.normalize():f}", unit_of(one.metric, language)
