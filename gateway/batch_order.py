"""What a caller wants asked in a batch, and the question that each of its prompts is.

Values in, values out: taking orders and working them off is `batches`' part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.batch_store import Batch, BatchPrompt, Turn
from gateway.comparison import Question, Schedule

ANY_PROMPT = BatchPrompt("any", [{"role": "user", "content": "?"}])
"""Stands for a batch's prompts where only its models and parameters matter."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants asked. Without a name the batch is named by its id."""

    models: tuple[str, ...]
    prompts: tuple[BatchPrompt, ...]
    params: dict[str, Any]
    schedule: Schedule | None = None
    repeats: int = 1
    name: str | None = None

    def digest(self) -> str:
        """Of everything but the name: equal exactly for equal batches."""
        prompts = [[prompt.prompt_id, prompt.messages, prompt.max_tokens] for prompt in self.prompts]
        whole = [self.models, self.params, self.schedule, self.repeats, prompts]
        return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()

    def question(self, prompt: BatchPrompt) -> Question:
        return _question(self.models, prompt, self.params, self.schedule)


def question_of_turn(turn: Turn) -> Question:
    """The question of an item: each starts with another model."""
    return question_of(turn.batch, turn.prompt, first=turn.item.number + turn.item.repeat)


def question_of(batch: Batch, prompt: BatchPrompt, *, first: int = 0) -> Question:
    """The question that a prompt is in its batch; model number `first` of the circle is asked first."""
    first %= len(batch.models)
    models = (*batch.models[first:], *batch.models[:first])
    schedule = Schedule(batch.schedule) if batch.schedule is not None else None
    return _question(models, prompt, batch.params, schedule)


def _question(
    models: Sequence[str], prompt: BatchPrompt, params: dict[str, Any], schedule: Schedule | None
) -> Question:
    own = {"max_tokens": prompt.max_tokens} if prompt.max_tokens is not None else {}
    return Question(models=models, messages=prompt.messages, params={**params, **own}, schedule=schedule)
