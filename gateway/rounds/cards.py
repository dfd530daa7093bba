"""Evidence cards: what the gateway measured and worked out of each candidate, as reviewers judge it, blind and binned.

Whether an infrastructure plan is real cannot be judged from a text. So a round of the kind `cards` shows, in place of
answers, one table a candidate, with words for ranges instead of figures. Bins are `domain.evidence_cards`'s; where the
figures come from stands here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from gateway.calibration_file import CalibrationBook
from gateway.domain.evidence_cards import EvidenceCard, MeasuredFigures, blind_card
from gateway.domain.feasibility import Verdict
from gateway.domain.records import CallStatus, Provenance, Registry
from gateway.domain.rounds import AnswerStatus, RoundAnswer, RoundPlan
from gateway.domain.stats import percentile
from gateway.evidence import estimate_on
from gateway.rounds.card_words import BINS, HEAD, LINES, REASONS, UNKNOWN, word
from gateway.settings import Settings
from gateway.store import Store
from gateway.tables import calls

FAILED = frozenset({CallStatus.ERROR.value, CallStatus.TRUNCATED.value, CallStatus.INTERRUPTED.value})
"""Ends that are the candidate's failures; a client that left, or a refusal, says nothing about it."""
_COLUMNS = (
    calls.c.model,
    calls.c.provenance,
    calls.c.status,
    calls.c.started_at,
    calls.c.ended_at,
    calls.c.ttft_s,
    calls.c.tpot_s,
    calls.c.completion_tokens,
    calls.c.cost_amount,
    calls.c.cost_currency,
    calls.c.settled_cost,
    calls.c.settled_currency,
)
_STRONGEST = (Provenance.REAL, Provenance.STAND_IN, Provenance.SIMULATED, Provenance.UNKNOWN)


@dataclass(slots=True)
class _Seen:
    """What the calls of one model and provenance say together."""

    ttft_s: list[float] = field(default_factory=list)
    tpot_s: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    tokens: int = 0
    priced_tokens: int = 0
    spent: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    first: datetime | None = None
    last: datetime | None = None

    def add(self, row: Any) -> None:
        self.requests += 1
        self.failed += row["status"] in FAILED
        if row["ttft_s"] is not None:
            self.ttft_s.append(row["ttft_s"])
        if row["tpot_s"] is not None:
            self.tpot_s.append(row["tpot_s"])
        tokens = row["completion_tokens"] or 0
        self.tokens += tokens
        settled = row["settled_cost"] is not None
        amount = row["settled_cost"] if settled else row["cost_amount"]
        currency = row["settled_currency"] if settled else row["cost_currency"]
        if amount is not None and currency is not None:
            self.spent[currency] += amount
            self.priced_tokens += tokens
        self.first = min(filter(None, (self.first, row["started_at"])), default=None)
        self.last = max(filter(None, (self.last, row["ended_at"])), default=None)

    def throughput_per_s(self) -> float | None:
        """Output tokens over the whole span; only calls made to load a candidate say that."""
        if self.first is None or self.last is None or self.last <= self.first or not self.tokens:
            return None
        return self.tokens / (self.last - self.first).total_seconds()

    def cost_per_mtok(self) -> tuple[Decimal | None, str | None]:
        """Money for 10⁶ output tokens; unknown where it was spent in several currencies."""
        if len(self.spent) != 1 or not self.priced_tokens:
            return None, None
        ((currency, amount),) = self.spent.items()
        return amount * 1_000_000 / self.priced_tokens, currency


