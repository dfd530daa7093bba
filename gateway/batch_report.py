"""A batch as callers see it: how far it is, what it says by the statistics of `domain.paired`, and its export.

Stored comparisons in, plain objects and bytes out. What is not known is null with its reason, as everywhere. All that
takes longer than a page of rows is done off the event loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.batch_outcomes import Settled, StoredSide, read_asked_again, read_settled
from gateway.batch_store import Batch, BatchStore, Progress
from gateway.comparison_export import csv_head, csv_row, csv_rows
from gateway.comparison_object import OK, comparison_object
from gateway.domain.observations import BatchAnswers, Observation
from gateway.domain.paired import BatchStatistics, Figure, ModelStatistics, PairedFigure, summed_up
from gateway.domain.records import Cost, Provenance, Timing, Usage
from gateway.domain.stats import Interval
from gateway.spreadsheet import BOM, Cell, table_rows
from gateway.store import Comparison, Store

PAGE = 50
"""Comparisons read at once without their texts: some two milliseconds of the event loop."""
TEXTS_PAGE = 20
GONE = {"message": "Its comparison is not stored any more.", "type": "server_error", "code": "comparison_gone"}
_DETAIL = re.compile(r" \([^()]*\)")
"""What stands in brackets differs from comparison to comparison: left out, so that reasons can be counted."""


def batch_object(batch: Batch, progress: Progress, waiting_for: str | None = None) -> dict[str, Any]:
    return {
        "id": batch.id,
        "name": batch.name,
        "created_at": batch.created_at.isoformat(),
        "ended_at": batch.ended_at.isoformat() if batch.ended_at is not None else None,
        "status": batch.status.value,
        "reason": batch.reason,
        "waiting_for": waiting_for,
        "priority": batch.priority.value,
        "organisation": batch.organisation or None,
        "models": list(batch.models),
        "params": batch.params,
        "schedule": batch.schedule,
        "repeats": batch.repeats,
        "prompts": progress.prompts,
        "items": {
            "total": progress.total,
            "done": progress.done,
            "failed": progress.failed,
            "pending": progress.pending,
        },
    }


async def read_statistics(batch: Batch, store: Store) -> dict[str, Any]:
    """The statistics of what is done by now."""
    answers = BatchAnswers(batch.models)
    async for page in _pages(batch, store, PAGE):
        await asyncio.to_thread(_add, answers, batch, page)
    return await _summed_up(batch, store, answers)


async def export_lines(batch: Batch, items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """JSON lines: the batch, each item with its comparison, the statistics. `type` says which."""
    head = _line({"type": "batch", **batch_object(batch, await items.progress(batch.id))})
    answers = BatchAnswers(batch.models)
    async for page in _pages(batch, store, TEXTS_PAGE):
        await asyncio.to_thread(_add, answers, batch, page)
        yield head + await asyncio.to_thread(_item_lines, page, await _comparisons(page, store))
        head = b""
    yield head + _line({"type": "statistics", **await _summed_up(batch, store, answers)})


async def export_csv(batch: Batch, _items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """One row a side, with the error of its item where no comparison could be made; the statistics are a table apart.

    The head comes with the first page, so that nothing is sent before the database has answered.
    """
    head = csv_head("batch", "prompt_id", "repeat")
    async for page in _pages(batch, store, TEXTS_PAGE):
        yield head + await asyncio.to_thread(_item_rows, batch, page, await _comparisons(page, store))
        head = b""
    if head:
        yield head


async def export_statistics_csv(batch: Batch, _items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """One row a model and metric, then one a pair and metric."""
    statistics = await read_statistics(batch, store)
    yield BOM + table_rows([_STATISTICS_COLUMNS]) + table_rows(_statistics_rows(statistics))


# --- stored comparisons as observations ---------------------------------------------------------------------


class _Facts(msgspec.Struct):
    """What the figures need of a side's facts."""

    usage: Usage
    timing: Timing
    cost: Cost
    provenance: Provenance


class _Error(msgspec.Struct):
    code: str | None = None


_FACTS, _ERROR = msgspec.json.Decoder(_Facts), msgspec.json.Decoder(_Error | None)


async def _pages(batch: Batch, store: Store, size: int) -> AsyncGenerator[list[Settled], None]:
    """Every item that is over, in order."""
    after = -1
    while page := await read_settled(store, batch.id, after=after, limit=size):
        yield page
        after = page[-1].item.number


async def _summed_up(batch: Batch, store: Store, answers: BatchAnswers) -> dict[str, Any]:
    """What the answers say, with the costs of what was asked again."""
    after = ""
    while sides := await read_asked_again(store, batch.id, after=after, limit=PAGE):
        await asyncio.to_thread(_add_asked_again, answers, sides)
        after = sides[-1].comparison_id
    return statistics_object(await asyncio.to_thread(summed_up, answers))


def _add(answers: BatchAnswers, batch: Batch, page: Sequence[Settled]) -> None:
    for settled in page:
        for seen in _observations(batch, settled):
            answers.add(seen)


def _add_asked_again(answers: BatchAnswers, sides: Sequence[StoredSide]) -> None:
    for side in sides:
        answers.add_asked_again(side.model, _FACTS.decode(side.facts).cost, is_answered=side.status == OK)


def _observations(batch: Batch, settled: Settled) -> Iterator[Observation]:
    item = settled.item
    if not settled.sides:
        code = (item.error or GONE)["code"]
        unmade = Cost(None, None, "unknown", "no comparison was made")
        for model in batch.models:
            yield Observation(
                item.prompt_id, item.repeat, model, code or "error", Provenance.UNKNOWN, Usage(), Timing(), unmade
            )
        return
    incomparable = None if settled.timing_comparable else _without_details(settled.timing_reason)
    for side in settled.sides:
        facts = _FACTS.decode(side.facts)
        yield Observation(
            prompt=item.prompt_id,
            repeat=item.repeat,
            model=side.model,
            failure=None if side.status == OK else _code(side),
            provenance=facts.provenance,
            usage=facts.usage,
            timing=facts.timing,
            cost=facts.cost,
            finish_reason=side.finish_reason,
            incomparable=incomparable,
        )


