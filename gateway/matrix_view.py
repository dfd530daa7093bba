"""A matrix on a terminal: one grid a number format, as many GPUs side by side as there is room for.

Rendering only: a matrix in, rich renderables out. Verdicts are told by sign as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.console import overhead_words, printable, render_estimates
from gateway.domain.decoding import Decoding
from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Cell, Matrix, Units
from gateway.domain.records import Gpu, Model
from gateway.matrix_cell_words import cost_words, gib, speed_words, unknown_words
from gateway.matrix_words.english import ENGLISH

GPU_COLUMN, MODEL_COLUMN = 13, 30
_STYLES = {
    Verdict.FITS: ("✓", "bold green"),
    Verdict.FITS_QUANTISED: ("Q", "cyan"),
    Verdict.FITS_SHORT_CONTEXT: ("S", "yellow"),
    Verdict.NO: ("✗", "red"),
    Verdict.UNKNOWN: ("?", "dim"),
}
_UNITS = {Units.WEIGHT_ONLY: "weight-only", Units.UNLISTED: "unlisted"}
LEGEND = (
    "✓ ×N fits, N such requests at once · Q fits only in the format shown · S fits only with a shorter context, up to "
    "the tokens shown at the number of requests asked · ✗ the fewest GPUs that hold it, of 1, 2, 4 … 64 by tensor "
    "parallelism · ~ the range of the overhead could turn it · second line: memory left · weight-only: arithmetic "
    "stays at 16 bits · unlisted: the registry has no speed for the format · by size only: no supported engine serves "
    "the model"
)


def render_matrix(matrix: Matrix, *, width: int) -> Group:
    """Every cell, then what is unknown and why."""
    judged = [model for model in matrix.models if any(not cell.unknown for cell in _cells_of(model, matrix))]
    parts: list[RenderableType] = []
    at_once = max(1, (width - MODEL_COLUMN) // GPU_COLUMN)
    for quantisation in matrix.quantisations if judged else ():
        slices = (matrix.gpus[start : start + at_once] for start in range(0, len(matrix.gpus), at_once))
        parts.extend(_grid(matrix, quantisation, judged, gpus) for gpus in slices)
    load = matrix.load
    requests = "1 request" if load.concurrency == 1 else f"{load.concurrency:,} requests at once"
    head = Text(
        f"Predicted, not measured: {requests} of {load.context:,} tokens; {overhead_words(c.estimate for c in matrix)}",
        style="bold",
    )
    tail = [Text(LEGEND, style="dim")] if judged else []
    return Group(head, *parts, *tail, *_unknown_lines(matrix))


def render_one(matrix: Matrix) -> Group:
    """The only cell of a matrix, with all its figures and reasons."""
    (cell,) = matrix
    lines = [Text(f"· {printable(reason)}") for reason in cell.estimate.reasons]
    lines.extend(Text(f"· {printable(line)}") for line in _speed_lines(cell))
    return Group(render_estimates([(cell.model_id, cell.estimate)]), *lines)


def _grid(matrix: Matrix, quantisation: str, models: Sequence[Model], gpus: Sequence[Gpu]) -> Table:
    table = Table(
        title=ENGLISH.quantisations[quantisation], title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    table.add_column("Model", overflow="fold", width=MODEL_COLUMN - 2)
    for gpu in gpus:
        table.add_column(_head(gpu, matrix, quantisation, models), overflow="fold", width=GPU_COLUMN - 2)
    for model in models:
        cells = (_cell(matrix.cell(model, gpu, quantisation)) for gpu in gpus)
        name = Text(printable(model.id))
        if not model.is_servable:
            name.append("\nby size only", style="dim italic")
        table.add_row(name, *cells)
    return table


def _head(gpu: Gpu, matrix: Matrix, quantisation: str, models: Sequence[Model]) -> Text:
    head = Text(printable(gpu.id))
    flags = {_UNITS.get(matrix.cell(model, gpu, quantisation).units) for model in models}
    flag = flags.pop() if len(flags) == 1 else None
    if flag:
        head.append(f"\n{flag}", style="dim italic")
    return head


def _cell(cell: Cell) -> Text:
    found = cell.estimate
    sign, style = _STYLES[found.verdict]
    text = Text(f"{sign} {_figure(cell)}".rstrip(), style=style)
    if cell.is_borderline:
        text.append(" ~", style="bold yellow")
    if found.headroom_bytes is not None:
        text.append(f"\n{gib(found.headroom_bytes.likely, sign=True)} GiB", style="dim")
    return text


def _figure(cell: Cell) -> str:
    found = cell.estimate
    match found.verdict:
        case Verdict.FITS:
            return f"×{found.max_concurrency:,}"
        case Verdict.FITS_QUANTISED | Verdict.FITS_SHORT_CONTEXT if found.quantised_to:
            return found.quantised_to
        case Verdict.FITS_SHORT_CONTEXT:
            return f"≤ {found.max_context_at_concurrency or 0:,}"
        case Verdict.NO:
            return f"{found.min_gpus} GPUs" if found.min_gpus is not None else "–"
        case _:
            return ""


def _speed_lines(cell: Cell) -> Iterator[str]:
    if cell.asked is None or cell.full is None:
        if cell.speed_reason and not cell.unknown:
            yield f"Speed: {cell.speed_reason}"
        return
    yield _decoding_line("As asked", cell.asked, cell)
    yield _decoding_line("When full", cell.full, cell)


def _decoding_line(when: str, decoding: Decoding, cell: Cell) -> str:
    cost = decoding.cost_per_mtok
    money = f"{cost_words(cost)} per million output tokens" if cost is not None else f"cost unknown: {cell.cost_reason}"
    return (
        f"{when}, ×{decoding.requests:,}: {speed_words(decoding)} tokens/s expected (ceiling), decoding only; {money}"
    )


def _unknown_lines(matrix: Matrix) -> Iterator[Text]:
    """Each reason once, with the models that it holds for."""
    holders: dict[str, list[str]] = {}
    for cell in matrix:
        if cell.unknown is not None:
            names = holders.setdefault(unknown_words(cell.unknown, ENGLISH), [])
            names.extend([cell.model_id] if cell.model_id not in names else [])
    for reason, names in holders.items():
        yield Text(f"? {printable(reason)} {printable(', '.join(names))}", style="yellow")


def _cells_of(model: Model, matrix: Matrix) -> Iterator[Cell]:
    return (matrix.cell(model, gpu, name) for gpu in matrix.gpus for name in matrix.quantisations)
