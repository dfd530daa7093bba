"""One comparison in a terminal: the answers side by side as they stream, then every figure with its unit and reason.

Rendering only: the events and objects of `POST /api/comparisons` in, rich renderables out; no HTTP. A failed side shows
its own error in its own column, and what a model wrote can never steer the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gateway.console import Figure, Footnotes, printable, show_verdict, significant
from gateway.domain.records import Provenance

NARROWEST_ANSWER = 36
"""Cells; columns that would be narrower are stacked."""
LABEL_WIDTH, NARROWEST_FIGURE = 24, 18
REFRESHES_PER_SECOND = 8

PROVENANCE = {
    Provenance.REAL: "real",
    Provenance.STAND_IN: "stand-in",
    Provenance.SIMULATED: "simulated",
    Provenance.UNKNOWN: "provenance unknown",
}
CAVEATS = {
    Provenance.STAND_IN: "stand-in: a real engine with tiny random weights; its answers and figures say nothing "
    "about the model named.",
    Provenance.SIMULATED: "simulated: text and timing come from the simulated engine; for trying and planning, "
    "never for a verdict or a ranking.",
    Provenance.UNKNOWN: "provenance unknown: nothing proves what stands behind the engine; treat the figures as "
    "unproven.",
}
TTFOT = "TTFOT (ms)"
"""Shown only where a side reasoned first; elsewhere it is TTFT once more."""
_YES_NO: Mapping[object, str] = {True: "yes", False: "no"}
BASES = {
    "api_price": "API price",
    "gpu_time": "GPU time",
    "gpu_time_provisional": "GPU time, provisional",
}


@dataclass(slots=True)
class _Side:
    """What has arrived for one model. `facts` is the side object of the comparison, as far as it is known."""

    facts: Mapping[str, Any]
    state: str = "waiting"
    """waiting | answering | finished"""
    content: str = ""
    reasoning: str = ""

    @property
    def model(self) -> str:
        return printable(str(self.facts["model"]))

    @property
    def status(self) -> str:
        return str(self.facts.get("status") or "not finished")

    def group(self, name: str) -> Mapping[str, Any]:
        """A group of facts (timing, usage, cost, feasibility, output), empty when there is none."""
        return self.facts.get(name) or {}

    @property
    def has_reasoned(self) -> bool:
        """Whether reasoning tokens came before its first output token."""
        timing = self.group("timing")
        return timing.get("ttfot_s") != timing.get("ttft_s")

    @property
    def provenance(self) -> Provenance | None:
        """None while the engine has not answered yet."""
        word = self.facts.get("provenance")
        if word is None:
            return Provenance.UNKNOWN if self.state == "finished" else None
        return Provenance(word) if word in PROVENANCE else Provenance.UNKNOWN

    @property
    def error(self) -> str | None:
        error = self.facts.get("error")
        if isinstance(error, Mapping):
            code = error.get("code") or error.get("type")
            return printable(f"{error.get('message') or 'no message'}{f' ({code})' if code else ''}")
        return printable(str(error)) if error else None

    def merge(self, facts: Mapping[str, Any], *, state: str) -> None:
        self.facts = {**self.facts, **facts}
        self.state = state
        output = self.group("output")
        self.content = printable(output.get("content") or "") or self.content
        self.reasoning = printable(output.get("reasoning") or "") or self.reasoning


class ComparisonView:
    """Draws one comparison: a column a model that fills as events are fed, then the table of figures.

    As a context manager it draws live on a terminal and prints the whole once at the end, also when the block is left
    by an exception, so that what has arrived is never lost. Printing the view itself gives the final form at any time.
    """

    def __init__(self, models: Sequence[str], *, console: Console | None = None) -> None:
        self._sides = [_Side({"model": model}) for model in models]
        self._console = console or Console()
        self._live: Live | None = None
        self.comparison: Mapping[str, Any] | None = None
        """The whole object, once `comparison.finished` has come."""

    @classmethod
    def of(cls, comparison: Mapping[str, Any], *, console: Console | None = None) -> Self:
        """The view of a comparison that has ended, e.g. one read back from the store."""
        view = cls([side["model"] for side in comparison["sides"]], console=console)
        view.feed("comparison.finished", comparison)
        return view

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: _Answers(self._sides, height=self._console.height - 1),
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                vertical_overflow="crop",
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._console.print(self)

    def feed(self, event: str, data: Mapping[str, Any]) -> None:
        """Take one event of the stream; kinds that this version does not know are passed over.

        Raises IndexError when an event names a side that was not asked for.
        """
        match event:
            case "side.started":
                self._side(data).merge(data, state="answering")
            case "side.delta":
                side = self._side(data)
                side.state = "answering"
                side.content += printable(data.get("content") or "")
                side.reasoning += printable(data.get("reasoning") or "")
            case "side.finished":
                self._side(data).merge(data, state="finished")
            case "comparison.finished":
                for number, facts in enumerate(data["sides"]):
                    self._sides[number].merge(facts, state="finished")
                self.comparison = data

    def _side(self, data: Mapping[str, Any]) -> _Side:
        number = int(data["side"])
        if not 0 <= number < len(self._sides):
            raise IndexError(f"side: expected 0 to {len(self._sides) - 1}, got {number}")
        return self._sides[number]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        footnotes = Footnotes()
        yield _Answers(self._sides)
        per_table = max(1, (options.max_width - LABEL_WIDTH) // NARROWEST_FIGURE)
        for sides in _chunks(self._sides, per_table):
            yield _figures_table(sides, footnotes)
        yield from footnotes.lines()
        yield self._comparability()
        seen = {side.provenance for side in self._sides}
        yield from (Text(caveat, style="yellow") for word, caveat in CAVEATS.items() if word in seen)

    def _comparability(self) -> Text:
        comparison = self.comparison or {"timing_reason": "the comparison did not finish"}
        word = _YES_NO.get(comparison.get("timing_comparable"), "unknown")
        reason = comparison.get("timing_reason") or "no reason was given"
        return Text(f"Timings comparable: {word} ({printable(reason)})", style="" if word == "yes" else "yellow")


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers in columns, as many side by side as the width allows; with a height, the newest lines only."""

    sides: Sequence[_Side]
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(1, min(len(self.sides), options.max_width // NARROWEST_ANSWER))
        rows = list(_chunks(self.sides, columns))
        lines = max(1, self.height // len(rows) - 2) if self.height is not None else None
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        for row in rows:
            grid.add_row(*(_panel(side, options.max_width // columns, lines) for side in row))
        yield grid


@dataclass(frozen=True, slots=True)
class _Tail:
    """The last lines of a text, wrapped to the width at hand; only so much is laid out as can be seen."""

    text: Text
    lines: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        seen = self.text[-self.lines * options.max_width :] if len(self.text) else self.text
        shown = console.render_lines(seen, options.update(height=None), pad=False)[-self.lines :]
        for line in shown:
            yield from line
            yield Segment.line()


def _chunks(sides: Sequence[_Side], size: int) -> Iterator[Sequence[_Side]]:
    return (sides[start : start + size] for start in range(0, len(sides), size))


def _panel(side: _Side, width: int, lines: int | None) -> Panel:
    provenance = side.provenance
    mark = "" if provenance in (None, Provenance.REAL) else f" · {PROVENANCE[provenance]}"
    title = Text(side.model, style="bold")
    title.truncate(max(1, width - 6 - len(mark)), overflow="ellipsis")
    title.append(mark, style="yellow")
    state = side.status if side.state == "finished" else side.state
    body: RenderableType = _answer(side) if lines is None else _Tail(_answer(side), lines)
    border = "red" if side.error else "green" if state == "ok" else "dim"
    return Panel(body, title=title, subtitle=state, title_align="left", subtitle_align="right", border_style=border)


def _answer(side: _Side) -> Text:
    parts: list[tuple[str, str]] = []
    if side.reasoning:
        parts += [("reasoning\n", "dim italic"), (side.reasoning.strip("\n") + "\n\n", "dim")]
        parts += [("answer\n", "dim italic")] if side.content else []
    parts += [(side.content, "")] if side.content else []
    for call in side.group("output").get("tool_calls") or ():
        function = call.get("function") or {}
        parts.append((printable(f"\ntool call: {function.get('name')}({function.get('arguments') or ''})"), "cyan"))
    if side.error:
        parts.append((f"\n{'skipped' if side.status == 'skipped' else 'failed'}: {side.error}", "red"))
    elif side.state == "finished" and not parts:
        parts.append(("(an empty answer)", "dim"))
    return Text.assemble(*parts, overflow="fold")


# --- the figures of a comparison ----------------------------------------------------------------------------


def _figures_table(sides: Sequence[_Side], footnotes: Footnotes) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for side in sides:
        table.add_column(
            Text(side.model, style="bold"), justify="right", overflow="fold", min_width=NARROWEST_FIGURE - 6
        )
    for label, figure in _FIGURES.items():
        if label == TTFOT and not any(side.has_reasoned for side in sides):
            continue
        table.add_row(label, *(footnotes.cell(figure(side)) for side in sides))
    return table


def _why_missing(side: _Side, otherwise: str) -> str:
    """Why a figure of this side is unknown: its failure, where it failed, is the best explanation."""
    if side.error:
        return f"{side.model}: {side.error}"
    return otherwise if side.state == "finished" else f"{side.model}: not finished"


def _span(side: _Side, name: str, scale: float) -> Figure:
    value = side.group("timing").get(name)
    if value is None:
        return Figure(None, _why_missing(side, "not measured for this call"))
    return Figure(significant(value * scale))


def _tpot(side: _Side, show: Callable[[float], str]) -> Figure:
    tpot_s, tokens = side.group("timing").get("tpot_s"), side.group("usage").get("completion_tokens")
    if tpot_s:
        return Figure(show(tpot_s))
    if tpot_s is not None:
        return Figure(None, "all tokens came at one moment")
    if tokens is None:
        return Figure(None, _why_missing(side, "needs a token count, and there is none"))
    return Figure(None, _why_missing(side, "needs at least one token after the first event"))


def _tokens(side: _Side, name: str) -> Figure:
    usage = side.group("usage")
    count, source = usage.get(name), usage.get("source") or "unknown"
    if count is None:
        return Figure(None, _why_missing(side, f"no count (usage source: {source})"))
    part = "cached_tokens" if name == "prompt_tokens" else "reasoning_tokens"
    detail = f" ({usage[part]:,} {part.removesuffix('_tokens')})" if usage.get(part) else ""
    return Figure(f"{count:,}{detail}", None if source == "engine" else f"usage source: {source}")


def _cost(side: _Side) -> Figure:
    cost = side.group("cost")
    if cost.get("amount") is None:
        return Figure(None, cost.get("reason") or _why_missing(side, "no price is known for this call"))
    amount = significant(Decimal(str(cost["amount"])))
    return Figure(f"{amount} {cost.get('currency') or '(currency unknown)'}", cost.get("reason"))


def _basis(side: _Side) -> Figure:
    cost = side.group("cost")
    word = BASES.get(cost.get("basis") or "")
    return Figure(word, None if word else cost.get("reason") or _why_missing(side, "no price is known for this call"))


def _one_gpu(side: _Side) -> Figure:
    given = side.group("feasibility")
    if not given:
        return Figure(None, _why_missing(side, "no verdict was given"))
    return show_verdict(given.get("verdict"), given.get("gpu"), given.get("reasons") or ())


def _status(side: _Side) -> Figure:
    finish = side.facts.get("finish_reason")
    return Figure(f"{side.status} ({finish})" if finish else side.status, side.error and f"{side.model}: {side.error}")


def _provenance(side: _Side) -> Figure:
    word = side.provenance
    if word in (None, Provenance.UNKNOWN):
        return Figure(None, _why_missing(side, "nothing proves what stands behind the engine"))
    return Figure(PROVENANCE[word])


_FIGURES: Mapping[str, Callable[[_Side], Figure]] = {
    "Status": _status,
    "Provenance": _provenance,
    "TTFT (ms)": lambda side: _span(side, "ttft_s", 1000),
    TTFOT: lambda side: _span(side, "ttfot_s", 1000),
    "TPOT (ms)": lambda side: _tpot(side, lambda tpot_s: significant(tpot_s * 1000)),
    "Tokens/s (1 ÷ TPOT)": lambda side: _tpot(side, lambda tpot_s: significant(1 / tpot_s)),
    "E2E (s)": lambda side: _span(side, "e2e_s", 1),
    "Tokens in": lambda side: _tokens(side, "prompt_tokens"),
    "Tokens out": lambda side: _tokens(side, "completion_tokens"),
    "Cost": _cost,
    "Cost basis": _basis,
    "One GPU (predicted)": _one_gpu,
}