def _code(side: StoredSide) -> str:
    error = _ERROR.decode(side.error) if side.error is not None else None
    return (error.code if error is not None else None) or side.status


def _without_details(reason: str | None) -> str:
    text = reason or "timings are not comparable"
    while (shorter := _DETAIL.sub("", text)) != text:
        text = shorter
    return text


# --- files --------------------------------------------------------------------------------------------------


async def _comparisons(page: Sequence[Settled], store: Store) -> Mapping[str, Comparison]:
    return await store.get_comparisons([one.item.comparison_id for one in page if one.item.comparison_id is not None])


def _item_lines(page: Sequence[Settled], found: Mapping[str, Comparison]) -> bytes:
    lines = []
    for item in (settled.item for settled in page):
        comparison = found.get(item.comparison_id or "")
        line = {
            "type": "item",
            "number": item.number,
            "prompt_id": item.prompt_id,
            "repeat": item.repeat,
            "status": item.status.value,
            "attempts": item.attempts,
            "error": item.error,
            "comparison": comparison_object(comparison) if comparison is not None else None,
        }
        lines.append(_line(line))
    return b"".join(lines)


def _item_rows(batch: Batch, page: Sequence[Settled], found: Mapping[str, Comparison]) -> bytes:
    rows = []
    for item in (settled.item for settled in page):
        place = (batch.name, item.prompt_id, item.repeat)
        comparison = found.get(item.comparison_id or "")
        if comparison is not None:
            rows.append(csv_rows(comparison_object(comparison), *place))
            continue
        error = item.error or GONE
        told = {"error_code": error["code"], "error_message": error["message"], "batch_id": batch.id}
        told |= {"status": "failed", "batch_item": item.number}
        rows += [csv_row({"model": model, **told}, *place) for model in batch.models]
    return b"".join(rows)


# --- objects ------------------------------------------------------------------------------------------------


def statistics_object(statistics: BatchStatistics) -> dict[str, Any]:
    """Every n counts prompts; repeats of one prompt enter by their median. Intervals are of 95 %."""
    return {
        "models": [_model_object(model) for model in statistics.models],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "metrics": {name: _paired_object(figure) for name, figure in pair.figures.items()},
            }
            for pair in statistics.pairs
        ],
    }


def _model_object(model: ModelStatistics) -> dict[str, Any]:
    return {
        "model": model.model,
        "asked": model.asked,
        "answered": model.answered,
        "failures": dict(model.failures),
        "finish_reasons": dict(model.finish_reasons),
        "provenance": model.provenance.value if model.provenance is not None else None,
        "spent": {currency: f"{amount:f}" for currency, amount in model.spent.items()},
        "cost_unknown": model.cost_unknown,
        "asked_again": model.asked_again,
        "metrics": {name: _figure_object(figure) for name, figure in model.figures.items()},
    }


def _figure_object(figure: Figure) -> dict[str, Any]:
    summary = figure.summary
    return {
        "unit": figure.unit,
        "n": summary.n,
        "answers": figure.answers,
        "mean": summary.mean,
        "median": summary.p50,
        "median_interval": _interval_object(summary.p50_interval),
        "p90": summary.p90,
        "p95": summary.p95,
        "min": summary.min,
        "max": summary.max,
        "excluded": dict(figure.excluded),
    }


def _paired_object(figure: PairedFigure) -> dict[str, Any]:
    return {
        "unit": figure.unit,
        "n": figure.n,
        "first_median": figure.first_median,
        "second_median": figure.second_median,
        "difference": figure.difference,
        "difference_interval": _interval_object(figure.difference_interval),
        "ratio": figure.ratio,
        "ratio_interval": _interval_object(figure.ratio_interval),
        "first_lower": figure.first_lower,
        "equal": figure.equal,
        "second_lower": figure.second_lower,
        "p_value": figure.p_value,
        "excluded": dict(figure.excluded),
    }


def _interval_object(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"low": interval.low, "high": interval.high, "coverage": interval.coverage}


_STATISTICS_COLUMNS = (
    *("model", "against", "metric", "unit", "n", "median", "against_median", "mean", "p90", "p95"),
    *("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high"),
    *("lower", "equal", "higher", "p_value", "excluded"),
)


def _statistics_rows(statistics: Mapping[str, Any]) -> Iterator[Sequence[Cell]]:
    for model in statistics["models"]:
        for name, figure in model["metrics"].items():
            spread = (figure["median"], None, figure["mean"], figure["p90"], figure["p95"])
            excluded = msgspec.json.encode(figure["excluded"]).decode()
            yield (model["model"], None, name, figure["unit"], figure["n"], *spread, *[None] * 10, excluded)
    for pair in statistics["pairs"]:
        for name, figure in pair["metrics"].items():
            yield (
                *(pair["first"], pair["second"], name, figure["unit"], figure["n"]),
                *(figure["first_median"], figure["second_median"], None, None, None),
                *(figure["difference"], *_ends(figure["difference_interval"])),
                *(figure["ratio"], *_ends(figure["ratio_interval"])),
                *(figure["first_lower"], figure["equal"], figure["second_lower"], figure["p_value"]),
                msgspec.json.encode(figure["excluded"]).decode(),
            )


def _ends(interval: Mapping[str, float] | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval["low"], interval["high"])


def _line(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
