"""A load run, and a list of them, as tables for a terminal. Rendering only: values in, rich renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from gateway.console import Column, Figure, printable, render_table, significant
from gateway.domain.claims import REFUTED
from loadtests.cells import CellSeen, DoorShare, Run, SearchSeen, Verdict
from loadtests.readings import asked_of, cells_in_words, cost, failures, knee_cell, latency, rate, rests_on_invalid

CAVEATS = {
    "simulated": "Simulated: proves and refutes nothing, and serves planning only.",
    "stand_in": "Stand-in weights: the engine is real, the model is not.",
    "unknown": "Where the answers came from is not known.",
    "mixed": "The answers did not all come from the same kind of engine.",
}
_INVALID = "–"

Row = TypeVar("Row")


def render_run(run: Run) -> Group:
    """One run: what may be believed first, then its verdicts, cells, knees and doors."""
    doors = [one for one in run.doors if _is_valid(run, one.cell)]
    return Group(
        Text(printable(f"{run.name} · {run.model} · {_gpu(run)} · {run.provenance} · {run.state}"), style="bold"),
        *(Text(printable(line), style="yellow") for line in _caveats(run)),
        *_titled("Claims", run.verdicts, _verdict_columns(run), none="This run answers no claim."),
        *_titled("Cells: the middle of the repeats, latency in ms", run.cells, _CELL_COLUMNS),
        *_titled("Highest load within the objectives", run.searches, _search_columns(run)),
        *_titled("What the gateway adds, in ms", doors, _DOOR_COLUMNS),
    )


def render_runs(runs: Iterable[Run]) -> Group:
    """A line a run."""
    return render_table(runs, _RUN_COLUMNS)


def _titled(
    title: str, rows: Sequence[Row], columns: Sequence[Column[Row]], *, none: str | None = None
) -> Iterator[RenderableType]:
    """A table; where it would have no row, what `none` says."""
    if rows:
        yield render_table(rows, columns, title=title)
    elif none is not None:
        yield Text(none, style="dim")


def _gpu(run: Run) -> str:
    return f"{'?' if run.gpus is None else run.gpus} × {run.gpu or 'an unknown GPU'}"


def _is_valid(run: Run, identity: str) -> bool:
    return all(cell.is_valid for cell in run.cells if cell.id == identity)


def _caveats(run: Run) -> Iterator[str]:
    if run.provenance != "real":
        yield CAVEATS.get(run.provenance, CAVEATS["unknown"])
    if run.state != "complete":
        yield f"This run is {run.state}: it holds what was measured so far."
    for cell in run.cells:
        if not cell.is_valid:
            yield f"invalid: {cell.id} ({cell.door}): {_why_invalid(cell)}"
    yield from run.notes


def _why_invalid(cell: CellSeen) -> str:
    said = dict.fromkeys(f"{one.check.name} {one.check.seen}, demanded {one.check.limit}" for one in failures(cell))
    return "; ".join(said) or "no repeat was measured"


# --- cells --------------------------------------------------------------------------------------------------


def _valid(cell: CellSeen) -> Figure:
    return Figure("yes") if cell.is_valid else Figure("invalid", _why_invalid(cell))


def _milliseconds(cell: CellSeen, metric: str, statistic: str) -> Figure:
    """In an open loop from when a request was due."""
    if not cell.is_valid:
        return Figure(_INVALID)
    found = latency(cell, asked_of(cell.kind, metric), statistic)
    if found is None:
        return Figure(None, "p99 takes 500 values in every repeat" if statistic == "p99" else "some repeat lacks it")
    return Figure(significant(1000 * found.value))


def _rate(cell: CellSeen, name: str, why: str, unit: str = "") -> Figure:
    if not cell.is_valid:
        return Figure(_INVALID)
    found = rate(cell, name)
    return Figure(None, why) if found is None else Figure(f"{significant(found.value)}{unit}")


def _cost(cell: CellSeen) -> Figure:
    if not cell.is_valid:
        return Figure(_INVALID)
    found = cost(cell)
    if found is None:
        return Figure(None, "the GPU's price, or the number of output tokens, is not known")
    return Figure(f"{significant(found.value)} {cell.repeats[0].currency or ''}".rstrip())


def _met(cell: CellSeen) -> Figure:
    if not cell.is_valid:
        return Figure(_INVALID)
    met = cell.meets_objectives
    if met is None:
        return Figure(None, "there are no objectives, or one could not be looked at")
    return Figure("yes" if met else "no")


_CELL_COLUMNS: tuple[Column[CellSeen], ...] = (
    Column("Cell", lambda cell: Figure(cell.id)),
    Column("Door", lambda cell: Figure(cell.door)),
    Column("Load", lambda cell: Figure(cell.load)),
    Column("Valid", _valid),
    Column("TTFT p50", lambda cell: _milliseconds(cell, "ttft_s", "p50"), is_number=True),
    Column("p95", lambda cell: _milliseconds(cell, "ttft_s", "p95"), is_number=True),
    Column("p99", lambda cell: _milliseconds(cell, "ttft_s", "p99"), is_number=True),
    Column("TPOT p50", lambda cell: _milliseconds(cell, "tpot_s", "p50"), is_number=True),
    Column("p95", lambda cell: _milliseconds(cell, "tpot_s", "p95"), is_number=True),
    Column(
        "Tokens/s",
        lambda cell: _rate(cell, "output_tokens_per_s", "the number of tokens is not known of some answer"),
        is_number=True,
    ),
    Column(
        "Attained",
        lambda cell: _rate(cell, "attainment_percent", "the plan has no objectives", " %"),
        is_number=True,
    ),
    Column("Met all", _met),
    Column("Per million tokens out", _cost, is_number=True),
)


# --- verdicts, knees, doors ---------------------------------------------------------------------------------


def _verdict_columns(run: Run) -> tuple[Column[Verdict], ...]:
    def verdict(one: Verdict) -> Figure:
        if rests_on_invalid(run, one):
            return Figure("none", f"all cells that it rests on are invalid: {cells_in_words(run, one)}")
        return Figure(one.verdict, one.reasons[0] if one.reasons else None)

    def margin(one: Verdict) -> Figure:
        if rests_on_invalid(run, one):
            return Figure(_INVALID)
        if one.margin is None:
            return Figure(None, "there is no figure to compare")
        return Figure(f"{100 * one.margin:+.1f} %")

    return (
        Column("Claim", lambda one: Figure(f"{one.claim}: {one.text}")),
        Column("Verdict", verdict),
        Column("Margin", margin, is_number=True),
        Column("Cells", lambda one: Figure(cells_in_words(run, one) or "–")),
    )


def _search_columns(run: Run) -> tuple[Column[SearchSeen], ...]:
    def level(one: SearchSeen, value: float | None, why: str) -> Figure:
        unit = "users" if one.over == "users" else "requests/s"
        return Figure(None, why) if value is None else Figure(f"{value:.4g} {unit}")

    def at_knee(one: SearchSeen) -> Figure:
        cell = knee_cell(run, one)
        return Figure(None, "no valid cell met the objectives") if cell is None else _cost(cell)

    return (
        Column("Search", lambda one: Figure(f"{one.id} ({one.door})")),
        Column("Highest met", lambda one: level(one, one.highest_met, "no load met them"), is_number=True),
        Column("Lowest failed", lambda one: level(one, one.lowest_failed, "no load failed them"), is_number=True),
        Column("Ended", lambda one: Figure(one.ended, one.why)),
        Column("Per million tokens out", at_knee, is_number=True),
    )


def _interval(one: DoorShare) -> Figure:
    if one.added_low_s is None or one.added_high_s is None:
        return Figure(None, f"{one.pairs} pairs give no interval")
    return Figure(f"{1000 * one.added_low_s:.2f} … {1000 * one.added_high_s:.2f}")


_DOOR_COLUMNS: tuple[Column[DoorShare], ...] = (
    Column("Cell", lambda one: Figure(one.cell)),
    Column("Figure", lambda one: Figure(one.metric.removesuffix("_s"))),
    Column("Engine p50", lambda one: Figure(significant(1000 * one.direct_p50_s)), is_number=True),
    Column("Gateway p50", lambda one: Figure(significant(1000 * one.gateway_p50_s)), is_number=True),
    Column("Added", lambda one: Figure(f"{1000 * one.added_s:.2f}"), is_number=True),
    Column("95 %", _interval, is_number=True),
    Column("Pairs", lambda one: Figure(str(one.pairs)), is_number=True),
)


# --- the list -----------------------------------------------------------------------------------------------


def _valid_cells(run: Run) -> Figure:
    return Figure(f"{sum(cell.is_valid for cell in run.cells)} of {len(run.cells)}")


def _claims(run: Run) -> Figure:
    counted = [one for one in run.verdicts if not rests_on_invalid(run, one)]
    said: Sequence[tuple[str, int]] = (
        ("hold", sum(one.verdict == "holds" for one in counted)),
        ("refuted", sum(one.verdict in REFUTED for one in counted)),
        ("plausible", sum(one.verdict == "plausible (simulated)" for one in counted)),
        ("not met", sum(one.verdict == "not met (simulated)" for one in counted)),
    )
    told = [f"{count} {word}" for word, count in said if count]
    left = len(run.verdicts) - sum(count for _, count in said)
    return Figure(", ".join([*told, *([f"{left} unanswered"] if left else [])]) or "none")


_RUN_COLUMNS: tuple[Column[Run], ...] = (
    Column("Run", lambda run: Figure(run.id)),
    Column("Name", lambda run: Figure(run.name)),
    Column("Model", lambda run: Figure(run.model)),
    Column("GPU", lambda run: Figure(_gpu(run))),
    Column("Began", lambda run: Figure(run.began_at[:16].replace("T", " "))),
    Column("State", lambda run: Figure(run.state)),
    Column("Answers", lambda run: Figure(run.provenance)),
    Column("Valid cells", _valid_cells, is_number=True),
    Column("Claims", _claims),
)
