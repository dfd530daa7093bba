"""Who judges what in a round of blind review: each reviewer's queue, from a seed, the same wherever it is made again.

Pairs, sides and prompts are dealt by the three modules that this one calls; here names become numbers and back, and
votes become a queue with hidden repeats and attention items. Whether a design keeps its promises is counted again,
from the queues alone, by `design_facts`. Answers, identities and the votes themselves do not belong here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from gateway.domain.pair_dealing import Pair, deal_pairs
from gateway.domain.prompt_dealing import SHARED_BY, Table, deal_prompts
from gateway.domain.review_design import BROKEN, REPEAT_DISTANCE, SOUND, Design, Item, ItemKind, Queue, Reviewer, Round
from gateway.domain.seeded_stream import SeededStream, seed_bytes
from gateway.domain.side_dealing import deal_sides, worst_order

_ATTEMPTS = 4
"""Pairs and sides are dealt anew up to that often while an order within a pair is 2 ahead."""


def make_design(plan: Round, *, seed: int | bytes) -> Design:
    """Everybody's queue. The same round, lists in the same order, and the same seed give the same design.

    Promised, for votes that were not put aside: each reviewer meets every model, and every pair, equally often but for
    1; so does each stratum of reviewers, and so do all together; a reviewer sees each model as often left as right but
    for 1; nobody sees a prompt twice unless they have more votes than there are prompts; a reviewer's votes on a
    stratum of prompts are in proportion to its prompts, rounded down or up; every prompt gets as many votes but for 1.
    Sought, and counted by `design_facts`: both orders of each pair, and both sides of each model within each prompt,
    equal but for 1; the share of overlap; no vote on a missing answer. Each is impossible for some sizes.

    Raises ValueError with one line for what cannot be done at all.
    """
    _require_possible(plan)
    number = {model: at for at, model in enumerate(plan.models)}
    table = Table(
        models=len(number),
        reviewer_groups=_numbered([reviewer.stratum for reviewer in plan.reviewers]),
        prompt_groups=_numbered([prompt.stratum for prompt in plan.prompts]),
        absent=_absent(plan, number),
    )
    quotas = [plan.quota(reviewer) for reviewer in plan.reviewers]
    votes = _votes(quotas, table, seed)
    wanted = SHARED_BY * round(plan.options.overlap * sum(quotas) / SHARED_BY)
    prompts = deal_prompts(votes, table, shared_votes=wanted, stream=SeededStream(seed, "prompts"))
    shared = _shared(votes, prompts, table.absent)
    queues = []
    for reviewer, own, about in zip(plan.reviewers, votes, prompts, strict=True):
        items: dict[bool, list[Item]] = {True: [], False: []}
        """By whether both models have an answer."""
        for pair, prompt in zip(own, about, strict=True):
            present = not any((prompt, model) in table.absent for model in pair)
            items[present].append(_vote(plan, pair, prompt, is_shared=(prompt, *sorted(pair)) in shared))
        stream = SeededStream(seed, f"queue/{reviewer.id}")
        queues.append(_queue(plan, reviewer, items[True], items[False], stream))
    return Design(plan, seed_bytes(seed), tuple(queues))


# --- votes --------------------------------------------------------------------------------------------------


def _votes(quotas: Sequence[int], table: Table, seed: int | bytes) -> list[list[Pair]]:
    """Of several attempts the first in which both orders of every pair are equal but for 1, else the first best."""
    best: list[list[Pair]] = []
    for attempt in range(_ATTEMPTS):
        stream = SeededStream(seed, f"pairs/{attempt}")
        dealt = deal_pairs(quotas, table.reviewer_groups, models=table.models, stream=stream)
        votes = deal_sides(dealt, models=table.models, stream=stream)
        if not best or worst_order(votes) < worst_order(best):
            best = votes
        if worst_order(best) <= 1:
            break
    return best


def _absent(plan: Round, number: dict[str, int]) -> frozenset[tuple[int, int]]:
    at = {prompt.id: place for place, prompt in enumerate(plan.prompts)}
    return frozenset((at[prompt], number[model]) for model, prompt in plan.unavailable)


def _numbered(names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def _shared(
    votes: Sequence[Sequence[Pair]], prompts: Sequence[Sequence[int]], absent: Collection[tuple[int, int]]
) -> set[tuple[int, int, int]]:
    """Questions (prompt, lower model, higher model) that enough reviewers vote on."""
    asked: dict[tuple[int, int, int], set[int]] = {}
    for reviewer, (own, about) in enumerate(zip(votes, prompts, strict=True)):
        for (left, right), prompt in zip(own, about, strict=True):
            if (prompt, left) not in absent and (prompt, right) not in absent:
                asked.setdefault((prompt, min(left, right), max(left, right)), set()).add(reviewer)
    return {question for question, reviewers in asked.items() if len(reviewers) >= SHARED_BY}


# --- queues -------------------------------------------------------------------------------------------------


def _vote(plan: Round, pair: Pair, prompt: int, *, is_shared: bool) -> Item:
    left, right = pair
    return Item(
        position=0,
        prompt=plan.prompts[prompt].id,
        model_left=plan.models[left],
        model_right=plan.models[right],
        kind=ItemKind.VOTE,
        shared=is_shared,
    )


def _queue(
    plan: Round, reviewer: Reviewer, votes: Sequence[Item], put_aside: Sequence[Item], stream: SeededStream
) -> Queue:
    options = plan.options
    order = stream.shuffled(votes)
    repeats = min(options.repeats, len(order)) if len(order) + options.attention >= REPEAT_DISTANCE else 0
    side = stream.below(2)
    for count, prompt in enumerate(stream.shuffled(plan.attention_prompts)[: options.attention]):
        left, right = (SOUND, BROKEN) if (count + side) % 2 else (BROKEN, SOUND)
        at = repeats + stream.below(len(order) - repeats + 1)  # the first items stay votes, to be repeated
        order.insert(at, Item(0, prompt, left, right, ItemKind.ATTENTION))
    note = None
    if repeats < options.repeats:
        note = (
            f"{repeats} repeats instead of {options.repeats}: a repeat comes {REPEAT_DISTANCE} items after its "
            f"original, and the queue has {len(order)} items without repeats"
        )
    return Queue(reviewer.id, _with_repeats(order, repeats, stream), tuple(put_aside), note)


def _with_repeats(order: Sequence[Item], repeats: int, stream: SeededStream) -> tuple[Item, ...]:
    """Number the items and put the repeats in, each at least the set distance after its original.

    `after[i]` = repeats that follow the i-th item directly; originals come in the order of their repeats.
    """
    originals = _originals(order, repeats, stream)
    after: list[list[int]] = [[] for _ in order]
    earliest = 0
    for original in originals:
        between = sum(len(after[at]) for at in range(original, len(order)))
        earliest = max(earliest, original + REPEAT_DISTANCE - 1 - between)
        earliest += stream.below(len(order) - earliest)
        after[earliest].append(original)
    queue: list[Item] = []
    places: dict[int, int] = {}
    for at, item in enumerate(order):
        queue.append(replace(item, position=len(queue) + 1))
        places[at] = len(queue)
        for original in after[at]:
            first = order[original]
            queue.append(
                replace(
                    first,
                    position=len(queue) + 1,
                    model_left=first.model_right,
                    model_right=first.model_left,
                    kind=ItemKind.REPEAT,
                    repeat_of=places[original],
                )
            )
    return tuple(queue)


def _originals(order: Sequence[Item], repeats: int, stream: SeededStream) -> list[int]:
    """Places of votes to repeat, ascending: the t-th (from 0) has room for the distance with t repeats in between."""
    if not repeats:
        return []
    last = len(order) - REPEAT_DISTANCE
    early = [at for at in range(last + 1) if order[at].kind is ItemKind.VOTE]
    if len(early) >= repeats:
        return sorted(stream.shuffled(early)[:repeats])
    return list(range(repeats))


# --- what cannot be ------------------------------------------------------------------------------------------


def _require_possible(plan: Round) -> None:
    options = plan.options
    if not 2 <= len(plan.models) <= 20:
        raise ValueError(f"models: expected 2 to 20, got {len(plan.models)}")
    _require_distinct("models", plan.models)
    _require_distinct("prompts", [prompt.id for prompt in plan.prompts] + list(plan.attention_prompts))
    _require_distinct("reviewers", [reviewer.id for reviewer in plan.reviewers])
    if not 0.10 <= options.overlap <= 0.20:
        raise ValueError(f"overlap: expected a share from 0.10 to 0.20, got {options.overlap}")
    if not 2 <= options.repeats <= 4:
        raise ValueError(f"repeats: expected 2 to 4, got {options.repeats}")
    if not 1 <= options.attention <= 2:
        raise ValueError(f"attention: expected 1 or 2, got {options.attention}")
    if len(plan.attention_prompts) < options.attention:
        raise ValueError(
            f"attention_prompts: expected at least {options.attention}, got {len(plan.attention_prompts)}: "
            "add some, or ask for fewer attention items"
        )
    _require_quotas(plan)
    _require_known(plan)


def _require_quotas(plan: Round) -> None:
    if not plan.prompts or not plan.reviewers:
        raise ValueError(f"expected prompts and reviewers, got {len(plan.prompts)} and {len(plan.reviewers)}")
    questions = len(plan.prompts) * len(plan.models) * (len(plan.models) - 1) // 2
    for reviewer in plan.reviewers:
        quota = plan.quota(reviewer)
        if quota < 1:
            raise ValueError(f"reviewer {reviewer.id}: expected at least 1 vote, got {quota}: leave the reviewer out")
        if quota > questions:
            raise ValueError(
                f"reviewer {reviewer.id}: {quota} votes are more than the {questions} questions that "
                f"{len(plan.prompts)} prompts and {len(plan.models)} models give: add prompts or lower the votes"
            )


def _require_known(plan: Round) -> None:
    models, prompts = set(plan.models), {prompt.id for prompt in plan.prompts}
    for model, prompt in plan.unavailable:
        if model not in models or prompt not in prompts:
            raise ValueError(f"unavailable: expected a model and a prompt of the round, got ({model}, {prompt})")


def _require_distinct(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what}: expected each id once, got {', '.join(twice)} more than once")
