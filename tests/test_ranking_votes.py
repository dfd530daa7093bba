"""Votes: read strictly, sliced and turned without losing what they say; what is counted, and what hangs together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ranked_votes import CRITERIA, MODELS, vote_rows, votes_of

from gateway.domain.ranking.connectivity import components_of, is_connected
from gateway.domain.ranking.contests import contests_of, numbered, pair_table
from gateway.domain.ranking.vote_rows import VoteRow, read_votes
from gateway.domain.ranking.votes import NO_GRADE, Outcome, read_outcome


@pytest.mark.parametrize("label", ["A", "Tie", "both bad", "", "draw", "model_a", "0.5", "a "])
def test_a_label_that_is_no_outcome_is_an_error_and_not_half_a_point(label: str) -> None:
    with pytest.raises(ValueError, match="expected one of a, b, tie, both_bad, cannot_judge"):
        read_outcome(label)
    with pytest.raises(ValueError, match="vote 1: outcome"):
        votes_of([VoteRow("r", "p", *MODELS[:2], "a"), VoteRow("r", "p", *MODELS[:2], label)])


def test_codes_of_outcomes_are_their_order() -> None:
    assert [outcome.code for outcome in Outcome] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_a": "ghost"}, "vote 0: expected a model of the round"),
        ({"model_b": MODELS[0]}, "vote 0: expected two models"),
        ({"grades": {"charm": 1}}, "vote 0: expected a criterion"),
        ({"grades": {CRITERIA[0]: 3}}, "vote 0: performance: expected a grade from -2 to 2"),
        ({"seconds": -1.0}, "seconds: expected at least 0"),
        ({"style_a": {"length": -1.0, "lists": 0.0}}, "style_a: expected finite values of at least 0"),
    ],
)
def test_a_vote_that_cannot_be_is_refused_by_name(change: dict[str, object], complaint: str) -> None:
    row = replace(VoteRow("r", "p", *MODELS[:2], "a"), **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint):
        votes_of([row])


def test_columns_of_different_length_are_refused() -> None:
    votes = votes_of([VoteRow("r", "p", *MODELS[:2], "a")] * 3)
    with pytest.raises(ValueError, match="prompt: expected 3 values as in outcome, got 2"):
        replace(votes, prompt=votes.prompt[:2])
    with pytest.raises(ValueError, match="reviewer: expected codes from 0 to 0"):
        replace(votes, reviewer=votes.reviewer + 1)


@given(vote_rows(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_code(rows: list[VoteRow], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    votes, other = votes_of(rows), votes_of(mixed)
    assert (votes.reviewers, votes.prompts, votes.industries) == (other.reviewers, other.prompts, other.industries)
    of = {id(row): place for place, row in enumerate(mixed)}
    places = [of[id(row)] for row in rows]
    assert (other.reviewer[places] == votes.reviewer).all()
    assert (other.outcome[places] == votes.outcome).all()
    assert (other.grades[places] == votes.grades).all()


@given(vote_rows())
def test_turning_votes_around_keeps_what_they_say(rows: list[VoteRow]) -> None:
    votes = votes_of(rows)
    turned, back, sorted_ = votes.swapped(), votes.swapped().swapped(), votes.by_pair()
    for name in ("model_a", "model_b", "outcome", "grades", "style_a", "style_b"):
        assert (getattr(back, name) == getattr(votes, name)).all()
    assert (sorted_.model_a < sorted_.model_b).all()
    tables = [pair_table(contests_of(version)).scored for version in (votes, turned, sorted_)]
    assert (tables[0] == tables[1]).all()
    assert (tables[0] == tables[2]).all()


@given(vote_rows())
def test_a_fit_counts_what_was_judged_and_is_neither_repeat_nor_attention_item(rows: list[VoteRow]) -> None:
    kept = [row for row in rows if row.outcome != "cannot_judge" and not row.is_repeat and not row.is_attention]
    contests = contests_of(votes_of(rows))
    assert len(contests) == len(kept)
    assert contests.reviewers == len({row.reviewer for row in kept})
    assert contests.prompts == len({row.prompt for row in kept})
    points = {"a": 1, "b": 0, "tie": 0.5, "both_bad": 0.5}
    assert contests.points.sum() == sum(points[row.outcome] for row in kept)
    assert len(contests_of(votes_of(rows), without_both_bad=True)) == sum(row.outcome != "both_bad" for row in kept)


@given(vote_rows())
def test_a_criterion_is_judged_by_the_sign_of_its_grade(rows: list[VoteRow]) -> None:
    votes = votes_of(rows).by_criterion(CRITERIA[1])
    for row, outcome in zip(rows, votes.outcome.tolist(), strict=True):
        grade = row.grades.get(CRITERIA[1], NO_GRADE)
        expected = 4 if grade == NO_GRADE else 2 if grade == 0 else 0 if grade > 0 else 1
        assert outcome == expected


def test_a_slice_that_does_not_exist_is_an_error() -> None:
    votes = votes_of([VoteRow("r", "p", *MODELS[:2], "a", industry="금융")])
    assert len(votes.of_industry("금융")) == 1
    with pytest.raises(ValueError, match="industry: expected one of 금융, got '우주'"):
        votes.of_industry("우주")
    with pytest.raises(ValueError, match="criterion: expected one of"):
        votes.by_criterion("charm")


def test_models_that_nobody_judged_are_still_of_the_round() -> None:
    votes = read_votes([VoteRow("r", "p", "x", "y", "tie")], models=("x", "y", "z"))
    assert components_of(pair_table(contests_of(votes)).scored) == ((0, 1), (2,))


@given(st.lists(st.integers(0, 10**6), max_size=40))
def test_numbering_names_the_codes_that_occur(codes: list[int]) -> None:
    found, places = numbered(np.array(codes, dtype=np.int64))
    assert found.tolist() == sorted(set(codes))
    assert found[places].tolist() == codes


def _tables(size: int) -> st.SearchStrategy[list[list[bool]]]:
    return st.lists(st.lists(st.booleans(), min_size=size, max_size=size), min_size=size, max_size=size)


@given(st.integers(1, 7).flatmap(_tables))
def test_components_are_what_walking_the_graph_finds(scored: list[list[bool]]) -> None:
    size = len(scored)
    reach = [[scored[i][j] or i == j for j in range(size)] for i in range(size)]
    for k in range(size):
        for i in range(size):
            for j in range(size):
                reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    groups = {tuple(j for j in range(size) if reach[i][j] and reach[j][i]) for i in range(size)}
    table = np.array(scored, dtype=float)
    assert set(components_of(table)) == groups
    assert is_connected(table) == (len(groups) == 1)
