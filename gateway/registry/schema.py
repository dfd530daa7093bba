"""The shape of model_registry.yaml, for the loader and for editors.

Any fact may be written as a plain value or as `{value, source, confidence, note}`; a block may carry `source` and
`confidence` for all facts in it. Untrusted input enters here. What entries mean together (references, duplicates,
impossible shapes) is checked by `records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from gateway.registry.values import (
    Address,
    Amount,
    AnyName,
    Argument,
    BasePath,
    Capability,
    Count,
    CountOrZero,
    Currency,
    Day,
    DnsName,
    ExporterAddress,
    GpuLabel,
    HangulName,
    KvFormat,
    LatinName,
    Level,
    Many,
    MetricName,
    Name,
    Number,
    Params,
    Path,
    PerMtok,
    Port,
    Positive,
    SeriesName,
    Size,
    Sources,
    Text,
    Truth,
    Variable,
    Version,
    Weight,
)

T = TypeVar("T")


class Block(BaseModel):
    """A mapping of the file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(Block):
    """A mapping that says where its facts come from."""

    source: Sources | None = Field(None, description="Key of `sources`, a list of keys, or plain words.")
    confidence: Level | None = Field(None, description="high, medium or low.")
    note: Text | None = Field(None, description="What a reader of the fact should know.")


class Fact(Origin, Generic[T]):
    """A value, alone or with its source. `value: null` with a note says why something is not known."""

    value: T | None = Field(None, description="The fact itself; null = not known.")

    @model_validator(mode="before")
    @classmethod
    def _wrap_plain_value(cls, raw: Any) -> Any:
        is_block = isinstance(raw, Mapping) and raw.keys() & Fact.model_fields.keys()
        return raw if is_block else {"value": raw}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(core)
        definition = handler.resolve_ref_schema(reference)
        block = dict(definition)
        definition.clear()
        definition["anyOf"] = [block["properties"]["value"], block]
        return reference


class ClaimBlock(Origin):
    id: Name = Field(description="a short name, unique in its model or consortium")
    text: Text = Field(description="the claim in words")
    metric: MetricName | None = Field(None, description="What is claimed; null = nothing that could be tested.")
    value: Number | None = Field(None, description="The figure, in the metric's unit.")
    unit: Text | None = Field(None, description="The metric's unit; of a price, its currency.")
    comparison: Literal["at_most", "at_least", "equals"] | None = Field(None, description="Left out = the metric's.")
    statistic: Literal["p50", "p95", "p99", "mean", "attainment"] | None = Field(
        None, description="Of latencies: which; attainment = the share of offered requests that meet the value."
    )
    attainment_percent: Number | None = Field(None, description="With the statistic attainment: the share.")
    gpu: Name | None = Field(None, description="An id of `gpus`.")
    gpus: Count | None = Field(None, description="How many of them.")
    quantisation: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "awq", "nvfp4", "mxfp4"] | None = Field(
        None, description="Number format of the weights; left out = not said."
    )
    kv_dtype: KvFormat | None = Field(None, description="Number format of the KV cache.")
    context_tokens: Count | None = Field(None, description="Longest request, prompt and answer.")
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: CountOrZero | None = Field(None, description="Of the input, those kept from earlier requests.")
    concurrency: Count | None = Field(None, description="Requests in flight (closed loop).")
    rate_per_s: Amount | None = Field(None, description="Requests offered a second (open loop).")
    accepted_length: Amount | None = Field(None, description="Tokens a decode step gives under speculation.")
    said_by: Text | None = Field(None, description="Who says so.")
    date: Day | None = Field(None, description="When it was said.")
    original: Text | None = Field(None, description="Its words in the original language.")


class EventBlock(Origin):
    date: Day = Field(description="the day of the event")
    status: Literal[
        "shortlisted", "selected", "not_selected", "passed", "out", "added", "not_entered", "service_selected"
    ] = Field(description="what happened")


