"""Cards show bins, the same bytes for whatever lies in them, and never a figure."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.canonical_json import canonical_json
from gateway.domain.evidence_cards import (
    BINS,
    COST_BINS,
    LEAST_N,
    SAMPLE_BINS,
    Bins,
    CardLine,
    MeasuredFigures,
    Reason,
    bins_document,
    blind_card,
    card_document,
)
from gateway.domain.feasibility import Verdict
from gateway.domain.records import Provenance

MEASURED = {
    "ttft_p50_s": "ttft_p50",
    "ttft_p95_s": "ttft_p95",
    "tpot_s": "tpot",
    "throughput_per_s": "throughput",
    "failure_share": "failures",
}
ALL_BINS = [*BINS.values(), *COST_BINS.values(), SAMPLE_BINS]
FIGURES = MeasuredFigures(
    provenance=Provenance.REAL,
    n=1000,
    ttft_p50_s=0.3,
    ttft_p95_s=2.0,
    tpot_s=0.02,
    throughput_per_s=1500.0,
    failure_share=0.002,
    cost_per_mtok=Decimal("900"),
    currency="KRW",
    single_gpu=Verdict.FITS_QUANTISED,
)


def shown(figures: MeasuredFigures, alias: str = "A") -> bytes:
    return canonical_json(card_document(blind_card(alias, figures)))


def line(figures: MeasuredFigures, key: str) -> CardLine:
    return next(line for line in blind_card("A", figures).lines if line.key == key)


def within(bins: Bins, at: int, highest: str) -> tuple[Decimal, Decimal]:
    """Lowest and (excluded) highest value of a bin."""
    edges = [Decimal(0), *bins.edges, Decimal(highest)]
    return edges[at], edges[at + 1]


@st.composite
def two_in_one_bin(draw: st.DrawFn, bins: Bins, highest: str) -> tuple[float, float]:
    low, high = within(bins, draw(st.integers(0, len(bins.edges))), highest)
    values = st.floats(float(low), float(high), exclude_max=True)
    return draw(values), draw(values)


@given(st.data())
def test_two_candidates_in_the_same_bins_have_byte_equal_cards(data: st.DataObject) -> None:
    first, second = FIGURES, FIGURES
    for name, key in MEASURED.items():
        one, other = data.draw(two_in_one_bin(BINS[key], "1" if key == "failures" else "100000"))
        first, second = replace(first, **{name: one}), replace(second, **{name: other})
    one, other = data.draw(two_in_one_bin(COST_BINS["KRW"], "1000000"))
    first = replace(first, cost_per_mtok=Decimal(one), n=data.draw(st.integers(200, 1999)))
    second = replace(second, cost_per_mtok=Decimal(other), n=data.draw(st.integers(200, 1999)))
    assert shown(first) == shown(second)


@given(st.sampled_from(sorted(MEASURED.items())), st.data())
def test_a_bin_holds_its_lower_edge_and_not_its_upper(named: tuple[str, str], data: st.DataObject) -> None:
    name, key = named
    bins = BINS[key]
    at = data.draw(st.integers(0, len(bins.edges) - 1))
    edge = bins.edges[at]
    assert line(replace(FIGURES, **{name: float(edge)}), key).bin == bins.names[at + 1]
    below = float(edge) * (1 - 1e-9)
    assert line(replace(FIGURES, **{name: below}), key).bin == bins.names[at]


@pytest.mark.parametrize("bins", ALL_BINS)
def test_bins_ascend_at_least_twofold_and_each_has_a_word_of_its_own(bins: Bins) -> None:
    assert all(high >= 2 * low > 0 for low, high in zip(bins.edges, bins.edges[1:], strict=False))
    assert len(set(bins.names)) == len(bins.names) == len(bins.edges) + 1


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.integers(0, 10**7), st.decimals(0, 10**8, places=4))
def test_no_figure_is_on_a_card(ttft: float, rate: float, share: float, n: int, cost: Decimal) -> None:
    figures = replace(FIGURES, ttft_p50_s=ttft, throughput_per_s=rate, failure_share=share, n=n, cost_per_mtok=cost)
    assert not any(character.isdigit() for character in shown(figures).decode().replace("p50", "").replace("p95", ""))


def test_every_card_has_the_same_lines_in_the_same_order() -> None:
    empty = MeasuredFigures(Provenance.UNKNOWN, 0)
    assert [line.key for line in blind_card("A", empty).lines] == [line.key for line in blind_card("B", FIGURES).lines]
    assert json.loads(shown(FIGURES)) == {
        "alias": "A",
        "lines": [
            {"key": "ttft_p50", "bin": "fast", "reason": None},
            {"key": "ttft_p95", "bin": "moderate", "reason": None},
            {"key": "tpot", "bin": "fast", "reason": None},
            {"key": "throughput", "bin": "moderate", "reason": None},
            {"key": "failures", "bin": "few", "reason": None},
            {"key": "cost", "bin": "low", "reason": None},
            {"key": "single_gpu", "bin": "fits_quantised", "reason": None},
            {"key": "sample", "bin": "medium", "reason": None},
        ],
    }


def test_unknown_stays_unknown_with_its_reason() -> None:
    assert line(replace(FIGURES, tpot_s=None), "tpot") == CardLine("tpot", None, Reason.NOT_MEASURED)
    assert line(replace(FIGURES, n=LEAST_N - 1), "tpot") == CardLine("tpot", None, Reason.TOO_FEW)
    assert line(replace(FIGURES, currency="EUR"), "cost") == CardLine("cost", None, Reason.NO_BINS_FOR_CURRENCY)
    assert line(replace(FIGURES, cost_per_mtok=None), "cost") == CardLine("cost", None, Reason.NOT_MEASURED)
    unknown = replace(FIGURES, single_gpu=Verdict.UNKNOWN)
    assert line(unknown, "single_gpu") == CardLine("single_gpu", None, Reason.NOT_COMPUTABLE)
    assert line(replace(FIGURES, single_gpu=None), "single_gpu").reason is Reason.NOT_MEASURED


@pytest.mark.parametrize("provenance", [p for p in Provenance if p is not Provenance.REAL])
def test_only_the_real_model_gets_measured_bins(provenance: Provenance) -> None:
    card = blind_card("A", replace(FIGURES, provenance=provenance))
    assert {line.key for line in card.lines if line.bin is not None} == {"single_gpu"}
    assert {line.reason for line in card.lines if line.bin is None} == {Reason.NOT_REAL}


def test_the_edges_are_published_in_full() -> None:
    document = bins_document()
    assert set(document) == {*BINS, "cost.USD", "cost.KRW", "sample", "single_gpu"}
    assert document["tpot"] == {
        "unit": "s",
        "edges": ["0.01", "0.025", "0.05", "0.1"],
        "bins": ["very_fast", "fast", "moderate", "slow", "very_slow"],
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ttft_p50_s": -1.0}, "ttft_p50_s: expected 0 or more, got -1.0"),
        ({"tpot_s": float("nan")}, "tpot_s"),
        ({"failure_share": 1.5}, "failure_share: expected a share from 0 to 1"),
        ({"currency": None}, "currency: expected one beside cost_per_mtok"),
        ({"n": -1}, "n: expected 0 or more"),
    ],
)
def test_figures_that_cannot_be_are_refused_by_name(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        blind_card("A", replace(FIGURES, **change))  # type: ignore[arg-type]
