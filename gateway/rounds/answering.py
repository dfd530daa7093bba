"""The answers of a round: asked before it opens, through the comparisons that everybody's questions go through.

Each model answers each prompt at least once, in the class of batches, with its latency, cost and failures recorded
like those of any call. More models than a comparison takes are asked in groups, each a batch of its own. What comes of
it is collected, redacted and kept with the round; a model that has no answer by the batch's rule of attempts is never
replaced by another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.batch_order import Order
from gateway.batch_store import Batch, BatchPrompt, BatchStatus, ItemStatus, Progress
from gateway.batches import Batches
from gateway.comparison import Schedule
from gateway.comparison_object import OK
from gateway.domain.accounts import EVERYTHING
from gateway.domain.records import Provenance
from gateway.domain.rounds import AnswerStatus, ReasoningPolicy, Round, RoundAnswer, RoundKind, RoundPlan
from gateway.rounds.store import RoundStore
from gateway.store import Comparison, Side, Store

MOST_SIDES = 8
"""Of one comparison."""
ITEMS_AT_ONCE = 50
EMPTY = "the model answered without a word"


class Redact(Protocol):
    """Removes from a model's answer what would tell its author; the second value says what was removed."""

    def __call__(self, text: str, *, model: str, prompt: str) -> tuple[str, tuple[Mapping[str, Any], ...]]: ...


@dataclass(frozen=True, slots=True)
class AnsweringProgress:
    """How far the answers of a round are, over all its batches."""

    batches: tuple[Batch, ...]
    total: int
    """Comparisons: a prompt for each group of models and sample."""
    done: int
    failed: int
    waiting_for: str | None = None
    asks_nobody: bool = False
    """A round of cards: there is nothing to wait for."""

    @property
    def is_over(self) -> bool:
        return self.asks_nobody or (
            bool(self.batches) and all(batch.status is not BatchStatus.RUNNING for batch in self.batches)
        )


class Answering:
    """Has the answers of rounds made. Batches that run go on after a restart by themselves."""

    def __init__(self, *, batches: Batches, store: Store, rounds: RoundStore) -> None:
        self._batches = batches
        self._store = store
        self._rounds = rounds

    async def begin(self, of: Round) -> AnsweringProgress:
        """Order what is not ordered yet, and have asked once more what failed by something that passes.

        Raises what `Comparisons.check` raises for models that cannot be asked.
        """
        groups = model_groups(of.plan.models) if of.plan.kind is RoundKind.ANSWERS else []
        for position, models in enumerate(groups):
            order = _order(of, models, position)
            batch, _ = await self._batches.create(order, EVERYTHING)
            await self._rounds.add_batch(of.id, batch.id, position)
        return await self.progress(of)

    async def progress(self, of: Round) -> AnsweringProgress:
        if of.plan.kind is RoundKind.CARDS:
            return AnsweringProgress((), 0, 0, 0, asks_nobody=True)
        batches = [await self._batches.store.get(batch_id) for batch_id in await self._rounds.batch_ids(of.id)]
        found = [batch for batch in batches if batch is not None]
        sums = [await self._batches.store.progress(batch.id) for batch in found]
        waits = [why for batch in found if (why := self._batches.waiting_for(batch.id)) is not None]
        return _added(tuple(found), sums, waits[0] if waits else None)

    async def cancel(self, of: Round) -> AnsweringProgress:
        """Ask nothing more; what came stays."""
        for batch_id in await self._rounds.batch_ids(of.id):
            batch = await self._batches.store.get(batch_id)
            if batch is not None:
                await self._batches.cancel(batch, "the round's answers were stopped")
        return await self.progress(of)

    async def collect(self, of: Round, redact: Redact, *, lexicon: str) -> list[RoundAnswer]:
        """What came of everything asked, redacted and kept: an answer or its failure for each prompt and model.

        Redacting runs in a thread; `lexicon`: the digest of the names that it knows. Raises WrongStatus once the round
        is sealed.
        """
        found: dict[tuple[str, str], RoundAnswer] = {}
        for batch_id in await self._rounds.batch_ids(of.id):
            async for prompt_id, comparison in self._comparisons(batch_id):
                for side in comparison.sides:
                    answer = _read_side(of.plan, prompt_id, comparison, side)
                    before = found.get((prompt_id, side.model))
                    if before is None or (before.status is AnswerStatus.FAILED and answer.status is AnswerStatus.OK):
                        found[prompt_id, side.model] = answer
        answers = await asyncio.to_thread(_redacted, of.plan, _complete(of.plan, found), redact)
        await self._rounds.save_answers(of.id, answers, provenance=weakest(answers), lexicon=lexicon)
        return answers

    async def _comparisons(self, batch_id: str) -> AsyncIterator[tuple[str, Comparison]]:
        """Each item's comparison that counts, with the id of its prompt, in the order asked."""
        after = -1
        while items := await self._batches.store.items(batch_id, after=after, limit=ITEMS_AT_ONCE):
            after = items[-1].number
            asked = {
                item.comparison_id: item.prompt_id
                for item in items
                if item.comparison_id is not None and item.status is not ItemStatus.PENDING
            }
            comparisons = await self._store.get_comparisons(list(asked))
            for comparison_id, prompt_id in asked.items():
                if (comparison := comparisons.get(comparison_id)) is not None:
                    yield prompt_id, comparison