class ConsortiumName(Block):
    ko: Text = Field(description="the Korean name")
    en: Text = Field(description="the English name")


class NamesBlock(Block):
    latin: Many[LatinName] = Field([], description="Model and product names in Latin letters.")
    hangul: Many[HangulName] = Field([], description="Model and product names in Hangul.")
    company: Many[AnyName] = Field([], description="Names of its organisations, long and short.")
    ordinary: Many[AnyName] = Field(
        [],
        description="Those of latin and hangul that are everyday words too: hidden only where an answer names itself.",
    )


class ConsortiumBlock(Origin):
    id: Name = Field(description="the name that models refer to")
    name: ConsortiumName = Field(description="{ko: ..., en: ...}")
    names: NamesBlock | None = Field(None, description="What gives it away in an answer, for blind review.")
    programme_status: Literal["in", "out", "not_selected", "unknown"] = Field("unknown", description="as of `as_of`")
    focus: Text | None = None
    partners: Many[Text] = []
    demand_organisations: Many[Text] = []
    gpu_supply: Text | None = None
    claims: Many[ClaimBlock] = Field([], description="What is claimed of no single model.")
    events: Many[EventBlock] = []


class MlaBlock(Origin):
    kv_lora_rank: Count | None = Field(description="values of the shared latent per token and layer; null = unknown")
    qk_rope_head_dim: Count | None = Field(description="values of the rotary key per token and layer; null = unknown")
    q_lora_rank: Count | None = None
    index_head_dim: Count | None = Field(None, description="Key size of the sparse indexer, where there is one.")


class MoeBlock(Origin):
    experts: Count = Field(description="routed experts per layer")
    experts_per_token: Count = Field(description="routed experts that one token uses")
    shared_experts: CountOrZero = 0
    expert_ffn: Count | None = None
    dense_layers: CountOrZero = 0


class LinearBlock(Origin):
    layers: Count = Field(description="layers with a constant state instead of a KV cache")
    state_bytes: Count | None = Field(None, description="Bytes of one request's state in one such layer.")


class VisionBlock(Origin):
    params: Params | None = Field(None, description="Parameters of the image encoder, contained in the model's.")
    layers: Count | None = None
    hidden: Count | None = None
    image_tokens: Count | None = Field(None, description="Most tokens that one image becomes.")


class ShapeBlock(Origin):
    params: Fact[Params] | None = Field(None, description="Parameters in all, e.g. 32.0B.")
    active_params: Fact[Params] | None = Field(
        None,
        description="Parameters read per token; left out = all, null = a mixture whose share is not known.",
    )
    layers: Fact[Count] | None = None
    hidden: Fact[Count] | None = None
    ffn: Fact[Count] | None = None
    heads: Fact[Count] | None = None
    kv_heads: Fact[Count] | None = None
    head_dim: Fact[Count] | None = None
    v_head_dim: Fact[Count] | None = Field(None, description="Size of a value where it is not that of a key.")
    vocab: Fact[Count] | None = None
    tied_embeddings: Fact[Truth] | None = None
    context: Fact[Count] | None = Field(None, description="Longest prompt plus answer, in tokens.")
    sliding_window: Fact[Count] | None = Field(None, description="Window of the local layers, in tokens.")
    attention_chunk: Fact[Count] | None = Field(None, description="Chunk of the local layers, in tokens, for a window.")
    global_layers: Fact[CountOrZero] | None = Field(
        None, description="Layers with full attention; left out without local or linear layers = all."
    )
    mla: MlaBlock | None = None
    moe: MoeBlock | None = None
    linear: LinearBlock | None = None
    vision: VisionBlock | None = None


