"""What a cell of the matrix says, in figures and words: its first line, its tooltip, its speed and cost.

Text only, for the page, the figure and the terminal alike; where it stands is `matrix_figure`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.domain.decoding import CostRange, Decoding
from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Cell, Unknown
from gateway.domain.memory import GIB
from gateway.domain.records import Gpu, Model
from gateway.matrix_words.fields import Words

NONE = "–"
"""What cannot be had, as the GPUs that would hold a model."""


def short(value: float | int) -> str:
    """Three significant digits, without an exponent."""
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 1 or not value else f"{value:.3g}"


def gib(size: int, *, sign: bool = False) -> str:
    """Gibibytes with one decimal, and a real minus."""
    return f"{size / GIB:{'+' if sign else ''},.1f}".replace("-", "\N{MINUS SIGN}")


def verdict_words(cell: Cell, words: Words) -> str:
    found = cell.estimate
    name = _format_name(found.quantised_to)
    said = words.verdicts[found.verdict].format(format=name)
    if found.verdict is Verdict.FITS_SHORT_CONTEXT and found.quantised_to:
        return words.also_as.format(verdict=said, format=name)
    return said


def unknown_words(unknown: Unknown, words: Words) -> str:
    return words.gaps[unknown.gap].format(facts=fact_words(unknown.facts, words))


def fact_words(facts: Sequence[str], words: Words) -> str:
    return ", ".join(words.facts.get(fact, fact) for fact in facts)


def speed_words(decoding: Decoding) -> str:
    return f"{short(decoding.expected_tokens_per_s)} ({ceiling_words(decoding)})"


def ceiling_words(decoding: Decoding) -> str:
    """A question mark where it is unknown, as for a verdict."""
    return "?" if decoding.ceiling_tokens_per_s is None else short(decoding.ceiling_tokens_per_s)


def cost_words(cost: CostRange) -> str:
    low, high = short(float(cost.low)), short(float(cost.high))
    return f"{low if low == high else f'{low}–{high}'} {cost.currency}"


def at_once(requests: int) -> str:
    """So many requests at the same time."""
    return f"×{requests:,}"


def at_most(tokens: int) -> str:
    """A context of at most so many tokens, in thousands."""
    return f"≤ {_tokens(tokens)}"


def _format_name(name: str | None) -> str:
    return (name or "").upper()


def _tokens(count: int) -> str:
    return f"{count / 1000:.1f}k" if count < 10_000 else f"{count // 1000:,}k"


def first_line(cell: Cell, words: Words) -> str:
    found = cell.estimate
    match found.verdict:
        case Verdict.FITS:
            return at_once(found.max_concurrency or 0)
        case Verdict.FITS_QUANTISED:
            return _format_name(found.quantised_to)
        case Verdict.FITS_SHORT_CONTEXT if found.quantised_to:
            return _format_name(found.quantised_to)
        case Verdict.FITS_SHORT_CONTEXT:
            return at_most(found.max_context_at_concurrency or 0)
        case Verdict.NO if found.min_gpus is not None:
            return words.gpus_least.format(count=found.min_gpus)
        case Verdict.NO:
            return NONE
        case _:
            return ""


def tooltip(cell: Cell, gpu: Gpu, model: Model, words: Words) -> str:
    found = cell.estimate
    lines = [f"{model.name or model.id} · {gpu.name} · {words.quantisations[cell.quantisation]}"]
    lines.append(verdict_words(cell, words) if model.is_servable else f"{verdict_words(cell, words)}, {words.by_size}")
    if cell.unknown is not None:
        lines.append(unknown_words(cell.unknown, words))
    if found.headroom_bytes is not None:
        room = found.headroom_bytes
        lines.append(words.tip_headroom.format(low=gib(room.low), likely=gib(room.likely), high=gib(room.high)))
    if found.max_context_one_request is not None:
        lines.append(words.tip_context.format(tokens=f"{found.max_context_one_request:,}"))
    if found.max_context_at_concurrency is not None and found.concurrency > 1:
        tokens = f"{found.max_context_at_concurrency:,}"
        lines.append(words.tip_context_at.format(requests=f"{found.concurrency:,}", tokens=tokens))
    if found.max_concurrency is not None:
        lines.append(words.tip_at_once.format(count=f"{found.max_concurrency:,}"))
    lines.extend(_pace_lines(cell.full, words))
    if found.confidence is not None:
        lines.append(words.tip_confidence.format(confidence=words.confidence[found.confidence]))
    return "\n".join(lines)


def _pace_lines(full: Decoding | None, words: Words) -> Iterator[str]:
    if full is None:
        return
    yield words.tip_speed.format(
        requests=f"{full.requests:,}",
        expected=short(full.expected_tokens_per_s),
        ceiling=ceiling_words(full),
    )
    cost = full.cost_per_mtok
    if cost is not None:
        yield words.tip_cost.format(low=short(float(cost.low)), high=short(float(cost.high)), currency=cost.currency)
