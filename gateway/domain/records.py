"""The facts that the whole system exchanges, as frozen values.

Everything that crosses a module's border is one of these. No behaviour beyond trivial derivation belongs here,
and nothing that reads a clock, a file or the network. Money is Decimal, spans are float seconds from a monotonic
clock, sizes are integer bytes, moments are aware UTC. Unknown is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple


class Provenance(StrEnum):
    """What an answer comes from; read from the engine's own replies, never from the registry."""

    REAL = "real"
    """The registry's weights, on the hardware named."""
    STAND_IN = "stand_in"
    """A real engine with the project's tiny random weights."""
    SIMULATED = "simulated"
    """The simulated engine."""
    UNKNOWN = "unknown"
    """Nothing that the engine says, or where it stands, proves what it is."""


class Priority(StrEnum):
    """Whose calls go first where engines are full, in this order."""

    REVIEWER = "reviewer"
    INTERACTIVE = "interactive"
    BATCH = "batch"
    LOAD_TEST = "load_test"


class Confidence(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Sourced:
    """Where a registry fact came from. `source` is a key of the registry's `sources` table or plain words."""

    source: str
    confidence: Confidence
    note: str | None = None


# --- candidates ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProgrammeEvent:
    """One dated step of a consortium through the programme, e.g. selected, passed, out."""

    on: date
    status: str
    sourced: Sourced


@dataclass(frozen=True, slots=True)
class CandidateNames:
    """What a consortium and its models are called, for blind review: see `lexicon`."""

    latin: tuple[str, ...] = ()
    """Names of its models and products in Latin letters."""
    hangul: tuple[str, ...] = ()
    company: tuple[str, ...] = ()
    """Names of its organisations, in any script."""
    ordinary: tuple[str, ...] = ()
    """Those among `latin` and `hangul` that are everyday words as well."""


@dataclass(frozen=True, slots=True)
class Consortium:
    id: str
    name_ko: str
    name_en: str
    programme_status: str
    """in | out | not_selected | unknown, as of the registry's date."""
    events: tuple[ProgrammeEvent, ...] = ()
    partners: tuple[str, ...] = ()
    demand_organisations: tuple[str, ...] = ()
    gpu_supply: str | None = None
    focus: str | None = None
    sourced: Sourced | None = None
    claims: tuple[Claim, ...] = ()
    """What is claimed of no single model."""
    names: CandidateNames = CandidateNames()


@dataclass(frozen=True, slots=True)
class MlaShape:
    """Multi-head latent attention: one compressed latent per token and layer, shared by all heads."""

    kv_lora_rank: int
    qk_rope_head_dim: int
    q_lora_rank: int | None = None
    index_head_dim: int | None = None
    """Key size of the sparse indexer, which keeps a cache of its own; None without one."""


@dataclass(frozen=True, slots=True)
class MoeShape:
    experts: int
    experts_per_token: int
    shared_experts: int = 0
    expert_ffn: int | None = None
    dense_layers: int = 0


@dataclass(frozen=True, slots=True)
class LinearShape:
    """Layers that keep a state of constant size instead of a KV cache: state-space or linear attention."""

    layers: int
    state_bytes: int | None = None
    """Bytes of one request's state in one such layer, on one GPU without tensor parallelism; None = unknown."""


@dataclass(frozen=True, slots=True)
class VisionShape:
    """The image encoder of a model that takes images. Its parameters are among the model's `params`."""

    params: int | None = None
    layers: int | None = None
    hidden: int | None = None
    image_tokens: int | None = None
    """Most tokens that one image becomes."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What arithmetic needs to know about a checkpoint. None = unknown."""

    params: int | None = None
    active_params: int | None = None
    """Parameters read per token; equals `params` for dense models. None for a mixture whose share is unknown."""
    layers: int | None = None
    hidden: int | None = None
    ffn: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    """Size of a key; of a value too unless `v_head_dim` says otherwise."""
    v_head_dim: int | None = None
    """Size of a value where it is not that of a key."""
    vocab: int | None = None
    tied_embeddings: bool | None = None
    context: int | None = None
    sliding_window: int | None = None
    """Window in tokens of the local layers, None when there are none."""
    attention_chunk: int | None = None
    """Tokens of a chunk where the local layers see their own chunk alone, instead of a window."""
    global_layers: int | None = None
    """Layers with full attention; equals `layers` when there are no local or linear ones."""
    mla: MlaShape | None = None
    moe: MoeShape | None = None
    linear: LinearShape | None = None
    """Among `layers`; neither global nor local."""
    vision: VisionShape | None = None
    dtype: str = "bfloat16"
    facts: Mapping[str, Sourced] = field(default_factory=dict)
    """Source and confidence by field name."""

    @property
    def is_dense(self) -> bool:
        return self.moe is None


@dataclass(frozen=True, slots=True)
class Licence:
    id: str | None
    commercial: bool | None
    """True, False, or None where nobody has read the terms."""
    notice: str | None = None
    sourced: Sourced | None = None


@dataclass(frozen=True, slots=True)
class ReasoningSwitch:
    """How a request turns reasoning on or off: a chat_template_kwargs name, or a body field."""

    name: str
    place: str
    """chat_template_kwargs | body"""
    default: str | None
    sourced: Sourced | None = None


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """List price of a hosted API, per million tokens, before tax."""

    currency: str
    input_per_mtok: Decimal
    output_per_mtok: Decimal
    cached_input_per_mtok: Decimal | None = None
    on: date | None = None
    sourced: Sourced | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement somebody made about a model or a consortium, to be answered with evidence. None = not said."""

    id: str
    text: str
    metric: str | None
    """A name of `claims.METRICS`, which says what each means; None where nothing here can test it."""
    value: Decimal | None
    unit: str | None
    gpu: str | None
    gpus: int | None
    sourced: Sourced
    comparison: str | None = None
    """at_most | at_least | equals; None = the metric's own."""
    statistic: str | None = None
    """p50 | p95 | p99 | mean | attainment."""
    attainment_percent: Decimal | None = None
    """With the statistic attainment: the share of offered requests that meet the value."""
    quantisation: str | None = None
    """Number format of the weights."""
    kv_dtype: str | None = None
    """Number format of the KV cache: bf16, fp16 or fp8."""
    context_tokens: int | None = None
    """Longest request, prompt and answer."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Of the input, those kept from earlier requests; None is read as none."""
    concurrency: int | None = None
    """Requests in flight, closed loop."""
    rate_per_s: Decimal | None = None
    """Requests offered a second, open loop."""
    accepted_length: Decimal | None = None
    """Tokens a decode step gives one request under speculation; None is read as 1, without speculation."""
    said_by: str | None = None
    on: date | None = None
    """When it was said."""
    original: str | None = None
    """Its words in the original language."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The four limits on waiting, in seconds. There is no "never"."""

    connect_s: float = 2.0
    first_token_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 1800.0


class EngineAddress(NamedTuple):
    """Where an engine is asked, and with which key."""

    url: str
    base_path: str
    api_key_env: str | None


DCGM_ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
"""NVIDIA's DCGM exporter up to 4.8: mJ since the driver was loaded."""


@dataclass(frozen=True, slots=True)
class EnergyMeter:
    """Where the energy counters of a replica's GPUs stand: an exporter's page, and which of its counters are theirs."""

    url: str
    gpus: tuple[str, ...]
    """By the exporter's labels: a GPU's index on its machine, or its UUID."""
    metric: str = DCGM_ENERGY
    millijoules_each: int = 1
    """What one unit of the counter is."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine address that serves a model: `url` + `base_path` + "/chat/completions"; `url` ends without a slash."""

    id: str
    """Unique in the registry: "<model id>/<n>" unless named, so another replica's after a change of the list."""
    model_id: str
    url: str
    weight: float = 1.0
    gpu: str | None = None
    gpus: int = 1
    host: str | None = None
    """What physically serves it: two replicas with the same host share hardware. None = the url's host name."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the upstream key."""
    base_path: str = "/v1"
    """What stands between `url` and `/chat/completions`."""
    max_in_flight: int | None = None
    """Most calls at a time; None = the gateway's setting."""
    energy: EnergyMeter | None = None

    @property
    def address(self) -> EngineAddress:
        """What makes it the same engine, whatever else the registry says of it and wherever it says so."""
        return EngineAddress(self.url, self.base_path, self.api_key_env)


class RecordType(StrEnum):
    """The DNS records that hold addresses."""

    A = "A"
    AAAA = "AAAA"


@dataclass(frozen=True, slots=True)
class NamedReplicas:
    """Replicas behind a DNS name: each address that it has is one, like `pattern` but for where it stands."""

    name: str
    port: int
    pattern: Replica
    """What the entry says of each; its own address is the name's, at which nobody is asked."""
    record_types: tuple[RecordType, ...] = (RecordType.A, RecordType.AAAA)

    def at(self, address: str) -> Replica:
        """The replica at one address. Its id holds the address, so it stays the same whatever else comes and goes."""
        place = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        return replace(self.pattern, id=f"{self.pattern.model_id}/{place}", url=f"http://{place}")


class ServingKind(StrEnum):
    VLLM = "vllm"
    OPENAI_API = "openai_api"
    NONE = "none"


class StreamUsage(StrEnum):
    """How a hosted API comes to say what a stream used."""

    ASKED = "asked"
    """When `stream_options.include_usage` asks for it."""
    ALWAYS = "always"
    """Unasked; it does not know `stream_options`."""
    NEVER = "never"
    """Not to be counted on; it does not know `stream_options`."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """How a hosted API differs from OpenAI's, as rules about the top-level fields of a request.

    Nothing is changed in silence: what is left out is told to the caller, what would change the answer is refused.
    """

    drop: frozenset[str] = frozenset()
    """Fields that the API does not know and an answer does not need: left out, and named to the caller."""
    refuse: Mapping[str, str] = field(default_factory=dict)
    """Fields that the API cannot honour, each with the reason; one that asks for nothing is left out instead."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """OpenAI's name of a field -> the API's."""
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """The greatest value of a field, by the API's name for it: more is refused, never cut down."""
    stream_usage: StreamUsage = StreamUsage.ASKED
    lists_models: bool = True
    """Whether it has a list of models, which the look at it then needs."""
    health_path: str | None = None
    """What to GET below the base path to see whether it is well, where there is such a thing."""
    requests_per_min: int | None = None
    """Published for the lowest tier; told, not enforced."""
    tokens_per_min: int | None = None
    sourced: Sourced | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    kind: ServingKind
    served_model_name: str
    """The name sent upstream; the model's id unless given."""
    min_vllm: str | None = None
    max_vllm: str | None = None
    backend: str | None = None
    """vllm_native | vllm_transformers | vllm_plugin | vllm_legacy, where kind is vllm."""
    trust_remote_code: bool = False
    startup_s: float | None = None
    """From a start to the first token with the weights on disk, where it was measured."""
    args: tuple[str, ...] = ()
    reason: str | None = None
    """Why nothing can serve it, in words for a caller, where that is so."""
    adapter: Adapter | None = None
    """Where kind is openai_api and the API has ways of its own."""


@dataclass(frozen=True, slots=True)
class Weights:
    repo: str | None = None
    revision: str | None = None
    architecture: str | None = None
    dtype: str = "bfloat16"
    """Number format of most parameters."""
    size_bytes: int | None = None
    """Bytes of the published files, where known; otherwise derived from the parameter count."""
    group_size: int | None = None
    """Parameters that share a scale, where the format is quantised by groups; None = the format's usual one."""
    unquantised_params: int | None = None
    """Parameters left in 16 bits in a quantised checkpoint; None = unknown, then the embeddings are taken."""
    sourced: Sourced | None = None


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    serving: Serving
    consortium_id: str | None = None
    name: str | None = None
    released: date | None = None
    weights: Weights = Weights()
    shape: ModelShape | None = None
    licence: Licence = Licence(id=None, commercial=None)
    reasoning: ReasoningSwitch | None = None
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    capabilities: frozenset[str] = frozenset()
    """Among: chat, completions, reasoning, tools, structured_output, vision, embeddings."""
    price: ApiPrice | None = None
    claims: tuple[Claim, ...] = ()
    replicas: tuple[Replica, ...] = ()
    timeouts: Timeouts = Timeouts()
    notes: str | None = None
    facts: Mapping[str, Sourced] = field(default_factory=dict)
    """Source and confidence of released, capabilities, parsers and serving, where stated."""
    named_replicas: tuple[NamedReplicas, ...] = ()
    """Names whose addresses are replicas; those that are known by now stand in `replicas` of the registry in use."""

    @property
    def stated_replicas(self) -> tuple[Replica, ...]:
        """Of a registry as it was read: its entries, a name's pattern standing for all engines behind it."""
        return (*self.replicas, *(named.pattern for named in self.named_replicas))

    @property
    def has_place(self) -> bool:
        """Whether anything says where its engines are."""
        return bool(self.replicas or self.named_replicas)

    @property
    def is_servable(self) -> bool:
        """Whether anything can serve it. What only an older vLLM serves needs a replica, which is one of that."""
        if self.serving.kind is ServingKind.NONE:
            return False
        return self.serving.reason is None or (self.serving.max_vllm is not None and bool(self.replicas))


# --- hardware and prices ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuPrice:
    per_hour: Decimal
    currency: str
    tier: str
    """on_demand | reserved | spot | list_low | list_high | list_median"""
    provider: str
    on: date
    sourced: Sourced


@dataclass(frozen=True, slots=True)
class Gpu:
    id: str
    name: str
    memory_bytes: int
    """What the driver reports where known, otherwise the nominal size."""
    bandwidth_bytes_per_s: float
    bf16_flops: float | None
    """Dense, without sparsity."""
    fp8_flops: float | None
    watts: int | None
    sourced: Sourced
    prices: tuple[GpuPrice, ...] = ()
    """The first entry is the one used when nobody says which."""


@dataclass(frozen=True, slots=True)
class ElectricityPrice:
    """What a kWh costs. It is shown beside GPU money and never added to it: an hour's price may hold it already."""

    per_kwh: Decimal
    currency: str
    on: date
    sourced: Sourced


@dataclass(frozen=True, slots=True)
class CurrencyRate:
    """How many `quote` one `base` buys, on a date."""

    base: str
    quote: str
    rate: Decimal
    on: date
    sourced: Sourced


@dataclass(frozen=True, slots=True)
class Registry:
    """The whole registry file, validated. `sha256` is of the file's bytes."""

    models: Mapping[str, Model]
    consortia: Mapping[str, Consortium]
    gpus: Mapping[str, Gpu]
    rates: tuple[CurrencyRate, ...]
    sources: Mapping[str, str]
    as_of: date | None
    sha256: str
    electricity: ElectricityPrice | None = None

    def routable(self) -> tuple[Model, ...]:
        """Models that something could serve and that have a replica, or a name behind which there may be some."""
        return tuple(model for model in self.models.values() if model.is_servable and model.has_place)


# --- one call -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `source`: engine (its own usage), counted (events seen before the end), unknown."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: str = "unknown"


@dataclass(frozen=True, slots=True)
class Timing:
    """Spans of one call in seconds, by the definitions of docs/measurement.md. None = not measurable for this call."""

    queue_s: float | None = None
    ttft_s: float | None = None
    """First token-bearing event - request accepted. None for whole answers."""
    ttfot_s: float | None = None
    """First output (non-reasoning) token - request accepted."""
    tpot_s: float | None = None
    """(c_last - c_1) / (N - n_1); None when N - n_1 < 1 or the answer was not streamed."""
    e2e_s: float | None = None
    """c_last - request accepted; for whole answers, body complete - request accepted."""
    overhead_s: float | None = None
    """Gateway time outside the queue and the engine, up to the moment the request was handed to the engine."""
    token_events: int = 0
    first_event_tokens: int | None = None
    """n_1 of the TPOT formula."""
    first_event_source: str | None = None
    """assumed (1) | running_usage | token_ids | logprobs"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost. basis: api_price | gpu_time | gpu_time_provisional | unknown (amount None, with the reason)."""

    amount: Decimal | None
    currency: str | None
    basis: str
    reason: str | None = None


class CallStatus(StrEnum):
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    """The client left."""
    TRUNCATED = "upstream_truncated"
    """The engine failed after its first byte."""
    INTERRUPTED = "interrupted"
    """The gateway died while the call was in flight; found at the next start."""


@dataclass(frozen=True, slots=True)
class CallOpened:
    """Written before dispatch, so that even a killed gateway knows that the call existed."""

    id: str
    request_id: str
    started_at: datetime
    model: str
    endpoint: str
    streamed: bool
    comparison_id: str | None = None
    run_id: str | None = None
    client_retry: int | None = None
    """x-stainless-retry-count, where the client sent it."""
    organisation: str | None = None
    """Whose call it is; None for the admin key and for a gateway that asks for no key."""
    key: str | None = None
    """Id of the organisation's key, never its secret."""
    prompt_estimate: int | None = None
    """Tokens that the prompt was reserved with; what it is charged at where nobody ever counts it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request through the gateway, however it ended. Exactly one per call; no text."""

    opened: CallOpened
    ended_at: datetime
    status: CallStatus
    http_status: int | None
    replica: str | None
    provenance: Provenance
    attempts: int
    error_type: str | None
    error_code: str | None
    error_message: str | None
    finish_reason: str | None
    usage: Usage
    timing: Timing
    cost: Cost
    feasibility: str | None = None
    """The predicted one-GPU verdict that stood beside the answer; None for calls that reached no replica."""
    feasibility_gpu: str | None = None
    charged_tokens: int | None = None
    """What the key's token limits and budgets are charged with; None for calls without a key."""
    estimated_cost: Decimal | None = None
    """What the key's budgets in money are charged with where the cost is unknown, in the cost's currency."""
    dispatched_at: datetime | None = None
    """When it got its place on `replica`; None for calls that reached none."""
    gpu: str | None = None
    """What the registry called the replica's GPU then; None where it said nothing, and for hosted APIs."""
    gpus: int | None = None
