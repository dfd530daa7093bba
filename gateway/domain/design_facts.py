"""Whether a design keeps its promises: everything counted again from the queues, with none of the code that made them.

Each check says what was found, what bound it is held against, and, where the bound is missed, why that size or input
cannot do better or what stood in the way. Making designs belongs to `assignment`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import combinations, product

from gateway.domain.review_design import REPEAT_DISTANCE, Design, Item, ItemKind

OVERLAP_BOUNDS = (0.10, 0.20)
_SHARED_BY = 3


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    found: float
    low: float
    high: float
    """Kept when low <= found <= high."""
    reason: str | None = None
    """Why it is missed; None when it is kept."""

    @property
    def is_kept(self) -> bool:
        return self.low <= self.found <= self.high


@dataclass(frozen=True, slots=True)
class DesignFacts:
    """Checks named `*_spread` hold the largest count less the smallest, `*_sides` the largest |left - right|."""

    votes: int
    put_aside: int
    checks: tuple[Check, ...]

    def check(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    @property
    def missed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.is_kept)


def design_facts(design: Design) -> DesignFacts:
    """All checks of a design; those on counts are of the votes that are judged, without repeats and attention items."""
    votes = [(queue.reviewer, item) for queue in design.queues for item in queue.items if item.kind is ItemKind.VOTE]
    put_aside = sum(len(queue.put_aside) for queue in design.queues)
    checks = [
        *_meetings(design, votes),
        *_sides(votes),
        *_prompts(design, votes),
        *_overlap(design, votes),
        *_hidden(design),
    ]
    why = f"{put_aside} votes were put aside, since answers are missing" if put_aside else None
    return DesignFacts(len(votes), put_aside, tuple(_explained(check, why) for check in checks))


def _explained(check: Check, why: str | None) -> Check:
    if check.is_kept:
        return Check(check.name, check.found, check.low, check.high)
    return Check(check.name, check.found, check.low, check.high, why or check.reason or "the input allows no better")


Votes = list[tuple[str, Item]]


def _meetings(design: Design, votes: Votes) -> list[Check]:
    models, reviewers = design.round.models, [reviewer.id for reviewer in design.round.reviewers]
    stratum = {reviewer.id: reviewer.stratum for reviewer in design.round.reviewers}
    pairs = [frozenset(pair) for pair in combinations(models, 2)]
    met = Counter((who, model) for who, item in votes for model in _pair(item))
    asked = Counter((who, _pair(item)) for who, item in votes)
    strata = sorted(set(stratum.values()))
    met_by, met_in_all = Counter[tuple[str, str]](), Counter[str]()
    asked_by, asked_in_all = Counter[tuple[str, frozenset[str]]](), Counter[frozenset[str]]()
    for (who, model), count in met.items():
        met_by[stratum[who], model] += count
        met_in_all[model] += count
    for (who, pair), count in asked.items():
        asked_by[stratum[who], pair] += count
        asked_in_all[pair] += count
    return [
        _spread("reviewer_model_spread", [[met[who, model] for model in models] for who in reviewers]),
        _spread("reviewer_pair_spread", [[asked[who, pair] for pair in pairs] for who in reviewers]),
        _spread("stratum_model_spread", [[met_by[name, model] for model in models] for name in strata]),
        _spread("stratum_pair_spread", [[asked_by[name, pair] for pair in pairs] for name in strata]),
        _spread("model_spread", [[met_in_all[model] for model in models]]),
        _spread("pair_spread", [[asked_in_all[pair] for pair in pairs]]),
    ]


def _sides(votes: Votes) -> list[Check]:
    few = "no better order was found: in designs of few votes a pair it may not exist"
    return [
        _leaning("reviewer_sides", (((who, m), s) for who, item in votes for m, s in _signed(item)), few),
        _leaning(
            "pair_sides",
            ((_pair(item), 1 if item.model_left < item.model_right else -1) for _, item in votes),
            few,
        ),
        _leaning("prompt_sides", (((item.prompt, m), s) for _, item in votes for m, s in _signed(item)), few),
    ]


def _prompts(design: Design, votes: Votes) -> list[Check]:
    plan = design.round
    prompts, reviewers = [prompt.id for prompt in plan.prompts], plan.reviewers
    seen = Counter((who, item.prompt) for who, item in votes)
    used = Counter(item.prompt for _, item in votes)
    stratum_of = {prompt.id: prompt.stratum for prompt in plan.prompts}
    size = Counter(stratum_of.values())
    got = Counter((who, stratum_of.get(item.prompt)) for who, item in votes)
    quota = {reviewer.id: plan.quota(reviewer) for reviewer in reviewers}
    off = max(abs(got[who, name] * len(prompts) - quota[who] * size[name]) for who, name in product(quota, size))
    enough = max(quota.values()) <= len(prompts)
    asked_twice = Counter((who, item.prompt, _pair(item)) for who, item in votes)
    return [
        _spread("prompt_spread", [[used[prompt] for prompt in prompts]]),
        Check(
            "most_votes_on_a_prompt_by_one_reviewer",
            max(seen.values(), default=0),
            0,
            1 if enough else -(-max(quota.values()) // len(prompts)),
        ),
        Check(
            "most_times_a_question_is_asked_of_one_reviewer",
            max(asked_twice.values(), default=0),
            0,
            1,
            "a reviewer has more votes than there are prompts, and no better exchange was found",
        ),
        Check("prompt_stratum_deviation", off / len(prompts), 0, (len(prompts) - 1) / len(prompts)),
    ]


def _overlap(design: Design, votes: Votes) -> list[Check]:
    asked: dict[object, set[str]] = {}
    for who, item in votes:
        asked.setdefault((item.prompt, _pair(item)), set()).add(who)
    shared = [len(asked[item.prompt, _pair(item)]) >= _SHARED_BY for _, item in votes]
    share = sum(shared) / len(votes) if votes else 0.0
    mislabelled = sum(is_shared != item.shared for is_shared, (_, item) in zip(shared, votes, strict=True))
    return [
        Check("overlap", share, *OVERLAP_BOUNDS, _overlap_reason(design, votes, share)),
        Check("mislabelled_shared", mislabelled, 0, 0),
    ]


def _overlap_reason(design: Design, votes: Votes, share: float) -> str:
    reviewers, prompts = len(design.round.reviewers), len(design.round.prompts)
    pairs = len(design.round.models) * (len(design.round.models) - 1) // 2
    if share > OVERLAP_BOUNDS[1]:
        return f"{len(votes)} votes fall on {prompts * pairs} questions, so that many are asked of {_SHARED_BY} anyway"
    nearest = _SHARED_BY * round(design.round.options.overlap * len(votes) / _SHARED_BY)
    if not OVERLAP_BOUNDS[0] * len(votes) <= nearest <= OVERLAP_BOUNDS[1] * len(votes):
        return f"of {len(votes)} votes no multiple of {_SHARED_BY} is near the share asked for"
    if reviewers < _SHARED_BY:
        return f"there are {reviewers} reviewers, and a shared question takes {_SHARED_BY}"
    if len(votes) < _SHARED_BY * min(pairs, prompts):
        return (
            f"{len(votes)} votes are fewer than {_SHARED_BY} for each pair or each prompt, "
            f"so that few questions can be asked of {_SHARED_BY} reviewers"
        )
    return "too few reviewers share a pair and a prompt in both orders"


def _hidden(design: Design) -> list[Check]:
    options = design.round.options
    fewest, most, nearest, wrong = options.repeats, 0, REPEAT_DISTANCE, 0
    attention = set[int]()
    reason = None
    for queue in design.queues:
        place = {item.position: item for item in queue.items}
        wrong += [item.position for item in queue.items] != list(range(1, len(queue.items) + 1))
        repeats = [item for item in queue.items if item.kind is ItemKind.REPEAT]
        wrong += len({item.repeat_of for item in repeats}) != len(repeats)
        for item in repeats:
            original = place.get(item.repeat_of or 0)
            if original is None:
                wrong += 1
                continue
            nearest = min(nearest, item.position - original.position)
            same = (item.prompt, item.model_left, item.model_right) == (
                original.prompt,
                original.model_right,
                original.model_left,
            )
            wrong += not (same and original.kind is ItemKind.VOTE)
        fewest, most = min(fewest, len(repeats)), max(most, len(repeats))
        attention.add(sum(item.kind is ItemKind.ATTENTION for item in queue.items))
        reason = reason or queue.note
    return [
        Check("fewest_repeats", fewest, options.repeats, options.repeats, reason),
        Check("most_repeats", most, 0, options.repeats),
        Check("nearest_repeat", nearest, REPEAT_DISTANCE, REPEAT_DISTANCE),
        Check("wrong_repeats", wrong, 0, 0),
        Check("attention_fewest", min(attention), options.attention, options.attention),
        Check("attention_most", max(attention), options.attention, options.attention),
    ]


def _pair(item: Item) -> frozenset[str]:
    return frozenset((item.model_left, item.model_right))


def _signed(item: Item) -> tuple[tuple[str, int], tuple[str, int]]:
    return (item.model_left, 1), (item.model_right, -1)


def _spread(name: str, rows: Iterable[list[int]]) -> Check:
    return Check(name, max(max(row) - min(row) for row in rows), 0, 1)


def _leaning(name: str, signs: Iterable[tuple[Hashable, int]], reason: str) -> Check:
    sums = Counter[Hashable]()
    for key, sign in signs:
        sums[key] += sign
    return Check(name, max(map(abs, sums.values()), default=0), 0, 1, reason)
