"""A design keeps each promise of its docstring at every size; facts, counted apart, say so, and say where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from math import ceil, floor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.assignment import make_design
from gateway.domain.canonical_json import canonical_json
from gateway.domain.design_facts import design_facts
from gateway.domain.fair_rounding import Edge, round_circulation, round_table
from gateway.domain.pair_dealing import deal_pairs
from gateway.domain.review_design import (
    BROKEN,
    SOUND,
    Design,
    Item,
    ItemKind,
    Options,
    Prompt,
    Reviewer,
    Round,
    design_document,
    design_hash,
)
from gateway.domain.seeded_stream import SeededStream
from gateway.domain.side_dealing import deal_sides

PROMISED = (
    "reviewer_model_spread",
    "reviewer_pair_spread",
    "stratum_model_spread",
    "stratum_pair_spread",
    "model_spread",
    "pair_spread",
    "reviewer_sides",
    "prompt_spread",
    "most_votes_on_a_prompt_by_one_reviewer",
    "prompt_stratum_deviation",
    "mislabelled_shared",
    "most_repeats",
    "nearest_repeat",
    "wrong_repeats",
    "attention_fewest",
    "attention_most",
)
SOUGHT = (
    "pair_sides",
    "prompt_sides",
    "overlap",
    "fewest_repeats",
    "most_times_a_question_is_asked_of_one_reviewer",
)
ATTENTION = ("attention-0", "attention-1")


def round_of(models: int, prompts: int, reviewers: int, votes: int, **changes: object) -> Round:
    plan = Round(
        models=tuple(f"m{number}" for number in range(models)),
        prompts=tuple(Prompt(f"p{number}", f"industry-{number % 4}") for number in range(prompts)),
        reviewers=tuple(Reviewer(f"r{number}", f"stratum-{number % 3}") for number in range(reviewers)),
        options=Options(votes),
        attention_prompts=ATTENTION,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    models, prompts, reviewers = draw(st.integers(2, 8)), draw(st.integers(1, 16)), draw(st.integers(1, 8))
    most = min(24, prompts * models * (models - 1) // 2)
    strata = st.sampled_from("xyz")
    return Round(
        models=tuple(f"m{number}" for number in range(models)),
        prompts=tuple(Prompt(f"p{number}", draw(strata)) for number in range(prompts)),
        reviewers=tuple(
            Reviewer(f"r{number}", draw(strata), draw(st.none() | st.integers(1, most))) for number in range(reviewers)
        ),
        options=Options(
            votes=draw(st.integers(1, most)),
            overlap=draw(st.sampled_from([0.1, 0.15, 0.2])),
            repeats=draw(st.integers(2, 4)),
            attention=draw(st.integers(1, 2)),
        ),
        attention_prompts=ATTENTION,
    )


def votes_of(design: Design) -> list[tuple[str, Item]]:
    return [(queue.reviewer, item) for queue in design.queues for item in queue.items if item.kind is ItemKind.VOTE]


def spread(counts: Sequence[int]) -> int:
    return max(counts) - min(counts)


# --- promises -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(rounds(), st.integers(0, 2**64))
def test_every_promise_is_kept_at_every_size_and_every_miss_has_a_reason(plan: Round, seed: int) -> None:
    facts = design_facts(make_design(plan, seed=seed))
    assert {check.name for check in facts.checks} == {*PROMISED, *SOUGHT}
    assert [check for check in facts.missed if check.name in PROMISED] == []
    assert all(check.reason for check in facts.missed)
    assert all(check.reason is None for check in facts.checks if check.is_kept)
    assert facts.votes == sum(plan.quota(reviewer) for reviewer in plan.reviewers)


@settings(max_examples=40)
@given(rounds(), st.integers(0, 2**64))
def test_counts_made_here_by_hand_agree_with_the_facts(plan: Round, seed: int) -> None:
    design = make_design(plan, seed=seed)
    facts = design_facts(design)
    votes = votes_of(design)
    pairs = [
        sum({item.model_left, item.model_right} == {a, b} for _, item in votes) for a, b in combinations(plan.models, 2)
    ]
    assert facts.check("pair_spread").found == spread(pairs) <= 1
    lefts = Counter((who, item.model_left) for who, item in votes)
    rights = Counter((who, item.model_right) for who, item in votes)
    for reviewer in plan.reviewers:
        met = [lefts[reviewer.id, model] + rights[reviewer.id, model] for model in plan.models]
        assert spread(met) <= 1
        assert all(abs(lefts[reviewer.id, model] - rights[reviewer.id, model]) <= 1 for model in plan.models)
    orders = Counter((item.model_left, item.model_right) for _, item in votes)
    worst = max(abs(orders[a, b] - orders[b, a]) for a, b in combinations(plan.models, 2))
    assert facts.check("pair_sides").found == worst
    on_prompt = Counter((item.prompt, item.model_left) for _, item in votes)
    on_prompt.subtract(Counter((item.prompt, item.model_right) for _, item in votes))
    assert facts.check("prompt_sides").found == max(map(abs, on_prompt.values()))
    judges = Counter(
        (question, who)
        for who, item in votes
        for question in [(item.prompt, frozenset((item.model_left, item.model_right)))]
    )
    by_question = Counter(question for question, _ in judges)
    shared = [by_question[item.prompt, frozenset((item.model_left, item.model_right))] >= 3 for _, item in votes]
    assert [item.shared for _, item in votes] == shared
    assert facts.check("overlap").found == sum(shared) / len(votes)


@pytest.mark.parametrize(
    ("models", "prompts", "reviewers", "votes"),
    [(10, 120, 60, 40), (10, 120, 49, 40), (10, 120, 120, 12), (5, 60, 20, 30), (4, 100, 30, 24), (3, 200, 12, 50)],
)
def test_rounds_as_they_are_held_miss_nothing(models: int, prompts: int, reviewers: int, votes: int) -> None:
    facts = design_facts(make_design(round_of(models, prompts, reviewers, votes), seed=2026))
    expected = () if votes >= 20 else ("fewest_repeats",)
    assert tuple(check.name for check in facts.missed) == expected


@pytest.mark.parametrize("overlap", [0.1, 0.15, 0.2])
def test_the_share_of_overlap_is_the_one_asked_for(overlap: float) -> None:
    plan = round_of(10, 120, 30, 40, options=Options(40, overlap=overlap))
    assert design_facts(make_design(plan, seed=1)).check("overlap").found == pytest.approx(overlap, abs=0.003)


def test_reviewers_with_quotas_of_their_own_get_just_those() -> None:
    quotas = [5, 90, 17, 40, 40, 1, 63]
    plan = round_of(10, 120, 0, 40)
    plan = replace(plan, reviewers=tuple(Reviewer(f"r{n}", "x", quota) for n, quota in enumerate(quotas)))
    design = make_design(plan, seed=3)
    assert [Counter(item.kind for item in queue.items)[ItemKind.VOTE] for queue in design.queues] == quotas
    assert not [check for check in design_facts(design).missed if check.name in PROMISED]


# --- the queue ----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(rounds(), st.integers(0, 2**64))
def test_repeats_swap_sides_20_items_later_or_say_why_there_are_none(plan: Round, seed: int) -> None:
    for queue in make_design(plan, seed=seed).queues:
        assert [item.position for item in queue.items] == list(range(1, len(queue.items) + 1))
        repeats = [item for item in queue.items if item.kind is ItemKind.REPEAT]
        votes = [item for item in queue.items if item.kind is ItemKind.VOTE]
        assert (queue.note is None) == (len(repeats) == plan.options.repeats)
        if len(votes) + plan.options.attention >= 20:
            assert len(repeats) == plan.options.repeats
        for item in repeats:
            assert item.repeat_of is not None
            original = queue.items[item.repeat_of - 1]
            assert item.position - original.position >= 20
            assert original == replace(
                item,
                position=original.position,
                model_left=item.model_right,
                model_right=item.model_left,
                kind=ItemKind.VOTE,
                repeat_of=None,
            )
        attention = [item for item in queue.items if item.kind is ItemKind.ATTENTION]
        assert len(attention) == len({item.prompt for item in attention}) == plan.options.attention
        assert all({item.model_left, item.model_right} == {SOUND, BROKEN} for item in attention)


def test_a_note_says_why_a_short_queue_has_no_repeats() -> None:
    (queue,) = make_design(round_of(3, 20, 1, 10), seed=1).queues
    assert queue.note == (
        "0 repeats instead of 3: a repeat comes 20 items after its original, and the queue has 11 items without repeats"
    )


def test_repeats_are_not_always_of_the_same_places() -> None:
    queues = make_design(round_of(10, 120, 20, 40), seed=5).queues
    places = {item.repeat_of for queue in queues for item in queue.items if item.kind is ItemKind.REPEAT}
    assert len(places) > 10


# --- answers that are missing -------------------------------------------------------------------------------


def test_votes_keep_clear_of_missing_answers_where_they_can() -> None:
    missing = tuple((f"m{number % 10}", f"p{number}") for number in range(0, 120, 3))
    plan = round_of(10, 120, 30, 40, unavailable=missing)
    design = make_design(plan, seed=4)
    assert not [
        (item, who)
        for who, item in votes_of(design)
        for model in (item.model_left, item.model_right)
        if (model, item.prompt) in missing
    ]
    facts = design_facts(design)
    assert (facts.put_aside, facts.missed) == (0, ())


def test_a_pair_with_a_model_that_answers_nothing_is_put_aside_and_the_facts_say_so() -> None:
    missing = tuple(("m0", f"p{number}") for number in range(60))
    design = make_design(round_of(4, 60, 6, 30, unavailable=missing), seed=4)
    aside = [item for queue in design.queues for item in queue.put_aside]
    assert len(aside) == 90
    assert all("m0" in (item.model_left, item.model_right) and item.position == 0 for item in aside)
    assert not [item for _, item in votes_of(design) if "m0" in (item.model_left, item.model_right)]
    facts = design_facts(design)
    assert facts.put_aside == 90
    assert facts.check("pair_spread").reason == "90 votes were put aside, since answers are missing"


# --- the seed -----------------------------------------------------------------------------------------------


def test_words_are_sha_256_of_seed_purpose_and_a_counter() -> None:
    prefix = sha256(b"20260101").digest() + sha256("queue/심사위원".encode()).digest()
    blocks = b"".join(sha256(prefix + number.to_bytes(8, "big")).digest() for number in range(2))
    expected = [int.from_bytes(blocks[at : at + 8], "big") for at in range(0, 64, 8)]
    for seed in (20260101, b"20260101"):
        stream = SeededStream(seed, "queue/심사위원")
        assert [stream.word() for _ in range(8)] == expected


def test_shuffling_is_fisher_and_yates_with_words_modulo() -> None:
    items, words = list("abcdef"), SeededStream(1, "x")
    for at in range(5, 0, -1):
        other = words.word() % (at + 1)
        items[at], items[other] = items[other], items[at]
    assert SeededStream(1, "x").shuffled("abcdef") == items


@given(st.integers(1, 2**64), st.integers(0, 1000))
def test_numbers_stay_below_their_bound(bound: int, seed: int) -> None:
    assert 0 <= SeededStream(seed, "x").below(bound) < bound


@pytest.mark.parametrize("bound", [0, -1, 2**64 + 1])
def test_a_bound_that_words_cannot_reach_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match=r"n: expected 1 to 2\*\*64"):
        SeededStream(1, "x").below(bound)


GOLDEN = "4b6b456a500382eab63fbd89a8c18b449045c9abc74659a8d006062b134bd977"


def test_the_same_seed_gives_the_same_design_in_every_process() -> None:
    script = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from test_assignment import round_of\n"
        "from gateway.domain.assignment import make_design\n"
        "from gateway.domain.review_design import design_hash\n"
        "print(design_hash(make_design(round_of(6, 30, 12, 25), seed=20260101)))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent.parent,
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    assert found == [GOLDEN, GOLDEN]


def test_another_seed_gives_another_design_and_the_hash_is_of_the_canonical_document() -> None:
    plan = round_of(4, 20, 6, 20)
    first, second = make_design(plan, seed=1), make_design(plan, seed=2)
    assert design_hash(first) != design_hash(second)
    assert make_design(plan, seed=b"1") == first
    assert design_hash(first) == sha256(canonical_json(design_document(first))).hexdigest()
    assert design_document(first)["generator"] == "sha256-counter-1"
    assert design_document(first)["seed_hex"] == b"1".hex()


# --- facts --------------------------------------------------------------------------------------------------


def tampered(design: Design, at: int, **changes: object) -> Design:
    """The first reviewer's item of that number, changed."""
    first = design.queues[0]
    items = list(first.items)
    items[at] = replace(items[at], **changes)  # type: ignore[arg-type]
    return replace(design, queues=(replace(first, items=tuple(items)), *design.queues[1:]))


