"""From the files of one repeat to what it showed: figures, objectives, claims, checks, timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gateway.domain.records import Claim, GpuPrice
from gateway.domain.token_cost import Load, cost_per_million
from loadtests.cells import ObjectiveSeen, Rates, Repeat
from loadtests.columns import Columns, Floats, RepeatFiles, read_repeat
from loadtests.engine_view import EngineWatch, join_timeline, window_of
from loadtests.figures import Window, due_in, latencies, outcomes, quantiles, rates, spans_of, timeline
from loadtests.load_words import level_of
from loadtests.objectives import met_by_each, see_objectives
from loadtests.plan import Closed, Open, Plan, WorkKind
from loadtests.repeat_run import RepeatOrder, RepeatRun
from loadtests.run_evidence import claimed_objective
from loadtests.validity import SILENT, Intended, Look, check_repeat, piles_up

TIMELINE_MOST_S = 86_400
DRAWN = ("ttft_s", "tpot_s")
Values = dict[str, Floats]
"""By a name of `DRAWN`."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for every repeat of a campaign."""

    plan: Plan
    claims: tuple[Claim, ...]
    """Those that a run can test."""
    gpus: int | None
    """Of all replicas together; None = not known."""
    replicas: int | None
    price: GpuPrice | None
    """Of an hour of one GPU."""
    calibrated_events_per_s: float | None = None
    """What all workers together were shown to read."""


def window_of_cell(order: RepeatOrder) -> Window:
    """After the warm-up, up to the last moment of the load."""
    return Window(order.cell.warm_up_s, order.load_s)


class Measured(NamedTuple):
    """What one repeat showed."""

    repeat: Repeat
    values: Values
    """Of each answer of the window, for drawing: what a repeat's figures have no room for."""


def measure(
    order: RepeatOrder, run: RepeatRun, context: Context, watch: EngineWatch, looks: Sequence[Look]
) -> Measured:
    """What one repeat showed. `looks`: at what was behind the door before and after it.

    Raises ValueError for files that are no records.
    """
    files = read_repeat([path for path in run.files if path.exists()], side=_side(context.plan))
    columns, window = files.columns, window_of_cell(order)
    is_open = isinstance(order.cell.load, Open)
    met = met_by_each(columns, context.plan.objectives, is_open=is_open)
    window_rates = rates(columns, window, met=met, gpus=context.gpus)
    seen = see_objectives(columns, window, window_rates, context.plan.objectives, is_open=is_open)
    began_at_s = _began_at_s(files)
    readings = watch.between(began_at_s, began_at_s + _end_s(files, window))
    intended = _intended(order, context)
    checks = check_repeat(files, window, intended, window_of(readings, began_at_s, window), seen, looks)
    errors = {**columns.errors, **dict.fromkeys(run.failures, 1)}
    repeat = Repeat(
        number=order.number,
        door=order.doorway.door,
        run_id=order.run_id,
        seed=order.seed,
        began_at=files.headers[0].began_at if files.headers else "",
        outcomes=outcomes(columns, window),
        latencies=latencies(columns, window),
        rates=window_rates,
        objectives=seen,
        checks=checks,
        timeline=join_timeline(timeline(columns, _end_s(files, window)), readings, began_at_s),
        provenance=_one_of([look.provenance for look in looks]),
        errors=errors,
        is_overloaded=piles_up(columns, window, intended),
        load_s=window.end_s,
        attempt=order.attempt,
        claimed=_claimed(files, window, window_rates, context.claims, is_open=is_open),
        cost_per_mtok_out=_cost(window_rates, context),
        currency=None if context.price is None else context.price.currency,
        gpu_seconds=None if context.gpus is None else window.span_s * context.gpus,
    )
    return Measured(repeat, _values(columns, window))


def values_of(paths: Sequence[Path], window: Window, plan: Plan) -> Values:
    """The same from the files of a repeat that an earlier sitting measured. Raises ValueError."""
    return _values(read_repeat(paths, side=_side(plan)).columns, window)


def spreads_of(repeats: Sequence[Values]) -> dict[str, tuple[float, ...]]:
    """TTFT and TPOT of all repeats of a cell together, exactly, as quantiles from 0 to 100 %, for drawing."""
    return {name: quantiles(np.concatenate([values[name] for values in repeats])) for name in DRAWN} if repeats else {}


def _values(columns: Columns, window: Window) -> Values:
    chosen = due_in(columns, window) & columns.is_ok
    spans = spans_of(columns)
    return {name: getattr(spans, name)[chosen] for name in DRAWN}


def _claimed(
    files: RepeatFiles, window: Window, window_rates: Rates, claims: Sequence[Claim], *, is_open: bool
) -> dict[str, ObjectiveSeen]:
    wanted = [(claim.id, objective) for claim in claims if (objective := claimed_objective(claim)) is not None]
    seen = see_objectives(files.columns, window, window_rates, [one for _, one in wanted], is_open=is_open)
    return {name: one for (name, _), one in zip(wanted, seen, strict=True)}


def _cost(window_rates: Rates, context: Context) -> str | None:
    """GPU money of the window over the tokens put out in it, per million: `gateway.domain.token_cost`'s own figure."""
    tokens = window_rates.output_tokens_per_s
    if context.price is None or context.gpus is None or not tokens:
        return None
    load = Load(
        name="measured",
        output_tokens_per_s=Decimal(repr(tokens)),
        input_tokens_per_s=Decimal(repr(window_rates.input_tokens_per_s or 0.0)),
        per_hour=context.price.per_hour,
        gpus=context.gpus,
    )
    amount = cost_per_million(load)[0].amount
    return None if amount is None else f"{amount:.6f}"


def _intended(order: RepeatOrder, context: Context) -> Intended:
    plan, load = context.plan, order.cell.load
    work, level = plan.workload, level_of(load)
    keeps_asking = isinstance(load, Closed) and not load.think_s and level is not None
    return Intended(
        is_open=isinstance(order.cell.load, Open),
        is_steady=order.cell.is_steady,
        scheduled=order.scheduled,
        asks_for_lengths=work.input_tokens is not None or work.output_tokens is not None,
        is_pinned=work.is_pinned and work.output_tokens is not None,
        has_shared_prefix=work.shared_prefix_tokens > 0 or work.kind in (WorkKind.MULTI_TURN, WorkKind.DOCUMENT_QA),
        workers=plan.workers,
        users=int(level) if keeps_asking and level is not None else None,
        calibrated_events_per_s=context.calibrated_events_per_s,
    )


def _one_of(provenances: Sequence[str]) -> str:
    kinds = set(provenances)
    return kinds.pop() if len(kinds) == 1 and SILENT not in kinds else "unknown"


def _side(plan: Plan) -> str | None:
    return plan.target.model if plan.target.models else None


def _began_at_s(files: RepeatFiles) -> float:
    return datetime.fromisoformat(files.headers[0].began_at).timestamp() if files.headers else 0.0


def _end_s(files: RepeatFiles, window: Window) -> float:
    return min(max([window.end_s, *(footer.ended_s for footer in files.footers)]), TIMELINE_MOST_S)
