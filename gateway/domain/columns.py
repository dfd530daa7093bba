"""Predicted, resolved, observed: three columns on one engine, their differences and why they differ.

Pure: what the registry's facts give with the engine's own settings (`predicted_column`), what the engine said and what
was seen of it arrive as values. No figure here settles that a model fits; see `settle_fit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.memory import GIB, ByteRange
from gateway.domain.predicted_column import (
    CPU_BLOCK,
    DEFAULT_BLOCK,
    DEFAULT_UTILIZATION,
    Number,
    Predicted,
    Spread,
    each_of,
    overhead_of,
)
from gateway.domain.records import Provenance


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure and where it is from; None with the reason why it is unknown."""

    value: Number | str | None
    reason: str
    low: Number | None = None
    high: Number | None = None
    applies: bool = True
    """False where this column can say nothing of this figure, so that nothing is missing."""


@dataclass(frozen=True, slots=True)
class ColumnRow:
    """One figure in its three columns. `difference` is resolved - predicted, null where either is unknown."""

    figure: str
    unit: str
    predicted: Cell
    resolved: Cell
    observed: Cell
    difference: Number | None
    reason: str


@dataclass(frozen=True, slots=True)
class FitSettled:
    """Whether "fits" is settled for this engine: True, or None where it is open; never by a prediction."""

    fits: bool | None
    reason: str


# --- side by side -------------------------------------------------------------------------------------------


def compare_columns(
    predicted: Predicted, resolved: ResolvedEngine | None, observed: ObservedLoad | None, *, provenance: Provenance
) -> tuple[ColumnRow, ...]:
    """One row a figure. `predicted` is `predict`'s for this very engine; None: it was not read, or not looked at."""
    table = _Comparison(predicted, resolved, observed, provenance)
    return (
        table.weights(),
        table.overhead(),
        table.kv_budget(),
        table.block_size(),
        table.blocks(),
        table.kv_tokens(),
        table.max_concurrency(),
        table.context(),
        table.utilization(),
        table.kv_dtype(),
        table.running(),
        table.kv_usage(),
        table.preemptions(),
        table.queue(),
        table.hit_rate(),
    )


def settle_fit(resolved: ResolvedEngine | None, observed: ObservedLoad | None, *, provenance: Provenance) -> FitSettled:
    """Only an engine that started on the real weights and then stood a saturating load settles that they fit."""
    if provenance is not Provenance.REAL:
        return FitSettled(None, f"Open: the engine is {_kind(provenance)}, so nothing it does settles that it fits.")
    if resolved is None or not resolved.engines:
        return FitSettled(None, "Open: what the engine resolved at start could not be read.")
    if observed is None:
        return FitSettled(None, "Open: it started on the real weights, but no look at its metrics is known.")
    if not observed.is_saturated:
        return FitSettled(
            None,
            f"Open: it started on the real weights, but in {observed.looks:,} looks no load filled it: no request was "
            "preempted, its cache was never full, and no queue stood.",
        )
    if observed.restarts:
        return FitSettled(
            None, f"Open: a load filled it, but the engine began anew {observed.restarts} times meanwhile."
        )
    return FitSettled(
        True,
        f"Settled for this engine's settings and this load's lengths: it started on the real weights and stood a load "
        f"that filled it, with up to {_shown(observed.peak_running)} requests running and "
        f"{_shown(observed.preemptions)} preemptions in {observed.looks:,} looks.",
    )