class CardEvidence:
    """Gathers what is known of candidates. `runs`: load runs whose calls count; none: all calls since `since`."""

    def __init__(self, *, store: Store, settings: Settings, calibration: CalibrationBook) -> None:
        self._store = store
        self._calibration = calibration
        self._settings = settings

    async def figures(
        self, models: Sequence[str], registry: Registry, *, runs: Sequence[str], since: datetime
    ) -> dict[str, MeasuredFigures]:
        """By model. Calls of one provenance only are taken: the strongest that there is."""
        seen = await self._seen(models, runs=runs, since=since)
        found = {}
        for model in models:
            kind = next((kind for kind in _STRONGEST if (model, kind.value) in seen), Provenance.UNKNOWN)
            sums = seen.get((model, kind.value), _Seen())
            found[model] = self._figures(model, kind, sums, registry, is_load=bool(runs))
        return found

    async def _seen(
        self, models: Sequence[str], *, runs: Sequence[str], since: datetime
    ) -> dict[tuple[str, str], _Seen]:
        chosen = calls.c.run_id.in_(runs) if runs else calls.c.started_at >= since
        statement = sa.select(*_COLUMNS).where(calls.c.model.in_(models), calls.c.ended_at.is_not(None), chosen)
        seen: dict[tuple[str, str], _Seen] = defaultdict(_Seen)
        async with self._store.transaction() as connection:
            rows = await connection.stream(statement)
            async for some in rows.mappings().partitions(500):
                for row in some:
                    seen[row["model"], row["provenance"] or Provenance.UNKNOWN.value].add(row)
        return dict(seen)

    def _figures(
        self, model: str, provenance: Provenance, sums: _Seen, registry: Registry, *, is_load: bool
    ) -> MeasuredFigures:
        cost, currency = sums.cost_per_mtok()
        return MeasuredFigures(
            provenance=provenance,
            n=sums.requests,
            ttft_p50_s=percentile(sums.ttft_s, 50) if sums.ttft_s else None,
            ttft_p95_s=percentile(sums.ttft_s, 95) if sums.ttft_s else None,
            tpot_s=percentile(sums.tpot_s, 50) if sums.tpot_s else None,
            throughput_per_s=sums.throughput_per_s() if is_load else None,
            failure_share=sums.failed / sums.requests if sums.requests else None,
            cost_per_mtok=cost,
            currency=currency,
            single_gpu=self._single_gpu(model, registry),
        )

    def _single_gpu(self, model: str, registry: Registry) -> Verdict:
        entry = registry.models.get(model)
        if entry is None:
            return Verdict.UNKNOWN
        found = estimate_on(
            entry,
            registry,
            gpu_id=self._settings.feasibility_gpu,
            context=self._settings.feasibility_context,
            calibration=self._calibration,
        )
        return found.verdict if found is not None else Verdict.UNKNOWN


def card_text(card: EvidenceCard, language: str) -> str:
    """A card as reviewers see it: a Markdown table of the same lines for everybody."""
    item, value = HEAD[language]
    rows = [f"| {item} | {value} |", "| --- | --- |"]
    for line in card.lines:
        if line.bin is not None:
            shown = word(BINS, line.bin, language)
        else:
            assert line.reason is not None, "a line without a bin says why"
            shown = f"{UNKNOWN[language]} ({word(REASONS, line.reason.value, language)})"
        rows.append(f"| {word(LINES, line.key, language)} | {shown} |")
    return "\n".join(rows)


def card_answers(plan: RoundPlan, figures: dict[str, MeasuredFigures]) -> list[RoundAnswer]:
    """What takes the place of answers in a round of cards: each candidate's card, in the language of the question."""
    return [
        RoundAnswer(
            prompt_id=prompt.id,
            model=model,
            status=AnswerStatus.OK,
            comparison_id=None,
            call_id=None,
            provenance=figures[model].provenance.value,
            text=(text := card_text(blind_card("", figures[model]), prompt.language)),
            shown=text,
            redactions=(),
            facts={"figures": _document(figures[model])},
        )
        for prompt in plan.prompts
        for model in plan.models
    ]


def _document(figures: MeasuredFigures) -> dict[str, Any]:
    """The figures behind a card, for the bundle: the card itself never shows them."""
    values = {name: getattr(figures, name) for name in MeasuredFigures.__slots__}
    values["cost_per_mtok"] = None if figures.cost_per_mtok is None else str(figures.cost_per_mtok)
    return {name: getattr(value, "value", value) for name, value in values.items()}
