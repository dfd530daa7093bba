"""The tables of a batch: every figure with its unit and its n, what is unknown with its reason."""

from __future__ import annotations

from decimal import Decimal

from rich.console import Console
from test_paired import seen

from gateway.batch_report import statistics_object
from gateway.batch_view import render_statistics
from gateway.domain.observations import Observation
from gateway.domain.paired import batch_statistics
from gateway.domain.records import Cost, Provenance


def drawn(observed: list[Observation], *models: str) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(render_statistics(statistics_object(batch_statistics(models, observed))))
    return captured.get()


def cells(text: str, start: str, figure: str) -> list[str]:
    """The cells of the first row that begins with `start` and is about `figure`."""
    line = next(line for line in text.splitlines() if line.strip().startswith(start) and f" {figure} " in line)
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_each_model_and_each_pair_have_their_figures_with_units_and_prompts() -> None:
    observed = [seen(name, f"p{n}", {"a": 1.0, "b": 1.5}[name] + n / 10) for n in range(8) for name in "ab"]
    text = drawn(observed, "a", "b")
    assert cells(text, "a ", "first token") == ["a", "first token", "1.35 s", "1.00 … 1.70", "1.66", "8"]
    pair = cells(text, "a − b", "first token")
    assert pair[:3] == ["a − b", "first token", "-0.500 s"]
    assert pair[-2:] == ["0.00781", "8"]
    assert "a: 8 of 8 answered; spent 4.0 KRW" in text


def test_what_is_left_out_stands_below_with_its_count() -> None:
    observed = [seen(name, f"p{n}", incomparable="caches were not equally warm") for n in range(3) for name in "ab"]
    text = drawn(observed, "a", "b")
    assert cells(text, "a ", "first token")[2] == "unknown [1]"
    assert "[1] caches were not equally warm: 3" in text
    assert "an interval of 95 % needs six prompts" in text


def test_failures_unknown_costs_and_what_is_not_real_are_told() -> None:
    unknown = Cost(None, None, "unknown", "no price")
    observed = [
        seen("a", "p1", failure="upstream_busy", cost=unknown),
        seen("a", "p2", cost=unknown, provenance=Provenance.SIMULATED),
        seen("b", "p2", cost=Cost(Decimal("1"), "USD", "api_price")),
    ]
    text = drawn(observed, "a", "b")
    assert "a: 1 of 2 answered (failed: 1 upstream_busy); cost of 1 unknown" in text
    assert "never for a verdict or a ranking" in text
