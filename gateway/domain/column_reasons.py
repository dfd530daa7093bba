"""Why predicted, resolved and observed differ: what is known of one engine, and the sentence for each kind of figure.

The figures themselves are set side by side in `columns`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.engine_facts import ObservedLoad, ResolvedEngine
from gateway.domain.memory import GIB
from gateway.domain.predicted_column import Number, Predicted, Spread, overhead_of
from gateway.domain.records import Provenance
from gateway.domain.settled_fit import kind_of


@dataclass(frozen=True, slots=True)
class EngineFindings:
    """What was predicted for an engine, what it resolved, what a load showed, and what it serves."""

    predicted: Predicted
    engine: ResolvedEngine | None
    load: ObservedLoad | None
    provenance: Provenance

    def resolved(self, name: str) -> Number | None:
        """The engine's own figure of this name; None where it does not say, or was not asked."""
        value: Number | None = None if self.engine is None else getattr(self.engine, name)
        return value

    def why_missing(self, name: str) -> str:
        if self.engine is None:
            return "The engine was not asked yet."
        return as_sentence(self.engine.why_unknown(name))

    def is_given(self, label: str, value: str) -> bool:
        """Whether a label of the engine's cache_config_info has this value."""
        return self.engine is not None and dict(self.engine.labels).get(label) == value

    def resolved_overhead(self) -> int | str:
        """Bytes beside weights and KV cache, or one sentence that says why they are not known."""
        if self.engine is None:
            return "The engine was not asked yet."
        if self.provenance is not Provenance.REAL:
            return f"The engine is {kind_of(self.provenance)}: its memory says nothing of the model's overhead."
        return overhead_of(self.predicted, self.engine)

    def overhead_reason(self, actual: int) -> str:
        guess = self.predicted.overhead
        if guess is None:
            return "Only what the engine resolved is known."
        place = "within" if guess.low <= actual <= guess.high else "outside"
        return (
            f"The overhead was a guess: what the engine resolved lies {place} its range of "
            f"{in_gib(guess.low):.1f} to {in_gib(guess.high):.1f} GiB."
        )

    def budget_reason(self, given: bool) -> str:
        if given:
            said = "The memory was given with --kv-cache-memory-bytes: no GPU's size and no overhead is in it."
            return f"{said} {self.other_weights()}".strip()
        made, budget = self.predicted.resolved_kv_bytes, self.predicted.kv_bytes
        if made is None or budget is None:
            return "They cannot be compared: one of them is unknown."
        if in_gib(made) == in_gib(budget.likely):
            return "They agree."
        if other := self.other_weights():
            return other
        return "The difference is that between the guessed overhead and the engine's own, less a part of a block."

    def other_weights(self) -> str:
        """Why the engine's weights need not be the model's; nothing where they are."""
        if self.provenance is Provenance.STAND_IN:
            return "The stand-in's weights are not the model's."
        if self.provenance is Provenance.UNKNOWN:
            return "Nothing proves that the engine's weights are the registry's."
        return ""

    def capacity_reason(self, name: str, spread: Spread | None) -> str:
        """Why one of the three figures of the cache's size differs: layout, memory, or nothing."""
        said = self.resolved(name)
        if said is None:
            return self.why_missing(name)
        if spread is not None and abs(spread.likely - said) <= 1e-9 * abs(said):
            return "They agree: the arithmetic gives what the engine says."
        made = self.predicted.resolved_kv_tokens
        tokens = self.resolved("kv_cache_size_tokens")
        if made is not None and made == tokens:
            return self._memory_reason()
        if made is not None and tokens is not None:
            return (
                f"With the engine's own blocks the arithmetic gives {made:,} tokens, the engine says {tokens:,}: the "
                f"registry's shape or the tokens in flight that were assumed are not this engine's. "
                f"{self.other_weights()}"
            ).strip()
        if spread is None:
            return as_sentence(self.predicted.obstacle or "not enough is known to predict it")
        return f"The engine does not say enough to tell memory and layout apart. {self.other_weights()}".strip()

    def _memory_reason(self) -> str:
        agreed = "With the engine's own number of blocks the arithmetic gives what the engine says"
        if self.predicted.blocks is None:
            return f"{agreed}; how many blocks there would be is not predicted: {self.predicted.obstacle}."
        if self.predicted.blocks.is_exact:
            return f"{agreed}; but that many blocks are not what the memory given holds. {self.other_weights()}".strip()
        return f"{agreed}: the whole difference is that of the memory, where the overhead is a guess."

    def load_reason(self) -> str:
        if self.load is None:
            return "Nothing was observed."
        if self.load.is_saturated:
            return "A load filled the engine, so the peak is a limit of this load's lengths."
        return (
            f"No load filled the engine in {self.load.looks:,} looks, so the peak is no limit: it is what was asked of "
            "it, and what was higher between two looks is not seen."
        )


def in_gib(size: int) -> float:
    """Gibibytes to three decimals, which is what counts as agreement."""
    return round(size / GIB, 3)


def as_sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:].removesuffix('.')}."
