"""The feasibility page in English. What each sentence is for stands in `fields`."""

from __future__ import annotations

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Gap, Units
from gateway.domain.records import Confidence
from gateway.matrix_words.fields import Words

ENGLISH = Words(
    title="Which candidate models run on one GPU: predicted (not measured)",
    title_many="Which candidate models run on {gpus} GPUs together: predicted (not measured)",
    kicker="Simsa · infrastructure realism",
    load_one="Judged for one request at a time of {context} tokens, prompt and answer together.",
    load_many="Judged for {count} requests at once, each of {context} tokens, prompt and answer together.",
    brief="Assumed: vLLM uses {utilisation} of the memory; the overhead is {overhead}; "
    "the KV cache is in {kv_dtype}. More under “What is assumed”.",
    summary="{known} of {total} models have enough published facts for a verdict. The other {unknown} stay unknown, "
    "each with its reason.",
    made="Made on {date}",
    registry="Facts as of {as_of}, registry {sha}",
    no_date="no date",
    contents="Number formats",
    legend="How to read a cell",
    verdicts={
        Verdict.FITS: "Fits",
        Verdict.FITS_QUANTISED: "Fits only as {format}",
        Verdict.FITS_SHORT_CONTEXT: "Fits only with a shorter context",
        Verdict.NO: "Does not fit",
        Verdict.UNKNOWN: "Unknown",
    },
    legend_of={
        Verdict.FITS: "Fits. ×5 means that memory holds five such requests at once.",
        Verdict.FITS_QUANTISED: "Fits only with smaller weights, in the format shown.",
        Verdict.FITS_SHORT_CONTEXT: "Fits only with a shorter context; shown are the most tokens a request may have "
        "at the number of requests asked.",
        Verdict.NO: "Does not fit. Shown is the fewest GPUs of this type that together hold it, of 2, 4, 8, 16, 32 "
        "and 64 by tensor parallelism (other numbers were not tried); a dash where none of them does.",
        Verdict.UNKNOWN: "Unknown: a fact that the arithmetic needs is not published. The reason is in the row.",
    },
    also_as="{verdict}, and only as {format}",
    legend_room="Second line: memory left over with this load, in GiB; with a minus sign, memory that is missing.",
    legend_borderline="Dashed line: borderline. The verdict turns within the range of the overhead.",
    legend_confidence="Ring in the corner: rests on a fact of low confidence.",
    by_size="by size only",
    legend_by_size="“by size only”: no supported engine serves this model, so the verdict is about memory alone.",
    units={Units.NATIVE: "", Units.WEIGHT_ONLY: "weights only", Units.UNLISTED: "speed unlisted"},
    units_of={
        Units.NATIVE: "",
        Units.WEIGHT_ONLY: "“weights only”: the GPU does not compute in this format. Smaller weights save memory and "
        "reading time; arithmetic stays at 16 bits.",
        Units.UNLISTED: "“speed unlisted”: the registry has no arithmetic speed for this format. The ceiling allows "
        "for the fastest that the width permits; the expectation counts on the units that are listed.",
    },
    quantisations={
        "published": "As published",
        "bf16": "BF16 (16 bits)",
        "fp8": "FP8 (8-bit floating point)",
        "int8": "INT8 (8-bit integers)",
        "int4": "INT4 (4 bits, GPTQ style)",
        "awq": "AWQ (4 bits with zero points)",
        "nvfp4": "NVFP4 (4-bit floating point)",
        "mxfp4": "MXFP4 (4-bit floating point)",
    },
    panel_units="All GPUs here: {flag}.",
    others_unknown="{count} models without a verdict are not drawn again; the first figure and the list below have "
    "them.",
    figure="Heat map, weights {format}: rows are models by consortium, columns are GPUs from small to large memory. "
    "The same figures stand in the table below it.",
    scroll="Figure, scrolls sideways",
    gpus_least="{count} GPUs",
    table="All figures as a table",
    table_caption="Weights {format}: every figure is predicted",
    columns={
        "model": "Model",
        "gpu": "GPU",
        "verdict": "Verdict",
        "headroom": "Memory left, GiB (low / likely / high)",
        "context": "Longest context of one request",
        "context_at": "Longest context at the number of requests asked",
        "at_once": "Most requests at once",
        "gpus": "Fewest GPUs (powers of two)",
        "speed": "Tokens/s as asked: expected (ceiling)",
        "cost": "Cost per million output tokens as asked",
        "full_speed": "Tokens/s when full: expected (ceiling), requests",
        "full_cost": "Cost per million output tokens when full",
        "confidence": "Confidence",
        "reason": "Reason",
    },
    confidence={Confidence.HIGH: "high", Confidence.MEDIUM: "medium", Confidence.LOW: "low"},
    unknown="unknown",
    unknown_heading="What cannot be judged, and why",
    unknown_lead="Unknown is not “no”. Where the checkpoint’s config.json is at hand, it closes most of these gaps.",
    unknown_none="Every model here has a verdict.",
    gaps={
        Gap.NO_WEIGHTS: "No public weights: nothing can be said about a GPU of one’s own.",
        Gap.NO_SHAPE: "The model’s shape (layers, KV heads, head size) is not published.",
        Gap.FACTS: "Not published, or not usable: {facts}.",
        Gap.CONTRADICTORY: "The facts in the registry contradict each other.",
        Gap.PLAN: "vLLM does not start this model on so many GPUs, or with this format of the KV cache.",
    },
    facts={
        "layers": "number of layers",
        "kv_heads": "KV heads",
        "head_dim": "head size",
        "heads": "attention heads",
        "heads, head_dim": "attention heads and head size, or hidden size",
        "params": "parameter count",
        "active_params": "active parameters",
        "global_layers": "layers with full attention",
        "sliding_window": "sliding window",
        "sliding_window or attention_chunk": "size of the window or chunk",
        "attention_chunk": "size of the chunk",
        "linear.layers": "number of state layers",
        "linear.state_bytes": "size of a layer’s state",
        "mla.kv_lora_rank": "size of the latent",
        "mla.qk_rope_head_dim": "size of the rotary part",
        "context": "context limit",
        "weights.dtype": "number format of the weights",
    },
    no_speed="does not fit as asked, so it has no speed here",
    no_speed_facts="needs {facts}",
    no_price="no listed price",
    mixed_prices="prices in several currencies and no exchange rate",
    no_consortium="Without a consortium",
    gpus_heading="The GPUs",
    gpu_columns={
        "gpu": "GPU",
        "memory": "Memory, GiB",
        "bandwidth": "Bandwidth, TB/s",
        "bf16": "BF16, TFLOPS",
        "fp8": "FP8, TFLOPS",
        "price": "Listed price per GPU hour",
        "note": "Note of the registry",
    },
    assumptions_heading="What is assumed",
    assumptions=(
        "Everything here is predicted from published facts. Nothing was run. Only starting the engine on the GPU, "
        "under a load that fills it, settles whether a model fits.",
        "Memory is shared out the way vLLM does it: {utilisation} of the GPU’s memory, less weights, less overhead, "
        "is the KV cache, in blocks of {block} tokens with keys and values in {kv_dtype}.",
        "The overhead (activations, CUDA graphs, libraries), by model and GPU, is {overhead}. "
        "Verdicts take the likely value; a dashed line marks those that the range could turn.",
        "Devices that vLLM does not serve as it serves NVIDIA GPUs are judged by size alone: see the notes in the "
        "table of GPUs.",
        "Other formats than the published one are worked out from the parameter count, with embeddings left in 16 "
        "bits. Whether such a checkpoint exists, and answers as well, is another question.",
        "Tokens per second are for decoding alone, every request with its whole context in cache. The ceiling is at "
        "the data sheet’s peak, with all weights in the format and the fastest units that its width permits: no engine "
        "beats it; “?” where a fact is unknown that it needs. The expectation takes 0.8 of the bandwidth and 0.5 of "
        "the arithmetic; it proves nothing.",
        "Cost is the GPU’s lowest to highest listed price at the expected rate, kept up around the clock. Idle time "
        "comes on top, and so does reading prompts. “When full” is the most requests that memory holds, and that vLLM "
        "takes at once by default.",
    ),
    overhead_is={
        "guess": "a guess of {low} to {high} GiB",
        "measured": "measured on this type of GPU, {low} to {high} GiB",
        "both": "measured for some types of GPU and for others a guess, {low} to {high} GiB",
    },
    assumption_many="{gpus} GPUs share each model by tensor parallelism. The ceiling lets them talk in no time, and "
    "so does the expectation: real engines are slower.",
    sixteen_bits="16 bits",
    tip_headroom="memory left {low} / {likely} / {high} GiB (low / likely / high)",
    tip_context="longest context of one request {tokens} tokens",
    tip_context_at="longest context of {requests} at once {tokens} tokens",
    tip_at_once="most requests at once {count}",
    tip_speed="{expected} tokens/s expected, ceiling {ceiling}, with {requests} at once",
    tip_cost="{low}–{high} {currency} per million output tokens at that rate",
    tip_confidence="confidence {confidence}",
)
