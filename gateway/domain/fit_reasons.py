"""What an estimate says in words: the budget, the overhead, what was left out, and how far its facts can be trusted.

Plain English sentences with figures of a case. The verdict and its own sentence belong to feasibility; every step with
its formula to derivation.
"""

from __future__ import annotations

from gateway.domain.memory import GIB
from gateway.domain.memory_case import MemoryCase
from gateway.domain.records import Confidence, Sourced


def figure_reasons(case: MemoryCase) -> list[str]:
    layout, overhead, plan = case.layout, case.overhead, case.plan
    stage = case.poorest_stage(case.weights, overhead.likely)
    available = case.kv_available(case.weights, overhead.likely)[stage]
    at_once = case.requests_held(case.weights, overhead.likely)
    own = case.stage_weights(case.weights)[stage]
    published = "the published" if plan.quantisation is None else f"{plan.quantisation}"
    reasons = [
        f"Budget: {plan.gpu_memory_utilization:g} × {gib_words(case.gpu.memory_bytes)} of memory - weights "
        f"{gib_words(own)}{f' of {gib_words(case.weights)}' if plan.gpus > 1 else ''} - overhead "
        f"{gib_words(overhead.likely)} = {gib_words(available)} for the KV cache"
        f"{' on each GPU' if plan.gpus > 1 else ''}.",
        _overhead_reason(case),
        f"KV cache: {gib_words(case.blocks_per_request * max(case.stage_block_bytes))} a request, in blocks of "
        f"{layout.effective_block(case.paging)} tokens; with {published} weights there is room for "
        f"{load_words(at_once, case.context)}.",
    ]
    if layout.window is not None:
        kind = "chunk" if case.shape.attention_chunk is not None else "window"
        reasons.append(
            f"{layout.window_layers} of {case.shape.layers} layers keep a {kind} of {layout.window:,} tokens "
            f"and up to {case.paging.tokens_in_flight:,} in flight; summed layer by layer, without vLLM's groups, "
            f"a request would take {gib_words(layout.plain_bytes(case.context))}."
        )
        if not plan.hybrid_kv:
            reasons.append("vLLM charges these layers as full attention here: its hybrid manager is off for them.")
    return reasons


def _overhead_reason(case: MemoryCase) -> str:
    overhead = case.overhead
    if case.plan.overhead_bytes is None:
        return f"The overhead is a guess between {gib_words(overhead.low)} and {gib_words(overhead.high)}."
    return (
        f"The overhead was measured on this GPU type: {gib_words(overhead.low)} to {gib_words(overhead.high)}, "
        f"likely {gib_words(overhead.likely)}."
    )


def caveats(case: MemoryCase, asked_context: int) -> list[str]:
    model, reasons = case.model, []
    if asked_context > case.context:
        reasons.append(f"{asked_context:,} tokens were asked for; the model takes {case.context:,} at most.")
    if case.shape.context is None:
        reasons.append("The model's own context limit is unknown; the asked context was taken as its limit.")
    if plan_cut := _cut_caveat(case):
        reasons.append(plan_cut)
    if case.shape.params is None:
        reasons.append("Quantised weights were not tried: the parameter count is unknown.")
    if "vision" in model.capabilities:
        reasons.append("The memory peak of the image encoder is not included.")
    if not model.is_servable:
        why = f" ({model.serving.reason.rstrip('.')})" if model.serving.reason else ""
        reasons.append(f"By size only: no supported engine serves this model{why}.")
    return reasons


def _cut_caveat(case: MemoryCase) -> str | None:
    known = case.shape.hidden and case.shape.vocab and case.shape.layers
    if case.plan.gpus == 1 or known:
        return None
    return "Weights were cut evenly over the GPUs: hidden and vocab, which tell what is whole on each, are unknown."


def confidence_of(case: MemoryCase) -> tuple[Confidence, list[str]]:
    """The lowest confidence among the facts used, and a sentence that names the low ones."""
    facts = _facts_used(case)
    ranks = {name: fact.confidence if fact is not None else Confidence.LOW for name, fact in facts.items()}
    order = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
    lowest = min(ranks.values(), key=order.index)
    low = [name for name, confidence in ranks.items() if confidence is Confidence.LOW]
    return lowest, [f"Low confidence or no source: {', '.join(low)}."] if low else []


def _facts_used(case: MemoryCase) -> dict[str, Sourced | None]:
    shape, weights = case.shape, case.model.weights
    names = ["layers"]
    names += ["kv_heads", "head_dim"] if shape.mla is None else ["mla"]
    names += ["heads", "head_dim"] if shape.heads and shape.head_dim else ["hidden"]
    names += ["sliding_window", "global_layers"] if shape.sliding_window is not None else []
    names += ["attention_chunk", "global_layers"] if shape.attention_chunk is not None else []
    names += ["linear"] if shape.linear is not None else []
    names += ["v_head_dim"] if shape.mla is None and shape.v_head_dim is not None else []
    names += ["context"] if shape.context is not None else []
    facts: dict[str, Sourced | None] = {"gpu": case.gpu.sourced}
    if weights.size_bytes and case.plan.quantisation is None:
        facts["weights.size_bytes"] = weights.sourced
    else:
        names.append("params")
    return facts | {name: shape.facts.get(name) for name in names}


def gib_words(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def gpu_words(case: MemoryCase) -> str:
    return f"one {case.gpu.name}" if case.plan.gpus == 1 else f"{case.plan.gpus} {case.gpu.name}"


def load_words(concurrency: int, context: int) -> str:
    plural = "request" if concurrency == 1 else "requests"
    return f"{concurrency:,} {plural} of {context:,} tokens"