def test_facts_notice_what_was_changed_by_hand() -> None:
    design = make_design(round_of(10, 120, 49, 40), seed=6)
    assert design_facts(design).missed == ()
    items = design.queues[0].items
    vote = next(n for n, item in enumerate(items) if item.kind is ItemKind.VOTE)
    repeat = next(n for n, item in enumerate(items) if item.kind is ItemKind.REPEAT)
    attention = next(n for n, item in enumerate(items) if item.kind is ItemKind.ATTENTION)
    other = next(item.prompt for item in items[vote + 1 :] if item.kind is ItemKind.VOTE)
    turned = {"model_left": items[vote].model_right, "model_right": items[vote].model_left}
    for at, changes, noticed in (
        (vote, turned, "reviewer_sides"),
        (vote, {"prompt": other}, "most_votes_on_a_prompt_by_one_reviewer"),
        (vote, {"shared": not items[vote].shared}, "mislabelled_shared"),
        (vote, {"position": 999}, "wrong_repeats"),
        (repeat, {"repeat_of": repeat}, "nearest_repeat"),
        (repeat, {"repeat_of": 999}, "wrong_repeats"),
        (repeat, {"kind": ItemKind.VOTE, "repeat_of": None}, "fewest_repeats"),
        (attention, {"kind": ItemKind.VOTE}, "attention_fewest"),
    ):
        missed = {check.name for check in design_facts(tampered(design, at, **changes)).missed}
        assert noticed in missed


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (round_of(2, 10, 10, 10), "100 votes fall on 10 questions, so that many are asked of 3 anyway"),
        (round_of(5, 40, 2, 40), "there are 2 reviewers, and a shared question takes 3"),
        (round_of(20, 120, 10, 20), "200 votes are fewer than 3 for each pair or each prompt"),
    ],
)
def test_where_the_overlap_cannot_be_had_the_facts_say_why(plan: Round, reason: str) -> None:
    overlap = design_facts(make_design(plan, seed=1)).check("overlap")
    assert not overlap.is_kept
    assert overlap.reason is not None
    assert overlap.reason.startswith(reason)


