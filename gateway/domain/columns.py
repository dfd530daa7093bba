"""Predicted, resolved, observed: three columns on one engine, their differences and why they differ.

Pure: what the registry's facts give with the engine's own settings (`predicted_column`), what the engine said and what
was seen of it arrive as values. Why they differ is said in `column_reasons`; no figure here settles that a model fits,
see `settled_fit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.column_reasons import EngineFindings, as_sentence, in_gib
from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.memory import ByteRange
from gateway.domain.predicted_column import (
    CPU_BLOCK,
    DEFAULT_BLOCK,
    DEFAULT_UTILIZATION,
    Number,
    Predicted,
    Spread,
    each_of,
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


# --- side by side -------------------------------------------------------------------------------------------


def compare_columns(
    predicted: Predicted, resolved: ResolvedEngine | None, observed: ObservedLoad | None, *, provenance: Provenance
) -> tuple[ColumnRow, ...]:
    """One row a figure. `predicted` is `predict`'s for this very engine; None: it was not read, or not looked at."""
    table = _Rows(EngineFindings(predicted, resolved, observed, provenance))
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


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows, each a method, over what is known."""

    found: EngineFindings

    # --- memory -----------------------------------------------------------------------------------------------

    def weights(self) -> ColumnRow:
        size = self.found.predicted.weights_bytes
        cell = Cell(None, "Neither the size of the weights nor parameters and number format are in the registry.")
        if size is not None:
            cell = Cell(in_gib(size), "By the registry: the published size, else parameters × bytes of each.")
        return self._row(
            "weights",
            "GiB",
            cell,
            Cell(None, "vLLM does not say in its metrics how large its weights are."),
            reason=self.found.other_weights() or "Only the prediction is known.",
        )

    def overhead(self) -> ColumnRow:
        guess, actual = self.found.predicted.overhead, self.found.resolved_overhead()
        cell = Cell(None, "The width of the model is not in the registry.")
        if guess is not None:
            cell = _byte_cell(guess, "A guess: libraries, allocator, CUDA graphs and the activations of a full step.")
        if isinstance(actual, str):
            return self._row("overhead", "GiB", cell, Cell(None, actual), reason=actual)
        found = Cell(in_gib(actual), "What vLLM asked the GPU for - weights (by the registry) - the KV cache it made.")
        return self._row("overhead", "GiB", cell, found, reason=self.found.overhead_reason(actual))

    def kv_budget(self) -> ColumnRow:
        budget, made = self.found.predicted.kv_bytes, self.found.predicted.resolved_kv_bytes
        given = self.found.engine is not None and self.found.engine.kv_cache_memory_bytes is not None
        cell = Cell(None, "The GPU, its weights or its overhead are not known.")
        if budget is not None and given:
            cell = _byte_cell(budget, "As the engine was told with --kv-cache-memory-bytes.")
        elif budget is not None:
            cell = _byte_cell(budget, "Share of the GPU's memory - weights - overhead.")
        resolved = Cell(None, self.found.why_missing("num_gpu_blocks"))
        if made is not None:
            resolved = Cell(in_gib(made), "The engine's blocks × the bytes of one by the registry's shape.")
        elif self.found.predicted.obstacle is not None and self.found.resolved("num_gpu_blocks") is not None:
            resolved = Cell(None, f"The bytes of a block are not known: {self.found.predicted.obstacle}.")
        return self._row("kv_budget", "GiB", cell, resolved, reason=self.found.budget_reason(given))

    def block_size(self) -> ColumnRow:
        said = self.found.resolved("block_size")
        cell = Cell(DEFAULT_BLOCK, "vLLM's default on GPUs; what follows is reckoned with the engine's own.")
        reason = f"Another block size: the engine has {said} tokens a block; all else is reckoned with it."
        if said is None:
            reason = "The engine does not say; the default is taken."
        elif said == DEFAULT_BLOCK:
            reason = "They agree."
        elif said == CPU_BLOCK and not self.found.is_given("user_specified_block_size", "True"):
            reason += " Nobody asked for it: it is vLLM's own on a CPU."
        return self._row("block_size", "tokens", cell, self._said("block_size"), reason=reason)

    def blocks(self) -> ColumnRow:
        return self._capacity("blocks", "blocks", "num_gpu_blocks", self.found.predicted.blocks)

    def kv_tokens(self) -> ColumnRow:
        return self._capacity("kv_tokens", "tokens", "kv_cache_size_tokens", self.found.predicted.kv_tokens)

    def max_concurrency(self) -> ColumnRow:
        spread = self.found.predicted.max_concurrency
        return self._capacity("max_concurrency", "requests of full length", "kv_cache_max_concurrency", spread)

    # --- settings ---------------------------------------------------------------------------------------------

    def context(self) -> ColumnRow:
        said, own = self.found.resolved("max_model_len"), self.found.predicted.context
        reason = "The engine does not say; the model's own limit is taken."
        if said is not None:
            reason = f"max_model_len is the engine's setting: requests of full length are of {said:,} tokens."
        cell = Cell(None, "No context length is known.")
        if own is not None:
            cell = Cell(own, "Taken from the engine." if said is not None else "The model's own limit.")
        return self._row("context", "tokens", cell, self._said("max_model_len"), reason=reason)

    def utilization(self) -> ColumnRow:
        said = self.found.resolved("gpu_memory_utilization")
        reason = "The engine does not say; the default is taken."
        if self.found.engine is not None and self.found.engine.kv_cache_memory_bytes is not None:
            reason = "It decides nothing here: the cache's memory was given with --kv-cache-memory-bytes."
        elif said is not None and said != DEFAULT_UTILIZATION:
            reason = f"Another utilization: the engine takes {said:g} of the memory; the budget is reckoned with it."
        elif said is not None:
            reason = "They agree."
        cell = Cell(DEFAULT_UTILIZATION, "vLLM's default since 0.22.")
        return self._row("gpu_memory_utilization", "share", cell, self._said("gpu_memory_utilization"), reason=reason)

    def kv_dtype(self) -> ColumnRow:
        said = self.found.engine.cache_dtype if self.found.engine is not None else None
        cell = Cell(self.found.predicted.dtype, "The model's own number format, unless the engine is told otherwise.")
        if cell.value is None:
            cell = Cell(None, "The registry has no shape of the model.")
        resolved = (
            Cell(None, self.found.why_missing("cache_dtype")) if said is None else Cell(said, "As the engine says.")
        )
        reason = "The engine keeps the model's own number format."
        if said is None:
            reason = "The engine does not say; the model's own number format is taken."
        elif said != "auto":
            reason = f"Another KV number format: the engine keeps it as {said}; a block's bytes are reckoned with it."
        return self._row("kv_dtype", "number format", cell, resolved, reason=reason)

    # --- load -------------------------------------------------------------------------------------------------

    def running(self) -> ColumnRow:
        most = self.found.predicted.max_concurrency
        predicted = self._spread(None if most is None else each_of(most, int))
        resolved = self._said("kv_cache_max_concurrency")
        if resolved.value is not None:
            resolved = Cell(int(float(resolved.value)), "Requests of full length at once; shorter ones are more.")
        return self._row(
            "peak_running", "requests", predicted, resolved, "peak_running", reason=self.found.load_reason()
        )

    def kv_usage(self) -> ColumnRow:
        reason, load = self.found.load_reason(), self.found.load
        if load is not None and load.is_saturated:
            reason = "A load filled the engine; see preemptions and queue."
        return self._observed("peak_kv_usage", "share", "peak_kv_usage", reason)

    def preemptions(self) -> ColumnRow:
        reason, load = self.found.load_reason(), self.found.load
        if load is not None and load.preemptions:
            reason = "Requests were preempted: the KV cache ran out, so its size is what limits this load."
        if load is not None and load.restarts:
            reason += f" The engine began anew {load.restarts} times; counts go on across that."
        return self._observed("preemptions", "times", "preemptions", reason)

    def queue(self) -> ColumnRow:
        reason, load = self.found.load_reason(), self.found.load
        if load is not None and load.looks_waiting:
            reason = f"Requests waited in the engine at {load.looks_waiting:,} of {load.looks:,} looks."
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

    def _capacity(self, figure: str, unit: str, name: str, spread: Spread | None) -> ColumnRow:
        """One of the three figures of the cache's size; `name` is the engine's own."""
        reason = self.found.capacity_reason(name, spread)
        return self._row(figure, unit, self._spread(spread), self._said(name), reason=reason)

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
        if self.found.load is None:
            return Cell(None, "No look at the engine's metrics is known for this span.")
        value = getattr(self.found.load, name)
        if value is None:
            return Cell(None, as_sentence(self.found.load.why_unknown(name)))
        return Cell(value, f"Of {self.found.load.looks:,} looks.")

    def _said(self, name: str) -> Cell:
        value = self.found.resolved(name)
        return Cell(None, self.found.why_missing(name)) if value is None else Cell(value, "As the engine says.")

    def _spread(self, spread: Spread | None) -> Cell:
        if spread is None:
            return Cell(None, as_sentence(self.found.predicted.obstacle or "not enough is known"))
        if spread.is_exact:
            return Cell(spread.likely, "By the registry's shape and the engine's settings.")
        return Cell(
            spread.likely,
            "By the registry's shape and the engine's settings; the overhead is a guess.",
            spread.low,
            spread.high,
        )


def _byte_cell(size: ByteRange, reason: str) -> Cell:
    if size.low == size.high:
        return Cell(in_gib(size.likely), reason)
    return Cell(in_gib(size.likely), reason, in_gib(size.low), in_gib(size.high))