def model_groups(models: Sequence[str]) -> list[tuple[str, ...]]:
    """Models in as few groups as comparisons take, of sizes that differ by one at most; two models at least in each."""
    count = -(-len(models) // MOST_SIDES)
    return [tuple(models[start::count]) for start in range(count)]


def weakest(answers: Sequence[RoundAnswer]) -> str | None:
    """The provenance that may be said of all answers together: the weakest; None where none came."""
    return weakest_of({answer.provenance for answer in answers if answer.status is AnswerStatus.OK})


def weakest_of(found: Collection[str]) -> str | None:
    order = (Provenance.UNKNOWN, Provenance.SIMULATED, Provenance.STAND_IN, Provenance.REAL)
    return next((kind.value for kind in order if kind.value in found), None)


def _order(of: Round, models: tuple[str, ...], position: int) -> Order:
    return Order(
        models=models,
        prompts=tuple(BatchPrompt(p.id, [{"role": "user", "content": p.text}]) for p in of.plan.prompts),
        params=dict(of.plan.sampling),
        schedule=Schedule.SEQUENTIAL,
        repeats=of.plan.samples,
        name=f"round {of.id} {position}",
    )


def _added(batches: tuple[Batch, ...], sums: Sequence[Progress], waits: str | None) -> AnsweringProgress:
    total, done = sum(one.total for one in sums), sum(one.done for one in sums)
    return AnsweringProgress(batches, total, done, sum(one.failed for one in sums), waits)


def _read_side(plan: RoundPlan, prompt_id: str, comparison: Comparison, side: Side) -> RoundAnswer:
    """One side as an answer, not yet redacted."""
    text = _visible(plan, side.output)
    is_answer = side.status == OK and text is not None
    error = side.error if side.status != OK else None if is_answer else {"message": EMPTY, "code": "empty_answer"}
    return RoundAnswer(
        prompt_id=prompt_id,
        model=side.model,
        status=AnswerStatus.OK if is_answer else AnswerStatus.FAILED,
        comparison_id=comparison.id,
        call_id=side.call_id,
        provenance=side.facts.get("provenance", Provenance.UNKNOWN.value),
        text=text if is_answer else None,
        shown=None,
        redactions=(),
        facts={
            **{name: side.facts.get(name) for name in ("usage", "timing", "cost")},
            "finish_reason": side.finish_reason,
            "error": error,
        },
    )


def _visible(plan: RoundPlan, output: Any) -> str | None:
    """What reviewers are shown of an answer, by the round's one policy for reasoning; None where there is no word."""
    content = (output or {}).get("content")
    if not isinstance(content, str) or not content.strip():
        return None
    reasoning = output.get("reasoning")
    if plan.reasoning is ReasoningPolicy.SHOWN and isinstance(reasoning, str) and reasoning.strip():
        return f"{reasoning.strip()}\n\n---\n\n{content}"
    return content


def _complete(plan: RoundPlan, found: Mapping[tuple[str, str], RoundAnswer]) -> list[RoundAnswer]:
    """An answer for every prompt and model; one that nothing came of failed."""
    never = {"error": {"message": "it was not asked, or nothing of it was kept", "code": "not_asked"}}
    unknown = Provenance.UNKNOWN.value
    return [
        found.get((prompt.id, model))
        or RoundAnswer(prompt.id, model, AnswerStatus.FAILED, None, None, unknown, None, None, (), never)
        for prompt in plan.prompts
        for model in plan.models
    ]


def _redacted(plan: RoundPlan, answers: Sequence[RoundAnswer], redact: Redact) -> list[RoundAnswer]:
    prompts = {prompt.id: prompt.text for prompt in plan.prompts}
    return [_redact_one(answer, prompts[answer.prompt_id], redact) for answer in answers]


def _redact_one(answer: RoundAnswer, prompt: str, redact: Redact) -> RoundAnswer:
    if answer.text is None:
        return answer
    shown, redactions = redact(answer.text, model=answer.model, prompt=prompt)
    fields = {name: getattr(answer, name) for name in RoundAnswer.__slots__}
    return RoundAnswer(**{**fields, "shown": shown, "redactions": redactions})
