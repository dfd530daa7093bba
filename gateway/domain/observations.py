"""The answers of a batch as columns of numbers: each metric of each answer is read once, when the answer comes.

A column is a grid of prompts by repeats with a number in every cell, or the reason why there is none. What may not be
counted is decided here; what the numbers say is `paired`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import nan

import numpy as np
from numpy.typing import NDArray

from gateway.domain.comparability import GPU_TIME_BASES
from gateway.domain.records import Cost, Provenance, Timing, Usage

SECONDS, TOKENS = "s", "tokens"
FAILED = "no complete answer"
UNMEASURED = "not measurable for this answer"
UNTOLD = "the engine did not say"
COST_UNKNOWN = "the cost is unknown"
METRICS = ("ttft_s", "tpot_s", "e2e_s", "prompt_tokens", "completion_tokens", "cost")
ABSENT, COUNTED = -1, 0
"""Reasons by number: never asked; none, for there is a value. All others are words."""
_KINDS = tuple(Provenance)
FloatGrid = NDArray[np.float64]
IntGrid = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Observation:
    """One model's answer to one prompt in one repeat."""

    prompt: str
    repeat: int
    model: str
    failure: str | None
    """Its error's code; None where it answered."""
    provenance: Provenance
    usage: Usage
    timing: Timing
    cost: Cost
    finish_reason: str | None = None
    incomparable: str | None = None
    """Why the timings of its comparison may not be held against each other; None where they may."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of one model. The grids are of prompts by repeats, and the same for all models of a batch."""

    values: FloatGrid
    """NaN where there is none."""
    reasons: IntGrid
    """ABSENT, COUNTED, or the number of the reason."""
    units: IntGrid
    """Number of the unit's word; of interest where there is a value."""


