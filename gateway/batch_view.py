"""What a batch says, as tables for a terminal: a line a model and metric, and a line a pair and metric.

Rendering only: the object of `GET /api/comparisons/batches/{id}/statistics` in, rich renderables out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from gateway.comparison_view import CAVEATS
from gateway.console import Column, Figure, printable, render_table, significant
from gateway.domain.records import Provenance

TITLES = {
    "ttft_s": "first token",
    "tpot_s": "per output token",
    "e2e_s": "whole answer",
    "prompt_tokens": "prompt",
    "completion_tokens": "answer",
    "cost": "cost of an answer",
}
Json = Mapping[str, Any]


def render_statistics(statistics: Json) -> Group:
    """Both tables, what was spent, and what the provenance allows to conclude."""
    models, pairs = statistics["models"], statistics["pairs"]
    rows = [(model, name, model["metrics"][name]) for model in models for name in TITLES]
    contrasts = [(pair, name, pair["metrics"][name]) for pair in pairs for name in TITLES]
    return Group(
        *(Text(line) for line in _answered(models)),
        render_table(rows, _MODEL_COLUMNS, title="Each model: median over prompts"),
        render_table(contrasts, _PAIR_COLUMNS, title="In pairs: median over prompts of the difference on each"),
        *(Text(line, style="yellow") for line in _caveats(models)),
    )


def _answered(models: list[Json]) -> Iterator[str]:
    for model in models:
        failures = ", ".join(f"{count} {code}" for code, count in model["failures"].items())
        spent = ", ".join(f"{amount} {currency}" for currency, amount in model["spent"].items())
        line = f"{printable(model['model'])}: {model['answered']} of {model['asked']} answered"
        line += f" (failed: {printable(failures)})" if failures else ""
        line += f"; asked again {model['asked_again']} times" if model["asked_again"] else ""
        line += f"; spent {printable(spent)}" if spent else ""
        yield line + (f"; cost of {model['cost_unknown']} unknown" if model["cost_unknown"] else "")


def _caveats(models: list[Json]) -> Iterator[str]:
    kinds = {model["provenance"] for model in models}
    for kind in CAVEATS:
        if kind.value in kinds:
            yield CAVEATS[kind]
    if None in kinds:
        yield CAVEATS[Provenance.UNKNOWN]


def _number(value: float | None, unit: str, why: str) -> Figure:
    return Figure(None, why) if value is None else Figure(f"{significant(value)} {unit}".rstrip())


def _interval(interval: Json | None, n: int) -> Figure:
    if interval is None:
        return Figure(None, "an interval of 95 % needs six prompts" if n < 6 else "not to be had from these values")
    return Figure(f"{significant(interval['low'])} … {significant(interval['high'])}")


def _why_nothing(figure: Json) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in figure["excluded"].items()) or "nothing was measured"


def _prompts(figure: Json) -> Figure:
    left_out = sum(figure["excluded"].values())
    return Figure(str(figure["n"]), _why_nothing(figure) if left_out else None)


Row = tuple[Json, str, Json]
_MODEL_COLUMNS: tuple[Column[Row], ...] = (
    Column("Model", lambda row: Figure(row[0]["model"])),
    Column("Figure", lambda row: Figure(TITLES[row[1]])),
    Column("Median", lambda row: _number(row[2]["median"], row[2]["unit"], _why_nothing(row[2])), is_number=True),
    Column("95 %", lambda row: _interval(row[2]["median_interval"], row[2]["n"]), is_number=True),
    Column("p95", lambda row: _number(row[2]["p95"], "", _why_nothing(row[2])), is_number=True),
    Column("Prompts", lambda row: _prompts(row[2]), is_number=True),
)
_PAIR_COLUMNS: tuple[Column[Row], ...] = (
    Column("Pair", lambda row: Figure(f"{row[0]['first']} − {row[0]['second']}")),
    Column("Figure", lambda row: Figure(TITLES[row[1]])),
    Column(
        "Difference", lambda row: _number(row[2]["difference"], row[2]["unit"], _why_nothing(row[2])), is_number=True
    ),
    Column("95 %", lambda row: _interval(row[2]["difference_interval"], row[2]["n"]), is_number=True),
    Column("Ratio", lambda row: _number(row[2]["ratio"], "", "a value is 0, or there is none"), is_number=True),
    Column("p (sign test)", lambda row: _number(row[2]["p_value"], "", "no prompt differs"), is_number=True),
    Column("Prompts", lambda row: _prompts(row[2]), is_number=True),
)