class WeightsBlock(Origin):
    repo: Text | None = Field(None, description="Hugging Face repository.")
    revision: Text | None = Field(None, description="Commit to pin.")
    architecture: Text | None = Field(None, description="`architectures[0]` of config.json.")
    dtype: Literal["float32", "bfloat16", "float16", "fp8", "int8", "int4", "nvfp4", "mxfp4"] = "bfloat16"
    size: Size | None = Field(None, description="Bytes of the published files, e.g. 23.1 GB.")
    group_size: Count | None = Field(None, description="Parameters that share a scale, for formats in groups.")
    unquantised_params: Params | None = Field(None, description="Parameters left in 16 bits when quantised.")


class LicenceBlock(Origin):
    id: Text | None = None
    commercial: Truth | None = Field(None, description="true, false, or null where nobody has read the terms.")
    notice: Text | None = Field(None, description="Words that the licence wants shown.")


class ReasoningBlock(Origin):
    switch: Text = Field(description="the name that turns reasoning on or off")
    place: Literal["chat_template_kwargs", "body"] = "chat_template_kwargs"
    default: Truth | Text | None = Field(None, description="What holds when a request says nothing; null = not known.")


class ParsersBlock(Origin):
    reasoning: Text | None = None
    tools: Text | None = None


class PriceBlock(Origin):
    currency: Currency = Field(description="a currency code such as USD")
    input_per_mtok: PerMtok = Field(description="the price of a million uncached prompt tokens")
    output_per_mtok: PerMtok = Field(description="the price of a million answered tokens")
    cached_input_per_mtok: PerMtok | None = None
    date: Day | None = None


class TimeoutsBlock(Block):
    connect_s: Positive = 2.0
    first_token_s: Positive = 120.0
    idle_s: Positive = 60.0
    total_s: Positive = 1800.0


class EnergyBlock(Block):
    url: ExporterAddress = Field(description="the address of an exporter's page such as http://node:9400/metrics")
    gpus: list[GpuLabel] = Field(description="the replica's GPUs by the exporter's labels: indexes or UUIDs")
    metric: SeriesName | None = Field(None, description="Where it is not DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION.")
    unit: Literal["mJ", "J"] | None = Field(None, description="Of another metric's counter.")