class Words:
    """Reasons and units by number, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words = [""]

    def number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._words)
            self._words.append(word)
        return number

    def __getitem__(self, number: int) -> str:
        return self._words[number]


class ModelAnswers:
    """What one model answered, as it comes."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        """By error code."""
        self.finish_reasons: Counter[str] = Counter()
        self.provenances: Counter[Provenance] = Counter()
        """Of answers."""
        self.spent: dict[str, Decimal] = {}
        """Sum of all known costs by currency, exact."""
        self.cost_unknown = 0
        """Answers whose cost is not known; they are in no sum."""
        self.asked_again = 0
        """Answers and failures that count for nothing but money, because their prompt was asked again."""
        self.prompts, self.repeats = array("q"), array("q")
        self.kinds = array("q")
        self.values = [array("d") for _ in METRICS]
        self.reasons = [array("q") for _ in METRICS]
        self.cost_units = array("q")

    @property
    def asked(self) -> int:
        return len(self.prompts)

    @property
    def provenance(self) -> Provenance | None:
        """What most of its answers come from, on which its figures rest; None without answers."""
        return max(_KINDS, key=self.provenances.__getitem__) if self.provenances else None

    def pay(self, cost: Cost, *, is_answered: bool) -> None:
        if cost.amount is None:
            self.cost_unknown += is_answered
        elif cost.currency is not None:
            self.spent[cost.currency] = self.spent.get(cost.currency, Decimal(0)) + cost.amount


class BatchAnswers:
    """All answers of a batch. Add every one, then read the columns."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models: Mapping[str, ModelAnswers] = {model: ModelAnswers() for model in models}
        self.words = Words()
        self._prompts: dict[str, int] = {}
        self._repeats: dict[int, int] = {}
        number = self.words.number
        self._failed, self._unmeasured, self._untold = number(FAILED), number(UNMEASURED), number(UNTOLD)
        self._units = [number(SECONDS)] * 3 + [number(TOKENS)] * 2

    def add(self, seen: Observation) -> None:
        """Take in one answer; a prompt has one of each model in each repeat."""
        answers = self.models.get(seen.model)
        if answers is None:
            return
        answers.pay(seen.cost, is_answered=seen.failure is None)
        if seen.failure is not None:
            answers.failures[seen.failure] += 1
        else:
            answers.finish_reasons[seen.finish_reason or "none"] += 1
            answers.provenances[seen.provenance] += 1
        answers.prompts.append(self._prompts.setdefault(seen.prompt, len(self._prompts)))
        answers.repeats.append(self._repeats.setdefault(seen.repeat, len(self._repeats)))
        answers.kinds.append(_KINDS.index(seen.provenance))
        self._add_metrics(answers, seen)

    def add_asked_again(self, model: str, cost: Cost, *, is_answered: bool) -> None:
        """Take in what an answer cost whose prompt was asked again: in money alone it counts."""
        if (answers := self.models.get(model)) is not None:
            answers.asked_again += 1
            answers.pay(cost, is_answered=is_answered)

    def _add_metrics(self, answers: ModelAnswers, seen: Observation) -> None:
        failed = self._failed if seen.failure is not None else COUNTED
        incomparable = self.words.number(seen.incomparable) if seen.incomparable is not None else COUNTED
        timing, usage, cost = seen.timing, seen.usage, seen.cost
        amount = float(cost.amount) if cost.amount is not None else None  # for medians and differences only
        unpriced = self.words.number(cost.reason or COST_UNKNOWN) if amount is None else COUNTED
        shared = incomparable if cost.basis in GPU_TIME_BASES else COUNTED
        readings = (
            (timing.ttft_s, failed or incomparable, self._unmeasured),
            (timing.tpot_s, failed or incomparable, self._unmeasured),
            (timing.e2e_s, failed or incomparable, self._unmeasured),
            (usage.prompt_tokens, failed, self._untold),
            (usage.completion_tokens, failed, self._untold),
            (amount, failed or unpriced or shared, unpriced),
        )
        for values, reasons, (value, out, missing) in zip(answers.values, answers.reasons, readings, strict=True):
            reason = out or (missing if value is None else COUNTED)
            reasons.append(reason)
            values.append(nan if reason or value is None else value)
        answers.cost_units.append(self.words.number(f"{cost.currency} by {cost.basis}") if amount is not None else 0)

    def columns(self, model: str) -> dict[str, Column]:
        """The model's metrics by name. Answers of another provenance than its most frequent one are left out."""
        answers = self.models[model]
        shape = len(self._prompts), len(self._repeats)
        cells = _numbers(answers.prompts) * shape[1] + _numbers(answers.repeats)
        strangers = self._strangers(answers)

        def grid(entries: NDArray[np.int64], default: int) -> IntGrid:
            flat = np.full(shape[0] * shape[1], default, dtype=np.int32)
            flat[cells] = entries
            return flat.reshape(shape)

        columns = {}
        for place, name in enumerate(METRICS):
            reasons = _numbers(answers.reasons[place])
            reasons = np.where((strangers > 0) & (reasons != self._failed), strangers, reasons)
            values = np.full(shape[0] * shape[1], nan)
            values[cells] = np.where(reasons == COUNTED, np.frombuffer(answers.values[place]), nan)
            units = (
                np.broadcast_to(np.int32(self._units[place]), shape)
                if place < len(self._units)
                else grid(_numbers(answers.cost_units), 0)
            )
            columns[name] = Column(values.reshape(shape), grid(reasons, ABSENT), units)
        return columns

    def _strangers(self, answers: ModelAnswers) -> NDArray[np.int64]:
        """Of each answer the number of the reason why its provenance leaves it out; 0 where it does not."""
        main = answers.provenance
        words = [self.words.number(f"{kind}, not {main}") if kind is not main else 0 for kind in _KINDS]
        return np.asarray(words, dtype=np.int64)[_numbers(answers.kinds)]


def _numbers(entries: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(entries, dtype=np.int64) if entries else np.zeros(0, dtype=np.int64)
