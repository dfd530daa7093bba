"""A batch as callers see it: how far it is, what it says by the statistics of `domain.paired`, and its export.

Stored comparisons in, plain objects and bytes out. What is not known is null with its reason, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from gateway.batch_store import Batch, BatchItem, BatchStore, Progress
from gateway.comparison_export import csv_head, csv_rows
from gateway.comparison_object import OK, comparison_object
from gateway.domain.observations import Observation
from gateway.domain.paired import BatchStatistics, Figure, ModelStatistics, PairedFigure, batch_statistics
from gateway.domain.records import Cost, Provenance, Timing, Usage
from gateway.domain.stats import Interval
from gateway.spreadsheet import BOM, Cell, table_rows
from gateway.store import Comparison, Side, Store

PAGE = 100
_DETAIL = re.compile(r" \([^()]*\)")
"""What stands in brackets differs from comparison to comparison: left out, so that reasons can be counted."""


def batch_object(batch: Batch, progress: Progress) -> dict[str, Any]:
    return {
        "id": batch.id,
        "name": batch.name,
        "created_at": batch.created_at.isoformat(),
        "ended_at": batch.ended_at.isoformat() if batch.ended_at is not None else None,
        "status": batch.status.value,
        "reason": batch.reason,
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


async def read_statistics(batch: Batch, items: BatchStore, store: Store) -> dict[str, Any]:
    """The statistics of what is done by now."""
    seen: list[Observation] = []
    async for item, comparison in _settled(batch, items, store):
        seen += _observations(batch, item, comparison)
    return statistics_object(batch_statistics(batch.models, seen))


async def export_lines(batch: Batch, items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """JSON lines: the batch, each item with its comparison, the statistics. `type` says which."""
    head = batch_object(batch, await items.progress(batch.id))
    yield _line({"type": "batch", **head})
    seen: list[Observation] = []
    async for item, comparison in _settled(batch, items, store):
        seen += _observations(batch, item, comparison)
        yield _line(
            {
                "type": "item",
                "prompt_id": item.prompt_id,
                "repeat": item.repeat,
                "status": item.status.value,
                "attempts": item.attempts,
                "error": item.error,
                "comparison": comparison_object(comparison) if comparison is not None else None,
            }
        )
    yield _line({"type": "statistics", **statistics_object(batch_statistics(batch.models, seen))})


async def export_csv(batch: Batch, items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """One row a side; the statistics are a table of their own."""
    yield csv_head("batch", "prompt_id", "repeat")
    async for item, comparison in _settled(batch, items, store):
        if comparison is not None:
            yield csv_rows(comparison_object(comparison), batch.name, item.prompt_id, item.repeat)


async def export_statistics_csv(batch: Batch, items: BatchStore, store: Store) -> AsyncGenerator[bytes, None]:
    """One row a model and metric, then one a pair and metric."""
    statistics = await read_statistics(batch, items, store)
    yield BOM + table_rows([_STATISTICS_COLUMNS])
    yield table_rows(_statistics_rows(statistics))


# --- stored comparisons as observations ---------------------------------------------------------------------


async def _settled(batch: Batch, items: BatchStore, store: Store) -> AsyncIterator[tuple[BatchItem, Comparison | None]]:
    """Every item that is over, in order, with its comparison where there is one; a page at a time in memory."""
    after = -1
    while page := await items.items(batch.id, after=after, limit=PAGE):
        ids = [item.comparison_id for item in page if item.comparison_id is not None]
        found = await store.get_comparisons(ids)
        for item in page:
            if item.status.value != "pending":
                yield item, found.get(item.comparison_id or "")
        after = page[-1].number


def _observations(batch: Batch, item: BatchItem, comparison: Comparison | None) -> Iterator[Observation]:
    if comparison is None:
        code = item.error["code"] if item.error else "comparison_gone"
        for model in batch.models:
            yield Observation(
                item.prompt_id,
                item.repeat,
                model,
                failure=code or "error",
                provenance=Provenance.UNKNOWN,
                usage=Usage(),
                timing=Timing(),
                cost=Cost(None, None, "unknown", "no comparison was made"),
            )
        return
    incomparable = None if comparison.timing_comparable else _without_details(comparison.timing_reason)
    for side in comparison.sides:
        yield _observation(item, side, incomparable)


def _observation(item: BatchItem, side: Side, incomparable: str | None) -> Observation:
    usage, timing, cost = side.facts["usage"], side.facts["timing"], side.facts["cost"]
    amount = Decimal(cost["amount"]) if cost["amount"] is not None else None
    return Observation(
        prompt=item.prompt_id,
        repeat=item.repeat,
        model=side.model,
        failure=None if side.status == OK else str((side.error or {}).get("code") or side.status),
        provenance=Provenance(side.facts["provenance"]),
        usage=Usage(**usage),
        timing=Timing(**timing),
        cost=Cost(amount, cost["currency"], cost["basis"], cost["reason"]),
        finish_reason=side.finish_reason,
        incomparable=incomparable,
    )


def _without_details(reason: str | None) -> str:
    text = reason or "timings are not comparable"
    while (shorter := _DETAIL.sub("", text)) != text:
        text = shorter
    return text


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
