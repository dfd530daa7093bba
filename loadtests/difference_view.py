"""Two runs compared, and GPUs for a crowd, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.console import printable, significant
from loadtests.capacity import Capacity
from loadtests.differences import Difference, Incomparable

_WORDS = {
    "higher": ("higher", "bold"),
    "lower": ("lower", "bold"),
    "not_distinguishable": ("not distinguishable", "dim"),
    "too_few_repeats": ("too few repeats to say", "yellow"),
    "fell_to_0": ("fell to 0", "bold red"),
    "rose_from_0": ("rose from 0", "bold"),
}


def render_differences(found: Sequence[Difference], refused: Sequence[Incomparable]) -> Group:
    """A row a figure: both values, their ratio with its 95 % interval, and what may be said; then what was left out."""
    table = Table(box=box.SIMPLE_HEAD, title="after / before, repeats as the unit, 95 % intervals (Welch)")
    for name in ("cell", "door", "figure"):
        table.add_column(name)
    for name in ("before", "after", "ratio", "interval"):
        table.add_column(name, justify="right")
    table.add_column("says")
    for one in found:
        interval = "–" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        words, style = _WORDS[one.says]
        table.add_row(
            printable(one.cell),
            one.door,
            one.metric,
            significant(one.before),
            significant(one.after),
            "–" if one.ratio is None else f"{one.ratio:.3f}",
            interval,
            Text(words, style=style),
        )
    left_out = [
        Text(f"not compared: {printable(one.cell or 'the runs')}: {one.why}", style="yellow") for one in refused
    ]
    return Group(*([table] if found else []), *left_out)


def render_capacity(found: Capacity) -> Group:
    """The answer in one line, its interval, then every assumption."""
    unit = "users at once" if found.over == "users" else "requests/s"
    interval = "" if found.gpus_low == found.gpus_high else f" (from {found.gpus_low} to {found.gpus_high})"
    gpu = found.gpu or "GPU of an unknown type"
    marked = "" if found.provenance == "real" else f" [{found.provenance}: a plan to try, no evidence]"
    answer = Text(f"{found.wanted:g} {unit}: {found.gpus} × {printable(gpu)}{interval}{marked}", style="bold")
    detail = Text(
        f"{found.replicas} replicas and {found.spares} spare, {found.gpus_per_replica} GPU(s) each", style="dim"
    )
    return Group(answer, detail, *(Text(f"· {printable(words)}") for words in found.assumptions))