def test_three_reviewers_on_three_models_with_two_votes_cannot_balance_every_order() -> None:
    # Two votes share a model, which stands left in one and right in the other; all 8 choices leave one order 2 ahead.
    facts = design_facts(make_design(round_of(3, 6, 3, 2), seed=1))
    assert (facts.check("pair_sides").found, facts.check("pair_sides").is_kept) == (2, False)


# --- input that cannot be -----------------------------------------------------------------------------------

BASE = round_of(4, 20, 6, 20)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"models": ("a",)}, "models: expected 2 to 20, got 1"),
        ({"models": tuple(f"m{n}" for n in range(21))}, "models: expected 2 to 20, got 21"),
        ({"models": ("a", "b", "a")}, "models: expected each id once, got a more than once"),
        ({"prompts": ()}, "expected prompts and reviewers, got 0 and 6"),
        ({"prompts": (Prompt("attention-0", "x"),)}, "prompts: expected each id once, got attention-0"),
        ({"reviewers": (Reviewer("r", "x"), Reviewer("r", "y"))}, "reviewers: expected each id once, got r"),
        (
            {"reviewers": (Reviewer("r", "x", 0),)},
            "reviewer r: expected at least 1 vote, got 0: leave the reviewer out",
        ),
        (
            {"reviewers": (Reviewer("r", "x", 121),)},
            "121 votes are more than the 120 questions that 20 prompts and 4 models give: add prompts or",
        ),
        ({"options": Options(20, overlap=0.3)}, r"overlap: expected a share from 0.10 to 0.20, got 0.3"),
        ({"options": Options(20, repeats=5)}, "repeats: expected 2 to 4, got 5"),
        ({"options": Options(20, attention=0)}, "attention: expected 1 or 2, got 0"),
        ({"attention_prompts": ()}, "attention_prompts: expected at least 1, got 0: add some"),
        ({"unavailable": (("m9", "p0"),)}, r"unavailable: expected a model and a prompt of the round, got \(m9, p0\)"),
    ],
)
def test_a_round_that_cannot_be_is_refused_with_what_would_mend_it(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_design(replace(BASE, **changes), seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, b""])
def test_a_seed_that_is_none_is_refused(seed: int | bytes) -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        make_design(BASE, seed=seed)


