"""Claims as they are written: from a block to the record, and the complaints that need several fields to see.

A claim that contradicts itself, or that leaves out what its metric needs, would get a verdict about something nobody
said; so it is refused with what would be right. The verdict belongs to `domain.claims`, an assessor's own file to
`claims_file`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from gateway.domain.claim_terms import METRICS, Metric, MetricKind
from gateway.domain.records import Claim, Sourced
from gateway.registry.schema import ClaimBlock
from gateway.registry.text import Document, Loc

SPEEDS = (MetricKind.LATENCY, MetricKind.RATE)
LOAD_FIELDS = ("input_tokens", "output_tokens", "cached_tokens", "concurrency", "rate_per_s", "context_tokens")
ENGINE_FIELDS = ("gpu", "gpus", "quantisation", "kv_dtype", "accepted_length", *LOAD_FIELDS)
"""What says how a model is run; a rank or a download has none of it."""
Fault = tuple[str, str]
"""A field and what is wrong with it."""


def is_price(block: ClaimBlock) -> bool:
    return block.metric is not None and METRICS[block.metric].kind is MetricKind.PRICE


def read_claim(document: Document, loc: Loc, block: ClaimBlock, sourced: Sourced, *, of_a_model: bool) -> Claim:
    """The record of the claim at `loc`; complains of each field that does not go with the others.

    A field that is complained of already, and so was left out, is not called missing as well.
    """
    faults = list(_faults(block))
    if not of_a_model and block.metric is not None and METRICS[block.metric].kind is not MetricKind.OTHER:
        faults.append(("metric", f"expected the claim at a model, as {block.metric} is a property of one"))
    if not document.has_complaint((*loc, "metric")):
        for field, message in faults:
            if not document.has_complaint((*loc, field)):
                document.complain((*loc, field), message)
    fits_one = block.metric == "fits_single_gpu"
    return Claim(
        id=block.id,
        text=block.text,
        metric=block.metric,
        value=block.value,
        unit=block.unit,
        gpu=block.gpu,
        gpus=block.gpus or (1 if fits_one else None),
        sourced=sourced,
        comparison=block.comparison,
        statistic=block.statistic,
        attainment_percent=block.attainment_percent,
        quantisation=block.quantisation,
        kv_dtype=block.kv_dtype,
        context_tokens=block.context_tokens,
        input_tokens=block.input_tokens,
        output_tokens=block.output_tokens,
        cached_tokens=block.cached_tokens,
        concurrency=block.concurrency,
        rate_per_s=block.rate_per_s,
        accepted_length=block.accepted_length,
        said_by=block.said_by,
        on=block.date,
        original=block.original,
    )


def _faults(block: ClaimBlock) -> Iterator[Fault]:
    if block.metric is None:
        yield from _misplaced(block, ("value", "comparison", "statistic", *ENGINE_FIELDS), "a metric beside it")
        return
    metric = METRICS[block.metric]
    yield from _value_faults(block, metric)
    yield from _statistic_faults(block, metric)
    yield from _setup_faults(block, metric)
    yield from _load_faults(block)


def _value_faults(block: ClaimBlock, metric: Metric) -> Iterator[Fault]:
    kind, name = metric.kind, block.metric
    if kind is MetricKind.FIT and block.value is not None:
        yield "value", f"expected none for {name}; a length goes into context_tokens, a number into concurrency"
    needs_value = kind in (*SPEEDS, MetricKind.PRICE, MetricKind.FACT)
    if needs_value and block.value is None:
        yield "value", f"missing; expected the figure that {name} claims"
    if block.value is not None and (block.value < 0 or (needs_value and block.value == 0)):
        least = "0 or more" if not needs_value else "more than 0"
        yield "value", f"expected {least}, got {block.value}"
    if block.unit is not None and kind is MetricKind.FIT:
        yield "unit", f"expected none for {name}"
    elif kind is MetricKind.PRICE:
        if block.unit is None:
            yield "unit", "missing; expected the price's currency such as USD"
    elif metric.unit is not None and block.unit not in (None, metric.unit):
        yield "unit", f"expected {metric.unit}, as {name} is in that unit; got {block.unit!r}"
    if block.comparison is not None:
        allowed = _comparisons(metric)
        if block.comparison not in allowed:
            options = " or ".join(allowed) or "none"
            yield "comparison", f"expected {options} for {name}, got {block.comparison}"


def _comparisons(metric: Metric) -> tuple[str, ...]:
    match metric.kind:
        case MetricKind.FIT:
            return ()
        case MetricKind.FACT | MetricKind.OTHER:
            return ("at_most", "at_least", "equals")
    return (metric.comparison, "equals")


def _statistic_faults(block: ClaimBlock, metric: Metric) -> Iterator[Fault]:
    if block.statistic is not None and block.statistic not in metric.statistics:
        options = f"one of {', '.join(metric.statistics)}" if metric.statistics else "none"
        yield "statistic", f"expected {options} for {block.metric}, got {block.statistic}"
    if metric.kind is MetricKind.LATENCY and block.statistic is None:
        yield "statistic", f"missing; expected one of {', '.join(metric.statistics)}: which of its seconds are claimed"
    share = block.attainment_percent
    if block.statistic == "attainment":
        if share is None:
            yield "attainment_percent", "missing; expected the share of offered requests in percent, such as 99"
        elif not 0 < share <= Decimal(100):
            yield "attainment_percent", f"expected more than 0 and up to 100, got {share}"
        if block.comparison not in (None, "at_most"):
            yield "comparison", "expected at_most beside the statistic attainment"
    elif share is not None:
        yield "attainment_percent", "expected the statistic attainment beside it"


def _setup_faults(block: ClaimBlock, metric: Metric) -> Iterator[Fault]:
    kind, name = metric.kind, block.metric
    if kind in (MetricKind.OTHER, MetricKind.FACT):
        yield from _misplaced(block, ENGINE_FIELDS, f"none for {name}, which no GPU and no load changes")
        return
    if name == "fits_single_gpu" and block.gpus not in (None, 1):
        yield "gpus", f"expected 1 or none for fits_single_gpu, got {block.gpus}; more is fits_gpus"
    elif name == "fits_gpus" and block.gpus is None:
        yield "gpus", "missing; expected how many GPUs"
    elif block.gpu is not None and block.gpus is None and name != "fits_single_gpu":
        yield "gpus", f"missing; expected how many {block.gpu} it is claimed for"
    if name == "price_per_mtok_in" and block.gpu is not None:
        yield "gpu", "expected none: on a GPU of one's own the prompts' work is part of price_per_mtok_out"
    if kind is MetricKind.FIT:
        yield from _misplaced(block, ("rate_per_s", "accepted_length", "cached_tokens"), f"none for {name}")
    if name == "price_per_mtok_out" and block.gpu is None:
        yield from _misplaced(block, ENGINE_FIELDS, "a gpu beside it, or none where a list price is claimed")


def _load_faults(block: ClaimBlock) -> Iterator[Fault]:
    if block.concurrency is not None and block.rate_per_s is not None:
        yield "rate_per_s", "expected either concurrency (a closed loop) or rate_per_s (an open one), got both"
    if block.cached_tokens is not None and block.cached_tokens >= (block.input_tokens or 0):
        yield "cached_tokens", f"expected fewer than input_tokens ({block.input_tokens}), got {block.cached_tokens}"
    lengths = (block.input_tokens or 0) + (block.output_tokens or 0)
    if block.context_tokens is not None and lengths > block.context_tokens:
        yield "context_tokens", f"expected input and output together ({lengths}) or more, got {block.context_tokens}"
    if block.accepted_length is not None and not 1 <= block.accepted_length <= 1000:
        yield "accepted_length", f"expected 1 token a step or more, up to 1000, got {block.accepted_length}"


def _misplaced(block: ClaimBlock, fields: tuple[str, ...], expected: str) -> Iterator[Fault]:
    for field in fields:
        if getattr(block, field) is not None:
            yield field, f"expected {expected}"
