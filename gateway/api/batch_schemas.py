"""The shapes of the batch routes: what callers may send, and what OpenAPI says they get back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from gateway.api.schemas import (
    MAX_SIDES,
    Amount,
    Asked,
    ChatMessage,
    ComparisonParams,
    JsonObject,
    ModelId,
    Moment,
    Text,
    distinct_models,
)
from gateway.batch_order import Order
from gateway.batch_store import BatchPrompt, BatchStatus
from gateway.comparison import Schedule
from gateway.domain.charges import MOST_TOKENS
from gateway.domain.records import Priority, Provenance
from gateway.prompts import CORE_SET, load_prompts

MAX_PROMPTS = 10_000
MAX_ITEMS = 100_000
"""Prompts times repeats."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class BatchPromptIn(Asked):
    """One prompt. Exactly one of `messages` and `prompt`."""

    id: Name | None = Field(None, description="Unique in the batch; its place, from 1, where it is left out.")
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    prompt: Text | None = Field(None, description="Short for one message of the user.")
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        None, description="Longest answer to this prompt; `params.max_tokens` where it is left out."
    )

    @model_validator(mode="after")
    def _has_one_question(self) -> BatchPromptIn:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("send either 'messages' or 'prompt'")
        return self

    def asked(self, place: int) -> BatchPrompt:
        if self.prompt is not None:
            messages: list[JsonObject] = [{"role": "user", "content": self.prompt}]
        else:
            messages = [message.model_dump(mode="json", exclude_unset=True) for message in self.messages or ()]
        return BatchPrompt(self.id or str(place), messages, self.max_tokens)


class BatchRequest(Asked):
    """A set of prompts to two to eight models. Exactly one of `prompts` and `set`."""

    name: Name | None = Field(None, description="The same name and content again go on with the batch that exists.")
    models: list[ModelId] = Field(min_length=2, max_length=MAX_SIDES, description="Ids of GET /v1/models.")
    prompts: list[BatchPromptIn] | None = Field(None, min_length=1, max_length=MAX_PROMPTS)
    set: Literal["core-1"] | None = Field(None, description="The prompt set that ships with the gateway.")
    language: Literal["ko", "en"] | None = Field(None, description="Only the set's prompts in this language.")
    params: ComparisonParams = ComparisonParams()
    repeats: int = Field(1, ge=1, le=1000, description="How often every prompt is asked.")
    schedule: Schedule | None = Field(
        None, description="By default sequential where sides share hardware, else concurrent."
    )

    @field_validator("models")
    @classmethod
    def _are_distinct(cls, models: Sequence[str]) -> Sequence[str]:
        return distinct_models(models)

    @model_validator(mode="after")
    def _has_prompts(self) -> BatchRequest:
        if (self.prompts is None) == (self.set is None):
            raise ValueError("send either 'prompts' or 'set'")
        if self.language is not None and self.set is None:
            raise ValueError("'language' chooses among the prompts of a 'set'")
        ids = [prompt.prompt_id for prompt in self.questions()]
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise ValueError(f"every prompt needs an id of its own; repeated: {', '.join(repeated[:5])}")
        if len(ids) * self.repeats > MAX_ITEMS:
            raise ValueError(f"at most {MAX_ITEMS:,} prompts times repeats, got {len(ids) * self.repeats:,}")
        return self

    def questions(self) -> tuple[BatchPrompt, ...]:
        if self.prompts is not None:
            return tuple(prompt.asked(place) for place, prompt in enumerate(self.prompts, 1))
        assert self.set == CORE_SET
        return tuple(
            BatchPrompt(prompt.id, [{"role": "user", "content": prompt.text}], prompt.max_tokens)
            for prompt in load_prompts(language=self.language)
        )

    def order(self) -> Order:
        return Order(
            models=tuple(self.models),
            prompts=self.questions(),
            params=self.params.model_dump(mode="json", exclude_none=True),
            schedule=self.schedule,
            repeats=self.repeats,
            name=self.name,
        )


# --- answers ------------------------------------------------------------------------------------------------


class ItemsOut(BaseModel):
    """An item is one prompt in one repeat."""

    total: int
    done: int = Field(description="Its comparison is stored; sides of it may have failed.")
    failed: int = Field(description="No comparison could be made.")
    pending: int


class BatchOut(BaseModel):
    id: str
    name: str
    created_at: Moment
    ended_at: Moment | None
    status: BatchStatus
    reason: str | None = Field(
        description="Why the gateway cancelled it: the key ended, its budget is used up, or its limits are too narrow."
    )
    waiting_for: str | None = Field(
        description="What it waits for at this moment while it runs: an engine that is away, a limit of its key."
    )
    priority: Priority = Field(description="The class of its calls, or of its key's where that is lower.")
    organisation: str | None = Field(description="Whose it is; null where the operator ordered it.")
    models: list[str]
    params: JsonObject
    schedule: Schedule | None
    repeats: int
    prompts: int
    items: ItemsOut


class BatchList(BaseModel):
    """Newest first."""

    data: list[BatchOut]


class IntervalOut(BaseModel):
    """Distribution-free; `coverage` is its exact probability, at least 0.95."""

    low: float
    high: float
    coverage: float


class FigureOut(BaseModel):
    """One metric of one model; null = too few values."""

    unit: str
    n: int = Field(description="Prompts.")
    answers: int = Field(description="Values, repeats included.")
    mean: float | None
    median: float | None
    median_interval: IntervalOut | None
    p90: float | None
    p95: float | None
    min: float | None
    max: float | None
    excluded: dict[str, int] = Field(description="Answers that did not enter, by reason.")


class ModelStatisticsOut(BaseModel):
    model: str
    asked: int
    answered: int
    failures: dict[str, int]
    finish_reasons: dict[str, int]
    provenance: Provenance | None = Field(
        description="What most of its answers come from, and all its figures; null where there are none."
    )
    spent: dict[str, Amount] = Field(
        description="Known costs of all that was asked and kept, by currency: failures, and what was asked again, too."
    )
    cost_unknown: int = Field(description="Answers whose cost is not known; they are in no sum.")
    asked_again: int = Field(description="Answers and failures that count for their cost alone: they were asked again.")
    metrics: dict[str, FigureOut]


class PairedFigureOut(BaseModel):
    """One metric of two models on the same prompts: medians over prompts of (first - second) and of first / second."""

    unit: str
    n: int = Field(description="Prompts.")
    first_median: float | None
    second_median: float | None
    difference: float | None
    difference_interval: IntervalOut | None
    ratio: float | None
    ratio_interval: IntervalOut | None
    first_lower: int
    equal: int
    second_lower: int
    p_value: float | None = Field(description="Exact two-sided sign test.")
    excluded: dict[str, int] = Field(description="Comparisons that did not enter, by reason.")


class PairStatisticsOut(BaseModel):
    first: str
    second: str
    metrics: dict[str, PairedFigureOut]


class StatisticsOut(BaseModel):
    batch: BatchOut
    models: list[ModelStatisticsOut]
    pairs: list[PairStatisticsOut]
