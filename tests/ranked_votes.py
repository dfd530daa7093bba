"""Votes for the tests of the ranking: any that can be, by hypothesis, and rounds whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from gateway.domain.ranking.vote_rows import VoteRow, read_votes
from gateway.domain.ranking.votes import OUTCOMES, FloatArray, Votes, columns_of_votes

MODELS = ("가람", "나래", "다온", "라온")
CRITERIA = ("performance", "infrastructure", "industry")
FEATURES = ("length", "lists")


def vote_rows(*, least: int = 0, most: int = 60) -> st.SearchStrategy[list[VoteRow]]:
    """Of four models, up to five reviewers and six prompts, with everything a vote can carry."""
    return st.lists(st.integers(0, 2**62 - 1).map(_row), min_size=least, max_size=most)


def _row(code: int) -> VoteRow:
    """One number is one vote: drawing each field by itself would take most of a test's time."""

    def pick(options: int) -> int:
        nonlocal code
        code, picked = divmod(code, options)
        return picked

    a = pick(4)
    b = (a + 1 + pick(3)) % 4
    grades = {name: pick(6) - 3 for name in CRITERIA}
    return VoteRow(
        reviewer=f"r{pick(5)}",
        prompt=f"p{pick(6)}",
        model_a=MODELS[a],
        model_b=MODELS[b],
        outcome=OUTCOMES[pick(5)],
        grades={name: grade for name, grade in grades.items() if grade > -3},
        is_repeat=pick(4) == 3,
        is_attention=pick(8) == 7,
        recognised=pick(4) == 3,
        industry=(None, "금융", "제조")[pick(3)],
        seconds=(None, 12.5, 40.0, 600.0)[pick(4)],
        style_a={name: float(pick(16)) for name in FEATURES},
        style_b={name: float(pick(16)) for name in FEATURES},
    )


def votes_of(rows: list[VoteRow], models: tuple[str, ...] = MODELS) -> Votes:
    return read_votes(rows, models=models, criteria=CRITERIA, features=FEATURES)


def connected(rows: list[VoteRow]) -> list[VoteRow]:
    """The rows, and a tie between neighbours, so that every model is comparable."""
    return [*rows, *(VoteRow(f"r{n}", f"p{n}", a, b, "tie") for n, (a, b) in enumerate(pairwise(MODELS)))]


def drawn_round(
    seed: int,
    strengths: FloatArray,
    *,
    reviewers: int = 40,
    prompts: int = 100,
    n: int = 4000,
    side: float = 0.0,
    length: float = 0.0,
    ties: float = 0.15,
    bad: float = 0.05,
) -> Votes:
    """A round with a preference for side A and for longer answers (in logits), in which models differ in length."""
    rng = np.random.default_rng(seed)
    size = len(strengths)
    a = rng.integers(0, size, n)
    b = (a + rng.integers(1, size, n)) % size
    words_a, words_b = (rng.poisson(60 + 10 * code).astype(float) for code in (a, b))
    style = (words_a - words_b) / (words_a + words_b + 1)
    style = style / np.sqrt(np.mean(style**2))
    won = rng.random(n) >= 1 / (1 + np.exp(-(strengths[a] - strengths[b] + side + length * style)))
    kind = rng.random(n)
    outcome = np.select([kind < ties, kind < ties + bad], [2, 3], won).astype(np.int8)
    return columns_of_votes(
        models=[f"m{code}" for code in range(size)],
        reviewers=[f"r{code}" for code in range(reviewers)],
        prompts=[f"p{code}" for code in range(prompts)],
        reviewer=rng.integers(0, reviewers, n),
        prompt=rng.integers(0, prompts, n),
        model_a=a,
        model_b=b,
        outcome=outcome,
        features=("length",),
        style_a=words_a[:, None],
        style_b=words_b[:, None],
    )


def relabelled(row: VoteRow, names: dict[str, str]) -> VoteRow:
    return replace(row, model_a=names[row.model_a], model_b=names[row.model_b])