# --- the parts ----------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 9))
def test_a_table_is_rounded_with_every_sum_that_it_promises(
    data: st.DataObject, rows: int, columns: int, denominator: int
) -> None:
    numbers = st.integers(0, 30)
    shares = [[data.draw(numbers) for _ in range(columns)] for _ in range(rows)]
    row_groups = [data.draw(st.integers(0, 2)) for _ in range(rows)]
    column_groups = [data.draw(st.integers(0, 2)) for _ in range(columns)]
    stream = SeededStream(data.draw(st.integers(0, 1000)), "x")
    whole = round_table(shares, denominator, row_groups=row_groups, column_groups=column_groups, stream=stream)

    def is_neighbour(chosen_rows: Sequence[int], chosen_columns: Sequence[int]) -> bool:
        share = sum(shares[r][c] for r in chosen_rows for c in chosen_columns) / denominator
        return floor(share) <= sum(whole[r][c] for r in chosen_rows for c in chosen_columns) <= ceil(share)

    every_row, every_column = range(rows), range(columns)
    parts_of_rows = [[r for r in every_row if row_groups[r] == group] for group in range(3)]
    parts_of_columns = [[c for c in every_column if column_groups[c] == group] for group in range(3)]
    assert all(is_neighbour([r], [c]) for r in every_row for c in every_column)
    assert all(is_neighbour([r], part) for r in every_row for part in [every_column, *parts_of_columns])
    assert all(is_neighbour(part, [c]) for c in every_column for part in [every_row, *parts_of_rows])
    assert all(is_neighbour(part, every_column) for part in [every_row, *parts_of_rows])
    assert all(is_neighbour(every_row, part) for part in parts_of_columns)


