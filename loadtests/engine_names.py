"""The engines behind the registry's names, as name servers say at one moment.

A run is of the engines that it began with: how many GPUs they have is what its figures are divided by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from gateway.domain.discovery import Answer, Question, Standing, problem_of, questions_of, with_addresses
from gateway.domain.records import Model, Registry
from loadtests.doorways import TargetUnknown

Ask = Callable[[Question], Awaitable[Answer]]


async def with_engines(registry: Registry, models: Sequence[str], ask: Ask) -> Registry:
    """`registry` with a replica at each address that the names of these models have now, asked for all at once.

    Raises TargetUnknown where nothing is known of a name: what stands behind it would be missing from every figure.
    """
    asked = [model for name in models if (model := registry.models.get(name)) is not None and model.named_replicas]
    if not asked:
        return registry
    questions = sorted(questions_of(replace(registry, models={model.id: model for model in asked})))
    answers = await asyncio.gather(*(ask(question) for question in questions))
    standings = {question: Standing().after(answer) for question, answer in zip(questions, answers, strict=True)}
    for name in sorted({question.name for question in questions}):
        problem = problem_of(name, [standing for question, standing in standings.items() if question.name == name])
        if problem is not None:
            raise TargetUnknown(f"{problem}; the registry says that engines are there (SIMSA_DNS_SERVERS: whom to ask)")
    return with_addresses(registry, {question: standing.addresses for question, standing in standings.items()})


def moved(before: Model, now: Model | None) -> str:
    """Which of a model's engines came and went, in words; empty where none did."""
    then, there = ({one.url for one in model.replicas} if model is not None else set() for model in (before, now))
    came, gone = sorted(there - then), sorted(then - there)
    return "; ".join(
        f"{', '.join(addresses)} {word}" for addresses, word in ((came, "came"), (gone, "went")) if addresses
    )
