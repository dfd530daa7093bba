"""What is measured of a candidate as a blind card: bins in words instead of figures, so that no figure names its owner.

The edges are fixed here, the same for every candidate and every round; a card says which bin, never where in it. What
is unknown, or does not come from the candidate's real weights, stays unknown, with its reason from a closed set.
Aliases come as arguments; gathering figures, and words in Korean or English for the keys, belong elsewhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from gateway.domain.canonical_json import Json
from gateway.domain.feasibility import Verdict
from gateway.domain.records import Provenance

Number = float | Decimal

LEAST_N = 20
"""Below so many requests a figure is too uncertain for any bin."""


class Reason(StrEnum):
    """Why a line of a card is unknown."""

    NOT_MEASURED = "not_measured"
    TOO_FEW = "too_few_requests"
    NOT_REAL = "not_the_real_model"
    NO_BINS_FOR_CURRENCY = "no_bins_for_currency"
    NOT_COMPUTABLE = "not_computable"


@dataclass(frozen=True, slots=True)
class Bins:
    """Words for ranges: below the first edge, from each edge (included) to the next, from the last edge on."""

    unit: str
    edges: tuple[Decimal, ...]
    names: tuple[str, ...]

    def name_of(self, value: Number) -> str:
        return self.names[bisect_right(self.edges, Decimal(value))]


def _bins(unit: str, edges: Sequence[str], names: Sequence[str]) -> Bins:
    return Bins(unit, tuple(Decimal(edge) for edge in edges), tuple(names))


_QUICKNESS = ("very_fast", "fast", "moderate", "slow", "very_slow")
_AMOUNT = ("very_low", "low", "moderate", "high", "very_high")

BINS: Mapping[str, Bins] = {
    "ttft_p50": _bins("s", ["0.2", "0.5", "1.5", "5"], _QUICKNESS),
    "ttft_p95": _bins("s", ["0.5", "1.5", "5", "15"], _QUICKNESS),
    "tpot": _bins("s", ["0.01", "0.025", "0.05", "0.1"], _QUICKNESS),
    "throughput": _bins("output tokens/s", ["200", "1000", "3000", "10000"], _AMOUNT),
    "failures": _bins("share of requests", ["0.001", "0.01", "0.05"], ("hardly_any", "few", "some", "many")),
}
"""Of seconds to the first token, seconds per output token, tokens per second of one replica, failed requests."""

COST_BINS: Mapping[str, Bins] = {
    "USD": _bins("USD per 10⁶ output tokens", ["0.3", "1", "3", "10"], _AMOUNT),
    "KRW": _bins("KRW per 10⁶ output tokens", ["400", "1400", "4000", "14000"], _AMOUNT),
}
"""By currency: nothing is converted, since a rate would be another fact to seal."""

SAMPLE_BINS = _bins("requests", ["200", "2000"], ("small", "medium", "large"))

SINGLE_GPU: Mapping[Verdict, str] = {verdict: str(verdict) for verdict in Verdict if verdict is not Verdict.UNKNOWN}


@dataclass(frozen=True, slots=True)
class MeasuredFigures:
    """One candidate's figures, all at the same load and on the same hardware for all candidates. None = not known."""

    provenance: Provenance
    n: int
    """Requests behind the measured ones."""
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tpot_s: float | None = None
    throughput_per_s: float | None = None
    failure_share: float | None = None
    cost_per_mtok: Decimal | None = None
    currency: str | None = None
    single_gpu: Verdict | None = None
    """Predicted or resolved for the GPU of the round; it does not hang on requests, nor on who answered them."""


@dataclass(frozen=True, slots=True)
class CardLine:
    key: str
    bin: str | None
    reason: Reason | None = None
    """Why there is no bin."""


@dataclass(frozen=True, slots=True)
class EvidenceCard:
    alias: str
    lines: tuple[CardLine, ...]
    """The same keys in the same order on every card."""


def blind_card(alias: str, figures: MeasuredFigures) -> EvidenceCard:
    """Raises ValueError, naming the field, for a figure that cannot be."""
    _require_figures(figures)
    measured = {
        "ttft_p50": figures.ttft_p50_s,
        "ttft_p95": figures.ttft_p95_s,
        "tpot": figures.tpot_s,
        "throughput": figures.throughput_per_s,
        "failures": figures.failure_share,
    }
    lines = [_measured_line(key, value, figures) for key, value in measured.items()]
    return EvidenceCard(alias, (*lines, _cost_line(figures), _single_gpu_line(figures), _sample_line(figures)))


def card_document(card: EvidenceCard) -> dict[str, Json]:
    """All that a reviewer may be sent of the candidate."""
    lines: list[Json] = [
        {"key": line.key, "bin": line.bin, "reason": None if line.reason is None else line.reason.value}
        for line in card.lines
    ]
    return {"alias": card.alias, "lines": lines}


def bins_document() -> dict[str, Json]:
    """Every edge and word, to be shown beside the cards and sealed with the round."""
    tables = {**BINS, **{f"cost.{currency}": bins for currency, bins in COST_BINS.items()}, "sample": SAMPLE_BINS}
    documents: dict[str, Json] = {
        key: {"unit": bins.unit, "edges": [format(edge, "f") for edge in bins.edges], "bins": list(bins.names)}
        for key, bins in tables.items()
    }
    documents["single_gpu"] = {"unit": "", "edges": [], "bins": list(SINGLE_GPU.values())}
    return documents


def _measured_line(key: str, value: Number | None, figures: MeasuredFigures, bins: Bins | None = None) -> CardLine:
    if value is None:
        return CardLine(key, None, Reason.NOT_MEASURED)
    if figures.provenance is not Provenance.REAL:
        return CardLine(key, None, Reason.NOT_REAL)
    if figures.n < LEAST_N:
        return CardLine(key, None, Reason.TOO_FEW)
    return CardLine(key, (bins or BINS[key]).name_of(value))


def _cost_line(figures: MeasuredFigures) -> CardLine:
    bins = COST_BINS.get(figures.currency or "")
    if figures.cost_per_mtok is not None and bins is None:
        return CardLine("cost", None, Reason.NO_BINS_FOR_CURRENCY)
    return _measured_line("cost", figures.cost_per_mtok, figures, bins)


def _single_gpu_line(figures: MeasuredFigures) -> CardLine:
    if figures.single_gpu is None:
        return CardLine("single_gpu", None, Reason.NOT_MEASURED)
    if figures.single_gpu is Verdict.UNKNOWN:
        return CardLine("single_gpu", None, Reason.NOT_COMPUTABLE)
    return CardLine("single_gpu", SINGLE_GPU[figures.single_gpu])


def _sample_line(figures: MeasuredFigures) -> CardLine:
    return _measured_line("sample", float(figures.n), figures, SAMPLE_BINS)


def _require_figures(figures: MeasuredFigures) -> None:
    if figures.n < 0:
        raise ValueError(f"n: expected 0 or more, got {figures.n}")
    for name in ("ttft_p50_s", "ttft_p95_s", "tpot_s", "throughput_per_s", "failure_share", "cost_per_mtok"):
        value: Number | None = getattr(figures, name)
        if value is not None and not (Decimal(value).is_finite() and value >= 0):
            raise ValueError(f"{name}: expected 0 or more, got {value}")
    if figures.failure_share is not None and figures.failure_share > 1:
        raise ValueError(f"failure_share: expected a share from 0 to 1, got {figures.failure_share}")
    if figures.cost_per_mtok is not None and figures.currency is None:
        raise ValueError("currency: expected one beside cost_per_mtok, got none")