def provenance_note(provenance: Provenance) -> str:
    """What all figures of an engine are worth, in a sentence."""
    match provenance:
        case Provenance.REAL:
            return "Real: the engine serves the registry's weights."
        case Provenance.STAND_IN:
            return (
                "Stand-in: the engine serves small random weights, so its figures are its own and not the model's; "
                "they show that the arithmetic is vLLM's and feed no calibration and no verdict."
            )
        case Provenance.SIMULATED:
            return (
                "Simulated: the engine computes what it resolves with the same arithmetic as the prediction, so that "
                "they agree proves nothing; its figures feed no calibration and no verdict."
            )
        case Provenance.UNKNOWN:
            return "Unknown: nothing proves what the engine serves; its figures feed no calibration and no verdict."


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The rows, each a method, over what is known."""

    predicted: Predicted
    engine: ResolvedEngine | None
    load: ObservedLoad | None
    provenance: Provenance

    # --- memory -----------------------------------------------------------------------------------------------

    def weights(self) -> ColumnRow:
        size = self.predicted.weights_bytes
        cell = Cell(None, "Neither the size of the weights nor parameters and number format are in the registry.")
        if size is not None:
            cell = Cell(_gib(size), "By the registry: the published size, else parameters × bytes of each.")
        return self._row(
            "weights",
            "GiB",
            cell,
            Cell(None, "vLLM does not say in its metrics how large its weights are."),
            reason=self._other_weights() or "Only the prediction is known.",
        )

    def overhead(self) -> ColumnRow:
        guess, actual = self.predicted.overhead, self._resolved_overhead()
        cell = Cell(None, "The width of the model is not in the registry.")
        if guess is not None:
            cell = _byte_cell(guess, "A guess: libraries, allocator, CUDA graphs and the activations of a full step.")
        if isinstance(actual, str):
            return self._row("overhead", "GiB", cell, Cell(None, actual), reason=actual)
        found = Cell(_gib(actual), "What vLLM asked the GPU for - weights (by the registry) - the KV cache it made.")
        return self._row("overhead", "GiB", cell, found, reason=self._overhead_reason(actual))

    def kv_budget(self) -> ColumnRow:
        budget, made = self.predicted.kv_bytes, self._resolved_kv_bytes()
        given = self.engine is not None and self.engine.kv_cache_memory_bytes is not None
        cell = Cell(None, "The GPU, its weights or its overhead are not known.")
        if budget is not None and given:
            cell = _byte_cell(budget, "As the engine was told with --kv-cache-memory-bytes.")
        elif budget is not None:
            cell = _byte_cell(budget, "Share of the GPU's memory - weights - overhead.")
        resolved = Cell(None, self._missing("num_gpu_blocks"))
        if made is not None:
            resolved = Cell(_gib(made), "The engine's blocks × the bytes of one by the registry's shape.")
        elif self.predicted.obstacle is not None and self._known("num_gpu_blocks") is not None:
            resolved = Cell(None, f"The bytes of a block are not known: {self.predicted.obstacle}.")
        return self._row("kv_budget", "GiB", cell, resolved, reason=self._budget_reason(given))

    def block_size(self) -> ColumnRow:
        said = self._known("block_size")
        cell = Cell(DEFAULT_BLOCK, "vLLM's default on GPUs; what follows is reckoned with the engine's own.")
        reason = f"Another block size: the engine has {said} tokens a block; all else is reckoned with it."
        if said is None:
            reason = "The engine does not say; the default is taken."
        elif said == DEFAULT_BLOCK:
            reason = "They agree."
        elif said == CPU_BLOCK and not self._is_given("user_specified_block_size", "True"):
            reason += " Nobody asked for it: it is vLLM's own on a CPU."
        return self._row("block_size", "tokens", cell, self._said("block_size"), reason=reason)

    def blocks(self) -> ColumnRow:
        return self._row(
            "blocks",
            "blocks",
            self._spread(self.predicted.blocks),
            self._said("num_gpu_blocks"),
            reason=self._capacity_reason("num_gpu_blocks", self.predicted.blocks),
        )

    def kv_tokens(self) -> ColumnRow:
        return self._row(
            "kv_tokens",
            "tokens",
            self._spread(self.predicted.kv_tokens),
            self._said("kv_cache_size_tokens"),
            reason=self._capacity_reason("kv_cache_size_tokens", self.predicted.kv_tokens),
        )

    def max_concurrency(self) -> ColumnRow:
        spread = self.predicted.max_concurrency
        return self._row(
            "max_concurrency",
            "requests of full length",
            self._spread(spread),
            self._said("kv_cache_max_concurrency"),
            reason=self._capacity_reason("kv_cache_max_concurrency", spread),
        )

    # --- settings ---------------------------------------------------------------------------------------------

    def context(self) -> ColumnRow:
        said, own = self._known("max_model_len"), self.predicted.context
        reason = "The engine does not say; the model's own limit is taken."
        if said is not None:
            reason = f"max_model_len is the engine's setting: requests of full length are of {said:,} tokens."
        cell = Cell(None, "No context length is known.")
        if own is not None:
            cell = Cell(own, "Taken from the engine." if said is not None else "The model's own limit.")
        return self._row("context", "tokens", cell, self._said("max_model_len"), reason=reason)

    def utilization(self) -> ColumnRow:
        said = self._known("gpu_memory_utilization")
        reason = "The engine does not say; the default is taken."
        if self.engine is not None and self.engine.kv_cache_memory_bytes is not None:
            reason = "It decides nothing here: the cache's memory was given with --kv-cache-memory-bytes."
        elif said is not None and said != DEFAULT_UTILIZATION:
            reason = f"Another utilization: the engine takes {said:g} of the memory; the budget is reckoned with it."
        elif said is not None:
            reason = "They agree."
        cell = Cell(DEFAULT_UTILIZATION, "vLLM's default since 0.22.")
        return self._row("gpu_memory_utilization", "share", cell, self._said("gpu_memory_utilization"), reason=reason)

    def kv_dtype(self) -> ColumnRow:
        said = self.engine.cache_dtype if self.engine is not None else None
        cell = Cell(self.predicted.dtype, "The model's own number format, unless the engine is told otherwise.")
        if cell.value is None:
            cell = Cell(None, "The registry has no shape of the model.")
        resolved = Cell(None, self._missing("cache_dtype")) if said is None else Cell(said, "As the engine says.")
        reason = "The engine keeps the model's own number format."
        if said is None:
            reason = "The engine does not say; the model's own number format is taken."
        elif said != "auto":
            reason = f"Another KV number format: the engine keeps it as {said}; a block's bytes are reckoned with it."
        return self._row("kv_dtype", "number format", cell, resolved, reason=reason)

    # --- load -------------------------------------------------------------------------------------------------

    def running(self) -> ColumnRow:
        most = self.predicted.max_concurrency
        predicted = self._spread(None if most is None else each_of(most, int))
        resolved = self._said("kv_cache_max_concurrency")
        if resolved.value is not None:
            resolved = Cell(int(float(resolved.value)), "Requests of full length at once; shorter ones are more.")
        return self._row("peak_running", "requests", predicted, resolved, "peak_running", reason=self._load_reason())

    def kv_usage(self) -> ColumnRow:
        reason = self._load_reason()
        if self.load is not None and self.load.is_saturated:
            reason = "A load filled the engine; see preemptions and queue."
        return self._observed("peak_kv_usage", "share", "peak_kv_usage", reason)

    def preemptions(self) -> ColumnRow:
        reason = self._load_reason()
        if self.load is not None and self.load.preemptions:
            reason = "Requests were preempted: the KV cache ran out, so its size is what limits this load."
        if self.load is not None and self.load.restarts:
            reason += f" The engine began anew {self.load.restarts} times; counts go on across that."
        return self._observed("preemptions", "times", "preemptions", reason)

    def queue(self) -> ColumnRow:
        reason = self._load_reason()
        if self.load is not None and self.load.looks_waiting:
            reason = f"Requests waited in the engine at {self.load.looks_waiting:,} of {self.load.looks:,} looks."
        return self._observed("peak_queue", "requests", "peak_waiting", reason)

    def hit_rate(self) -> ColumnRow:
        return self._observed(
            "prefix_cache_hit_rate", "share", "hit_rate", "It depends on the load alone, so nothing predicts it."
        )

    # --- parts ------------------------------------------------------------------------------------------------

    def _row(
        self,
        figure: str,
        unit: str,
        predicted: Cell,
        resolved: Cell,
        observed: str | None = None,
        *,
        reason: str,
    ) -> ColumnRow:
        seen = Cell(None, "Not a thing that a load shows.", applies=False) if observed is None else self._seen(observed)
        difference = None
        if isinstance(predicted.value, Number) and isinstance(resolved.value, Number):
            difference = round(resolved.value - predicted.value, 6)
        return ColumnRow(figure, unit, predicted, resolved, seen, difference, reason)

    def _observed(self, figure: str, unit: str, name: str, reason: str) -> ColumnRow:
        return self._row(
            figure,
            unit,
            Cell(None, "Not predicted: it depends on the load.", applies=False),
            Cell(None, "Not a setting of the engine.", applies=False),
            name,
            reason=reason,
        )

    def _seen(self, name: str) -> Cell:
        if self.load is None:
            return Cell(None, "No look at the engine's metrics is known for this span.")
        value = getattr(self.load, name)
        if value is None:
            return Cell(None, _sentence(self.load.why_unknown(name)))
        return Cell(value, f"Of {self.load.looks:,} looks.")

    def _said(self, name: str) -> Cell:
        value = self._known(name)
        return Cell(None, self._missing(name)) if value is None else Cell(value, "As the engine says.")

    def _known(self, name: str) -> Number | None:
        value: Number | None = None if self.engine is None else getattr(self.engine, name)
        return value

    def _missing(self, name: str) -> str:
        if self.engine is None:
            return "The engine was not asked yet."
        return _sentence(self.engine.why_unknown(name))

    def _is_given(self, label: str, value: str) -> bool:
        return self.engine is not None and dict(self.engine.labels).get(label) == value

    def _spread(self, spread: Spread | None) -> Cell:
        if spread is None:
            return Cell(None, _sentence(self.predicted.obstacle or "not enough is known"))
        if spread.is_exact:
            return Cell(spread.likely, "By the registry's shape and the engine's settings.")
        return Cell(
            spread.likely,
            "By the registry's shape and the engine's settings; the overhead is a guess.",
            spread.low,
            spread.high,
        )

    def _resolved_kv_bytes(self) -> int | None:
        return self.predicted.resolved_kv_bytes

    def _resolved_overhead(self) -> int | str:
        if self.engine is None:
            return "The engine was not asked yet."
        if self.provenance is not Provenance.REAL:
            return f"The engine is {_kind(self.provenance)}: its memory says nothing of the model's overhead."
        return overhead_of(self.predicted, self.engine)

    def _overhead_reason(self, actual: int) -> str:
        guess = self.predicted.overhead
        if guess is None:
            return "Only what the engine resolved is known."
        place = "within" if guess.low <= actual <= guess.high else "outside"
        return (
            f"The overhead was a guess: what the engine resolved lies {place} its range of "
            f"{_gib(guess.low):.1f} to {_gib(guess.high):.1f} GiB."
        )

    def _budget_reason(self, given: bool) -> str:
        if given:
            said = "The memory was given with --kv-cache-memory-bytes: no GPU's size and no overhead is in it."
            return f"{said} {self._other_weights()}".strip()
        made, budget = self._resolved_kv_bytes(), self.predicted.kv_bytes
        if made is None or budget is None:
            return "They cannot be compared: one of them is unknown."
        if _gib(made) == _gib(budget.likely):
            return "They agree."
        if other := self._other_weights():
            return other
        return "The difference is that between the guessed overhead and the engine's own, less a part of a block."

    def _other_weights(self) -> str:
        if self.provenance is Provenance.STAND_IN:
            return "The stand-in's weights are not the model's."
        if self.provenance is Provenance.UNKNOWN:
            return "Nothing proves that the engine's weights are the registry's."
        return ""

    def _capacity_reason(self, name: str, spread: Spread | None) -> str:
        """Why one of the three figures of the cache's size differs: layout, memory, or nothing."""
        said = self._known(name)
        if said is None:
            return self._missing(name)
        if spread is not None and abs(spread.likely - said) <= 1e-9 * abs(said):
            return "They agree: the arithmetic gives what the engine says."
        made = self.predicted.resolved_kv_tokens
        tokens = self._known("kv_cache_size_tokens")
        if made is not None and made == tokens:
            return self._memory_reason()
        if made is not None and tokens is not None:
            return (
                f"With the engine's own blocks the arithmetic gives {made:,} tokens, the engine says {tokens:,}: the "
                f"registry's shape or the tokens in flight that were assumed are not this engine's. "
                f"{self._other_weights()}"
            ).strip()
        if spread is None:
            return _sentence(self.predicted.obstacle or "not enough is known to predict it")
        return f"The engine does not say enough to tell memory and layout apart. {self._other_weights()}".strip()

    def _memory_reason(self) -> str:
        agreed = "With the engine's own number of blocks the arithmetic gives what the engine says"
        if self.predicted.blocks is None:
            return f"{agreed}; how many blocks there would be is not predicted: {self.predicted.obstacle}."
        if self.predicted.blocks.is_exact:
            return (
                f"{agreed}; but that many blocks are not what the memory given holds. {self._other_weights()}".strip()
            )
        return f"{agreed}: the whole difference is that of the memory, where the overhead is a guess."

    def _load_reason(self) -> str:
        if self.load is None:
            return "Nothing was observed."
        if self.load.is_saturated:
            return "A load filled the engine, so the peak is a limit of this load's lengths."
        return (
            f"No load filled the engine in {self.load.looks:,} looks, so the peak is no limit: it is what was asked of "
            "it, and what was higher between two looks is not seen."
        )


def _byte_cell(size: ByteRange, reason: str) -> Cell:
    if size.low == size.high:
        return Cell(_gib(size.likely), reason)
    return Cell(_gib(size.likely), reason, _gib(size.low), _gib(size.high))


def _gib(size: int) -> float:
    return round(size / GIB, 3)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].removesuffix('.')}."


def _shown(value: Number | None) -> str:
    return "an unknown number of" if value is None else f"{value:,}"


def _kind(provenance: Provenance) -> str:
    return {
        Provenance.STAND_IN: "a stand-in",
        Provenance.SIMULATED: "simulated",
        Provenance.UNKNOWN: "of unknown provenance",
        Provenance.REAL: "real",
    }[provenance]
