"""A matrix as JSON values and as a table for spreadsheets: every figure with its unit, its definition and its basis.

Money is a decimal number in a text, as everywhere in the API; null has its reason beside it. How a matrix looks to a
reader is `matrix_page`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from typing import Any

from gateway.domain.decoding import CostRange, Decoding
from gateway.domain.matrix import Cell, Matrix
from gateway.domain.memory import GIB
from gateway.domain.records import Model, Registry
from gateway.evidence import OVERHEAD_BASES, feasibility_summary
from gateway.matrix_words.english import ENGLISH
from gateway.matrix_words.fields import Words
from gateway.spreadsheet import BOM, table_rows
from gateway.spreadsheet import Cell as TableCell

BASIS = "predicted"
_MONEY = Context(prec=6)
DEFINITIONS: Mapping[str, str] = {
    "verdict": "fits · fits_quantised (only in the format quantised_to) · fits_short_context · no · unknown; with the "
    "likely overhead",
    "quantisation": "published: the checkpoint as it is; else the same model with its weights in that number format",
    "units": "native: the GPU computes in the format; weight_only: it does not, arithmetic stays at 16 bits; unlisted: "
    "the registry has no speed for it, the ceiling allows for the fastest that the width permits",
    "headroom_gib": "GiB of KV cache left over at the load asked for; low, likely and high overhead; negative: missing",
    "is_borderline": "whether the verdict turns within the range of the overhead",
    "max_context_one_request": "tokens of the longest single request, prompt and answer",
    "max_context_at_concurrency": "tokens a request with which all the requests asked for run at once, with the "
    "weights of the verdict (quantised_to)",
    "max_concurrency": "requests of the asked length that memory holds at once",
    "min_gpus": "smallest tensor-parallel size, a power of two up to 64, that holds the load; null: none does",
    "asked": "decoding at the concurrency asked for, every request with its whole context in cache, no prefill",
    "full": "the same with the most requests that memory holds and vLLM's default max_num_seqs takes at once",
    "ceiling_tokens_per_s": "output tokens per second of all requests together, with the least that must be read and "
    "computed, at the data sheet's peak and on the fastest units that the format's width permits; no engine beats it "
    "at this context; null: see ceiling_reason",
    "expected_tokens_per_s": "the same at 0.8 of the bandwidth and 0.5 of the arithmetic; proves nothing",
    "cost_per_mtok": "lowest and highest listed GPU-hour price ÷ (expected tokens/s × 3600) × 10^6, per million output "
    "tokens; no idle time, no prefill",
    "confidence": "the lowest among the facts used",
}


def matrix_object(matrix: Matrix, registry: Registry) -> dict[str, Any]:
    """The whole answer, one row a cell."""
    return {
        "basis": BASIS,
        "registry_sha256": registry.sha256,
        "as_of": registry.as_of.isoformat() if registry.as_of is not None else None,
        "context": matrix.load.context,
        "concurrency": matrix.load.concurrency,
        "tensor_parallel": matrix.load.gpus,
        "kv_dtype": matrix.load.kv_dtype,
        "quantisations": list(matrix.quantisations),
        "gpus": [gpu.id for gpu in matrix.gpus],
        "definitions": dict(DEFINITIONS),
        "assumptions": list(assumptions(matrix, ENGLISH)),
        "data": [cell_object(cell) for cell in matrix],
    }


def cell_object(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model_id,
        "quantisation": cell.quantisation,
        "number_format": cell.number_format,
        "units": cell.units.value,
        **feasibility_summary(cell.estimate),
        "is_borderline": cell.is_borderline if cell.estimate.headroom_bytes is not None else None,
        "missing_facts": list(cell.unknown.facts if cell.unknown is not None else cell.speed_facts),
        "asked": _decoding_object(cell.asked),
        "full": _decoding_object(cell.full),
        "speed_reason": cell.speed_reason,
        "ceiling_reason": cell.ceiling_reason,
        "cost_reason": cell.cost_reason,
    }


def matrix_csv(matrix: Matrix, registry: Registry) -> bytes:
    """One row a cell under a head that stays as it is: new columns come last."""
    models = {model.id: model for model in matrix.models}
    kv_dtype = matrix.load.kv_dtype
    head = tuple(name for name, _ in _table_row(next(iter(matrix)), models, registry, kv_dtype)) if matrix.cells else ()
    rows = ([value for _, value in _table_row(cell, models, registry, kv_dtype)] for cell in matrix)
    return BOM + table_rows([head, *rows] if head else [])


def assumptions(matrix: Matrix, words: Words) -> Iterator[str]:
    """What the figures assume, as sentences of this language."""
    figures = assumed_figures(matrix, words)
    said = (*words.assumptions, words.assumption_many) if matrix.load.gpus > 1 else words.assumptions
    return (sentence.format_map(figures) for sentence in said)


def assumed_figures(matrix: Matrix, words: Words) -> Mapping[str, str]:
    """The figures that the assumptions name; a dash for an overhead where no cell has one."""
    estimates = [cell.estimate for cell in matrix]
    overheads = [found.overhead_bytes for found in estimates if found.overhead_bytes is not None]
    shares = sorted({f"{found.inputs.gpu_memory_utilization:g}" for found in estimates})
    blocks = sorted({found.inputs.paging.block for found in estimates})
    return {
        "utilisation": ", ".join(shares) or "–",
        "block": ", ".join(map(str, blocks)) or "–",
        "gpus": str(matrix.load.gpus),
        "kv_dtype": words.sixteen_bits if matrix.load.kv_dtype == "auto" else matrix.load.kv_dtype,
        "overhead": words.overhead_is[_overhead_basis(matrix)].format(
            low=f"{min(o.low for o in overheads) / GIB:.1f}" if overheads else "–",
            high=f"{max(o.high for o in overheads) / GIB:.1f}" if overheads else "–",
        ),
    }


def _overhead_basis(matrix: Matrix) -> str:
    kinds = {cell.estimate.overhead_is_measured for cell in matrix}
    return "both" if len(kinds) > 1 else OVERHEAD_BASES[True in kinds]


def _decoding_object(decoding: Decoding | None) -> dict[str, Any] | None:
    if decoding is None:
        return None
    return {
        "requests": decoding.requests,
        "ceiling_tokens_per_s": None
        if decoding.ceiling_tokens_per_s is None
        else _rounded(decoding.ceiling_tokens_per_s),
        "expected_tokens_per_s": _rounded(decoding.expected_tokens_per_s),
        "cost_per_mtok": _cost_object(decoding.cost_per_mtok),
    }


def _cost_object(cost: CostRange | None) -> dict[str, str] | None:
    if cost is None:
        return None
    return {"low": _amount(cost.low), "high": _amount(cost.high), "currency": cost.currency}


def _amount(value: Decimal) -> str:
    """Six significant digits, never as an exponent: prices are not known more exactly."""
    return f"{_MONEY.plus(value):f}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _table_row(
    cell: Cell, models: Mapping[str, Model], registry: Registry, kv_dtype: str
) -> tuple[tuple[str, TableCell], ...]:
    """Head and value of every column."""
    model = models[cell.model_id]
    consortium = registry.consortia.get(model.consortium_id or "")
    row = cell_object(cell)
    headroom, overhead = row["headroom_gib"] or {}, row["overhead_gib"] or {}
    is_borderline = row["is_borderline"]
    return (
        ("basis", BASIS),
        ("model", cell.model_id),
        ("model_name", model.name),
        ("consortium", consortium.name_ko if consortium is not None else None),
        ("gpu", cell.gpu_id),
        ("quantisation", cell.quantisation),
        ("number_format", cell.number_format),
        ("units", cell.units.value),
        ("verdict", row["verdict"]),
        ("quantised_to", row["quantised_to"]),
        ("context_tokens", row["context"]),
        ("concurrency", row["concurrency"]),
        ("gpus", row["gpus"]),
        ("kv_dtype", kv_dtype),
        ("headroom_gib_low", headroom.get("low")),
        ("headroom_gib_likely", headroom.get("likely")),
        ("headroom_gib_high", headroom.get("high")),
        ("is_borderline", None if is_borderline is None else ("yes" if is_borderline else "no")),
        ("weights_gib", row["weights_gib"]),
        ("kv_gib_per_request", row["kv_gib_per_request"]),
        ("overhead_gib_low", overhead.get("low")),
        ("overhead_gib_likely", overhead.get("likely")),
        ("overhead_gib_high", overhead.get("high")),
        ("max_context_one_request_tokens", row["max_context_one_request"]),
        ("max_concurrency", row["max_concurrency"]),
        ("min_gpus", row["min_gpus"]),
        *_decoding_columns("asked", row["asked"]),
        *_decoding_columns("full", row["full"]),
        ("confidence", row["confidence"]),
        ("speed_reason", cell.speed_reason),
        ("cost_reason", cell.cost_reason),
        ("reasons", " ".join(row["reasons"])),
        ("registry_sha256", registry.sha256),
        ("ceiling_reason", cell.ceiling_reason),
        ("overhead_basis", row["overhead_basis"]),
        ("max_context_at_concurrency_tokens", row["max_context_at_concurrency"]),
    )


def _decoding_columns(name: str, decoding: dict[str, Any] | None) -> Iterator[tuple[str, TableCell]]:
    found = decoding or {}
    cost = found.get("cost_per_mtok") or {}
    yield f"{name}_requests", found.get("requests")
    yield f"{name}_ceiling_tokens_per_s", found.get("ceiling_tokens_per_s")
    yield f"{name}_expected_tokens_per_s", found.get("expected_tokens_per_s")
    yield f"{name}_cost_per_mtok_low", cost.get("low")
    yield f"{name}_cost_per_mtok_high", cost.get("high")
    yield f"{name}_cost_currency", cost.get("currency")