class ReplicaBlock(Block):
    """One engine by its `url`, or all those behind a name by `dns` and `port`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["dns", "port"]}]})

    url: Address | None = Field(None, description="One engine's address such as http://127.0.0.1:8101.")
    dns: DnsName | None = Field(None, description="A name in place of the address: each address it has is a replica.")
    port: Port | None = Field(None, description="With dns: where the engines listen.")
    scheme: Literal["http"] | None = Field(None, description="With dns: http, as no certificate names an address.")
    family: Literal["ipv4", "ipv6"] | None = Field(None, description="With dns: only its A, or AAAA, records.")
    id: Name | None = Field(None, description="Of one engine; those behind a name are called by their addresses.")
    weight: Weight = 1.0
    gpu: Name | None = None
    gpus: Count = 1
    host: Text | None = None
    api_key_env: Variable | None = Field(None, description="Name of the environment variable with the key.")
    base_path: BasePath = Field("/v1", description="What stands between the address and /chat/completions.")
    max_in_flight: Count | None = Field(None, description="Most calls at a time, where it is not the setting.")
    energy: EnergyBlock | None = Field(None, description="Where the energy counters of its GPUs can be read.")


class AdapterBlock(Origin):
    drop: Many[Text] = Field([], description="Request fields to leave out; the caller is told in x-simsa-dropped.")
    refuse: dict[str, Text] = Field({}, description="Request fields to answer with 400, each with the reason.")
    rename: dict[str, Text] = Field({}, description="OpenAI's name of a request field: the API's name.")
    limits: dict[str, Number] = Field({}, description="The greatest value of a request field, by the API's name.")
    stream_usage: Literal["asked", "always", "never"] = Field(
        "asked", description="Whether a stream tells its usage: when asked by stream_options, always, or never."
    )
    models_route: Literal["present", "absent"] = Field("present", description="Whether GET /models exists.")
    health_path: Path | None = Field(None, description="What to GET below base_path to see whether it is well.")
    requests_per_min: Count | None = Field(None, description="As published for the lowest tier.")
    tokens_per_min: Count | None = Field(None, description="As published for the lowest tier.")


class ServingBlock(Origin):
    kind: Literal["vllm", "openai_api", "none"] = Field(description="one of vllm, openai_api, none")
    served_model_name: Text | None = Field(None, description="Name sent upstream, where it is not the id.")
    min_vllm: Version | None = None
    max_vllm: Version | None = None
    backend: Literal["vllm_native", "vllm_transformers", "vllm_plugin", "vllm_legacy"] | None = None
    trust_remote_code: Truth = False
    startup_s: Positive | None = Field(
        None, description="Seconds from a start to the first token, as measured; a cluster waits twice that."
    )
    args: Many[Argument] = []
    reason: Text | None = Field(None, description="Why nothing can serve it, in words for a caller.")
    adapter: AdapterBlock | None = Field(None, description="How a hosted API differs from OpenAI's.")


class ModelBlock(Block):
    id: Name = Field(description='the name that clients send as "model"')
    serving: ServingBlock = Field(description="how it is served, such as {kind: vllm}")
    replicas: Many[ReplicaBlock] = []
    consortium: Name | None = None
    name: Text | None = None
    released: Fact[Day] | None = None
    weights: WeightsBlock | None = None
    shape: ShapeBlock | None = None
    licence: LicenceBlock | None = None
    reasoning: ReasoningBlock | None = None
    parsers: ParsersBlock | None = None
    capabilities: Fact[list[Capability]] | None = None
    price: PriceBlock | None = None
    claims: Many[ClaimBlock] = []
    timeouts: TimeoutsBlock | None = None
    notes: Text | None = None


class GpuPriceBlock(Origin):
    per_hour: Amount = Field(description="the price of one GPU for one hour")
    currency: Currency = Field(description="a currency code such as USD")
    tier: Literal["on_demand", "reserved", "spot", "list_low", "list_high", "list_median"] = Field(
        description="on_demand, reserved, spot, list_low, list_high or list_median"
    )
    provider: Text = Field(description="who sells at that price")
    date: Day = Field(description="the day of the price")


class GpuBlock(Origin):
    id: Name = Field(description="the name that replicas and claims refer to")
    name: Text = Field(description="the device in words")
    memory: Size = Field(description="bytes that the driver reports, e.g. 81559 MiB")
    bandwidth_tb_per_s: Positive = Field(description="memory bandwidth in 10^12 bytes per second")
    bf16_tflops: Positive | None = Field(None, description="Dense, without sparsity.")
    fp8_tflops: Positive | None = None
    watts: Count | None = None
    prices: Many[GpuPriceBlock] = Field([], description="The first is used when nobody says which.")


class ElectricityBlock(Origin):
    per_kwh: Amount = Field(description="the price of a kWh")
    currency: Currency = Field(description="a currency code such as KRW")
    date: Day = Field(description="the day of the price")


class RateBlock(Origin):
    base: Currency = Field(description="a currency code such as USD")
    quote: Currency = Field(description="a currency code such as KRW")
    rate: Amount = Field(description="how many `quote` one `base` buys")
    date: Day = Field(description="the day of the rate")


class RegistryFile(Block):
    """The candidates: who they are, how they are served, what is known and claimed about them."""

    as_of: Day | None = Field(None, description="The day on which the facts held.")
    sources: dict[str, Text] = Field({}, description="What the short source keys stand for.")
    currencies: list[Currency] = Field(["USD", "KRW"], description="Currencies that prices may use.")
    rates: Many[RateBlock] = []
    electricity: ElectricityBlock | None = Field(None, description="What a kWh costs; shown beside GPU money.")
    gpus: Many[GpuBlock] = []
    consortia: Many[ConsortiumBlock] = []
    models: Many[ModelBlock] = Field(description="a list with at least one entry")
