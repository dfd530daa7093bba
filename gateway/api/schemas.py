"""The shapes of our own routes: what callers may send, and what OpenAPI says they get back.

Untrusted input enters here. What the values mean is decided above; the objects that are answered are made by
`comparison_object` and `evidence`, and checked against these models by the framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gateway.comparison import Question, Schedule
from gateway.domain.charges import MOST_TOKENS
from gateway.domain.feasibility import Verdict
from gateway.domain.records import Confidence, Provenance

MAX_SIDES = 8
Text = Annotated[str, StringConstraints(min_length=1)]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
JsonObject = dict[str, Any]


class Asked(BaseModel):
    """What a caller sends. Unknown fields are errors: a misspelt parameter must not be silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChatMessage(BaseModel):
    """An OpenAI chat message; further fields pass through to the engines as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Text
    content: str | list[JsonObject] | None = None


class ComparisonParams(Asked):
    """Sampling and output parameters, sent to every side alike."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: int = Field(512, ge=1, le=MOST_TOKENS, description="Longest answer in tokens.")
    min_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Shortest answer in tokens (vLLM).")
    ignore_eos: bool | None = Field(
        None, description="Go on to `max_tokens` whatever the model says, so that speeds are of equal lengths (vLLM)."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: JsonObject | None = None
    tools: list[JsonObject] | None = None
    tool_choice: str | JsonObject | None = None
    chat_template_kwargs: JsonObject | None = Field(
        None, description="For the engine's chat template, e.g. a reasoning switch."
    )
    reasoning_effort: Text | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _keep_the_template(cls, variables: JsonObject | None) -> JsonObject | None:
        if variables is not None and "chat_template" in variables:
            raise ValueError("the template is the engine's own: 'chat_template' cannot be set")
        return variables


def distinct_models(models: Sequence[str]) -> Sequence[str]:
    """The same; raises ValueError where one stands there twice."""
    repeated = sorted({model for model in models if models.count(model) > 1})
    if repeated:
        raise ValueError(f"name each model once; repeated: {', '.join(repeated)}")
    return models


class ComparisonRequest(Asked):
    """One question to two to eight models. Exactly one of `messages` and `prompt`."""

    models: list[ModelId] = Field(min_length=2, max_length=MAX_SIDES, description="Ids of GET /v1/models.")
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    prompt: Text | None = Field(None, description="Short for one message of the user.")
    params: ComparisonParams = ComparisonParams()
    schedule: Schedule | None = Field(
        None, description="By default sequential where sides share hardware, else concurrent."
    )
    stream: bool = Field(
        False, description="Server-sent events side.started, side.delta, side.finished, comparison.finished."
    )

    @field_validator("models")
    @classmethod
    def _are_distinct(cls, models: Sequence[str]) -> Sequence[str]:
        return distinct_models(models)

    @model_validator(mode="after")
    def _has_one_question(self) -> ComparisonRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("send either 'messages' or 'prompt'")
        return self

    def question(self) -> Question:
        if self.prompt is not None:
            messages: list[JsonObject] = [{"role": "user", "content": self.prompt}]
        else:
            messages = [message.model_dump(mode="json", exclude_unset=True) for message in self.messages or ()]
        params = self.params.model_dump(mode="json", exclude_none=True)
        return Question(models=tuple(self.models), messages=messages, params=params, schedule=self.schedule)


def body_of(model: type[BaseModel]) -> JsonObject:
    """What OpenAPI says of a body that the route reads itself, once it knows who sends it."""
    content = {"application/json": {"schema": schema_without_references(model)}}
    return {"requestBody": {"required": True, "content": content}}


def schema_without_references(model: type[BaseModel]) -> JsonObject:
    """A model's JSON schema in one piece, for a body that the framework does not read itself."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            part = parts.get(str(value.get("$ref")).removeprefix("#/$defs/"), {})
            return {name: inlined(inner) for name, inner in (part | value).items() if name != "$ref"}
        return [inlined(inner) for inner in value] if isinstance(value, list) else value

    return dict(inlined(schema))


# --- answers ------------------------------------------------------------------------------------------------

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Amount = Annotated[str, Field(description="A decimal number.", examples=["0.00012"])]
Seconds = float


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: Error


class OutputOut(BaseModel):
    content: str | None
    reasoning: str | None
    tool_calls: list[JsonObject] | None


class UsageOut(BaseModel):
    """Token counts; null = unknown."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    source: Literal["engine", "counted", "unknown"]


class TimingOut(BaseModel):
    """Seconds since the side was asked; null = not measurable for this side."""

    queue_s: Seconds | None
    ttft_s: Seconds | None = Field(description="Until the first token-bearing event.")
    ttfot_s: Seconds | None = Field(None, description="Until the first output token that is not reasoning.")
    tpot_s: Seconds | None = Field(description="(last event - first event) / tokens after the first event.")
    e2e_s: Seconds | None = Field(description="Until the last token-bearing event.")
    overhead_s: Seconds | None = Field(None, description="Gateway time outside its queue and the engine.")
    first_event_tokens: int | None = Field(None, description="Tokens of the first event, as TPOT leaves them out.")
    first_event_source: str | None = Field(None, description="How that is known.")


class CostOut(BaseModel):
    amount: Amount | None
    currency: str | None
    basis: Literal["api_price", "gpu_time", "gpu_time_provisional", "unknown"]
    reason: str | None


class RangeOut(BaseModel):
    low: float
    likely: float
    high: float


class StepOut(BaseModel):
    """One figure on the way to a verdict."""

    name: str
    value: float | int | str
    unit: str
    formula: str = Field(description="Empty for an input.")
    source: str = Field(description="Where an input came from; computed where it follows from steps above.")


class FeasibilityOut(BaseModel):
    """Predicted from configuration, nothing measured. Sizes in GiB; null = unknown, the reasons say why."""

    verdict: Verdict
    gpu: str | None
    gpus: int | None
    context: int | None
    concurrency: int | None
    headroom_gib: RangeOut | None
    weights_gib: float | None
    kv_gib_per_request: float | None
    overhead_gib: RangeOut | None = Field(description="A guess, or measured: see overhead_basis.")
    overhead_basis: Literal["guess", "measured"] | None = None
    overhead_source: str | None = Field(None, description="What was measured, on how many engines and when.")
    max_context_one_request: int | None
    max_context_at_concurrency: int | None = Field(
        None, description="The longest with the requests asked at once, with the weights of the verdict."
    )
    max_concurrency: int | None
    kv_tokens: int | None = Field(None, description="As vLLM's label kv_cache_size_tokens at this context.")
    kv_cache_max_concurrency: float | None = Field(None, description="As vLLM's label: a fraction.")
    num_gpu_blocks: int | None = None
    blocks_per_request: int | None = None
    min_gpus: int | None
    quantised_to: str | None
    confidence: Confidence | None
    reasons: list[str]
    steps: list[StepOut] | None = Field(None, description="Every intermediate figure; left out beside an answer.")


class SideErrorOut(BaseModel):
    message: str
    type: str | None
    code: str | None
    status: int | None = Field(description="The HTTP status that the same failure has on /v1/chat/completions.")


class SideOut(BaseModel):
    model: str
    status: Literal["ok", "error", "skipped"]
    output: OutputOut | None = Field(description="null once the texts were removed.")
    finish_reason: str | None
    usage: UsageOut
    timing: TimingOut
    cost: CostOut
    feasibility: FeasibilityOut
    provenance: Provenance
    dropped: list[str] = Field(description="Parameters that its API does not know and that were not sent to it.")
    error: SideErrorOut | None
    call_id: str | None = Field(description="The call's record; null where none was made.")


class ProvenanceFactOut(BaseModel):
    value: Provenance | None = Field(description="null where the sides differ.")
    reason: str | None


class FastestOut(BaseModel):
    model: str | None
    ttft_s: Seconds | None
    reason: str | None = Field(description="Why there is no such model to name.")


class CheapestOut(BaseModel):
    model: str | None
    amount: Amount | None
    currency: str | None
    basis: str | None
    reason: str | None = Field(description="Why there is no such model to name.")


class SummaryOut(BaseModel):
    provenance: ProvenanceFactOut
    fastest_first_token: FastestOut
    cheapest: CheapestOut


class BatchPlaceOut(BaseModel):
    """Where in a batch a comparison belongs. Of several for one item the one that its item names counts."""

    id: str
    item: int


class ComparisonOut(BaseModel):
    """One question and what every side made of it."""

    id: str
    created_at: Moment
    schedule: Schedule
    params: JsonObject
    messages: list[JsonObject] | None = Field(description="null once the texts were removed.")
    sides: list[SideOut]
    timing_comparable: bool | None
    timing_reason: str | None
    summary: SummaryOut | None
    batch: BatchPlaceOut | None = Field(description="The batch that asked it, where one did.")
    stored: bool
    stored_reason: str | None = Field(description="Why it could not be stored, where that is so.")


class ComparisonPage(BaseModel):
    """Newest first."""

    data: list[ComparisonOut]
    next_before: str | None = Field(description="Send as `before` for the next page; null on the last one.")
