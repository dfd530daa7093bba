"""Plain tables for a terminal: typed columns, unknown cells with their reason in a footnote, text made safe to print.

Rendering only: values in, rich renderables out. Asking the gateway, deciding what a command prints, and every piece of
arithmetic beyond a unit belong elsewhere; the view of a comparison is `comparison_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Generic, TextIO, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from gateway.domain.feasibility import Estimate
from gateway.domain.memory import GIB
from gateway.domain.records import Model

VERDICTS = {
    "fits": "fits",
    "fits_quantised": "fits quantised",
    "fits_short_context": "fits with a short context",
    "no": "no",
}


def wants_json(stream: TextIO) -> bool:
    """True when nobody looks at `stream`: a pipe or a file gets JSON, a terminal gets tables."""
    return not stream.isatty()


def printable(text: str) -> str:
    """`text` without what could move the cursor, recolour the screen or reverse the reading order."""
    return "".join(c if c in "\n\t" or not _steers(ord(c)) else "" for c in text)


def _steers(code: int) -> bool:
    """Control characters (C0, DEL, C1), bidirectional overrides and isolates, and lone surrogates."""
    return (
        code < 0x20
        or 0x7F <= code <= 0x9F
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
    )


def significant(value: float | Decimal, digits: int = 3) -> str:
    """`value` with so many significant digits, never as an exponent and never rounded down to 0."""
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    places = max(0, digits - 1 - number.adjusted()) if number else 0
    return f"{number:,.{places}f}"


# --- figures and tables -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell: `text` is None where the value is unknown, and `note` (a reason, a condition) becomes a footnote."""

    text: str | None
    note: str | None = None


@dataclass(slots=True)
class Footnotes:
    """Numbers the notes of a table in the order of their first use; the same words get the same number."""

    notes: list[str] = field(default_factory=list)

    def cell(self, figure: Figure) -> Text:
        shown = printable(figure.text) if figure.text is not None else "unknown"
        text = Text(shown, style="yellow" if figure.text is None else "")
        note = figure.note or ("no reason was given" if figure.text is None else None)
        if note:
            text.append(f" [{self._number(printable(note))}]", style="dim")
        return text

    def _number(self, note: str) -> int:
        if note not in self.notes:
            self.notes.append(note)
        return self.notes.index(note) + 1

    def lines(self) -> list[Text]:
        return [Text(f"[{number}] {note}", style="dim") for number, note in enumerate(self.notes, start=1)]


MOST_ON_ONE_LINE = 24

Row = TypeVar("Row")


@dataclass(frozen=True)  # without slots: Python 3.11 cannot call Column[str](...) on a frozen, slotted generic
class Column(Generic[Row]):
    """One column of `render_table`: how to show a row's value."""

    title: str
    figure: Callable[[Row], Figure]
    is_number: bool = False
    is_copied: bool = False
    """People take it over into commands, so that it stays on one line, unless it would leave no room for others."""


def render_table(rows: Iterable[Row], columns: Sequence[Column[Row]], *, title: str | None = None) -> Group:
    """A table with a line a row, and the footnotes of its cells below it."""
    footnotes = Footnotes()
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    shown = tuple(rows)
    for column in columns:
        widths = (cell_len(column.figure(row).text or "") for row in shown)
        is_whole = column.is_copied and all(width <= MOST_ON_ONE_LINE for width in widths)
        justify: JustifyMethod = "right" if column.is_number else "left"
        table.add_column(column.title, justify=justify, overflow="fold", no_wrap=is_whole)
    for row in shown:
        table.add_row(*(footnotes.cell(column.figure(row)) for column in columns))
    return Group(table, *footnotes.lines())


def render_problems(path: str, problems: Sequence[str]) -> Group:
    """What a check of a file found: one numbered line a problem, or that there is none."""
    if not problems:
        return Group(Text(f"{printable(path)}: no problems", style="green"))
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = (Text(f"{n:>3}. {printable(problem)}") for n, problem in enumerate(problems, start=1))
    return Group(Text(f"{printable(path)}: {count}", style="bold red"), *lines)


def render_models(models: Iterable[Model]) -> Group:
    return render_table(models, _MODEL_COLUMNS)


def render_estimates(estimates: Iterable[tuple[str, Estimate]]) -> Group:
    """One-GPU verdicts, predicted from configuration only; each pair is a model's id and its estimate."""
    shown = tuple(estimates)
    said = overhead_words(found for _, found in shown)
    return render_table(shown, _ESTIMATE_COLUMNS, title=f"Predicted from configuration; {said}")


def overhead_words(estimates: Iterable[Estimate]) -> str:
    """Whether the overhead of these is a guess or measured."""
    kinds = {found.overhead_is_measured for found in estimates}
    if kinds == {True}:
        return "the overhead was measured on this type of GPU"
    return "the overhead is measured for some GPUs, for others a guess" if True in kinds else "the overhead is a guess"


def _known(value: object | None, why: str) -> Figure:
    return Figure(None, why) if value is None else Figure(f"{value:,}" if isinstance(value, int) else str(value))


def show_verdict(word: str | None, gpu: str | None, reasons: Sequence[str]) -> Figure:
    why = reasons[0] if reasons else None
    if word not in VERDICTS:
        return Figure(None, why)
    return Figure(f"{VERDICTS[word]} · {gpu}" if gpu else VERDICTS[word], why)


def _served_by(model: Model) -> Figure:
    return Figure(model.serving.kind.value, model.serving.reason)


def _parameters(model: Model) -> Figure:
    params = model.shape.params if model.shape else None
    return Figure(None, "not in the registry") if params is None else Figure(significant(params / 1e9))


def _commercial(model: Model) -> Figure:
    allowed = model.licence.commercial
    return Figure(None, "nobody has read the terms") if allowed is None else Figure("yes" if allowed else "no")


def _headroom(estimate: Estimate) -> Figure:
    room = estimate.headroom_bytes
    if room is None:
        return Figure(None, estimate.reasons[0])
    return Figure(f"{room.low / GIB:.1f} … {room.likely / GIB:.1f} … {room.high / GIB:.1f}")


def _replicas(model: Model) -> Figure:
    """How many, and how many names behind which there may be more."""
    names = len(model.named_replicas)
    return Figure(f"{len(model.replicas)}{f' + {names} by name' if names else ''}")


_MODEL_COLUMNS: tuple[Column[Model], ...] = (
    Column("Model", lambda m: Figure(m.id)),
    Column("Consortium", lambda m: _known(m.consortium_id, "not in the registry")),
    Column("Served by", _served_by),
    Column("Parameters (10⁹)", _parameters, is_number=True),
    Column("Context (tokens)", lambda m: _known(m.shape and m.shape.context, "not in the registry"), is_number=True),
    Column("Commercial use", _commercial),
    Column("Replicas", _replicas, is_number=True),
)
_ESTIMATE_COLUMNS: tuple[Column[tuple[str, Estimate]], ...] = (
    Column("Model", lambda row: Figure(row[0])),
    Column("Verdict", lambda row: show_verdict(row[1].verdict, row[1].gpu, row[1].reasons)),
    Column("Context (tokens)", lambda row: Figure(f"{row[1].context:,}"), is_number=True),
    Column("At once", lambda row: Figure(str(row[1].concurrency)), is_number=True),
    Column("Headroom (GiB, low … likely … high)", lambda row: _headroom(row[1]), is_number=True),
    Column("Longest context", lambda row: _known(row[1].max_context_one_request, row[1].reasons[0]), is_number=True),
    Column("Most at once", lambda row: _known(row[1].max_concurrency, row[1].reasons[0]), is_number=True),
)
