"""Did the blind hold? Indices from what reviewers guess in the questionnaire after their last vote.

James's index (Controlled Clinical Trials 17, 1996): 1 everyone says "I do not know", ½ guesses are as good as chance, 0
all are right. Bang's (Controlled Clinical Trials 25, 2004), by model: 0 chance, 1 all right; with K models a wrong
guess costs 1 / (K - 1), which for two is Bang's own. Intervals leave out one reviewer in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.domain.ranking.figures import Figure, clustered_share, jackknifed
from gateway.domain.ranking.reasons import Reason
from gateway.domain.ranking.votes import FloatArray, Votes


@dataclass(frozen=True, slots=True)
class Guess:
    """Which model a reviewer thought an answer came from."""

    reviewer: str
    model: str
    """The true one."""
    guessed: str | None
    """None: "I do not know"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blinding:
    james: Figure
    """n: guesses, "I do not know" included."""
    bang: tuple[Figure, ...]
    """By model code; n: guesses about it."""
    recognised: Figure
    """Votes whose reviewer ticked "I think I recognised a model"; n: votes."""


def blinding(guesses: Sequence[Guess], votes: Votes, *, confidence: float = 0.95) -> Blinding:
    """Raises ValueError for a guess about, or of, a model that is not of the round."""
    tables = guess_tables(guesses, votes.models)
    reviewers = len(votes.reviewers)
    cast = np.bincount(votes.reviewer, minlength=reviewers).astype(np.float64)
    ticked = np.bincount(votes.reviewer, votes.recognised, reviewers).astype(np.float64)
    return Blinding(
        james=_james_figure(tables, confidence),
        bang=tuple(_bang_figure(tables[:, code], code, confidence) for code in range(len(votes.models))),
        recognised=clustered_share(ticked, cast, confidence=confidence),
    )


def guess_tables(guesses: Sequence[Guess], models: Sequence[str]) -> FloatArray:
    """Reviewers × true model × (guessed model, then "I do not know"): how often. Reviewers in the order of names."""
    place = {model: code for code, model in enumerate(models)}
    for guess in guesses:
        for named in (guess.model, guess.guessed):
            if named is not None and named not in place:
                raise ValueError(f"guess: expected a model of the round ({', '.join(models)}), got {named!r}")
    reviewers = {name: code for code, name in enumerate(sorted({guess.reviewer for guess in guesses}))}
    tables = np.zeros((len(reviewers), len(models), len(models) + 1))
    for guess in guesses:
        column = len(models) if guess.guessed is None else place[guess.guessed]
        tables[reviewers[guess.reviewer], place[guess.model], column] += 1
    return tables


def james_index(tables: FloatArray) -> FloatArray:
    """Of m tables, true model × (guessed model, "I do not know"); NaN where it is not defined.

    (1 + P_dk + (1 - P_dk) K_d) / 2, where K_d sets the share of wrong guesses against that expected of guessers who
    know nothing: 0 all right, ½ chance, 1 nobody guesses.
    """
    total = tables.sum(axis=(1, 2))
    p = np.divide(tables, total[:, None, None], out=np.zeros_like(tables), where=total[:, None, None] > 0)
    unknown = p[:, :, -1].sum(axis=1)
    guessed = p[:, :, :-1]
    right = np.trace(guessed, axis1=1, axis2=2)
    by_model, by_guess = guessed.sum(axis=2), guessed.sum(axis=1)
    known = 1 - unknown
    wrong = known - right
    expected = known - np.divide((by_model * by_guess).sum(axis=1), known, out=np.zeros_like(known), where=known > 0)
    excess = np.divide(wrong - expected, expected, out=np.full(len(total), np.nan), where=expected > 1e-12)
    index: FloatArray = np.where(known > 1e-12, (1 + unknown + known * excess) / 2, 1.0)
    index[total == 0] = np.nan
    return index


def bang_index(rows: FloatArray, code: int) -> FloatArray:
    """Of m rows of guesses about one model: (right - wrong / (K - 1)) / all; NaN without guesses."""
    total = rows.sum(axis=1)
    models = rows.shape[1] - 1
    right = rows[:, code]
    wrong = rows[:, :-1].sum(axis=1) - right
    index: FloatArray = np.divide(right - wrong / (models - 1), total, out=np.full(len(rows), np.nan), where=total > 0)
    return index


def _james_figure(tables: FloatArray, confidence: float) -> Figure:
    if not len(tables):
        return Figure(None, 0, reason=Reason.NO_GUESSES)
    shape = tables.shape[1:]
    return jackknifed(
        tables.reshape(len(tables), -1),
        lambda sums: james_index(sums.reshape(-1, *shape)),
        n=int(tables.sum()),
        confidence=confidence,
        bounds=(0.0, 1.0),
    )


def _bang_figure(rows: FloatArray, code: int, confidence: float) -> Figure:
    asked = rows[rows.sum(axis=1) > 0]
    if not len(asked) or rows.shape[1] < 3:
        return Figure(None, 0, reason=Reason.NO_GUESSES)
    return jackknifed(asked, lambda sums: bang_index(sums, code), n=int(asked.sum()), confidence=confidence)