def test_a_share_is_rounded_up_as_often_as_it_says() -> None:
    ups = Counter[int]()
    for seed in range(2000):
        (row,) = round_table([[1, 2, 5]], 8, row_groups=[0], stream=SeededStream(seed, "x"))
        assert sum(row) == 1
        ups[row.index(1)] += 1
    assert [ups[column] / 2000 for column in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)


def test_what_flows_in_must_flow_out() -> None:
    with pytest.raises(ValueError, match="expected inflow to equal outflow"):
        round_circulation([Edge(0, 1, 3)], 2, SeededStream(1, "x"))


def test_twenty_models_in_nineteen_perfect_matchings_are_dealt_without_a_search() -> None:
    dealt = deal_pairs([10] * 19, [0] * 19, models=20, stream=SeededStream(1, "x"))
    assert all(sorted(model for pair in own for model in pair) == list(range(20)) for own in dealt)
    assert Counter(pair for own in dealt for pair in own) == Counter(combinations(range(20), 2))


@given(st.integers(2, 7), st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_sides_change_no_pair(models: int, quotas: list[int], seed: int) -> None:
    stream = SeededStream(seed, "x")
    dealt = deal_pairs(quotas, [0] * len(quotas), models=models, stream=stream)
    votes = deal_sides(dealt, models=models, stream=stream)
    for own, pairs in zip(votes, dealt, strict=True):
        assert Counter((min(vote), max(vote)) for vote in own) == Counter(pairs)
