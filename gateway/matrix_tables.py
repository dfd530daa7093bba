"""The tables of the feasibility page: every figure of a matrix for reading and copying, and the GPUs' own.

What stands around them is `matrix_page`'s; what a cell is called, `matrix_cell_words`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.domain.decoding import Decoding
from gateway.domain.feasibility import Estimate
from gateway.domain.matrix import Cell, Matrix
from gateway.domain.records import Gpu, Model
from gateway.markup import Element, element
from gateway.matrix_cell_words import (
    NONE,
    at_once,
    cost_words,
    fact_words,
    gib,
    short,
    speed_words,
    unknown_words,
    verdict_words,
)
from gateway.matrix_figure import Group
from gateway.matrix_words.fields import Words


def figure_table(
    matrix: Matrix, quantisation: str, gpus: Sequence[Gpu], groups: Sequence[Group], words: Words
) -> Element:
    """The same and more as a table, for screen readers and for copying."""
    names = [name for name in words.columns if name != "reason"]
    rows = (
        _table_row(matrix.cell(model, gpu, quantisation), model, gpu, words)
        for group in groups
        for model in group.models
        for gpu in gpus
    )
    caption = words.table_caption.format(format=words.quantisations[quantisation])
    table = _as_table([words.columns[name] for name in names], rows, caption=caption)
    return element("details", {}, element("summary", {}, words.table), table)


def gpu_table(gpus: Sequence[Gpu], words: Words) -> Element:
    """What the registry says of each type of GPU."""
    return _as_table(list(words.gpu_columns.values()), (_gpu_row(gpu, words) for gpu in gpus))


def _table_row(cell: Cell, model: Model, gpu: Gpu, words: Words) -> Element:
    found = cell.estimate
    why = unknown_words(cell.unknown, words) if cell.unknown is not None else words.unknown
    room = found.headroom_bytes
    verdict = verdict_words(cell, words)
    return element(
        "tr",
        {},
        element("th", {"scope": "row"}, model.name or model.id),
        element("td", {}, gpu.name),
        element("td", {}, verdict if model.is_servable else f"{verdict} ({words.by_size})"),
        _number(f"{gib(room.low)} / {gib(room.likely)} / {gib(room.high)}" if room is not None else None, why),
        _number(_count(found.max_context_one_request), why),
        _number(_count(found.max_context_at_concurrency), why),
        _number(_count(found.max_concurrency), why),
        _number(_least_gpus(found), why),
        *_speed_cells(cell, gpu, words),
        element("td", {}, words.confidence[found.confidence] if found.confidence is not None else why),
    )


def _speed_cells(cell: Cell, gpu: Gpu, words: Words) -> Iterator[Element]:
    """Speed and cost as asked and when full, or once why there is none."""
    if cell.asked is None or cell.full is None:
        yield element("td", {"class": "gap", "colspan": 4}, _no_speed(cell, words))
        return
    yield from _decoding_cells(cell.asked, gpu, words)
    yield from _decoding_cells(cell.full, gpu, words, load=f", {at_once(cell.full.requests)}")


def _decoding_cells(decoding: Decoding, gpu: Gpu, words: Words, *, load: str = "") -> Iterator[Element]:
    yield _number(f"{speed_words(decoding)}{load}", "")
    cost = decoding.cost_per_mtok
    yield _number(cost_words(cost) if cost is not None else None, words.mixed_prices if gpu.prices else words.no_price)


def _no_speed(cell: Cell, words: Words) -> str:
    if cell.unknown is not None:
        return unknown_words(cell.unknown, words)
    return (
        words.no_speed_facts.format(facts=fact_words(cell.speed_facts, words)) if cell.speed_facts else words.no_speed
    )


def _gpu_row(gpu: Gpu, words: Words) -> Element:
    note = gpu.sourced.note
    return element(
        "tr",
        {},
        element("th", {"scope": "row"}, gpu.name),
        _number(gib(gpu.memory_bytes), ""),
        _number(f"{gpu.bandwidth_bytes_per_s / 1e12:.3g}", ""),
        _number(_teraflops(gpu.bf16_flops), words.unknown),
        _number(_teraflops(gpu.fp8_flops), words.unknown),
        _number(_hourly(gpu), words.mixed_prices if gpu.prices else words.no_price),
        element("td", {"lang": "en"}, f"{note or ''} ({gpu.sourced.source})".strip()),
    )


def _least_gpus(found: Estimate) -> str | None:
    if found.min_gpus is not None:
        return str(found.min_gpus)
    return NONE if found.max_concurrency is not None else None


def _as_table(heads: Sequence[str], rows: Iterable[Element], *, caption: str | None = None) -> Element:
    table = element(
        "table",
        {},
        element("caption", {}, caption) if caption else None,
        element("thead", {}, element("tr", {}, *(element("th", {"scope": "col"}, head) for head in heads))),
        element("tbody", {}, *rows),
    )
    return element("div", {"class": "wide"}, table)


def _number(text: str | None, why: str) -> Element:
    if text is None:
        return element("td", {"class": "gap"}, why)
    return element("td", {"class": "n"}, text)


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _teraflops(flops: float | None) -> str | None:
    return None if flops is None else short(flops / 1e12)


def _hourly(gpu: Gpu) -> str | None:
    currencies = {price.currency for price in gpu.prices}
    if len(currencies) != 1:
        return None
    prices = [price.per_hour for price in gpu.prices]
    if min(prices) == max(prices):
        return f"{prices[0]} {gpu.prices[0].currency}"
    return f"{min(prices)}–{max(prices)} {gpu.prices[0].currency}"
